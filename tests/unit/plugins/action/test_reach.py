# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of links as it runs: every host a thread, its module a process, its address one of loopback's."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import reach
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at, on_hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, running

COLLECTIONS = {"PYTHONPATH": str(Path(__file__).parents[4] / "collections")}
CALL = "import json, sys; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _processes, _sockets as s; "
Change = Callable[[str, dict[str, Any], dict[str, Any]], dict[str, Any]]


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


@pytest.fixture
def plan() -> Plan:
    """A plan of two hosts at addresses of loopback, its ports moved to where nothing listens."""
    with contextlib.ExitStack() as all_at_once:
        probes = [all_at_once.enter_context(socket.create_server(("127.0.0.10", 0))) for __ in range(14)]
        found = [probe.getsockname()[1] for probe in probes]
    names = ["api", "proxy", "torch", "ray", "ray_node_manager", "ray_object_manager", "ray_runtime_env_agent"]
    names += ["ray_metrics", "ray_dashboard", "ray_dashboard_agent", "ray_dashboard_agent_grpc"]
    # Those of Ray's workers too, for another process of the tests may be at it: a range of two, with none of the others in it.
    first = next(port for port in found[len(names) :] if port + 1 not in found and _is_free(port + 1))
    workers = {"ray_worker_first": first, "ray_worker_last": first + 1}
    return bound(nodes(plan_gpus=1, plan_tp=2, plan_ports={**dict(zip(names, found)), **workers}))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.10", port)).close()
    except OSError:
        return False
    return True


def here(address: str) -> str:
    """The address of loopback that stands for a host's."""
    return address.replace("10.0.0.", "127.0.0.")


def module(given: dict[str, Any]) -> dict[str, Any]:
    """What M(sockets) does, in a process that ends while its listener stays."""
    if given["state"] == "listening":
        call = f"s.listen({here(given['address'])!r}, {given['ports']}, {given['others']}, {given['seconds']})"
    elif given["state"] == "connected":
        pairs = [(here(each.rpartition(":")[0]), int(each.rpartition(":")[2])) for each in given["targets"]]
        call = f"{{'outcomes': s.connect({pairs}, {given['timeout']})}}"
    else:
        call = f"{{'was_there': _processes.stop({given['process']})}}"
    argv = [sys.executable, "-c", f"{CALL}print(json.dumps({call}))"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=COLLECTIONS)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tried(
    world: World, change: Change = lambda host, given, answer: answer, **arguments: Any
) -> dict[str, dict[str, Any]]:
    """What the task gives on each host, all at once; ``change`` makes another answer of a module's."""
    looked_at(world).keep_decision(world.decide())
    return on_hosts(world, reach, arguments, lambda host, given: change(host, given, module(given)))


def test_open_hosts_are_proven_and_nothing_is_left_listening(plan: Plan) -> None:
    found = tried(World(plan))
    assert found["node0"]["msg"] == "20 links between 2 hosts are open"
    assert found["node0"]["closed"] == []
    assert "failed" not in found["node1"]
    for node in plan.nodes:
        for port in (plan.ports.ray, plan.ports.torch, plan.ports.ray_worker_first):
            with socket.create_server((here(node.address), port)):
                pass


def test_a_closed_link_is_named_by_hosts_and_port_on_one_host_alone(plan: Plan) -> None:
    closed = f"10.0.0.10:{plan.ports.ray}"

    def firewall(host: str, given: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if given["state"] == "connected" and host == "node1":
            pairs = zip(given["targets"], answer["outcomes"])
            return {"outcomes": ["timeout" if target == closed else outcome for target, outcome in pairs]}
        return answer

    found = tried(World(plan), firewall)
    assert found["node0"]["failed"]
    assert (
        f"node1 cannot reach node0 (10.0.0.10) on TCP {plan.ports.ray} (plan_ports.ray): timed out"
        in found["node0"]["msg"]
    )
    assert found["node0"]["msg"].count("\n  - ") == 1
    assert "failed" not in found["node1"]


def test_an_unchanged_run_asks_no_host(plan: Plan) -> None:
    def never(*asked: Any) -> dict[str, Any]:
        raise AssertionError(f"{asked} was asked")

    assert {each["links"] for each in tried(running(plan), never).values()} == {0}


def test_what_a_deployment_that_runs_has_not_taken_is_left_to_it(plan: Plan) -> None:
    """Only the kernel's choice is listened on; a service's port is tried where it has taken it."""
    with socket.create_server(("127.0.0.10", plan.ports.ray)):
        found = tried(running(plan), all=True)
    assert found["node0"]["msg"] == "3 links between 2 hosts are open"


def test_a_host_that_is_lost_meanwhile_is_named_and_nobody_waits_for_it(plan: Plan) -> None:
    def lost(host: str, given: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if host == "node1" and given["state"] == "connected":
            raise AnsibleConnectionFailure("Connection reset by peer")
        return answer

    found = tried(World(plan), lost)
    assert "Connection reset by peer" in found["node1"]["raised"]
    assert "node1: AnsibleConnectionFailure: Connection reset by peer" in found["node0"]["msg"]
    assert Run().every("stopped") == {"node0": True, "node1": True}


def test_a_listener_that_was_gone_makes_no_fault_of_what_was_refused(plan: Plan) -> None:
    def killed(host: str, given: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if host == "node1" and given["state"] == "connected":
            return {"outcomes": ["refused" for __ in answer["outcomes"]]}
        if host == "node0" and given["state"] == "closed":
            return {"was_there": False}
        return answer

    assert tried(World(plan), killed)["node0"]["closed"] == []


def test_check_mode_leaves_the_ports_to_a_run_that_is_at_work(plan: Plan) -> None:
    world = World(plan)
    lock = {"released": "", "boot": "1", "expires_uptime": 2000.0}
    world.answers["node0"]["lock"] = lock
    run = Run()
    run.keep_plan(plan)
    run.saw("node0", world.answers["node0"])
    assert reach._another_runs(run, plan)
    world.answers["node0"]["lock"] = {**lock, "released": "2026-11-24T22:25:00Z"}
    run.saw("node0", world.answers["node0"])
    assert not reach._another_runs(run, plan)
