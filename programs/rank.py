# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One data parallel (DP) rank of LMDeploy, at the address and port that were planned for it.

torchrun starts this program once for each rank, inside the engine's container:

    torchrun --nnodes N --nproc-per-node G --rdzv-backend c10d ...
        rank.py --first-rank 8 --port 23333 --port-step 10 --gpus-per-rank 1 -- serve api_server MODEL --dp 32 --ep 32 ...

What follows ``--`` is LMDeploy's own command line; the rank's port, number and GPUs are added here. The program runs
the engine as its child (itself, with ``--engine``), copies the engine's output under the prefix ``[rank 3]``, says how
the engine ended, and ends likewise, so that torchrun ends the other ranks of the group, and starts all of them again. The
rank's number is the plan's (``--first-rank`` and its place on the host): torchrun numbers hosts by the order of their names.

Where ``LMFLEET_RANKS`` names a directory (programs/supervise.py), it tells there, in a file of the rank's number, which process
the engine is and how it ended, and starts no engine before the seconds in the file ``pause`` are over.

Python 3.10 or later; nothing but the standard library and the image's lmdeploy.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import fcntl
import importlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
GRACE_S = 10.0  # from a signal to SIGKILL: LMDeploy's server may take for ever
DRAIN_S = 2.0  # for the last words of a dead engine's own children
POLL_S = 0.2
PROGRESS_S = 1.0  # of a progress bar, one line in so many seconds
LONGEST = 1 << 16  # bytes of a line that are shown
HELD = 1 << 20  # bytes that may wait to be written
STUCK_S = 5.0
PIECE = select.PIPE_BUF  # all ranks share torchrun's stdout, and a pipe keeps only writes up to this size whole
LINE_END = re.compile(rb"(?<=\n)|(?<=\r)(?=[^\n])")  # the empty place after \n, \r\n or \r
TORCHRUN = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")
# What torchrun gives its workers where nobody has said it: one thread, and the end of a rank at the first failure of NCCL.
TORCHRUN_DEFAULTS = ("OMP_NUM_THREADS", "NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_ASYNC_ERROR_HANDLING")
# All ranks of a host start at the same moment, each with a Ray of its own, and Ray would give up after 30 s.
RAY_PATIENCE = {"RAY_raylet_start_wait_time_s": "300"}
RANKS = "LMFLEET_RANKS"
PR_SET_PDEATHSIG = 1
HCA_OF_GPU = (
    "LMFLEET_HCA_OF_GPU"  # by the plan: the RDMA devices in the order of the host's GPUs, for ranks with one GPU each
)
LAUNCHER = "lmdeploy.serve.openai.launch_server"


def engine_gpus(local_rank: int, gpus_per_rank: int, visible: str | None) -> str:
    """Return the rank's CUDA_VISIBLE_DEVICES: its slice of ``visible``, the host's; all GPUs if that is None."""
    first, end = local_rank * gpus_per_rank, (local_rank + 1) * gpus_per_rank
    if visible is None:
        return ",".join(map(str, range(first, end)))
    devices = [device.strip() for device in visible.split(",") if device.strip()]
    if len(devices) < end:
        sys.exit(
            f"lmfleet: {local_rank + 1} ranks of {gpus_per_rank} GPU(s) need {end} on this host, but CUDA_VISIBLE_DEVICES"
            f" has {len(devices)} ({visible}): start fewer ranks here, or let them see more GPUs"
        )
    return ",".join(devices[first:end])


def engine_environment(environ: Mapping[str, str], container: Mapping[str, str], gpus: str) -> dict[str, str]:
    """Return the engine's environment, as it is with LMDeploy's own launcher: without what torchrun has put in.

    LMDeploy and torch would act upon torchrun's variables. Of its defaults, those are kept that ``container``, the
    environment in which torchrun was started, had already. Ray is given more time to start than it takes by itself.
    """
    own = {RANKS, *(name for name in TORCHRUN_DEFAULTS if name not in container)}
    kept = {name: value for name, value in environ.items() if not TORCHRUN.fullmatch(name) and name not in own}
    return {**RAY_PATIENCE, **kept, "CUDA_VISIBLE_DEVICES": gpus, "PYTHONUNBUFFERED": "1"}


