# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file systems under paths. Each has an end: one of a server that is gone hangs whoever asks."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import parallel
from .files import text_of

SECONDS = 10.0
Mounted = tuple[str, str, str]  # where, type, device


def disks(paths: Iterable[str], seconds: float = SECONDS) -> dict[str, dict[str, Any] | None]:
    """Path -> the file system that it is on, or will be on once it is made; None where it does not answer."""
    mounted = mounts(text_of(Path("/proc/self/mountinfo")) or "")
    ends = time.monotonic() + seconds
    started = {path: parallel.start(disk, path, mounted) for path in dict.fromkeys(paths)}
    return {path: _by(ends, future) for path, future in started.items()}


def _by(ends: float, future: Any) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = parallel.by(ends, future)
    except (OSError, parallel.Late):
        return None
    return found


def disk(path: str, mounted: Sequence[Mounted]) -> dict[str, Any]:
    """``{"device", "type", "total_bytes", "free_bytes", "free_inodes", "writable"}``. Raises OSError.

    ``free_*`` is what a user other than root gets; ``free_inodes`` is None on file systems that do not count them.
    """
    place = os.path.realpath(path)
    while not os.path.exists(place) and place != "/":  # noqa: PTH110
        place = os.path.dirname(place)  # noqa: PTH120
    found = os.statvfs(place)
    device, kind = on(place, mounted)
    return {
        "device": device,
        "type": kind,
        "total_bytes": found.f_blocks * found.f_frsize,
        "free_bytes": found.f_bavail * found.f_frsize,
        "free_inodes": found.f_favail if found.f_files else None,
        "writable": os.access(place, os.W_OK | os.X_OK) and not found.f_flag & os.ST_RDONLY,
    }


def mounts(text: str) -> list[Mounted]:
    """Out of a text of /proc/self/mountinfo; of two at one place the later one is seen."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, source = before.split(" "), after.split(" ")
        if dash and len(fields) > 4 and len(source) > 1:
            found.append((_unescaped(fields[4]), source[0], _unescaped(source[1])))
    return found


def on(place: str, mounted: Sequence[Mounted]) -> tuple[str | None, str | None]:
    """Device and type of the file system that a real path is on."""
    over = [each for each in mounted if f"{place.rstrip('/')}/".startswith(f"{each[0].rstrip('/')}/")]
    best = max(enumerate(over), key=lambda entry: (len(entry[1][0]), entry[0]), default=None)
    return (best[1][2], best[1][1]) if best else (None, None)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
