# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rank program: its parent half over small Python programs in the engine's place, its child half over a stand-in
for LMDeploy's command line. The real LMDeploy runs under it in the sandbox.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import select
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).parents[3] / "programs" / "rank.py"
DEADLINE_S = 300  # nothing here takes long, but for a busy machine; a test that hangs shall fail

# supervise() takes over the signals of its process, so it gets one: argv is the grace, the
# engine's program, and how long its last words are waited for.
SUPERVISOR = f"""
import os, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
import rank
rank.DRAIN_S = float(sys.argv[3])
sys.exit(rank.supervise([sys.executable, "-uc", sys.argv[2]], os.environ, 3, "1", grace_s=float(sys.argv[1])))
"""
ENDED = "[rank 3] lmfleet: rank 3 on GPU 1 ended"


rank: Any = SimpleNamespace(**runpy.run_path(str(PROGRAM), run_name="rank"))


# A package as yapf is: it keeps a file, and writes it in two steps.
KEEPS = """
import json, pathlib, time
kept = pathlib.Path(__file__).with_suffix(".json")
if kept.exists():
    json.loads(kept.read_text())
else:
    with kept.open("w", buffering=1) as file:
        file.write("[1,")
        file.flush()
        time.sleep(2)
        file.write("2]")
"""


def test_ranks_of_a_host_do_not_read_what_one_of_them_still_writes(tmp_path: Path) -> None:
    (tmp_path / "keeps_a_file.py").write_text(KEEPS)
    paths = [str(PROGRAM.parent), str(tmp_path)]
    program = f"import sys; sys.path[:0] = {paths!r}; import rank; rank.import_alone('keeps_a_file')"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ranks = [
        subprocess.Popen([sys.executable, "-Bc", program], env=environment, stderr=subprocess.PIPE) for __ in range(4)
    ]
    assert [each.communicate(timeout=DEADLINE_S)[1] for each in ranks] == [b""] * 4
    assert [each.returncode for each in ranks] == [0] * 4


def test_a_package_that_the_image_lacks_is_not_asked_for() -> None:
    rank.import_alone("no_such_package")


@contextmanager
def supervised(engine: str, grace_s: float = 30, drain_s: float = 2) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-Bc", SUPERVISOR, str(grace_s), textwrap.dedent(engine), str(drain_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def run(engine: str, **given: float) -> tuple[int, list[str]]:
    """Run an engine to its end: the status, and the lines."""
    with supervised(engine, **given) as process:
        out, __ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out.splitlines()


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Return the first line with this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"ended without {text!r}")


def gone(pid: int) -> bool:
    """Whether this process has ended, be it that nobody has reaped it, within the deadline."""
    for __ in range(DEADLINE_S * 10):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("engine", "status", "words"),
    [
        ("raise SystemExit(7)", 7, "with exit code 7"),
        ("1 / 0", 1, "with exit code 1"),
        ("", 1, "with exit code 0"),  # a rank has no business ending
        ("import os; os.kill(os.getpid(), 9)", 137, "with signal SIGKILL"),
    ],
)
def test_a_rank_that_ends_by_itself(engine: str, status: int, words: str) -> None:
    code, lines = run(engine)
    assert code == status
    assert lines[-1] == f"{ENDED} {words}"
    assert re.search(r"lmfleet: rank \d+ .* ended with", lines[-1])


