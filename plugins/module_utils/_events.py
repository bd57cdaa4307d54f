# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program in a container says of itself: events, each a line of JSON on stdout, {"event": KIND, ...}."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

BEGINNING = '{"event": "'


def emit(event: Mapping[str, Any]) -> None:
    """Write an event to stdout as one line; its first key is ``event``, its kind."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


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
