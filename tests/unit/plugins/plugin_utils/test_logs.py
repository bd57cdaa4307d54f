# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The diagnosis of a log: whose exception counts, what it means, where it was.

The fixtures are what others reported, with addresses and names replaced; ``variations.json`` and ``public.json`` are texts of the
same kinds as they stand in public issues, written again; each of the latter names its thread, or the program that writes it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import log_lines
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.explain import READ_BYTES, read_log, told
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.logs import (
    DECISIVE_LINES,
    LINE_LENGTH,
    catalogue,
    decisive,
    diagnose,
    fatal_line,
    phase_of,
    plain,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.releases import deepep_rules
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import harmless, harmless_all

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
VARIATIONS: list[dict[str, Any]] = json.loads((LOGS / "variations.json").read_text(encoding="utf-8"))
PUBLIC: list[dict[str, Any]] = json.loads((LOGS / "public.json").read_text(encoding="utf-8"))


def log(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("name", "words", "known", "node"),
    [
        ("ray_host_memory", "ray.exceptions.OutOfMemoryError: Task was killed", "ray-memory", "10.0.0.11"),
        ("ray_host_memory", "1912.20GB / 2012.11GB", "ray-memory", "10.0.0.11"),
        ("nccl_no_route", "socketPollConnect: Connect to 10.0.0.14<51822>", "nccl-no-route", ""),
        ("nccl_refused", "socketStartConnect: Connect to 10.0.0.12<40117> failed", "nccl-refused", ""),
        ("nccl_memlock", "Call to ibv_create_cq failed", "memlock", ""),
        ("nccl_memlock_torch", "Call to ibv_reg_mr_iova2 failed", "memlock", ""),
        ("actor_init", "ImportError: libcudart.so.12", "image-library", "10.0.0.11"),
        ("kv_cache", "RuntimeError: No enough gpu memory for kv cache.", "kv-cache", ""),
        ("store_timeout", "trying to connect to (10.0.0.10, 29500)", "store", ""),
        ("half_written", "EOFError: Ran out of input", "half-written", ""),
        ("store_clients", "3/4 clients joined", "store", ""),
        ("driver_803", "Error 803", "driver-803", ""),
        ("deepep_ranks", "Unsupported RDMA ranks", "deepep-ranks", ""),
        ("experts", "num_experts: 256 must be divisible by ep_size: 24", "experts", ""),
        ("deepep_timeout", "DeepEP timeout check failed: rank = 3", "deepep-timeout", ""),
        ("deepep_timeout", "DeepEP error: timeout (dispatch CPU)", "deepep-timeout", ""),
        ("metrics_agent", "Killed", "killed", ""),
        ("gloo_echo", "ImportError: libnvrtc.so.12", "image-library", "10.0.0.11"),
        ("triton_resources", "triton.runtime.errors.OutOfResources", "triton-resources", ""),
        ("unknown_model", "ValueError: The checkpoint you are trying to load", "unknown-model", ""),
        ("no_code_file", "configuration_deepseek.py", "no-code-file", ""),
        ("lost_start", "EOFError", "engine-race", ""),
        ("crash_serving", "CUDA error: an illegal memory access", "illegal-access", "10.77.0.11"),
    ],
)
def test_of_a_reported_log_the_decisive_lines_their_meaning_and_the_node_come_out(
    name: str, words: str, known: str, node: str
) -> None:
    found = diagnose(log(name))
    assert found is not None
    assert any(words in line for line in found.lines), found.lines
    assert (found.known.id if found.known else None, found.node) == (known, node)
    assert len(found.lines) <= DECISIVE_LINES
    assert not any("metrics" in line or "Connection closed by peer" in line for line in found.lines)


@pytest.mark.parametrize("name", ["bind_ray", "ready"])
def test_a_log_without_a_failure_has_none(name: str) -> None:
    assert diagnose(log(name)) is None


@pytest.mark.parametrize("line", log("harmless"))
def test_what_healthy_services_write_is_no_failure_though_it_is_the_last_word(line: str) -> None:
    assert diagnose([*log("ready"), line]) is None
    assert diagnose([log("ready")[0], line]) is None
    assert fatal_line([line]) == ""


@pytest.mark.parametrize("name", ["bind_ray", "metrics_agent"])
def test_what_ray_goes_on_without_is_no_failure_though_nothing_comes_after_it(name: str) -> None:
    assert diagnose(log(name)[:1]) is None
    assert fatal_line(log(name)[:1]) == ""


def is_diagnosed(case: dict[str, Any], lines: list[str]) -> None:
    found = diagnose(lines)
    if case["decisive"] is None:
        assert found is None
        return
    assert found is not None
    assert any(case["decisive"] in line for line in found.lines), found.lines
    assert (found.known.id if found.known else None) == case["known"]
    assert found.node == case["node"]
    assert len(found.lines) <= DECISIVE_LINES


@pytest.mark.parametrize("case", VARIATIONS, ids=[case["name"] for case in VARIATIONS])
def test_others_of_the_same_kinds(case: dict[str, Any]) -> None:
    is_diagnosed(case, case["log"])


PROMPT = "2026-11-02 03:14:01,100 - lmdeploy - INFO - logger.py:45 - session=1, prompt='why RuntimeError: CUDA out of memory?'"
GOT_OVER = [
    "Traceback (most recent call last):",
    '  File "/opt/lmdeploy/lmdeploy/x.py", line 3, in f',
    "    import flash_attn_3",
    "ModuleNotFoundError: No module named 'flash_attn_3'",
    f"\x1b[32m{PROMPT}\x1b[0m",
    "Loading weights from safetensors:  12%|#  | 20/163 [00:03<00:20,  6.9it/s]",
]


@pytest.mark.parametrize("case", PUBLIC, ids=[case["name"] for case in PUBLIC])
def test_what_public_threads_report(case: dict[str, Any]) -> None:
    """As it is, after what is no failure, as `docker logs --timestamps` and Docker's json-file have it."""
    lines = case["log"]
    is_diagnosed(case, lines)
    is_diagnosed(case, [PROMPT, *GOT_OVER, *lines])
    is_diagnosed(
        case, [f"2026-11-02T03:14:07.{number:09d}Z \x1b[31m{line}\x1b[0m" for number, line in enumerate(lines)]
    )
    is_diagnosed(case, [json.dumps({"log": f"{line}\n", "stream": "stderr"}) for line in lines])


TOLD = "gpu02:1:2 [3] transport/nvls.cc:598 NCCL WARN Cuda failure 1 'invalid argument'"


@pytest.mark.parametrize(
    ("before", "known"),
    [
        ([TOLD], "nvls"),
        ([TOLD, *["INFO:     x"] * 200], "nccl-unknown"),  # long before
        ([f"[rank 4] {TOLD}"], "nccl-unknown"),  # another process
    ],
)
def test_what_a_library_told_right_before_says_why_a_vague_failure_came(before: list[str], known: str) -> None:
    found = diagnose(
        [*before, *TRACEBACK, "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, unhandled cuda error"]
    )
    assert found is not None
    assert found.known is not None
    assert found.known.id == known
    assert (TOLD in found.lines) is (known == "nvls")


@pytest.mark.parametrize("noise", ["what(): x. There are some potential root causes. (1) SIGKILL (2) SIGSEGV", ""])
def test_what_torch_and_ray_add_to_all_their_messages_means_nothing(noise: str) -> None:
    boilerplate = "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
    found = diagnose(
        [*TRACEBACK, "RuntimeError: CUDA error: invalid argument", boilerplate, *([noise] if noise else [])]
    )
    assert found is not None
    assert found.known is not None
    assert found.known.id == "cuda"


def test_the_sizes_that_a_remedy_names_are_those_that_a_plan_takes() -> None:
    remedy = next(known.remedy for known in catalogue() if known.id == "deepep-ranks")
    sizes = re.findall(r"\d+", remedy.partition("(")[0])
    assert [int(size) for size in sizes] == list(deepep_rules(None).ranks)


def test_every_entry_says_first_what_to_do() -> None:
    """A remedy begins with a verb of what a person does, and a meaning is a sentence."""
    verbs = {
        "Add", "Compare", "Copy", "Correct", "Download", "Find", "Give", "Look", "Lower", "Mend", "Put", "Raise", "Reboot",
        "Remove", "Run", "See", "Set", "Take", "Update", "Mount", "Open",
    }  # fmt: skip
    for entry in catalogue():
        assert entry.remedy.split()[0] in verbs, entry
        assert entry.means[0].isupper(), entry
        assert entry.means.endswith("."), entry


# ---- whose exception counts

TRACEBACK = ["Traceback (most recent call last):", '  File "/opt/x.py", line 3, in load', "    run()"]
INFO = "2026-11-02 03:14:0{},100 - lmdeploy - INFO - loading weights"


def head(lines: list[str]) -> str:
    found = diagnose(lines)
    return found.lines[-1] if found else ""


@pytest.mark.parametrize(
    "between", [[INFO.format(1)], ["Loading weights from safetensors:  12%|x| 1/8"], ["", "one", "two", "three"]]
)
def test_a_failure_that_its_process_got_over_does_not_win(between: list[str]) -> None:
    handled = [*TRACEBACK, "ImportError: no flash_attn_3", *between]
    assert head([*handled, *TRACEBACK, "my.own.Trouble: it broke"]) == "my.own.Trouble: it broke"
    assert (
        head([*TRACEBACK, "my.own.Trouble: it broke", *TRACEBACK, "Other: and so this did"])
        == "my.own.Trouble: it broke"
    )


def test_of_several_processes_the_cause_wins_over_what_the_others_saw_of_it() -> None:
    lost = [*TRACEBACK, "RuntimeError: [gloo/pair.cc:534] Connection closed by peer [10.0.0.11]:41023"]
    late = [
        *TRACEBACK,
        "torch.distributed.DistBackendError: x",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(1)",
    ]
    cause = [f"(RayWorkerWrapper pid=7, ip=10.0.0.12) {line}" for line in [*TRACEBACK, "weird.Name: here it began"]]
    for order in ([*lost, *late, *cause], [*cause, *lost, *late], [*late, *cause, *lost]):
        found = diagnose(order)
        assert found is not None
        assert (found.lines[-1], found.node) == ("weird.Name: here it began", "10.0.0.12")


def test_what_another_process_logged_says_more_than_that_a_peer_is_gone_where_it_is_known() -> None:
    lost = [f"[rank 1] {line}" for line in [*TRACEBACK, "RuntimeError: Connection closed by peer [10.0.0.11]:41023"]]
    logged = "[rank 2] gpu02:1:2 [3] transport/net_ib.cc:94 NCCL WARN NET/IB : mlx5_3:1 Got async event : port error"
    assert "port error" in head([logged, *lost])
    assert "port error" in head([*lost, logged])
    assert "closed by peer" in head([logged.replace("NET/IB : mlx5_3:1 Got async event : port error", "x"), *lost])
    assert "closed by peer" in head([logged, *["[rank 2] INFO:     and on it goes"], *lost])


def test_what_users_asked_is_no_failure_whatever_it_quotes() -> None:
    """Row 54."""
    quoted = "2026-11-02 03:14:07,100 - lmdeploy - INFO - logger.py:45 - session=1, prompt='{}'"
    words = [
        "[Errno 98] address already in use", "Killed", "RuntimeError: CUDA out of memory",
        "Traceback (most recent call last):", "terminate called after throwing",
        "lmfleet: rank 3 on GPU 1 ended with signal SIGKILL",
    ]  # fmt: skip
    lines = [quoted.format(word) for word in words]
    assert diagnose(lines) is None
    assert fatal_line(lines) == ""
    assert head([*TRACEBACK, "EngineGone: really", *lines]) == "EngineGone: really"


def test_a_server_that_serves_after_an_error_has_none() -> None:
    served = 'INFO:     10.0.0.9:1 - "POST /v1/chat/completions HTTP/1.1" 200 OK'
    failed = [
        "INFO:     Application startup complete.",
        "ERROR:    Exception in ASGI application",
        *TRACEBACK,
        "ValueError: x",
    ]
    assert diagnose([*failed, *[served] * 3]) is None
    assert head([*failed, served]) == "ValueError: x"


def test_what_a_line_is_known_by_is_shown_however_far_back_it_stands() -> None:
    lines = decisive([*TRACEBACK, "RuntimeError: " + "x" * 1000 + " CUDA out of memory " + "y" * 1000])
    assert "CUDA out of memory" in lines[-1]
    assert len(lines[-1]) <= LINE_LENGTH


def test_a_log_that_is_written_while_it_is_read_is_explained_by_where_it_stopped() -> None:
    assert "line 3, in load" in head(TRACEBACK)


# ---- any log at all

LINES = sorted({line for path in LOGS.glob("*.log") for line in path.read_text(encoding="utf-8").splitlines()})
LINES += [line for case in [*VARIATIONS, *PUBLIC] for line in case["log"]]
anything = st.text(st.characters(exclude_categories=()), max_size=200)
lines_of_logs = st.one_of(st.sampled_from(LINES), anything, st.builds("{}{}".format, st.sampled_from(LINES), anything))


def is_safe(line: str) -> bool:
    return len(line) <= LINE_LENGTH and not re.search(
        r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line
    )


@settings(max_examples=80, derandomize=True)
@given(st.lists(lines_of_logs, max_size=40))
def test_any_log_gives_few_lines_that_a_terminal_may_show(lines: list[str]) -> None:
    found = diagnose(lines)
    shown = decisive(lines)
    assert len(shown) <= DECISIVE_LINES
    assert all(map(is_safe, shown))
    assert found is None or found.lines == shown
    assert found is None or is_safe(found.node)


@settings(max_examples=200, derandomize=True)
@given(anything)
def test_any_text_is_made_harmless_and_then_stays_as_it_is(text: str) -> None:
    safe = harmless(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", safe)
    assert harmless(safe) == safe
    safe.encode("utf-8")


def calls(lines: list[str]) -> int:
    """How many calls of functions a diagnosis takes: work that no busy machine makes more of."""
    count = 0

    def profile(__: Any, event: str, ___: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        diagnose(lines)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("seed", range(3))
def test_the_work_grows_with_the_log_and_no_faster(seed: int) -> None:
    chosen = random.Random(seed)
    some = [chosen.choice(LINES) for __ in range(400)]
    diagnose(some * 8)  # each pattern is compiled once in a process, at its first use
    assert calls(some * 8) < 10 * calls(some) + 10_000


def test_a_line_of_any_length_is_read_in_part_alone() -> None:
    for piece in (
        "Loading weights 1% ",
        "Warming up % ",
        "Assertion ",
        "(a pid=",
        "x.",
        "\x1b]",
        '{"log":',
        "[" * 9,
        " ",
    ):
        line = piece * 400_000
        assert phase_of(line) is None or piece.startswith("Warming")
        assert len(plain(line)) <= log_lines.LINE_LENGTH
        diagnose([line, line])


# ---- a file


def test_a_long_log_is_read_from_its_end_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # takes no disk
        file.seek(0, 2)
        file.write("\n".join(["", *TRACEBACK, "Trouble: x"]).encode())
    lines, left_out = read_log(path, 1 << 20)
    assert left_out > 2 << 30
    assert lines[-1] == "Trouble: x"
    assert READ_BYTES <= 64 << 20
    assert "MiB before them were not read" in told(diagnose(lines), path, lines, left_out)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x1f\x8b\x08\x00abc", "gzip -dc"),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 4, "is no text"),
        (None, "is a directory"),
    ],
)
def test_what_is_no_log_is_refused_with_one_clear_message(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "log"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        read_log(path)
    assert str(path) in str(raised.value)
    with pytest.raises(ValueError, match="No such file or directory"):
        read_log(tmp_path / "none")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_log_from_another_system_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log"
    path.write_bytes("\r\n".join([*TRACEBACK, "Trouble: x"]).encode(encoding))
    assert head(read_log(path)[0]) == "Trouble: x"


def test_a_log_that_was_cut_while_it_was_written_begins_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\0" * 100_000 + "\n".join([*TRACEBACK, "Trouble: x"]).encode())
    assert head(read_log(path)[0]) == "Trouble: x"


def test_a_failure_that_is_not_known_says_so_and_shows_its_lines() -> None:
    lines = told(diagnose([*TRACEBACK, "Trouble: x"]), Path("a.log"), [""] * 4)
    assert lines[:2] == ["log: a.log (4 lines)", "decisive:"]
    assert "  | Trouble: x" in lines
    assert any(line.startswith("means: This failure is not known") for line in lines)
    assert told(None, Path("a.log"), [""])[0].startswith("No failure was found in a.log")


# ---- what a terminal would obey


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;aGk=\x1b\\x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9d0;title\x9cx", "x"),
        ("\x1b[31mred\x1b[0m \x9b1;2Hx", "red x"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1bPq#0\x1b\\x \x1b_apc\x1b\\y \x1b^pm\x1b\\z", "x y z"),
        ("a\x1b(Bb\x1bcc\x1b7d", "abcd"),
        ("a\u202ecba\u2069\u200fb", "acbab"),
        ("a\u2028b\x85c", "a b c"),
        ("a\tb\nc\r\nd\re\x08f", "a\tb\nc\ndef"),
        ("\ud800x", "\ufffdx"),
        ("Größe 90 %, 模型, 👩‍🚀", "Größe 90 %, 模型, 👩‍🚀"),
    ],
)
def test_a_terminal_gets_nothing_to_obey(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless_all({"a": [text, 1, None]}) == {"a": [shown, 1, None]}
