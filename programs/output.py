# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container prints: the supervisor's own lines, and those of the command that it runs, of which it has the end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque

from ..plugins.module_utils._kept_logs import LAST_BYTES


def say(text: str) -> None:
    """A line in the container's log."""
    print(f"lmfleet: {text}", flush=True)


class Output(threading.Thread):
    """Passes on what a command prints, byte by byte as it is, and has the end of it."""

    def __init__(self, source: int) -> None:
        """``source`` is the file descriptor that is read, and closed at its end."""
        super().__init__(daemon=True)
        self._source = source
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self.start()

    def run(self) -> None:
        """Until nobody can print any more."""
        while part := os.read(self._source, 65536):
            with self._lock:
                self._parts.append(part)
                self._size += len(part)
                while self._size - len(self._parts[0]) > LAST_BYTES:
                    self._size -= len(self._parts.popleft())
            with contextlib.suppress(OSError):  # nobody reads the container's log: the engine serves on
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
        os.close(self._source)

    def take(self) -> bytes:
        """What was printed since this was last asked, or the end of it."""
        with self._lock:
            log, self._size = b"".join(self._parts), 0
            self._parts.clear()
        return log
