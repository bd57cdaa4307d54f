# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is said to be, from what was seen of its hosts; and the playbook and scripts/status where no host answers."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status import (
    AS_PLANNED,
    DEGRADED,
    DOWN,
    UNSEEN,
    Status,
    as_table,
    status_of,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status_page import html
from ansible_collections.lmfleet.lmdeploy.tests.unit.page import Page
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT, nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import KEYS, World, bound, running
from ansible_collections.lmfleet.lmdeploy.tools.bench_growth import FORMATION, Fleet, fleet

Answers = dict[str, dict[str, Any]]
Change = Callable[[Answers], Any]


def told(every: Fleet, *changes: Change) -> Status:
    """The status of the fleet after ``changes`` of what was seen."""
    answers = copy.deepcopy(every.answers)
    for change in changes:
        change(answers)
    status = status_of(every.plan, {name: Host(name, answer) for name, answer in answers.items()})
    assert as_table(status)
    json.dumps(dataclasses.asdict(status))
    return status


def state(host: str, word: str, only: str = "") -> Change:
    """Every endpoint of a host (or only the one whose URL ends so) shows this state."""

    def change(answers: Answers) -> None:
        for url, each in answers[host]["tokens"].items():
            if url.endswith(only):
                each.update(state=word, reason=f"it is {word}")

    return change


def unreachable(*hosts: str) -> Change:
    return lambda answers: answers.update({name: {"unreachable": "Connection refused"} for name in hosts})


def public(word: str) -> Change:
    return lambda answers: answers["node000"]["public"].update(state=word, reason=f"it is {word}")


def without(host: str, name: str) -> Change:
    return lambda answers: answers[host]["containers"].update({name: {"present": False}})


TP, REPLICAS, DPEP = fleet("tp", 2), fleet("tp", 4), fleet("dpep", 2)


@pytest.mark.parametrize("every", [TP, REPLICAS, DPEP], ids=["tp", "replicas", "dpep"])
def test_as_planned(every: Fleet) -> None:
    status = told(every)
    assert (status.state, status.code) == (AS_PLANNED, 0), status
    assert not status.faults
    assert status.deploy == []
    assert {each.state for each in status.engines} == {AS_PLANNED}
    assert {(each.formation, each.seconds) for each in status.engines} == {(FORMATION, 312.0)}
    assert all(each.as_planned and each.status == "running" for node in status.nodes for each in node.containers)
    assert as_table(status)[-1] == "A deploy would change nothing."


def test_busy_is_as_planned_and_its_proxy_may_be_slow() -> None:
    busy = [state(host, "busy") for host in DPEP.answers]
    assert told(DPEP, *busy).state == AS_PLANNED
    assert told(DPEP, *busy, public("unknown")).state == AS_PLANNED
    assert told(DPEP, public("unknown")).state == DEGRADED
    assert told(DPEP, public("dead")).state == DEGRADED


@pytest.mark.parametrize(
    ("every", "changes", "deployment", "engines"),
    [
        (TP, [state("node000", "dead")], DOWN, [DOWN]),
        (TP, [state("node000", "loading")], DOWN, [DOWN]),
        (TP, [state("node000", "unknown")], DEGRADED, [DEGRADED]),  # nobody can tell, so it is not called down
        (DPEP, [state("node001", "unknown", ":23423")], DEGRADED, [DEGRADED]),
        (DPEP, [state("node001", "dead")], DEGRADED, [DEGRADED]),
        (REPLICAS, [state("node000", "dead")], DEGRADED, [DOWN, AS_PLANNED]),
        (REPLICAS, [state("node000", "dead"), state("node002", "dead"), public("dead")], DOWN, [DOWN, DOWN]),
        # Of a host that did not answer only its own endpoints are not known.
        (TP, [unreachable("node001")], DEGRADED, [DEGRADED]),
        (TP, [unreachable("node000")], DOWN, [DOWN]),
        (DPEP, [unreachable("node001")], DEGRADED, [DEGRADED]),
        (REPLICAS, [unreachable("node002", "node003")], DEGRADED, [AS_PLANNED, DOWN]),
        (REPLICAS, [unreachable("node000", "node001")], DEGRADED, [DOWN, AS_PLANNED]),
        # Nobody asked an endpoint that gives tokens, but the public URL does.
        (DPEP, [unreachable("node001"), state("node000", "dead")], DEGRADED, [DOWN]),
        (TP, [unreachable("node000", "node001")], DOWN, [DOWN]),
    ],
)
def test_states(every: Fleet, changes: list[Change], deployment: str, engines: list[str]) -> None:
    status = told(every, *changes)
    assert (status.state, [each.state for each in status.engines]) == (deployment, engines)
    assert status.code == {AS_PLANNED: 0, DEGRADED: 2, DOWN: 3}[deployment]


