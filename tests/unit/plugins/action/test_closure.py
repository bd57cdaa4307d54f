# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The closure as it runs: real connections over loopback, whose addresses stand for hosts."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import closure
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _sockets
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, running

JOBS = {"image_share_port": 8731, "model_port": 8730}


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


def here(address: str) -> str:
    """The address of loopback that stands for a host's."""
    return address.replace("10.0.0.", "127.0.0.")


def module(given: dict[str, Any]) -> dict[str, Any]:
    """What M(sockets) does on the host that tries, which is no node: what it connects from is 127.0.0.1."""
    pairs = [each.rpartition(":") for each in given["targets"]]
    outcomes = _sockets.connect([(here(address), int(port)) for address, __, port in pairs], given["timeout"])
    return {"outcomes": outcomes, "sources": {address: "192.0.2.1" for address, __, __ in pairs}}


def act(execute: Any = module, **arguments: Any) -> dict[str, Any]:
    task = SimpleNamespace(args={**JOBS, **arguments}, check_mode=True, async_val=0, _uuid="task", action="x")
    action = closure.ActionModule.__new__(closure.ActionModule)
    action._task, action._connection = task, SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
    action._execute_module = lambda module_name, module_args, **_: execute(module_args)
    hostvars = {"node0": {"ansible_host": "10.0.0.10"}, "node1": {}}
    result: dict[str, Any] = action.run(task_vars={"inventory_hostname": "node0", "hostvars": hostvars})
    return result


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def world() -> World:
    """Two hosts whose public port and Ray's are where nothing listens; no worker does."""
    found = running(bound(nodes(plan_ports={"api": free_port("127.0.0.10"), "ray": free_port("127.0.0.10")})))
    looked_at(found)
    return found


def test_what_answers_is_found_by_connecting_and_written_for_programs(world: World, tmp_path: Path) -> None:
    api, ray = world.plan.ports.api, world.plan.ports.ray
    file = tmp_path / "closure.json"
    with socket.create_server(("127.0.0.10", api)):
        assert act(state="tried", name="localhost")["tried"] > 20
        good = act(state="judged", file=str(file))
        assert "failed" not in good
        assert json.loads(file.read_text(encoding="utf-8"))["open"] == []
        with socket.create_server(("127.0.0.10", ray)):
            act(state="tried", name="localhost")
    bad = act(state="judged", file=str(file))
    assert bad["failed"]
    assert f"Ray's GCS (plan_ports.ray) answers to localhost, and should not: node0 port {ray}" in bad["msg"]
    assert bad["msg"].count("\n  - ") == 1
    [opened] = json.loads(file.read_text(encoding="utf-8"))["open"]
    assert (opened["node"], opened["port"], opened["from"]) == ("node0", ray, "localhost")


@pytest.mark.usefixtures("world")
def test_a_host_that_cannot_be_reached_to_try_is_told() -> None:
    def lost(*__: Any) -> dict[str, Any]:
        raise AnsibleConnectionFailure("Permission denied (publickey).")

    act(lost, state="tried", name="bastion")
    assert "bastion could try nothing: Permission denied (publickey)." in act(state="judged")["msg"]
