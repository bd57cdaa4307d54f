# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link test's rounds on all hosts at once: every host a thread, what its container would say recorded from the program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import link_test
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at, on_hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, running

FIXTURES = Path(__file__).parents[2] / "fixtures" / "links"
TP4 = bound(nodes(4, plan_gpus=2))
WHOLE = json.loads((FIXTURES / "whole.json").read_text(encoding="utf-8"))["node0"]
HUNG = json.loads((FIXTURES / "stopped.json").read_text(encoding="utf-8"))["node0"]
Says = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    monkeypatch.setattr(link_test, "POLL_S", 0.01)


class Containers:
    """M(client_job) of every host: a container that ends with what ``says`` of its configuration."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.started: list[dict[str, Any]] = []
        self.there: dict[str, dict[str, Any]] = {}

    def module(self, host: str, given: dict[str, Any]) -> dict[str, Any]:
        if given["state"] == "started":
            self.started.append({"host": host, **given})
            self.there[f"{host}/{given['name']}"] = given
            return {}
        if given["state"] == "removed":
            self.there.pop(f"{host}/{given['name']}", None)
            return {}
        config = self.there[f"{host}/{given['name']}"]["config"]
        event = {"event": "result", **self.says(host, config)}
        return {"running": False, "exit_code": 0, "events": {"result": event}, "stderr_tail": ""}


def measure_on(world: World, containers: Containers, folder: Path, **arguments: Any) -> dict[str, dict[str, Any]]:
    """What the task gives on each host."""
    looked_at(world)
    return on_hosts(world, link_test, {"folder": str(folder), **arguments}, containers.module)


def test_all_rounds_are_measured_and_written_and_nothing_is_left(tmp_path: Path) -> None:
    containers = Containers(lambda host, config: WHOLE)
    found = measure_on(World(TP4), containers, tmp_path / "results")
    assert found["node0"]["faults"] == found["node0"]["warned"] == []
    assert containers.there == {}
    worlds = [each["config"]["world"] for each in containers.started if each["host"] == "node2"]
    assert worlds == [2, 4, 4, 4, 8]
    [file] = (tmp_path / "results").iterdir()
    assert found["node0"]["file"] == str(file)
    assert len(json.loads(file.read_text(encoding="utf-8"))["groups"]) == 4 + 6 + 1
    [one] = {
        json.dumps({key: each[key] for key in ("kind", "gpus", "privileged", "image")}) for each in containers.started
    }
    assert json.loads(one) == {"kind": "link test", "gpus": True, "privileged": True, "image": TP4.engines[0].image.run}
    assert found["node1"] == {"changed": False}


def test_a_pair_that_hangs_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    def says(host: str, config: dict[str, Any]) -> dict[str, Any]:
        # Rank 0 of a pair is on node1 when it is with node2 or node3, of which only node3 hangs; node1 hangs with it.
        return dict(HUNG if host == "node3" and config["world"] == 4 and config["address"] == "10.0.0.11" else WHOLE)

    found = measure_on(World(TP4), Containers(says), tmp_path)
    text = found["node0"]["msg"]
    assert found["node0"]["failed"]
    assert "node1 and node3: no result" in text
    assert "no end within 25 s" in text
    kinds = [
        each["group"]["kind"] for each in json.loads(Path(found["node0"]["file"]).read_text(encoding="utf-8"))["groups"]
    ]
    assert "all" not in kinds  # it would hang as well


def test_engines_that_run_are_left_alone_and_named(tmp_path: Path) -> None:
    containers = Containers(lambda host, config: WHOLE)
    found = measure_on(running(TP4), containers, tmp_path)
    assert "lmdeploy-ray on node3" in found["node0"]["msg"]
    assert "link_test_running=beside" in found["node0"]["msg"]
    assert [host for host, each in found.items() if each.get("failed")] == ["node0"]
    assert containers.started == []
    assert "nothing to measure" in measure_on(running(TP4), containers, tmp_path, running="skip")["node0"]["msg"]
    assert containers.started == []


def test_beside_engines_it_is_measured_where_one_says_so(tmp_path: Path) -> None:
    containers = Containers(lambda host, config: WHOLE)
    assert measure_on(running(TP4), containers, tmp_path, running="beside")["node0"]["faults"] == []
    assert containers.started


def test_a_host_that_is_lost_ends_the_test_for_all(tmp_path: Path) -> None:
    def says(host: str, config: dict[str, Any]) -> dict[str, Any]:
        if host == "node2" and config["world"] == 4:
            raise AnsibleConnectionFailure("Connection reset by peer")
        return dict(WHOLE)

    containers = Containers(says)
    found = measure_on(World(TP4), containers, tmp_path)
    assert "The connection said: Connection reset by peer." in found["node2"]["raised"]
    assert "node2: AnsibleConnectionFailure: node2 has not answered since " in found["node0"]["msg"]
    assert (
        "gave no answer" not in found["node0"]["msg"]
    )  # nobody waits for one that has ended, whatever round it was in
    assert containers.there == {}
    assert max(each["config"]["world"] for each in containers.started) == 4


def test_polls_that_are_lost_are_forgiven_and_a_container_that_was_not_removed_is_none_of_its_results(
    tmp_path: Path,
) -> None:
    containers, lost = Containers(lambda host, config: WHOLE), [0]

    def module(host: str, given: dict[str, Any]) -> dict[str, Any]:
        if host == "node2" and given["state"] != "started" and lost[0] < LOST:
            lost[0] += 1
            raise AnsibleConnectionFailure("Connection reset by peer")
        if host == "node1" and given["state"] == "removed":
            raise AnsibleConnectionFailure("Connection reset by peer")
        return containers.module(host, given)

    looked_at(World(TP4))
    found = on_hosts(World(TP4), link_test, {"folder": str(tmp_path)}, module)
    assert found["node0"]["faults"] == []
    assert lost == [LOST]
    assert {each.partition("/")[0] for each in containers.there} == {"node1"}


def test_slow_is_a_warning_and_strictly_a_failure(tmp_path: Path) -> None:
    slow = json.loads(json.dumps(WHOLE))
    for rank in slow["ranks"]:
        for row in rank["rows"]:
            row["seconds"] *= 10

    def says(host: str, __: dict[str, Any]) -> dict[str, Any]:
        return dict(slow if host == "node3" else WHOLE)

    found = measure_on(World(TP4), Containers(says), tmp_path)["node0"]
    assert "failed" not in found
    assert any(line.startswith("node3 is slow with every other host") for line in found["warned"])
    assert measure_on(World(TP4), Containers(says), tmp_path, strict=True)["node0"]["failed"]


@pytest.mark.parametrize("plan", [bound(nodes(1, plan_gpus=1))])
def test_one_gpu_has_no_link(plan: Plan, tmp_path: Path) -> None:
    assert (
        "nothing to measure"
        in measure_on(World(plan), Containers(lambda host, config: WHOLE), tmp_path)["node0"]["msg"]
    )