def test_what_a_deploy_would_do_is_told() -> None:
    status = told(TP, without("node001", "lmdeploy-ray"), state("node000", "dead"))
    assert status.deploy is not None
    assert any("does not exist" in line and "lmdeploy-api" in line for line in status.deploy)
    (ray,) = status.nodes[1].containers
    assert (ray.status, ray.as_planned, ray.differences) == ("missing", False, ["it does not exist"])
    # The engine gives tokens still, but its Ray is not as planned.
    assert told(TP, without("node001", "lmdeploy-ray")).state == DEGRADED


def test_a_container_of_another_plan() -> None:
    def other(answers: Answers) -> None:
        found = answers["node001"]["containers"]
        old = copy.deepcopy(found["lmdeploy-dp"])
        found["lmdeploy-dp"]["labels"]["lmfleet.lmdeploy.identity"] = "another"
        found["lmdeploy-dp"]["asked"]["privileged"] = False
        found["lmdeploy-ray"] = old

    status = told(DPEP, other)
    planned, leftover = status.nodes[1].containers
    assert (planned.as_planned, planned.differences) == (False, ["privileged False -> True"])
    assert (leftover.name, leftover.as_planned) == ("lmdeploy-ray", False)
    assert status.state == DEGRADED


def test_the_proxy_lists_a_stranger() -> None:
    def stranger(answers: Answers) -> None:
        answers["node000"]["proxy"]["nodes"]["http://10.9.9.9:1"] = ["m"]

    status = told(DPEP, stranger)
    assert status.state == DEGRADED
    assert status.proxy is not None
    assert status.proxy.list_right is False
    assert "10.9.9.9" in status.proxy.list_reason
    assert any("list is wrong" in line for line in as_table(status))


def test_a_proxy_that_does_not_answer() -> None:
    def silent(answers: Answers) -> None:
        answers["node000"]["proxy"] = {"error": "connection refused"}

    status = told(DPEP, silent, public("unreachable"))
    assert status.state == DEGRADED
    assert status.proxy is not None
    assert (status.proxy.list_right, status.proxy.list_reason) == (None, "connection refused")


def test_unreachable_hosts_are_named_and_left_out() -> None:
    status = told(REPLICAS, unreachable("node003"), without("node002", "lmdeploy-ray"))
    assert [node.reached for node in status.nodes] == [True, True, True, False]
    assert "Connection refused" in status.nodes[3].reason
    assert status.nodes[3].containers == []
    assert any("node003" in fault and "cannot be reached" in fault for fault in status.faults)
    assert status.deploy
    assert not any("node003" in line for line in status.deploy)
    assert any("node002" in line for line in status.deploy)
    endpoints = [each.state for engine in told(DPEP, unreachable("node001")).engines for each in engine.endpoints]
    assert endpoints == ["alive"] * 8 + [UNSEEN] * 8


def test_a_host_that_nobody_looked_at() -> None:
    status = told(TP, lambda answers: answers.pop("node001"))
    assert (status.state, status.nodes[1].reached) == (DEGRADED, False)
    assert any("was not looked at" in fault for fault in status.faults)


def test_docker_that_does_not_answer() -> None:
    def no_docker(answers: Answers) -> None:
        answers["node000"].update(docker={"error": "it hangs", "kind": "timeout"})
        for part in ("containers", "image"):
            del answers["node000"][part]

    status = told(TP, no_docker)
    assert status.state == DEGRADED  # its token came all the same
    assert status.nodes[0].reached
    assert "it hangs" in status.nodes[0].reason
    assert status.deploy == []
    assert told(TP, no_docker, state("node000", "unreachable")).deploy == []