def with_own_hca(environ: dict[str, str], local_rank: int, gpus_per_rank: int) -> dict[str, str]:
    """Return the environment in which NVSHMEM knows the rank's RDMA device alone, where the plan has one for each GPU."""
    devices = environ.pop(HCA_OF_GPU, "").split(",")
    if gpus_per_rank != 1 or local_rank >= len(devices) or not devices[local_rank]:
        return environ
    return {**environ, "NVSHMEM_HCA_LIST": devices[local_rank]}


def started_with(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; what it has put into its own since is not in it."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it is gone, and so will we be
        return {}
    return {name: value for name, __, value in (os.fsdecode(entry).partition("=") for entry in entries if entry)}


class Output:
    """The engine's output, from a pipe to our stdout: whole lines under a prefix, a progress bar now and then.

    The engine has to live whatever becomes of its output. So a thread of its own writes it: one who reads slowly holds up
    the engine, as a pipe does, but where nobody has read for ``STUCK_S`` seconds, or nobody can, it is left out, and
    the lines are counted.
    """

    def __init__(self, rank: int, pipe: int = -1) -> None:
        self.prefix = b"[rank %d] " % rank
        self.pipe = pipe
        self.ended = False
        self._rest = bytearray()
        self._cut = 0
        self._progress_at = -math.inf
        self._waiting: collections.deque[bytes] = collections.deque()
        self._held = 0  # bytes of what waits
        self._lost = 0
        self._wrote_at = time.monotonic()
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None

    def lines(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that ``data`` completes, without their ends; none of it is left if ``data`` is empty.

        Each byte is looked at once, and of a line no more than ``LONGEST`` is kept: how much of it is left out is told.
        """
        if self._rest.endswith(b"\r") and not data.startswith(b"\n"):
            yield from self._whole(last=not data)
        first, *others = LINE_END.split(data)
        self._take(first)
        for part in others:
            yield from self._whole()
            self._take(part)
        if not data:
            yield from self._whole(last=True)

    def _take(self, part: bytes) -> None:
        """Add to the line that is not whole yet; its end is always kept."""
        text = part.rstrip(b"\r\n")
        room = max(LONGEST - len(self._rest), 0)
        self._cut += max(len(text) - room, 0)
        self._rest += text[:room] + part[len(text) :]

    def _whole(self, last: bool = False) -> Iterator[bytes]:
        """The line that is whole now, if it is to be shown."""
        line, cut, passing = bytes(self._rest.rstrip(b"\r\n")), self._cut, self._rest.endswith(b"\r") and not last
        self._rest.clear()
        self._cut = 0
        if line and passing:  # the next one overwrites it
            if time.monotonic() < self._progress_at + PROGRESS_S:
                return
            self._progress_at = time.monotonic()
        if line:
            yield line + (b" ... lmfleet: %d bytes of this line are left out" % cut if cut else b"")

    def write(self, line: bytes) -> None:
        """Write one line: in one write, or in several lines if a pipe would not keep it whole. It may be left out."""
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_on, daemon=True)
            self._writer.start()
        with self._changed:
            if self._held > HELD:
                self._lost += 1
                return
            self._tell_lost()
            self._add(line)

    def _add(self, line: bytes) -> None:
        size = PIECE - len(self.prefix) - 1
        if not self._waiting:
            self._wrote_at = time.monotonic()
        for start in range(0, len(line), size):
            piece = self.prefix + line[start : start + size] + b"\n"
            self._waiting.append(piece)
            self._held += len(piece)
        self._changed.notify_all()

    def _tell_lost(self) -> None:
        if self._lost:
            self._add(b"lmfleet: %d lines are left out here, for nobody read them" % self._lost)
            self._lost = 0

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                piece = self._waiting[0]
            put(piece)
            with self._changed:
                self._held -= len(self._waiting.popleft())
                self._wrote_at = time.monotonic()
                self._changed.notify_all()

    def _stuck(self) -> bool:
        """Whether nobody has read for so long that nobody is waited for."""
        return bool(self._waiting) and time.monotonic() > self._wrote_at + STUCK_S

    def flush(self) -> None:
        """Wait until all is written, or nobody reads it."""
        with self._changed:
            self._tell_lost()
            while self._waiting and not self._stuck():
                self._changed.wait(POLL_S)

    def say(self, text: str) -> None:
        """Write a line of our own."""
        self.write(f"lmfleet: {text}".encode())

    def copy(self, seconds: float) -> None:
        """Copy what comes within so many seconds, or until the pipe ends; it waits for who reads, as long as somebody does."""
        until = time.monotonic() + seconds
        while not self.ended and (left := until - time.monotonic()) > 0:
            with self._changed:
                if self._held > HELD and not self._stuck():
                    self._changed.wait(min(left, POLL_S))
                    continue
            if not select.select([self.pipe], [], [], left)[0]:
                return
            data = os.read(self.pipe, 65536)
            self.ended = not data
            for line in self.lines(data):
                self.write(line)


def put(data: bytes) -> None:
    """Write to stdout, as long as it takes; what cannot be written, as where stdout is closed, is lost."""
    with contextlib.suppress(OSError):
        while data:
            if os.get_blocking(1) or select.select([], [1], [])[1]:  # others share it, and may have set it so
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(1, data) :]


class Notes:
    """What the supervisor of the container is told of this rank; nobody is told where there is none."""

    def __init__(self, directory: str | None, rank: int) -> None:
        self._directory, self._rank = directory and Path(directory), rank

    @property
    def pause_s(self) -> float:
        """How long to wait before the start."""
        with contextlib.suppress(OSError, ValueError):
            return float((self._directory / "pause").read_text()) if self._directory else 0.0
        return 0.0

    def tell(self, **what: Any) -> None:
        """Write it, whole."""
        if self._directory:
            beside = self._directory / f".{self._rank}"
            with contextlib.suppress(OSError):
                beside.write_text(json.dumps(what))
                beside.replace(self._directory / str(self._rank))


def supervise(
    argv: Sequence[str],
    environ: Mapping[str, str],
    rank: int,
    gpus: str,
    grace_s: float = GRACE_S,
    notes: Notes | None = None,
) -> int:
    """Run the engine to its end; return our exit status: the engine's, or 128 + n if signal n ended it.

    A signal is passed on to the engine, which is killed if it lives for ``grace_s`` seconds more. Its own children may
    say their last words; then they are killed. An engine that ends with 0 though nobody told it to has failed as well.
    """
    told: list[tuple[str, float]] = []
    child = subprocess.Popen(
        argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert child.stdout is not None  # noqa: S101 (for mypy)
    output = Output(rank, child.stdout.fileno())
    notes = notes or Notes(None, rank)
    notes.tell(pid=child.pid)

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        told.append((signal.Signals(signum).name, time.monotonic()))
        child.send_signal(signum)

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    for signum in SIGNALS:
        signal.signal(signum, pass_on)
    killed = False
    try:
        while child.poll() is None:
            output.copy(POLL_S)
            if output.ended:
                time.sleep(POLL_S)
            if told and not killed and time.monotonic() > told[0][1] + grace_s:
                output.say(f"kills rank {rank}, which has not ended {grace_s:g} s after {told[0][0]}")
                kill()
                killed = True
        reason = told[0][0] if told else None
        output.copy(DRAIN_S)
    finally:
        kill()
    output.copy(DRAIN_S)

    code = child.returncode
    if reason:
        how = f"ended, as it was told by {reason}"
    elif code < 0:
        how = f"ended with signal {signal.Signals(-code).name}"
    else:
        how = f"ended with exit code {code}"
        code = code or 1  # nobody told it to: a rank that is gone is an error
    output.say(f"rank {rank} on GPU {gpus} {how}")
    notes.tell(pid=child.pid, ended=how, told=bool(reason))
    output.flush()
    return 128 - code if code < 0 else code


def die_with_parent() -> None:
    """Be killed where the rank program is: an engine that outlives it keeps the GPUs and the port."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def import_alone(name: str) -> None:
    """Import a package, if there is one of that name, while no other rank of this container does."""
    if importlib.util.find_spec(name):
        with (Path(tempfile.gettempdir()) / "lmfleet-import").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            importlib.import_module(name)


def run_engine(rank: int, arguments: list[str]) -> NoReturn:
    """Run LMDeploy's command line as this one rank.

    0.8.0 has an option for that. Later releases start all ranks of a node themselves, at an address and (before 0.15)
    ports of their own choice, so the function that does it is replaced by one that serves this rank, here.
    """
    status: Any = 1
    die_with_parent()
    try:
        multiprocessing.set_start_method("spawn", force=True)  # with fork, the engine process dies at its start
        # LMDeploy up to 0.9 imports it. It keeps a file, and reads it back though another rank is still writing it.
        import_alone("yapf")
        release = importlib.metadata.version("lmdeploy")
        # Not "import ... as": in lmdeploy, the attribute `serve` is a function that hides the package of that name.
        launcher: Any = importlib.import_module(LAUNCHER) if importlib.util.find_spec(LAUNCHER) else None
        if hasattr(launcher, "launch_server"):

            def serve_rank(_nnodes: int, _node_rank: int, model_path: str, **kwargs: Any) -> None:
                kwargs["backend_config"].dp_rank = rank
                importlib.import_module("lmdeploy.serve.openai.api_server").serve(model_path, **kwargs)

            launcher.launch_server = serve_rank
        elif release.startswith("0.8."):
            arguments = [*arguments, "--dp-rank", str(rank)]
        else:
            sys.exit(
                f"lmfleet: LMDeploy {release} has no {LAUNCHER}.launch_server, so one DP rank cannot be started alone:"
                " use an image with a release that lmfleet supports, or LMDeploy's own launcher"
            )
        sys.argv = ["lmdeploy", *arguments]
        importlib.import_module("lmdeploy.cli.entrypoint").run()
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            status = end.code or 0
    except BaseException:  # noqa: BLE001 (whatever it is, the rank is over)
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # an ordinary exit would wait for the engine's own processes, maybe for ever


def main() -> int:
    """Run as torchrun's worker, or as the engine that such a worker starts."""
    if sys.argv[1:2] == ["--engine"]:
        run_engine(int(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(prog="rank.py", description="One DP rank of LMDeploy, started by torchrun.")
    parser.add_argument("--port", type=int, required=True, help="port of rank 0")
    parser.add_argument("--port-step", type=int, required=True, help="from one rank's port to the next one's")
    parser.add_argument("--first-rank", type=int, help="number of this host's first rank; else torchrun's own is taken")
    parser.add_argument("--gpus-per-rank", type=int, default=1)
    parser.add_argument("arguments", nargs="+", help="after --: serve api_server MODEL ...")
    ours = parser.parse_args()
    die_with_parent()  # torchrun's agent; what outlives it would be in the way of its successor
    needed = {"LOCAL_RANK", *(["RANK"] if ours.first_rank is None else [])}
    if missing := needed - os.environ.keys():
        sys.exit(f"lmfleet: {' and '.join(sorted(missing))} not in the environment: start rank.py with torchrun")
    local = int(os.environ["LOCAL_RANK"])
    rank = int(os.environ["RANK"]) if ours.first_rank is None else ours.first_rank + local
    notes = Notes(os.environ.get(RANKS), rank)
    if pause_s := notes.pause_s:
        put(f"[rank {rank}] lmfleet: waits {pause_s:g} s, for the last start gave no token\n".encode())
        time.sleep(pause_s)
    gpus = engine_gpus(local, ours.gpus_per_rank, os.environ.get("CUDA_VISIBLE_DEVICES"))
    server = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    server.add_argument("--server-name", default="0.0.0.0")  # noqa: S104 (LMDeploy's own default)
    address = server.parse_known_args(ours.arguments)[0].server_name
    port = ours.port + ours.port_step * rank
    put(f"[rank {rank}] lmfleet: starts at {address}:{port} on GPU {gpus} of {socket.gethostname()}\n".encode())
    engine = [sys.executable, __file__, "--engine", str(rank), *ours.arguments, "--server-port", str(port)]
    environment = engine_environment(os.environ, started_with(os.getppid()), gpus)
    environment = with_own_hca(environment, local, ours.gpus_per_rank)
    return supervise(engine, environment, rank, gpus, notes=notes)


if __name__ == "__main__":  # the engine's own processes import this file again
    sys.exit(main())
