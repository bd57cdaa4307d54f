# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a host again and again how far something is, and forgives polls that its connection loses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ansible.errors import AnsibleConnectionFailure

from .leaving import tell

FIRST_POLL_S = 0.5  # a warm-up may take a second
TELL_S = 10.0
LOST = 5  # polls in a row that are forgiven, as where SSH is cut off for a moment

Outcome = dict[str, Any]


class Progress(NamedTuple):
    """What is shown of a job: when its stage is another one, and else every ``TELL_S`` where the text is another one."""

    stage: str
    text: str


def attempt(step: Callable[[], Outcome]) -> Outcome:
    """A step's outcome; ``unreachable`` with ``msg`` where the connection failed, which Ansible raises for SSH."""
    try:
        return step()
    except AnsibleConnectionFailure as error:
        return {"unreachable": True, "msg": str(error)}


class Polls:
    """All polls of one job on one host.

    ``asked`` says what the host is asked ("how far the warm-up is"), ``meanwhile``, in a sentence, what becomes of the job
    while nobody asks.
    """

    def __init__(self, host: str, asked: str, meanwhile: str) -> None:
        self._host, self._asked, self._meanwhile = host, asked, meanwhile
        self._lost, self._answered = 0, time.time()

    def outcome(self, poll: Callable[[], Outcome]) -> Outcome | None:
        """A poll's outcome, also one that failed on the host; None for a poll that was lost, and is forgiven.

        Raises ``AnsibleConnectionFailure`` with what to do, where ``LOST`` polls before this one were lost too.
        """
        outcome = attempt(poll)
        if not outcome.get("unreachable"):
            self._lost, self._answered = 0, time.time()
            return outcome
        self._lost += 1
        if self._lost > LOST:
            raise AnsibleConnectionFailure(self._message(str(outcome.get("msg"))))
        return None

    def _message(self, why: str) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self._answered))
        return (
            f"{self._host} has not answered since {since} ({time.time() - self._answered:.0f} s, {self._lost} polls in a row) "
            f"when asked {self._asked}. The connection said: {why.strip().rstrip('.')}. {self._meanwhile} See that the host "
            f"is up and that SSH reaches it (ansible {self._host} -m ping), then run again."
        )

    def follow(
        self,
        poll: Callable[[], Outcome],
        progress: Callable[[Mapping[str, Any], float], Progress | None],
        end: Callable[[Mapping[str, Any], float], Outcome | None],
        poll_s: float,
    ) -> Outcome:
        """Poll at most every ``poll_s`` seconds, and show the progress, until a poll fails or ``end`` has a result.

        ``progress`` and ``end`` are given an answer, and the seconds since the first poll. Raises as ``outcome`` does.
        """
        began, told_s = time.monotonic(), 0.0
        told, pause_s = Progress("", ""), min(FIRST_POLL_S, poll_s)
        while True:
            outcome = self.outcome(poll)
            seconds = time.monotonic() - began
            if outcome is None:
                time.sleep(poll_s)  # not the short pause of the beginning: a connection needs a moment to come back
                continue
            if outcome.get("failed"):
                return outcome
            now = progress(outcome, seconds)
            if now and (now.stage != told.stage or (now.text != told.text and seconds - told_s >= TELL_S)):
                tell(now.text)
                told, told_s = now, seconds
            result = end(outcome, seconds)
            if result is not None:
                return result
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, poll_s)