def test_an_answer_in_pieces() -> None:
    """A look that was cut off, and files that hold anything."""

    def broken(answers: Answers) -> None:
        answers["node000"].update(
            host={"error": "no answer within 30 s"}, record={"error": "broken"}, lock=["no lock"], proxy={"error": "x"}
        )
        answers["node001"].update(record=None, model={}, lock={"released": ""})

    assert told(DPEP, broken).state == DEGRADED


def test_a_missing_image_is_brought() -> None:
    def gone(answers: Answers) -> None:
        for answer in answers.values():
            answer["image"] = {"id": None, "digests": [], "answer": None}

    status = told(TP, gone)
    assert status.deploy is not None
    assert len([line for line in status.deploy if "pull the image" in line]) == 2
    assert status.state == DEGRADED


def test_a_plan_that_is_not_bound_compares_nothing() -> None:
    plan = plan_of(nodes(2))
    hosts = {f"node{n}": Host(f"node{n}", {"unreachable": "no route"}) for n in range(2)}
    status = status_of(plan, hosts, unbound=["it does not fit"])
    assert (status.state, status.bound, status.deploy) == (DOWN, False, None)
    assert "it does not fit" in status.faults

    every = told(TP)
    found = status_of(TP.plan, TP.hosts, unbound=["it does not fit"])
    assert every.state == AS_PLANNED
    assert found.state == DEGRADED
    assert {each.as_planned for node in found.nodes for each in node.containers} == {None}


def test_who_is_at_work() -> None:
    lock = {
        "run": "r",
        "what": "deploy.yml",
        "who": "ann",
        "control": "cn",
        "pid": 7,
        "since": "2026-11-24T22:25:00Z",
        "released": "",
        "boot": "1",
        "seen_uptime": 990.0,
        "expires_uptime": 1890.0,
    }

    def locked(**other: Any) -> Change:
        return lambda answers: answers["node000"].update(lock={**lock, **other})

    status = told(TP, locked())
    assert status.lock is not None
    assert (status.lock.who, status.lock.seen_s, status.lock.expires_in_s) == ("ann", 10.0, 890.0)
    assert any(line.startswith("in use: deploy.yml, run by ann from cn") for line in as_table(status))
    assert told(TP, locked(released="2026-11-24T22:35:00Z")).lock is None
    assert told(TP, locked(boot="0")).lock is None
    assert told(TP, locked(expires_uptime=999.0)).lock is None


# ---- the playbook


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """An inventory of hosts that no one answers at."""
    hosts = {
        f"node{n}": {"ansible_host": "127.0.0.1", "ansible_port": 1, "plan_cluster_address": f"10.0.0.{n + 10}"}
        for n in range(2)
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"children": {"lmdeploy_nodes": {"hosts": hosts}}}}), encoding="utf-8")
    return inventory


