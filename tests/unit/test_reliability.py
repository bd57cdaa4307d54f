# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sandbox's and the GPU's tests of faults leave behind, and the page that is made of it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gpu.results import Results
from sandbox.faults import Asked, Trial, ask, is_steady, judged, own_start, row_of
from sandbox.hosts import Sandbox

from ansible_collections.lmfleet.lmdeploy.programs.starts import Starts, read
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer
from ansible_collections.lmfleet.lmdeploy.tools.reliability import KEPT, Row, gpu_rows, page, rows_in

ROOT = Path(__file__).parents[2]
URL, PROXY = "http://10.77.0.12:23333", "http://10.77.0.11:8000"


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "reliability.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def noted(path: Path, *events: tuple[float, str]) -> list[dict[str, object]]:
    """As a supervisor notes its starts."""
    now = [0.0]
    starts = Starts(path, lambda: now[0])
    for at, event in events:
        now[0] = at
        starts.note(event, "why")
    return read(path)


def trial_of(fault: str = "the api_server, kill -9", *, last_bad: float = 130.0, proxy: str = "") -> Trial:
    """One whose api_server was killed at 100."""
    trial = Trial(Sandbox("tp"), fault, [URL], proxy=proxy, topology="replicas" if proxy else "")
    trial.struck = 100.0
    trial.seen = {
        URL: [
            Asked(99, "200", True),
            Asked(101, "disconnected", True),
            Asked(102, "refused", False),
            Asked(last_bad, "refused", False),
            Asked(last_bad + 1, "200", True),
        ],
        PROXY: [Asked(90, "404", False), Asked(101, "200 without tokens", True), Asked(111, "404", False)],
    }
    return trial


def test_a_fault_of_the_sandbox_becomes_a_row_of_the_page(tmp_path: Path) -> None:
    events = noted(tmp_path / "api.jsonl", (101, "end"), (104, "start"), (126.4, "proven"))
    results, kept, out = tmp_path / "results.jsonl", tmp_path / "kept.jsonl", tmp_path / "page.md"
    rows = [
        row_of(trial_of("a fault | with a bar"), {"node0": events, "node1": []}),
        row_of(trial_of("a fault | with a bar", last_bad=135), {"node0": events, "node1": []}),
        row_of(trial_of("docker kill", proxy=PROXY), {"node0": events}, "one deploy, 50 s"),
    ]
    results.write_text("".join(f"{row.line()}\n" for row in rows))
    shutil.copy(KEPT, kept)
    before = len(rows_in(kept))
    added = tool("--add", str(results), "--kept", str(kept), "--output", str(out))
    assert (added.returncode, added.stdout, added.stderr) == (0, "", "")
    assert rows_in(kept)[before:] == rows
    lines = out.read_text().splitlines()
    [row] = [line for line in lines if "with a bar" in line]
    assert row.startswith("| a fault \\| with a bar | 30 to 35 | 22 | 1 | disconnected: 1, refused: 2 | 2 |")
    [row] = [line for line in lines if line.startswith("| docker kill |")]
    assert row == (
        "| docker kill | 30 | 22 | 1 | disconnected: 1, refused: 2 | 3 | 11 | 200 without tokens: 1, 404: 1 | one deploy, 50 s |"
    )
    # Every line of a table has as many columns as its head.
    tables = [line.replace("\\|", "").count("|") for line in lines if line.startswith("|")]
    heads = [line.count("|") for line in lines if set(line) == {"|", "-"}]
    assert set(tables) == set(heads)


def test_a_fault_in_which_nothing_failed_and_nothing_was_started_is_told_so() -> None:
    trial = trial_of("a cut of 10 s")
    trial.seen = {URL: [Asked(99, "503", True), Asked(101, "200", True)]}
    row = row_of(trial, {"node0": []})
    assert (row.away_s, row.failed, row.restarts, row.start_s) == (0, {}, 0, None)
    assert "| a cut of 10 s | 0 | 0 | none | 0 |" in page([row])


