# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull is followed to its end: through polls that are lost, to a failure that says what to do.

tests/unit/playbooks/test_image_role.py runs it whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import image_pull
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._pull import Progress
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import detached
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import on_hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.module_utils.test_pull import CLASSIC, REFERENCE
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World

PROCESS = {"pid": 4711, "started": "1"}
Answer = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "POLL_S", 0.001)


def polled(lines: int, **result: Any) -> dict[str, Any]:
    progress = Progress()
    for each in CLASSIC[:lines]:
        progress.see(each)
    whole = {"ok": False, "image": None, "error": "", **result} if result else None
    return {"summary": progress.summary(time.monotonic()), "result": whole}


def pull(
    poll: Answer, before: str | None = None, free: int | None = None, **arguments: Any
) -> tuple[dict[str, Any], list[str]]:
    """The result on one host whose polls are answered by ``poll``, and the states that were asked for."""
    states: list[str] = []

    def execute(host: str, asked: dict[str, Any]) -> dict[str, Any]:
        if host != "node0":
            return {"before": "sha256:aa", "process": None}
        states.append(asked["state"])
        if asked["state"] == "started":
            return {"before": before, "process": PROCESS, "root": {"path": "/var/lib/docker", "free_bytes": free}}
        return poll(asked) if asked["state"] == "polled" else {}

    given = {"name": REFERENCE, "state_dir": "/var/lib/lmfleet", **arguments}
    return on_hosts(World(plan_of(nodes())), image_pull, given, execute)["node0"], states


def test_it_changes_what_was_not_there() -> None:
    assert pull(lambda _: polled(19, ok=True, image="sha256:aa"))[0]["changed"] is True
    assert (
        pull(lambda _: polled(3, ok=True, image="sha256:aa"), before="sha256:aa", pull="always")[0]["changed"] is False
    )


@pytest.mark.parametrize(
    ("error", "word", "transient"),
    [
        ("manifest unknown: manifest unknown", "correct plan_image", False),
        ("Get https://registry-1.docker.io/v2/: net/http: TLS handshake timeout", "image_archive", True),
        ("write /x: no space left on device", "docker system df", False),
    ],
)
def test_a_failure_says_what_to_do_and_whether_to_try_again(error: str, word: str, transient: bool) -> None:
    result, states = pull(lambda _: polled(5, error=error))
    assert result["failed"]
    assert word in result["msg"]
    assert result["transient"] is transient
    assert states == ["started", "polled", "removed"]


def test_a_registry_that_falls_silent_is_given_up_and_asked_again() -> None:
    result, states = pull(lambda _: polled(7), stall=0.05)
    assert "Docker got nothing for" in result["msg"]
    assert result["transient"] is True
    assert states[-1] == "removed"


def test_an_image_that_cannot_fit_is_given_up_as_soon_as_that_is_certain() -> None:
    result, states = pull(lambda _: polled(8), free=39_000_000)  # the layers' sizes, 40 MB, are known by then
    assert "/var/lib/docker had 0.0 GB free" in result["msg"]
    assert "docker system df" in result["msg"]
    assert result["transient"] is False
    assert states[-1] == "removed"
    answers = [polled(8), polled(19, ok=True, image="sha256:aa")]
    assert pull(lambda _: answers.pop(0), free=40_000_000)[0]["changed"] is True


def test_lost_polls_are_forgiven_and_a_lost_host_is_unreachable() -> None:
    left = [1, 1, 1]

    def comes_back(__: dict[str, Any]) -> dict[str, Any]:
        if left:
            left.pop()
            raise AnsibleConnectionFailure("Connection reset")
        return polled(19, ok=True, image="sha256:aa")

    assert pull(comes_back)[0]["changed"] is True
    result, states = pull(lambda _: {"unreachable": True, "msg": "Connection timed out"})
    assert "AnsibleConnectionFailure" in result["raised"]
    assert "node0 has not answered since " in result["raised"]
    assert f"how far the pull of {REFERENCE} is" in result["raised"]
    assert states == ["started", *["polled"] * (LOST + 1), "removed"]


def test_a_digest_from_a_mirror_is_refused_before_anything_is_begun() -> None:
    result, states = pull(lambda _: {}, name=f"a/b@sha256:{'0' * 64}", mirror="m.example.com")
    assert "image_mirror" in result["msg"]
    assert states == []
