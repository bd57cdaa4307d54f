# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container keeps of its engine's starts: one line of JSON each, in a file that outlives the container.

``{"at": seconds since 1970, "event": start | proven | end | gave up, "why": ..., "log": the file beside this one
that has the end of what an engine printed that has ended}``.
M(observe) reads it for status and decisions. Only the last ``KEPT`` lines stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEPT = 400


class Starts:
    """The file of one service, and how many of its starts gave no token since the last one that did."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        self.events = read(path)

    @property
    def unproven(self) -> int:
        """Starts since the last token, or since the container was made, whichever was later."""
        count = 0
        for event in reversed(self.events):
            if event["event"] == "proven" or event.get("new"):
                return count + bool(event.get("new"))
            count += event["event"] == "start"
        return count

    @property
    def proven_here(self) -> bool:
        """Whether there was a token since the container was made."""
        for event in reversed(self.events):
            if event["event"] == "proven":
                return True
            if event.get("new"):
                return False
        return False

    @property
    def has_ended(self) -> bool:
        """Whether an end is what was noted last."""
        return bool(self.events) and self.events[-1]["event"] == "end"

    def note(self, event: str, why: str, **more: Any) -> None:
        """Add a line. A disk that is full ends no engine: then it is only said nowhere."""
        self.events = [*self.events, {"at": round(self._clock(), 1), "event": event, "why": why, **more}][-KEPT:]
        whole = "".join(json.dumps(each) + "\n" for each in self.events)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            try:
                beside.write_text(whole, encoding="utf-8")
                beside.replace(self.path)
            finally:
                beside.unlink(missing_ok=True)


def read(path: Path) -> list[dict[str, Any]]:
    """The events in a file; lines that are none are left out, and so is all of a file that cannot be read."""
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    found.append(event)
    return found
