# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of this host: those of a name, and in which container one runs."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .files import text_of

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
PROC = Path("/proc")


def who(process: Path) -> dict[str, Any]:
    """``{"pid", "command", "container"}`` of /proc/PID; ``container`` is the id of its container, or empty. Raises OSError."""
    command = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return {"pid": int(process.name), "command": command, "container": container_of(process)}


def container_of(process: Path) -> str:
    """The id of the container that a process is in, by its control group; empty where it is in none. Raises OSError."""
    groups = CONTAINER_ID.findall((process / "cgroup").read_text(encoding="utf-8", errors="replace"))
    return groups[-1] if groups else ""


def named(names: Collection[str], proc: Path = PROC) -> dict[str, list[Path]] | None:
    """Name -> /proc/PID of the processes of that name, the oldest first; None where others' processes are hidden (hidepid).

    The kernel cuts a name off after 15 characters. What runs in a container with processes of its own (such as a node of
    kind, which has its own containerd) is left out where that can be known.
    """
    if not (proc / "1" / "comm").exists():
        return None
    found: dict[str, list[Path]] = {name: [] for name in names}
    own = _namespace(proc / "self")
    for process in sorted((each for each in proc.glob("[0-9]*")), key=lambda each: int(each.name)):
        name = text_of(process / "comm")
        if name in found and _namespace(process) in (own, None):
            found[name].append(process)
    return found


def _namespace(process: Path) -> str | None:
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError:
        return None
