# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a supervised container says of its engine's starts (programs/starts.py), read.

Pure, standard library, Python 3.9. Times are seconds since 1970, on the host's own clock.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Start:
    """One start: ``why`` it was made, after how many seconds each endpoint of the host had given a token, and how it ended.

    ``log`` is the file, beside that of the starts, with the end of what it printed.
    """

    at: float
    why: str
    ready_s: float | None = None
    ended: str | None = None
    log: str = ""


@dataclasses.dataclass(frozen=True)
class Healing:
    """The starts of one container's engine, the oldest first; ``gave_up`` is why there are no more.

    ``directory`` is the one on the host that has the logs of those that ended.
    """

    starts: list[Start]
    gave_up: str = ""
    directory: str = ""

    @property
    def mark(self) -> str:
        """Another one after each start."""
        return f"{self.starts[-1].at:.1f}" if self.starts else ""

    def told(self, name: str) -> str:
        """For a person; empty where the engine runs as it was first started."""
        log = next((each.log for each in reversed(self.starts) if each.log), "")
        kept = f"; the end of the former start's log: {self.directory}/{log}" if log else ""
        if self.gave_up:
            return f"{name} GAVE UP: {self.gave_up}. It stays down until a deploy starts it{kept}"
        if len(self.starts) < 2:
            return ""
        last = self.starts[-1]
        times = "once" if len(self.starts) == 2 else f"{len(self.starts) - 1} times"
        when = datetime.datetime.fromtimestamp(last.at, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        back = (
            f"tokens after {last.ready_s:.0f} s"
            if last.ready_s is not None
            else f"ended: {last.ended}"
            if last.ended
            else "no token yet"
        )
        return f"{name} was started again {times} by itself, last at {when}, for {last.why}; {back}{kept}"


def healing(events: Sequence[Event]) -> Healing:
    """The starts since the container was made, out of the lines of its file."""
    starts: list[Start] = []
    gave_up = ""
    for event in events:
        at, why = float(event.get("at") or 0.0), str(event.get("why") or "no reason")
        if event.get("event") == "start":
            starts = [*([] if event.get("new") else starts), Start(at, why)]
            gave_up = ""
        elif event.get("event") == "gave up":
            gave_up = why
        elif starts and event.get("event") == "proven":
            starts[-1] = dataclasses.replace(starts[-1], ready_s=at - starts[-1].at)
        elif starts and event.get("event") == "end":
            starts[-1] = dataclasses.replace(starts[-1], ended=why, log=str(event.get("log") or ""))
    return Healing(starts, gave_up)
