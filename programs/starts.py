# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container keeps of its engine's starts: one line of JSON each, in a file that outlives the container.

``{"at": seconds since 1970, "event": start | proven | end | gave up, "why": ..., "new": the container's first, "log": the file
beside this one that has the end of what an engine printed that has ended, "formations": ..., "restarts": ...}``, the last two
being how many starts there were until then, by a deploy and by itself. M(observe) reads it for status and decisions. Only the
last ``KEPT`` lines stay. Beside it lies the same as metrics (``metrics``), in a file that node_exporter's textfile collector
reads.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..plugins.module_utils._files import READABLE, write

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
        now = {"at": round(self._clock(), 1), "event": event, "why": why, **more}
        now["formations"], now["restarts"] = counts([*self.events, now])
        self.events = [*self.events, now][-KEPT:]
        _write(self.path, "".join(json.dumps(each) + "\n" for each in self.events))
        _write(self.path.with_suffix(".prom"), metrics(self.path.stem, self.events))


def _write(path: Path, text: str) -> None:
    """In one step, readable by all, as node_exporter is another user."""
    with contextlib.suppress(OSError):
        write(path, text.encode(), READABLE)


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


def counts(events: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How often the engine was started by a deploy, and how often by itself. Events that are not kept any more count too."""
    formations = restarts = 0
    for event in events:
        told = event.get("formations"), event.get("restarts")
        if isinstance(told[0], int) and isinstance(told[1], int):
            formations, restarts = told[0], told[1]
        elif event["event"] == "start":
            formations, restarts = formations + bool(event.get("new")), restarts + (not event.get("new"))
    return formations, restarts


def metrics(service: str, events: Sequence[Mapping[str, Any]]) -> str:
    """The events of a service as Prometheus' text format; times are seconds.

    A start that has given no token yet has no ``ready_seconds``.
    """
    formations, restarts = counts(events)
    started = ready = None
    gave_up = False
    for event in events:
        at = event.get("at")
        if not isinstance(at, (int, float)):
            continue
        if event["event"] == "start":
            started, ready, gave_up = at, None, False
        elif event["event"] == "proven" and started is not None:
            ready = at - started
        elif event["event"] == "gave up":
            gave_up = True
    told = (
        ("formations_total", "counter", "Starts of the engine by a deploy.", formations),
        ("restarts_total", "counter", "Starts of the engine by itself.", restarts),
        ("gave_up", "gauge", "1: it stays down until a deploy starts it.", int(gave_up)),
        ("start_time_seconds", "gauge", "When the engine was started last, in seconds since 1970.", started),
        ("ready_seconds", "gauge", "From its last start to tokens from each endpoint of the host.", ready),
    )
    return "".join(
        f"# HELP lmfleet_engine_{name} {what}\n# TYPE lmfleet_engine_{name} {kind}\n"
        f'lmfleet_engine_{name}{{service="{service}"}} {value}\n'
        for name, kind, what, value in told
        if value is not None
    )