def run(argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": path}
    return subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_playbook_where_no_host_answers(nowhere: Path) -> None:
    folder = nowhere.parent
    playbook = [sys.executable, "-m", "ansible", "playbook", str(ROOT / "playbooks/status.yml")]
    done = run([*playbook, "-i", str(nowhere), "-e", "status_file=status.json"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["code"], status["bound"]) == ("down", 3, False)
    assert [node["reached"] for node in status["nodes"]] == [False, False]
    assert all("Connection refused" in node["reason"] for node in status["nodes"])
    assert "\n".join(status["table"]) in done.stdout


def test_the_page_stands_alone_and_says_what_the_table_says() -> None:
    lost = unreachable("node003")
    evil = state("node000", "<script>alert(1)</script>")
    status = told(REPLICAS, lost, evil, without("node002", "lmdeploy-ray"))
    page = Page(html(status))
    assert page.stands_alone
    read = " ".join(page.text.split())
    assert f"lmdeploy ! {DEGRADED}" in read
    assert "it is <script>alert(1)</script>" in read
    for said in (status.url, *status.faults, *(status.deploy or []), *status.notes):
        assert " ".join(said.split()) in read
    for node in status.nodes:
        assert node.reason in page.text
        for each in node.containers:
            assert {each.name, each.status} <= set(page.text.split())
    assert "Connection refused" in read


def test_of_what_is_as_planned_the_page_says_that_there_is_nothing_to_do() -> None:
    page = Page(html(told(DPEP)))
    assert "A deploy would change nothing." in page.text
    assert page.text.count("alive") == len(DPEP.plan.endpoints) + 1
    assert "dead" not in page.text


def test_the_playbook_writes_the_page_where_no_host_answers(nowhere: Path) -> None:
    """That is when somebody looks."""
    given = ["-i", nowhere.name, "-e", "status_page=mine.html"]
    done = run([str(ROOT / "scripts/status"), *given], nowhere.parent)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot be reached" in Page((nowhere.parent / "mine.html").read_text(encoding="utf-8")).text


def test_script_where_no_host_answers(nowhere: Path) -> None:
    """From another directory, with a path relative to it; only the table is printed."""
    done = run([str(ROOT / "scripts/status"), "-i", nowhere.name, "-e", "status_file=mine.json"], nowhere.parent)
    assert done.returncode == 3, done.stdout + done.stderr
    table = json.loads((nowhere.parent / "mine.json").read_text(encoding="utf-8"))["table"]
    assert done.stdout.splitlines() == table
    assert table[0] == "lmdeploy: down"


def test_script_where_the_playbook_fails(nowhere: Path) -> None:
    done = run([str(ROOT / "scripts/status"), "-i", nowhere.name, "-e", "plan_group=nobody"], nowhere.parent)
    assert done.returncode == 1
    assert "the inventory has no group nobody" in done.stderr
    assert done.stdout == ""


# The gateway ---------------------------------------------------------------------------------------------------------


def with_gateway(change: Callable[[World], Any] = lambda world: None, public_state: str = "alive") -> Status:
    """The status of two engines behind a gateway, after a change of what was seen."""
    groups = {"left": ["node0"], "right": ["node1"]}
    variables = nodes(plan_replicas=list(groups), plan_gateway=True, plan_gateway_keys=KEYS)
    world = running(bound(variables, groups=groups))
    world.answers["node0"]["public"] = {"state": public_state, "reason": f"it is {public_state}"}
    change(world)
    status = status_of(world.plan, world.hosts, of_gateway=world.door)
    json.dumps(dataclasses.asdict(status))
    assert html(status)
    return status


def test_behind_a_gateway_all_is_as_planned_where_it_is_too() -> None:
    status = with_gateway()
    assert (status.state, status.deploy, status.url) == (AS_PLANNED, [], "https://10.0.0.10:8443")
    assert status.gateway
    assert (status.gateway.right, status.gateway.down) == (True, [])
    assert [line for line in as_table(status) if "(gateway)" in line and "alive" in line]
    assert [line for line in as_table(status) if "(proxy)" in line and "not asked" in line]


def test_a_gateway_that_does_not_answer_is_down_for_clients() -> None:
    def ended(world: World) -> None:
        world.stop("node0", "lmdeploy-gateway")
        world.answers["node0"]["gateway"] = {"error": "[Errno 111] Connection refused"}

    status = with_gateway(ended, "unreachable")
    assert status.state == DEGRADED  # its engines serve, and a deploy is all that it takes
    assert status.gateway
    assert status.gateway.right is None
    assert "The gateway could not be asked: [Errno 111] Connection refused" in as_table(status)
    assert status.deploy == ["node0: replace lmdeploy-gateway: it has ended with exit code 1"]


def test_keys_that_are_not_read_yet_and_endpoints_that_get_nothing_are_told() -> None:
    def other_keys(world: World) -> None:
        assert world.door
        world.door = dataclasses.replace(world.door, keys={"chat": "n" * 40})
        world.answers["node0"]["gateway"]["servers"]["rank1"]["up"] = False

    status = with_gateway(other_keys)
    assert status.state == DEGRADED
    assert status.gateway
    assert (status.gateway.right, status.gateway.down) == (False, ["http://10.0.0.11:23333"])
    text = "\n".join(as_table(status))
    assert "The gateway: its keys, limits, endpoints, options or certificate differ from what it has read" in text
    assert "The gateway sends nothing to http://10.0.0.11:23333" in text
    assert "n" * 40 not in text
