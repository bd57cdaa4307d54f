# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that takes long tells the lock that its run lives, from the host that has it, and not too often."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.keeping import KEEP_S, LOCK, Keeper, keep


class Host:
    """What is asked of the host, and its answer; and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.asked, self.answer = 0.0, list[dict[str, Any]](), dict[str, Any]()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def execute(self, module: str, given: dict[str, Any]) -> dict[str, Any]:
        assert module == LOCK
        self.asked.append(given)
        return self.answer


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    return Host(monkeypatch)


def test_it_is_kept_once_a_minute_from_the_host_that_has_it(host: Host) -> None:
    keep("node0", {"path": "/x/lock.json", "state": "taken", "gone": "another"})
    keeper, other = Keeper("node0"), Keeper("node1")
    for second in range(int(2 * KEEP_S) + 1):
        host.now = float(second)
        assert keeper.refused(host.execute) == other.refused(host.execute) == ""
    assert host.asked == 2 * [{"path": "/x/lock.json", "state": "kept", "gone": ""}]


def test_a_lock_that_was_lost_is_a_reason_to_stop(host: Host) -> None:
    keep("node0", {"path": "/x/lock.json"})
    keeper, host.now = Keeper("node0"), KEEP_S
    host.answer = {"failed": True, "msg": "it was taken over by other.yml"}
    assert keeper.refused(host.execute) == "it was taken over by other.yml"
    host.now, host.answer = 2 * KEEP_S, {"refused": "lost"}
    assert keeper.refused(host.execute) == "the lock was lost"


def test_where_the_connection_fails_the_next_poll_keeps_it(host: Host) -> None:
    keep("node0", {"path": "/x/lock.json"})
    keeper, host.now = Keeper("node0"), KEEP_S

    def broken(*_: Any) -> dict[str, Any]:
        raise AnsibleConnectionFailure("Connection reset")

    with pytest.raises(AnsibleConnectionFailure):
        keeper.refused(broken)
    assert keeper.refused(lambda *_: {"unreachable": True, "msg": "Connection reset"}) == ""
    assert keeper.refused(host.execute) == keeper.refused(host.execute) == ""
    assert len(host.asked) == 1


def test_a_poll_comes_after_the_lock_or_not_at_all(host: Host) -> None:
    keep("node0", {"path": "/x/lock.json"})
    keeper, polls = Keeper("node0"), list[str]()

    def poll() -> dict[str, Any]:
        polls.append("asked")
        return {"running": True}

    assert keeper.first(host.execute, poll) == {"running": True}
    host.now, host.answer = KEEP_S, {"failed": True, "msg": "it was taken over by other.yml"}
    assert keeper.first(host.execute, poll) == host.answer
    assert polls == ["asked"]


def test_a_run_without_a_lock_keeps_none(host: Host) -> None:
    keep("node0", {"path": "/x/lock.json"})
    keep("node0", None)  # as after its release
    keeper, host.now = Keeper("node0"), 10 * KEEP_S
    assert keeper.refused(host.execute) == ""
    assert host.asked == []
