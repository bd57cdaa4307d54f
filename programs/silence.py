# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that hangs itself: it gives no counters, and without them nobody can tell a busy engine from a dead one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from ..plugins.module_utils._observe.engines import WORKING, Patience
from ..plugins.module_utils._observe.gpus import gpus_work


class Silence:
    """How long a server has not given its counters, which it gave before, and whether anything worked meanwhile."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] | None = None,
        works: Callable[[], bool | None] | None = None,
    ) -> None:
        """``cpu_s`` is the processor time used so far in seconds, ``works`` says whether a GPU works, None: nobody knows."""
        self._clock, self._cpu_s, self._works = clock, cpu_s or processor_seconds, works or gpus_work
        self._gave = False
        self._began: tuple[float, float] | None = None

    def heard(self, *, gave: bool) -> None:
        """Whether it has just given them."""
        if gave:
            self._gave, self._began = True, None
        elif self._gave and self._began is None:
            self._began = self._clock(), self._cpu_s()

    def told(self, patience: Patience) -> str:
        """Why it hangs; empty: it does not, or not for as long as an engine may be silent."""
        if self._began is None:
            return ""
        began, cpu_s = self._began
        for_s = self._clock() - began
        if for_s < patience.timeout_s + patience.stall_s:
            return ""
        idle = (self._cpu_s() - cpu_s) / for_s < WORKING and self._works() is not True
        if not idle and for_s < patience.longest_s:
            return ""
        return f"its server hangs: it has answered nothing for {for_s:.0f} s{', with idle processors' if idle else ''}"


def processor_seconds() -> float:
    """Processor time of all processes that can be seen here: the container's own, or the host's with its PID namespace."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
