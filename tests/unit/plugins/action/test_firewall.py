# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of setting a firewall, and that nothing is kept unless a new connection came in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from ansible_collections.lmfleet.lmdeploy.plugins.action import firewall
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound

NOTHING = {"nft": True, "text": "", "there": False, "as_kept": False, "persistent": True, "ssh_ports": [2222]}


class OneHost:
    """A host whose module answers as it would, and an SSH to it; ``asked`` has what was done, in its order."""

    def __init__(self, *, check: bool = False, lost: bool = False, **seen: Any) -> None:
        self.seen, self.check, self.lost = {**NOTHING, **seen}, check, lost
        self.asked: list[str] = []
        self.text = ""

    def module(self, __: str, module_args: dict[str, Any], **___: Any) -> dict[str, Any]:
        self.asked.append(module_args["state"])
        self.text = module_args.get("text", self.text)
        assert module_args["table"] == "lmfleet_lmdeploy"
        assert module_args["folder"] == "/etc/lmfleet/lmdeploy"
        return {
            "looked": {"seen": self.seen},
            "applied": {"armed": {"unit": "back"}},
            "absent": {"changed": self.seen["there"]},
        }.get(module_args["state"], {})

    def reset(self) -> None:
        self.asked.append("reset")

    def command(self, *__: Any, **___: Any) -> None:
        self.asked.append("new connection")
        if self.lost:
            raise AnsibleConnectionFailure("Connection timed out")

    def act(self, **arguments: Any) -> dict[str, Any]:
        action = firewall.ActionModule.__new__(firewall.ActionModule)
        action._task = SimpleNamespace(args=arguments, check_mode=self.check, async_val=0, _uuid="task", action="x")
        shell = SimpleNamespace(tmpdir="/nowhere")
        action._connection = SimpleNamespace(_shell=shell, transport="ssh", reset=self.reset)
        action._execute_module = self.module
        action._low_level_execute_command = self.command
        result: dict[str, Any] = action.run(task_vars={"inventory_hostname": "node0", "ansible_port": 22})
        return result


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    found = World(bound(nodes()))
    looked_at(found)
    return found


def test_rules_are_kept_after_a_new_connection_came_in_and_the_second_time_nothing_is_done() -> None:
    host = OneHost()
    result = host.act()
    assert host.asked == ["looked", "applied", "reset", "new connection", "confirmed"]
    assert result["changed"]
    assert result["diff"]["after"] == host.text
    assert "tcp dport { 2222 } accept" in host.text  # the host's own port, whichever it is seen at from here
    again = OneHost(text=host.text, as_kept=True, there=True)
    assert again.act()["changed"] is False
    assert again.asked == ["looked"]
    assert OneHost(text=host.text, as_kept=False, there=True).act()["changed"] is True


def test_a_host_that_nobody_comes_into_again_is_told_and_keeps_nothing() -> None:
    host = OneHost(lost=True)
    with pytest.raises(AnsibleConnectionFailure) as told:
        host.act(rollback=45)
    assert "node0 (10.0.0.10): no new connection came in" in str(told.value)
    assert "takes the rules back by itself 45 s after" in str(told.value)
    assert "confirmed" not in host.asked


def test_check_mode_has_nft_read_the_rules_and_changes_nothing() -> None:
    host = OneHost(check=True)
    assert host.act()["changed"] is True
    assert host.asked == ["looked", "checked"]
    bare = OneHost(check=True, nft=False)
    assert bare.act()["changed"] is True
    assert bare.asked == ["looked"]


def test_a_host_without_nftables_is_told_what_to_install() -> None:
    assert OneHost(nft=False).act(state="looked") == {"changed": False, "nft": False}
    with pytest.raises(AnsibleError, match=r"node0 \(10.0.0.10\): nftables is not installed: apt-get install nftables"):
        OneHost(nft=False).act()


def test_nothing_is_set_where_a_host_was_not_seen(world: World) -> None:
    run = Run()
    run.keep_recorded(world.plan, {})  # as if nothing was seen yet
    run.saw("node0", world.answers["node0"])
    run.saw("node1", {"unreachable": "no route to it"})
    host = OneHost()
    result = host.act(trusted=["net"])
    assert result["failed"]
    assert "firewall_trusted: 'net'" in result["msg"]
    assert "node1 was not looked at (no route to it)" in result["msg"]
    assert host.asked == ["looked"]


def test_absent_says_what_goes() -> None:
    assert OneHost(there=True).act(state="absent") == {
        "changed": True,
        "diff": {"prepared": "- table inet lmfleet_lmdeploy\n"},
    }
    assert OneHost().act(state="absent")["changed"] is False
