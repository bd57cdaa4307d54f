# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of one wait tell each other, and how it ends for all of them."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_collections.lmfleet.lmdeploy.plugins.action import wait as wait_action
from ansible_collections.lmfleet.lmdeploy.plugins.action.wait import expected, silent_hosts
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.board import Board
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Decision, Round
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Tokens
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.plugin_utils.test_logs_and_readiness import (
    DP_PLAN,
    RANKS,
    RUNNING,
    api_round,
    dp_round,
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
        for __ in range(100):
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

    def _execute_module(self, *_args: Any, **_more: Any) -> dict[str, Any]:
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


# However one host's wait ends, so do the others' (case 60) --------------------------------------------------------------

LISTED = {url: [DP_PLAN.served_model_name] for url in RANKS}
UP = {"node0": dp_round(RANKS, LISTED), "node1": dp_round(RANKS[2:])}
LOADING = {"node0": dp_round([], {}), "node1": dp_round([])}


class Host(wait_action.ActionModule):
    """The real action on one host; ``looks`` stands for M(observe) there."""

    def __init__(self, looks: Callable[[], dict[str, Any]]) -> None:
        self._looks = looks
        arguments = {"stage": "api", "timeout": 600, "no_progress_timeout": 600}
        self._task: Any = SimpleNamespace(args=arguments, check_mode=False, async_val=0, _uuid="task", action="wait")
        self._connection: Any = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))

    def _execute_module(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self._looks()


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(wait_action, "ROUND_S", 0.01)
    run = Run()
    run.keep_plan(DP_PLAN)
    run.keep_decision(
        Decision([Round(["lmdeploy"], ["lmdeploy"], [])], [], [], dict.fromkeys(RANKS, Tokens("absent", "")))
    )
    return run


def outcomes(**looks: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What becomes of every host's wait: its result, or what it raised."""

    def waited(host: str) -> Any:
        try:
            return Host(looks[host]).run(task_vars={"inventory_hostname": host})
        except BaseException as error:  # noqa: BLE001 - whatever it is
            return error

    with concurrent.futures.ThreadPoolExecutor(len(looks)) as pool:
        futures = {host: pool.submit(waited, host) for host in looks}
        return {host: future.result(20) for host, future in futures.items()}


def test_hosts_that_are_up_end_together_and_say_when_their_containers_were_started(deployed: Run) -> None:
    found = outcomes(node0=lambda: UP["node0"], node1=lambda: UP["node1"])
    assert [(result["changed"], result["lost_start"]) for result in found.values()] == [(False, []), (False, [])]
    assert deployed.read("started@node0") == dict.fromkeys(["lmdeploy-proxy", "lmdeploy-dp"], RUNNING["started_at"])
    assert deployed.read("started@node1") == {"lmdeploy-dp": RUNNING["started_at"]}


@pytest.mark.parametrize(
    "error",
    [
        AnsibleError("no room for a temporary directory"),
        KeyError("containers"),
        OSError("too many open files"),
        KeyboardInterrupt("Ctrl-C"),
        SystemExit("the worker ends"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("other", [UP, LOADING], ids=["up", "loading"])
def test_whatever_one_host_s_wait_raises_the_others_end(
    error: BaseException, other: dict[str, dict[str, Any]], deployed: Run
) -> None:
    def fail() -> dict[str, Any]:
        raise error

    found = outcomes(node0=lambda: other["node0"], node1=fail)
    assert found["node1"] is error
    assert found["node0"]["failed"]
    assert found["node0"]["msg"].startswith(f"node0 stopped waiting, because node1 failed: {type(error).__name__}: ")
    assert deployed.read("started@node0") is None, "what has failed is not recorded"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"failed": True, "msg": "no Python there"}, "no Python there"),
        ({"failed": True}, "no answer"),
        ({"docker": {"error": "it hangs", "kind": "timeout"}}, "Docker does not answer: it hangs"),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_a_round_without_an_answer_ends_all_waits(answer: dict[str, Any], words: str) -> None:
    found = outcomes(node0=lambda: UP["node0"], node1=lambda: answer)
    assert found["node1"] == {"failed": True, "changed": False, "msg": f"node1: {words}"}
    assert found["node0"]["msg"] == f"node0 stopped waiting, because node1 failed: {words}"


@pytest.mark.usefixtures("deployed")
def test_rounds_that_are_lost_are_forgiven() -> None:
    lost = [0]

    def comes_back() -> dict[str, Any]:
        lost[0] += 1
        if lost[0] <= LOST:
            raise AnsibleConnectionFailure("no route to host")
        return UP["node1"]

    found = outcomes(node0=lambda: UP["node0"], node1=comes_back)
    assert [result["changed"] for result in found.values()] == [False, False]


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("other", [UP, LOADING], ids=["up", "loading"])
def test_a_lost_host_ends_all_waits_and_leaves_its_containers(other: dict[str, dict[str, Any]]) -> None:
    def stays_away() -> dict[str, Any]:
        raise AnsibleConnectionFailure("no route to host")

    found = outcomes(node0=lambda: other["node0"], node1=stays_away)
    assert isinstance(found["node1"], AnsibleConnectionFailure)
    assert "The containers are left as they are and go on." in str(found["node1"])
    assert found["node0"]["msg"].startswith(
        "node0 stopped waiting, because node1 failed: AnsibleConnectionFailure: node1 "
    )


@pytest.mark.usefixtures("deployed")
def test_an_answer_that_makes_no_sense_ends_all_waits() -> None:
    found = outcomes(node0=lambda: UP["node0"], node1=lambda: {"containers": {}})
    assert isinstance(found["node1"], KeyError)
    assert "node1 failed: KeyError" in found["node0"]["msg"]


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("other", [UP, LOADING], ids=["up", "loading"])
def test_a_host_that_gives_no_sign_ends_the_waits_of_the_others(
    other: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_action, "SILENT_S", 0.5)
    over = threading.Event()

    def hang() -> dict[str, Any]:
        assert over.wait(20)
        return other["node1"]

    def looks() -> dict[str, Any]:
        return other["node0"]

    def ended() -> Any:
        try:
            return Host(looks).run(task_vars={"inventory_hostname": "node0"})
        finally:
            over.set()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(Host(hang).run, task_vars={"inventory_hostname": "node1"})
        result = pool.submit(ended).result(20)
        late = hanging.result(20)
    assert result["failed"]
    assert result["msg"].startswith("node0 stopped waiting, because node1 gave no sign for ")
    assert late["failed"], "the one that comes back late is not left to wait for those that are gone"


def test_silence_is_counted_from_the_last_sign_and_from_the_beginning_where_there_was_none() -> None:
    hosts = {"node0", "node1"}
    limit = wait_action.SILENT_S
    assert silent_hosts(hosts, {}, 100, 100 + limit) == []
    assert silent_hosts(hosts, {"node0": "150"}, 100, 101 + limit) == ["node1"]
    assert silent_hosts(hosts, {"node0": "150", "node1": "150"}, 100, 151 + limit) == ["node0", "node1"]


def test_in_check_mode_there_is_nothing_to_wait_for() -> None:
    host = Host(lambda: pytest.fail("nothing is asked"))
    host._task.check_mode = True
    assert host.run(task_vars={"inventory_hostname": "node0"})["skipped"]


def test_the_proxy_has_to_list_what_is_waited_for_and_what_serves() -> None:
    groups = {"left": ["node0"], "right": ["node1"], "third": ["node2"]}
    plan = plan_of(nodes(3, plan_replicas=list(groups)), groups=groups)
    left, right, third = (each.url for each in plan.endpoints)
    states = {left: Tokens("loading", ""), right: Tokens("busy", ""), third: Tokens("dead", "")}
    decision = Decision([Round(["lmdeploy-left"], [], []), Round(["lmdeploy-third"], [], [])], [], [], states)
    assert expected(plan, decision, 0) == [left, right]
    assert expected(plan, decision, 1) == [right, third]
    assert expected(plan, decision, 9) == [right]