def test_the_last_start_is_the_one_that_is_timed_on_the_slowest_host(tmp_path: Path) -> None:
    twice = noted(tmp_path / "a.jsonl", (1, "start"), (50, "end"), (60, "start"), (81, "proven"))
    once = noted(tmp_path / "b.jsonl", (60, "start"), (90, "proven"))
    assert own_start({"node0": twice, "node1": once}) == 30
    assert own_start({"node0": noted(tmp_path / "c.jsonl", (1, "start"))}) is None


def test_what_is_in_the_tree_is_whole_and_the_check_tells_an_old_page(tmp_path: Path) -> None:
    assert tool("--check").returncode == 0
    (tmp_path / "page.md").write_text("old")
    answer = tool("--check", "--output", str(tmp_path / "page.md"))
    assert (answer.returncode, "out of date: run tools/reliability.py" in answer.stdout) == (1, True)
    assert "leave out --add" in tool("--check", "--add", str(KEPT)).stderr


def test_results_of_gpus_become_rows(tmp_path: Path) -> None:
    """As tests/gpu puts them, where the dots of a URL are levels."""
    results = Results(tmp_path)
    first = noted(tmp_path / "starts.jsonl", (10, "start"), (142, "proven"), (200, "start"), (260, "proven"))
    results.put("heals.ranks.first_proven_s", 3.0)
    results.put("heals.ranks.rank_program.victim", "python3 rank.py")
    for port, back_s in ((24333, 70.2), (24343, 77.4)):
        results.put(
            f"heals.ranks.rank_program.requests.http://10.0.0.2:{port}", {"answered": 9, "failed": 4, "back_s": back_s}
        )
    results.put("heals.ranks.rank_program.left_of_the_old", [])
    results.put("heals.ranks.starts", {"node0.ranks-dp": first})
    results.put("heals.ranks.rank_program.step_seconds", 99.0)
    found = gpu_rows(json.loads((tmp_path / "results.json").read_text()), "two H100")
    assert found == [
        Row(
            kind="gpu",
            topology="ranks",
            fault="DP: rank program",
            on={"machine": "two H100"},
            away_s=77.4,
            start_s=132.0,
            failed={"requests": 8},
            left="nothing",
        )
    ]
    assert "| DP: rank program | two H100 | 77 | 132 | nothing |" in page(found)
    assert "--machine" in tool("--gpu", str(tmp_path / "results.json")).stderr


def test_what_became_of_a_request_is_told_with_whether_an_engine_may_have_got_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert ask(f"http://127.0.0.1:{taken.getsockname()[1]}") == ("refused", False)
    modes = {
        "ok": ("200", True),
        "finish_error": ("200 without tokens", True),
        "proxy": ("200 without tokens", True),
        "status": ("503", True),
    }
    for mode, wanted in modes.items():
        with NullServer(mode=mode) as server:
            assert (mode, ask(server.endpoints[0].url)) == (mode, wanted)
    assert judged(404, b"{}") == ("404", False)
    assert judged(200, b'{"error_code":10400,"text":"no such model"}') == ("200 without tokens", False)
    assert judged(200, b'{"error_code":10402,"text":"time-out"}') == ("200 without tokens", True)


@pytest.mark.parametrize(
    ("said", "quiet_s", "steady"),
    [
        (["200", "200", "200"], 0, True),
        (["200", "200"], 0, False),
        (["200", "200", "503"], 0, False),
        (["503", "200", "200", "200"], 2, True),
        (["503", "200", "200", "200"], 9, False),
    ],
)
def test_it_is_back_when_the_last_three_gave_tokens_for_long_enough(
    said: list[str], quiet_s: float, steady: bool
) -> None:
    asked = [Asked(10.0 + at, each, True) for at, each in enumerate(said)]
    assert is_steady(asked, 9.0, 10.0 + len(said), quiet_s) is steady
