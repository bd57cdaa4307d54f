# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drain is followed to its end through polls that are lost; what ends one is in plugin_utils/test_draining.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import drain
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import GONE
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Decision, Round
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at, on_hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound

URL = "http://10.0.0.10:23333"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    monkeypatch.setattr(drain, "ROUND_S", 0.001)


def drained(poll: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the task gives on the head, where the proxy keeps new requests from the engine, and then ``poll`` answers."""
    world = World(bound(nodes(plan_proxy=True)))
    looked_at(world).keep_decision(Decision([Round(["lmdeploy"], [], [], drain=[URL])], [], [], {}))

    def execute(host: str, given: dict[str, Any]) -> dict[str, Any]:
        if host != "node0":
            return {"refused": "only the head is asked"}
        return {"refused": "", "ranks": {}} if given.get("aside") else poll()

    return on_hosts(world, drain, {}, execute)["node0"]


def test_polls_that_are_lost_are_forgiven() -> None:
    left = [LOST]

    def poll() -> dict[str, Any]:
        left[0] -= 1
        if left[0] >= 0:
            raise AnsibleConnectionFailure("Connection reset")
        return {"refused": "", "ranks": {URL: {"error": GONE}}}

    result = drained(poll)
    assert (result["changed"], result["msg"]) == (True, GONE)


def test_a_lost_host_s_message_says_how_the_engine_was_left() -> None:
    def poll() -> dict[str, Any]:
        raise AnsibleConnectionFailure("Connection reset")

    raised = drained(poll)["raised"]
    assert "node0 has not answered since " in raised
    assert "lmdeploy was not stopped; the proxy sends it no new requests." in raised


def test_what_fails_there_ends_it() -> None:
    assert drained(lambda: {"failed": True, "msg": "no Python"}) == {
        "failed": True,
        "changed": True,
        "msg": "no Python",
    }
