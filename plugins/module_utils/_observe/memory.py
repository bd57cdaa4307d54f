# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of the host."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .files import text_of


def memory_facts(root: Path = Path("/")) -> dict[str, int | None]:
    """``total_bytes``, ``available_bytes``, ``shm_bytes`` (the size of /dev/shm), ``hugepages`` and ``hugepage_bytes``."""
    return {**parse(text_of(root / "proc/meminfo") or ""), "shm_bytes": _size(root / "dev/shm")}


def parse(text: str) -> dict[str, int | None]:
    """Out of a text of /proc/meminfo."""
    rows = {match[1]: int(match[2]) for match in re.finditer(r"^([\w()]+):\s+([0-9]{1,18})\b", text, re.MULTILINE)}
    kibibytes = {"total_bytes": "MemTotal", "available_bytes": "MemAvailable", "hugepage_bytes": "Hugepagesize"}
    sizes = {key: rows[name] << 10 if name in rows else None for key, name in kibibytes.items()}
    return {**sizes, "hugepages": rows.get("HugePages_Total")}


def _size(path: Path) -> int | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize
