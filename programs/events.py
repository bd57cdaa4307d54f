# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program in a container says of itself: events, each a line of JSON on stdout, {"event": KIND, ...}."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def emit(event: Mapping[str, Any]) -> None:
    """Write an event to stdout as one line; its first key is ``event``, its kind."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
