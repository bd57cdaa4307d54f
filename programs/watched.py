# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a client, and ends it where nobody asks after it any more: `python3 watched.py SECONDS PYTHON_ARGUMENT...`

Who started a client polls it, and with each poll sends SIGURG, which does nothing where it is not awaited. After a Ctrl-C or
a lost connection there are no polls: without them for SECONDS the client is killed, so that a benchmark that nobody waits
for does not load the engines for hours. The exit code is the client's, 128 and more for its signal; 75 where it was ended here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

ALONE = 75  # EX_TEMPFAIL
LOOK_S = 1.0


class Asked:
    """When somebody last asked, on ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()

    def now(self, __: int, ___: FrameType | None) -> None:
        """Somebody asks: a signal's handler."""
        self._last = self._clock()

    def for_s(self) -> float:
        """Seconds since."""
        return self._clock() - self._last


def watched(arguments: Sequence[str], limit_s: float, asked: Asked) -> int:
    """Run Python with these arguments; the exit code."""
    signal.signal(signal.SIGURG, asked.now)
    told: list[int] = []  # before the client is there, for it may be told to end as soon as it has begun
    signal.signal(signal.SIGTERM, lambda number, __: told.append(number))
    with subprocess.Popen([sys.executable, *arguments], start_new_session=True) as client:
        while True:
            if told:
                told.clear()
                client.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = client.wait(LOOK_S)
                return code if code >= 0 else 128 - code
            if asked.for_s() > limit_s:
                print(f"nobody has asked after this client for {limit_s:.0f} s, so it was ended", file=sys.stderr)
                os.killpg(client.pid, signal.SIGKILL)
                client.wait()
                return ALONE


if __name__ == "__main__":
    sys.exit(watched(sys.argv[2:], float(sys.argv[1]), Asked()))
