# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each host does its part of the chain, to a failure that says what to do.

tests/unit/playbooks/test_image_role.py runs it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import image_share
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import detached
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.images import share_line
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import on_hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World

REFERENCE = "openmmlab/lmdeploy:v0.18.0-cu12.8"
PROCESS = {"pid": 4711, "started": "1"}
SUMMARY = {"stage": "copies", "got": 3_200_000_000, "size": 8_100_000_000, "rate": 85e6, "left_s": 58}
Answer = Callable[[str], dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detached, "POLL_S", 0.001)
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(tmp_path / "run"))


def ended(**result: Any) -> dict[str, Any]:
    return {"summary": SUMMARY, "result": {"ok": False, "image": None, "error": "", **result}}


def shared(poll: Answer, name: str = REFERENCE) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The results of four hosts, of which the last one is not in the chain, and what was asked of each."""
    asked: dict[str, list[dict[str, Any]]] = {}

    def execute(host: str, given: dict[str, Any]) -> dict[str, Any]:
        asked.setdefault(host, []).append(given)
        if given["state"] == "started":
            return {"before": "sha256:aa" if host == "node0" else None, "process": PROCESS}
        return poll(host) if given["state"] == "polled" else {}

    chain = [{"name": f"node{n}", "address": f"10.0.0.1{n}"} for n in range(3)]
    arguments = {"name": name, "chain": chain, "state_dir": "/var/lib/lmfleet"}
    return on_hosts(World(plan_of(nodes(4, plan_topology="dpep"))), image_share, arguments, execute), asked


def test_each_takes_it_from_the_one_before_and_gives_it_to_the_one_behind() -> None:
    found, asked = shared(lambda _: ended(ok=True, image="sha256:aa"))
    assert [found[f"node{n}"].get("changed") for n in range(4)] == [False, True, True, False]
    assert found["node3"]["skipped"]
    assert "node3" not in asked
    begun = [asked[f"node{n}"][0] for n in range(3)]
    assert [(each["before"], each["address"]) for each in begun] == [
        ("", "10.0.0.10"),
        ("10.0.0.10", "10.0.0.11"),
        ("10.0.0.11", ""),
    ]
    [key] = {each["key"] for each in begun}
    assert key == Run().secret("image_share")
    assert len(key) == 64
    assert Run().secret("another") != key
    assert {tuple(step["state"] for step in steps) for steps in asked.values()} == {("started", "polled", "removed")}


def test_a_failure_says_what_to_do_and_leaves_nothing_behind() -> None:
    found, asked = shared(
        lambda host: ended(error="no space left on device") if host == "node1" else ended(ok=True, image="sha256:aa")
    )
    assert found["node1"]["failed"]
    assert "no space left on device. Run again: " in found["node1"]["msg"]
    assert not found["node2"].get("failed")
    assert asked["node1"][-1]["state"] == "removed"


def test_lost_polls_are_forgiven_and_a_lost_host_is_unreachable() -> None:
    left = {f"node{n}": 3 for n in range(3)}

    def comes_back(host: str) -> dict[str, Any]:
        left[host] -= 1
        if left[host] >= 0:
            raise AnsibleConnectionFailure("Connection reset")
        return ended(ok=True, image="sha256:aa")

    assert shared(comes_back)[0]["node2"]["changed"] is True
    found, asked = shared(lambda _: {"unreachable": True, "msg": "Connection timed out"})
    assert "node2 has not answered since " in found["node2"]["raised"]
    assert f"how far the transfer of {REFERENCE} is" in found["node2"]["raised"]
    assert len([each for each in asked["node2"] if each["state"] == "polled"]) == LOST + 1


def test_a_digest_is_refused_before_anything_is_begun() -> None:
    found, asked = shared(lambda _: {}, f"a/b@sha256:{'0' * 64}")
    assert "set plan_image to a tag, or leave image_share out" in found["node1"]["msg"]
    assert asked == {}


def test_how_far_it_is_in_words() -> None:
    assert share_line(SUMMARY) == "copies 3.2 of about 8.1 GB, 85 MB/s, 58 s left"
    assert share_line({**SUMMARY, "left_s": 600}) == "copies 3.2 of about 8.1 GB, 85 MB/s, 10 min left"
    assert share_line({**SUMMARY, "rate": 0.0, "left_s": None}) == "copies 3.2 of about 8.1 GB"
    assert share_line({**SUMMARY, "stage": "loads", "got": 8_000_000_000}) == "loads 8.0 GB"
