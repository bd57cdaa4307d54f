# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which polls are forgiven, what is said of a host that is lost, and what is shown of one that answers.

Actions that poll have their own tests in tests/unit/plugins/action; test_ssh_loses_polls.py there has a real connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import polling
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST, Polls, Progress, attempt

Poll = Callable[[], dict[str, Any]]


def polls() -> Polls:
    return Polls("node1", "how far the warm-up is", "Its container ends itself.")


def answers(*said: str | None) -> Poll:
    """A poll that has these answers in turn; None is one that the connection loses."""
    left = list(said)

    def poll() -> dict[str, Any]:
        answer = left.pop(0)
        if answer is None:
            raise AnsibleConnectionFailure("Connection reset by peer.\n")
        return {"said": answer}

    return poll


def follow(poll: Poll) -> dict[str, Any]:
    """Until "end" is said; a text before a colon is the stage."""
    return polls().follow(
        poll,
        lambda outcome, _: Progress(outcome["said"].partition(":")[0], outcome["said"]),
        lambda outcome, _: dict(outcome) if outcome["said"] == "end" else None,
        0.001,
    )


def test_every_answer_begins_the_count_anew() -> None:
    poll = answers(*[None] * LOST, "a", *[None] * LOST, "b", *[None] * LOST, "end", *[None] * (LOST + 1))
    assert follow(poll) == {"said": "end"}
    with pytest.raises(AnsibleConnectionFailure):
        follow(poll)


def test_a_connection_plugin_that_returns_it_instead_is_treated_alike() -> None:
    each = polls()
    for __ in range(LOST):
        assert each.outcome(lambda: {"unreachable": True, "msg": "timed out"}) is None
    with pytest.raises(AnsibleConnectionFailure, match="timed out"):
        each.outcome(lambda: {"unreachable": True, "msg": "timed out"})


def test_the_message_has_the_host_the_question_the_time_the_job_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    each = polls()
    each.outcome(answers("a"))
    now[0] += 42
    lost = answers(*[None] * (LOST + 1))
    assert [each.outcome(lost) for __ in range(LOST)] == [None] * LOST
    with pytest.raises(AnsibleConnectionFailure) as told:
        each.outcome(lost)
    assert re.sub(r"\d\d:\d\d:\d\d", "TIME", str(told.value)) == (
        "node1 has not answered since TIME (42 s, 6 polls in a row) when asked how far the warm-up is. The connection said: "
        "Connection reset by peer. Its container ends itself. See that the host is up and that SSH reaches it "
        "(ansible node1 -m ping), then run again."
    )


def test_what_fails_on_the_host_is_an_answer_and_ends_it() -> None:
    assert follow(lambda: {"failed": True, "msg": "no Docker"}) == {"failed": True, "msg": "no Docker"}


def test_what_is_neither_an_answer_nor_a_lost_poll_is_raised() -> None:
    def poll() -> dict[str, Any]:
        raise KeyError("events")

    with pytest.raises(KeyError):
        follow(poll)
    with pytest.raises(KeyError):
        attempt(poll)


def test_a_stage_is_told_at_once_and_the_rest_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["copy: 1", "copy: 2", "check: 1", "check: 1", "end"]
    follow(answers(*said))
    assert capsys.readouterr().out.splitlines() == ["copy: 1", "check: 1", "end"]
    monkeypatch.setattr(polling, "TELL_S", 0.0)
    follow(answers(*said))
    assert capsys.readouterr().out.splitlines() == ["copy: 1", "copy: 2", "check: 1", "end"]
