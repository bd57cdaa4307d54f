# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits that containers inherit of the engine that starts them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import daemon
from .files import text_of

UNLIMITED = -1
ROWS = {"memlock_bytes": "Max locked memory", "nofile": "Max open files"}
# Containers are children of containerd's, not of dockerd's; that one may have started its own.
ENGINES = ("containerd", "dockerd")


def limits(running: Mapping[str, Sequence[Path]] | None) -> dict[str, int | None]:
    """``memlock_bytes`` and ``nofile`` as a container gets them that asks for none; -1 is no limit, None is not known.

    What Docker is told to give all containers (``default-ulimits``) goes before what its process has.
    """
    engine = next((found[0] for name in ENGINES for found in [(running or {}).get(name)] if found), None)
    inherited = parse(text_of(engine / "limits") or "" if engine else "")
    told: dict[str, Any] = daemon.default_limits()
    return {
        **inherited,
        **{key: told[name] for key, name in (("memlock_bytes", "memlock"), ("nofile", "nofile")) if name in told},
    }


def parse(text: str) -> dict[str, int | None]:
    """The soft limits out of a text of /proc/PID/limits."""
    return {key: _soft(text, title) for key, title in ROWS.items()}


def _soft(text: str, title: str) -> int | None:
    match = re.search(rf"^{title}\s+(unlimited|[0-9]{{1,20}})\s", text, re.MULTILINE)
    if not match:
        return None
    return UNLIMITED if match[1] == "unlimited" else int(match[1])