def test_stdout_and_stderr_under_the_prefix() -> None:
    __, lines = run(
        "import sys; print('one'); print(file=sys.stderr); print('two', file=sys.stderr); print('three', end='')"
    )
    assert lines[:-1] == ["[rank 3] one", "[rank 3] two", "[rank 3] three"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_a_signal_is_passed_on(name: str) -> None:
    engine = f"""
        import signal, sys, time
        signal.signal(signal.{name}, lambda number, frame: sys.exit(f"got {{number:d}}"))
        print("ready")
        time.sleep(600)
    """
    with supervised(engine) as process:
        wait_for(process, "ready")
        process.send_signal(signal.Signals[name])
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert out.splitlines() == [f"[rank 3] got {int(signal.Signals[name])}", f"{ENDED}, as it was told by {name}"]
    assert process.returncode == 1


def test_an_orderly_end_that_was_asked_for_is_no_failure() -> None:
    engine = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('ready'); signal.pause()"
    with supervised(engine) as process:
        wait_for(process, "ready")
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


def test_a_stubborn_engine_is_killed() -> None:
    engine = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready')\nwhile True: time.sleep(1)"
    with supervised(engine, grace_s=0.3) as process:
        wait_for(process, "ready")
        process.terminate()
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 137
    assert out.splitlines() == [
        "[rank 3] lmfleet: kills rank 3, which has not ended 0.3 s after SIGTERM",
        f"{ENDED}, as it was told by SIGTERM",
    ]


def test_an_engine_that_closes_its_output_lives_on() -> None:
    with supervised("import os, time; print('ready'); os.close(1); os.close(2); time.sleep(600)") as process:
        wait_for(process, "ready")
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 1)[0] == []  # had it ended, it would have said so
        process.terminate()
        assert process.wait(DEADLINE_S) == 143


def test_what_the_engine_leaves_behind_is_killed_after_its_last_words() -> None:
    # It speaks when the engine, its parent, has ended.
    code, lines = run(
        """
        import subprocess, sys
        program = '''if True:
            import os, time
            parent = os.getppid()
            print(os.getpid())
            while os.getppid() == parent:
                time.sleep(0.01)
            print("last words")
            time.sleep(600)
        '''
        child = subprocess.Popen([sys.executable, "-uc", program], stdout=subprocess.PIPE, text=True)
        print(child.stdout.readline(), end="")
        subprocess.Popen(["cat"], stdin=child.stdout)
        sys.exit(5)
        """,
        drain_s=5,
    )
    assert code == 5
    assert lines[1:] == ["[rank 3] last words", f"{ENDED} with exit code 5"]
    assert gone(int(lines[0].split()[-1]))


def test_a_descendant_in_a_session_of_its_own_does_not_block() -> None:
    code, lines = run("""
        import subprocess, sys
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True).pid)
        sys.exit(5)
    """)
    pid = int(lines[0].split()[-1])
    try:
        assert Path(f"/proc/{pid}").exists()  # it held the pipe all the time
    finally:
        os.kill(pid, signal.SIGKILL)
    assert code == 5
    assert lines[-1] == f"{ENDED} with exit code 5"


def test_the_lines_of_two_ranks_do_not_mix() -> None:
    engine = "for i in range(3000): print(str(i) * 50)"
    driver = f"import subprocess, sys; argv = [sys.executable, '-Bc', {SUPERVISOR!r}, '9', {engine!r}, '2']"
    driver += "; both = [subprocess.Popen(argv) for __ in range(2)]; [process.wait() for process in both]"
    out = subprocess.run(
        [sys.executable, "-c", driver], check=True, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S
    ).stdout
    assert sorted(out.splitlines()) == sorted(
        2 * [*(f"[rank 3] {str(i) * 50}" for i in range(3000)), f"{ENDED} with exit code 0"]
    )


def test_a_line_too_long_for_one_write_becomes_several() -> None:
    __, lines = run("print('x' * 10000)")
    assert len(lines) == 4
    assert max(map(len, lines)) < select.PIPE_BUF
    assert "".join(line.removeprefix("[rank 3] ") for line in lines[:-1]) == "x" * 10000


@given(st.lists(st.text("ab\n").map(str.encode)))
def test_lines_however_they_are_cut(chunks: list[bytes]) -> None:
    output = rank.Output(0)
    found = [line for chunk in [*filter(None, chunks), b""] for line in output.lines(chunk)]
    assert found == [line for line in b"".join(chunks).split(b"\n") if line]


@given(st.integers(0, 20))
def test_windows_line_ends_are_no_progress(cut: int) -> None:
    output = rank.Output(0)
    data = b"one\r\ntwo\r\nthree\r\nfour\n"
    assert [*output.lines(data[:cut] or b"\n"), *output.lines(data[cut:])] == [b"one", b"two", b"three", b"four"]


def test_progress_now_and_then_and_its_end_always(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(rank.time, "monotonic", lambda: now)
    output = rank.Output(0)
    shown = list(output.lines(b"\r 0%"))
    for percent in range(1, 100):
        now += 0.125  # a bar is complete when the next one overwrites it
        shown += output.lines(b"\r%2d%%" % percent)
    shown += output.lines(b"\r100%\nloaded\n")
    assert shown == [*(b"%2d%%" % percent for percent in range(0, 100, 8)), b"100%", b"loaded"]
    assert [*output.lines(b"\r 1%\r 2%\r 3%\r"), *output.lines(b"")] == [b" 3%"]  # it ended here


def test_a_line_without_an_end_is_looked_at_once_and_kept_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    line_end = rank.LINE_END

    def split(data: bytes) -> list[bytes]:
        nonlocal looked_at
        looked_at += len(data)
        parts: list[bytes] = line_end.split(data)
        return parts

    monkeypatch.setitem(rank.Output.lines.__globals__, "LINE_END", SimpleNamespace(split=split))
    output, most = rank.Output(0), 0
    for __ in range(512):  # 32 MiB
        assert list(output.lines(b"x" * 65536)) == []
        most = max(most, len(output._rest))
    assert (looked_at, most) == (512 * 65536, rank.LONGEST)
    (line,) = output.lines(b"y\n")
    assert line == b"x" * rank.LONGEST + b" ... lmfleet: %d bytes of this line are left out" % (511 * 65536 + 1)
    assert list(output.lines(b"next\n")) == [b"next"]


BARS = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n", b"\r\n", b"ab", b"\r\r"]))


@given(BARS, st.integers(1, 3))
def test_lines_are_the_same_in_pieces_of_any_size(words: list[bytes], size: int) -> None:
    data = b"".join(words)
    whole, pieces = rank.Output(0), rank.Output(0)
    expected = [*whole.lines(data or b"\n"), *whole.lines(b"")]
    assert [
        *(line for at in range(0, len(data), size) for line in pieces.lines(data[at : at + size])),
        *pieces.lines(b""),
    ] == expected


# An engine that says more than anybody holds, then that it has said it, and waits.
LOUD = """
    import os, pathlib, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for i in range(60000): print(i, "x" * 100)
    pathlib.Path({said!r}).touch()
    while True: time.sleep(1)
"""


def test_an_engine_whose_output_nobody_reads_lives_on_and_is_killed_when_it_is_told(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with supervised(LOUD.format(said=str(said)), grace_s=0.3) as process:
        for __ in range(DEADLINE_S * 10):
            if said.exists():
                break
            time.sleep(0.1)
        assert said.exists()  # though nobody has read a byte of it
        process.terminate()
        assert process.wait(DEADLINE_S) == 137
        assert process.stdout is not None
        numbers = [int(line.split()[2]) for line in process.stdout if line.count("x") == 100]
    assert numbers == list(range(len(numbers)))  # as much as the pipe took, and nothing out of order


def test_what_was_left_out_is_told_once_somebody_reads_again(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with supervised(LOUD.format(said=str(said)), grace_s=0.3) as process:
        for __ in range(DEADLINE_S * 10):
            if said.exists():
                break
            time.sleep(0.1)
        process.terminate()
        rest = process.communicate(timeout=DEADLINE_S)[0]
    assert re.search(r"lmfleet: \d+ lines are left out here, for nobody read them", rest)
    assert rest.splitlines()[-1] == f"{ENDED}, as it was told by SIGTERM"


def test_an_engine_whose_output_is_closed_lives_on() -> None:
    engine = "import sys, time\nfor i in range(5): print('line', i); time.sleep(0.01)\ntime.sleep(600)"
    with supervised(engine) as process:
        assert process.stdout is not None
        process.stdout.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.terminate()
        assert process.wait(DEADLINE_S) == 143


def test_gpus() -> None:
    assert rank.engine_gpus(0, 1, None) == "0"
    assert rank.engine_gpus(3, 2, None) == "6,7"
    assert rank.engine_gpus(1, 2, "4, 5,6,7") == "6,7"
    assert rank.engine_gpus(1, 1, "GPU-a,GPU-b") == "GPU-b"
    with pytest.raises(SystemExit, match=r"need 4 on this host, but CUDA_VISIBLE_DEVICES has 3 \(0,1,2\)"):
        rank.engine_gpus(1, 2, "0,1,2")
    with pytest.raises(SystemExit, match=r"has 0 \(\)"):
        rank.engine_gpus(0, 1, "")


def test_environment() -> None:
    torchrun = (
        "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK ROLE_WORLD_SIZE ROLE_NAME"
    )
    torchrun += " MASTER_ADDR MASTER_PORT TORCHELASTIC_RUN_ID TORCHELASTIC_USE_AGENT_STORE TORCHELASTIC_ERROR_FILE"
    kept = {"LMDEPLOY_DP_MASTER_ADDR": "a", "LMDEPLOY_DP_MASTER_PORT": "1", "PATH": "/bin"}
    defaults = {"OMP_NUM_THREADS": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "NCCL_ASYNC_ERROR_HANDLING": "1"}
    given_ = {**dict.fromkeys(torchrun.split(), "1"), **kept, **defaults, "CUDA_VISIBLE_DEVICES": "0,1"}
    set_here = {"CUDA_VISIBLE_DEVICES": "1", "PYTHONUNBUFFERED": "1", "RAY_raylet_start_wait_time_s": "300"}
    assert rank.engine_environment(given_, kept, "1") == {**kept, **set_here}
    assert rank.engine_environment(given_, {"OMP_NUM_THREADS": "1"}, "1") == {
        **kept,
        "OMP_NUM_THREADS": "1",
        **set_here,
    }
    own = {"RAY_raylet_start_wait_time_s": "60"}
    assert rank.engine_environment({**given_, **own}, kept, "1") == {**kept, **set_here, **own}


def test_a_rank_knows_its_own_rdma_device_alone_where_the_plan_has_one_for_each_gpu() -> None:
    plan = {
        "LMFLEET_HCA_OF_GPU": "mlx5_0:1,mlx5_1:1,mlx5_2:1",
        "NVSHMEM_HCA_LIST": "mlx5_0:1,mlx5_1:1,mlx5_2:1",
        "A": "b",
    }
    assert rank.with_own_hca(dict(plan), 1, 1) == {"A": "b", "NVSHMEM_HCA_LIST": "mlx5_1:1"}
    whole = {"A": "b", "NVSHMEM_HCA_LIST": plan["NVSHMEM_HCA_LIST"]}
    assert rank.with_own_hca(dict(plan), 3, 1) == whole
    assert rank.with_own_hca(dict(plan), 1, 2) == whole
    assert rank.with_own_hca({"A": "b"}, 0, 1) == {"A": "b"}


def test_what_the_container_was_given_stays_and_what_torchrun_added_goes(tmp_path: Path) -> None:
    launcher = "def launch_server(*args, **options): raise AssertionError"
    given_ = {"OMP_NUM_THREADS": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3", "LMFLEET_HCA_OF_GPU": "a:1,b:1"}
    __, lines = torchrun_rank(tmp_path, "0.18.0", launcher, **given_)
    assert json.loads(lines[1].removeprefix("[rank 5] "))["env"][-3:] == ["1", "3", "b:1"]


# The shape of LMDeploy's command line: which release has what is all that matters here.
SERVER = """
import json, multiprocessing, os, sys
def serve(model_path, backend_config=None, **kwargs):
    names = "RANK", "TORCHELASTIC_RUN_ID", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    names += ("NVSHMEM_HCA_LIST",)
    print(json.dumps({"model": model_path, "dp_rank": backend_config.dp_rank, "argv": sys.argv, **kwargs,
                      "start": multiprocessing.get_start_method(), "env": [os.environ.get(name) for name in names]}))
    raise RuntimeError("no engine here")
"""
ENTRYPOINT = """
import sys, types
def run():
    config = types.SimpleNamespace(dp_rank=0)
    port = int(sys.argv[sys.argv.index("--server-port") + 1])
    if "--dp-rank" in sys.argv:
        from lmdeploy.serve.openai.api_server import serve
        config.dp_rank = int(sys.argv[sys.argv.index("--dp-rank") + 1])
        serve("M", backend_config=config, server_port=port)
    else:
        from lmdeploy.serve.openai.launch_server import launch_server
        launch_server(1, 0, "M", backend_config=config, server_port=port)
"""


# What torchrun does to the environment (torch/distributed/run.py and elastic/agent/server/local_elastic_agent.py).
TORCHRUN = """
import os, subprocess, sys
if "OMP_NUM_THREADS" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
name = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
worker = {**os.environ, name: os.getenv(name, "1"), "RANK": "5", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}
sys.exit(subprocess.call([sys.executable, *sys.argv[1:]], env=worker))
"""


def torchrun_rank(tmp_path: Path, release: str, launcher: str | None, **environ: str) -> tuple[int, list[str]]:
    """Run the whole program as torchrun's rank 5, second of its host, over an LMDeploy of this shape."""
    files = {
        "lmdeploy/__init__.py": "from .api import serve",  # a function that hides the package, as in LMDeploy
        "lmdeploy/api.py": "def serve(): pass",
        "lmdeploy/cli/entrypoint.py": ENTRYPOINT,
        "lmdeploy/serve/openai/api_server.py": SERVER,
        f"lmdeploy-{release}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: lmdeploy\nVersion: {release}\n",
    }
    if launcher is not None:
        files["lmdeploy/serve/openai/launch_server.py"] = launcher
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    options = ["--port", "23333", "--port-step", "10", "--", "serve", "api_server", "M", "--server-name", "10.0.0.1"]
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", TORCHRUN, str(PROGRAM), *options],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**kept, "PYTHONPATH": str(tmp_path), **environ},
        timeout=DEADLINE_S,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("release", "launcher", "option"),
    [("0.8.0", None, ["--dp-rank", "5"]), ("0.18.0", "def launch_server(*args, **options): raise AssertionError", [])],
)
def test_one_rank_of_each_release(tmp_path: Path, release: str, launcher: str | None, option: list[str]) -> None:
    status, lines = torchrun_rank(tmp_path, release, launcher, CUDA_VISIBLE_DEVICES="2,3")
    assert status == 1
    assert re.fullmatch(r"\[rank 5\] lmfleet: starts at 10\.0\.0\.1:23383 on GPU 3 of \S+", lines[0])
    arguments = ["serve", "api_server", "M", "--server-name", "10.0.0.1", "--server-port", "23383"]
    assert json.loads(lines[1].removeprefix("[rank 5] ")) == {
        "model": "M",
        "dp_rank": 5,
        "server_port": 23383,
        "argv": ["lmdeploy", *arguments, *option],
        "start": "spawn",
        "env": [None, None, "3", None, None, None],
    }
    assert lines[-2:] == [
        "[rank 5] RuntimeError: no engine here",
        "[rank 5] lmfleet: rank 5 on GPU 3 ended with exit code 1",
    ]


@pytest.mark.parametrize("launcher", [None, "def another_launcher(): pass"])
def test_an_unknown_release_is_named(tmp_path: Path, launcher: str | None) -> None:
    status, lines = torchrun_rank(tmp_path, "0.99.0", launcher)
    assert status == 1
    assert len(lines) == 3
    assert "LMDeploy 0.99.0 has no lmdeploy.serve.openai.launch_server.launch_server" in lines[1]
    assert "use an image with a release that lmfleet supports" in lines[1]


def test_without_torchrun() -> None:
    argv = [sys.executable, str(PROGRAM), "--port", "1", "--port-step", "1", "--", "serve"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env={}, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert done.stderr == "lmfleet: LOCAL_RANK and RANK not in the environment: start rank.py with torchrun\n"
