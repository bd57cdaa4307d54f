# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that takes long tells the deployment's lock that its run is alive, or else another run may take the lock over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from .run import Run

KEEP_S = 60.0
LOCK = "lmfleet.lmdeploy.lock"


class Keeper:
    """Keeps this run's lock from a task of ``host``; of the host that has the lock, for all other hosts it does nothing."""

    def __init__(self, host: str) -> None:
        held = Run().read("lock")
        self._options: Mapping[str, Any] | None = held["options"] if held and held["host"] == host else None
        self._kept = time.monotonic()

    def refused(self, execute: Callable[[str, dict[str, Any]], Mapping[str, Any]]) -> str:
        """Keep it, if it was not for ``KEEP_S``; why the run may not go on, where another run has taken it, else nothing."""
        if not self._options or time.monotonic() - self._kept < KEEP_S:
            return ""
        result = execute(LOCK, {**self._options, "state": "kept", "gone": ""})
        if result.get("unreachable"):  # not kept: the next one tries again
            return ""
        self._kept = time.monotonic()
        return str(result.get("msg") or "the lock was lost") if result.get("failed") or result.get("refused") else ""

    def first(
        self, execute: Callable[[str, dict[str, Any]], Mapping[str, Any]], poll: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Keep it, as ``refused`` does, and then poll: the poll's outcome, or a failure where another run has the lock."""
        why = self.refused(execute)
        return {"failed": True, "msg": why} if why else poll()


def keep(host: str, options: Mapping[str, Any] | None) -> None:
    """Note with which options of M(lmfleet.lmdeploy.lock) this run has the lock on ``host``; None: it does not have it."""
    Run().write("lock", {"host": host, "options": dict(options)} if options else None)
