# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of one wait tell each other, and how it ends for all of them."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible import constants

from ansible_collections.lmfleet.lmdeploy.plugins.action import wait as wait_action
from ansible_collections.lmfleet.lmdeploy.plugins.action.wait import Board
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.plugin_utils.test_logs_and_readiness import (
    RUNNING,
    api_round,
    log,
    waiting,
)


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that lives as long as one run of ansible-playbook."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    return tmp_path


def test_every_host_reads_what_every_host_posted() -> None:
    boards = [Board("task", host) for host in ("node0", "node1")]
    for board in boards:
        assert board.read("progress") == {}
    boards[0].post("progress", "1.5")
    boards[1].post("progress", "2.5")
    for board in boards:
        assert board.read("progress") == {"node0": "1.5", "node1": "2.5"}


def test_a_later_word_replaces_the_earlier_one_and_kinds_stay_apart() -> None:
    board = Board("task", "node0")
    board.post("progress", "1")
    board.post("progress", "2")
    board.post("failed", "größer als gedacht\nsecond line")
    assert board.read("progress") == {"node0": "2"}
    assert board.read("failed") == {"node0": "größer als gedacht\nsecond line"}
    assert board.read("ready") == {}


def test_waits_of_different_tasks_do_not_see_each_other() -> None:
    Board("ray", "node0").post("failed", "x")
    assert Board("api", "node1").read("failed") == {}


def test_host_names_come_back_as_they_are() -> None:
    Board("task", "gpu@rack-1.example").post("ready", "")
    assert Board("task", "node0").read("ready") == {"gpu@rack-1.example": ""}


def test_what_is_not_finished_is_not_read(run_directory: Path) -> None:
    board = Board("task", "node0")
    board.post("failed", "whole")
    [posted] = [path for path in run_directory.rglob("*") if path.is_file()]
    posted.with_name(".failed-node1").write_text("ha", encoding="utf-8")
    assert board.read("failed") == {"node0": "whole"}


def test_no_reader_sees_half_a_word() -> None:
    texts = [letter * 200_000 for letter in "ab"]
    board = Board("task", "node0")
    board.post("failed", texts[0])
    done = threading.Event()

    def post() -> None:
        for _ in range(100):
            for text in texts:
                board.post("failed", text)
        done.set()

    writer = threading.Thread(target=post)
    writer.start()
    seen: set[str] = set()
    while not done.is_set():
        seen |= set(Board("task", "node1").read("failed").values())
    writer.join()
    assert seen <= set(texts)


class OneAnswer(wait_action.ActionModule):
    """The action on a host whose observe always has the same answer."""

    def __init__(self, answer: dict[str, Any]) -> None:  # without a task, which is ansible-playbook's
        self._answer = answer

    def _execute_module(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self._answer


@pytest.mark.parametrize("allow", [True, False])
def test_a_start_that_was_lost_ends_the_wait_of_every_host(allow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_action, "ROUND_S", 0.01)
    answers = {
        "node0": api_round(log("lost_start"), status="exited", exit_code=1),
        "node1": {"containers": {"lmdeploy-ray": RUNNING}, "http": {}},
    }

    def ended(host: str) -> dict[str, Any]:
        variables = {"inventory_hostname": host}
        return OneAnswer(answers[host])._rounds(
            waiting(host, "api"), Board("task", host), allow, time.monotonic(), variables
        )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = dict(zip(answers, pool.map(ended, answers)))
    if allow:
        assert [result["lost_start"] for result in results.values()] == [["node0"], ["node0"]]
        assert not any("failed" in result for result in results.values())
    else:
        assert "a race at the start of LMDeploy" in results["node0"]["msg"]
        assert "node1 stopped waiting, because node0 failed" in results["node1"]["msg"]
        assert all(result["failed"] for result in results.values())
