# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program in a container said of itself: events, each a line of JSON on stdout, {"event": KIND, ...}."""

from __future__ import annotations

import contextlib
import json
from typing import Any

BEGINNING = '{"event": "'


def last_events(log: str) -> dict[str, dict[str, Any]]:
    """The last event of each kind, in what the program and anything else in its image wrote to stdout."""
    found: dict[str, dict[str, Any]] = {}
    for line in log.splitlines():
        start = line.find(BEGINNING)
        if start >= 0:
            with contextlib.suppress(ValueError):  # a line that is still being written
                event = json.loads(line[start:])
                found[event["event"]] = event
    return found
