# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of what an engine or container printed, in files that outlive it: Docker's own log goes with the container.

Standard library, Python 3.9: it runs in containers (programs/supervise.py) and on hosts (the module ``keep_logs``).
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

from ._files import OWN, write

LAST_BYTES = 256 * 1024
KEPT = 8  # of one name


def keep(directory: Path, name: str, log: bytes, at: float | None = None) -> str:
    """Write the end of a log as ``NAME.UTC-TIME.log`` (0600), and remove the oldest of its name; the file's name.

    ``at`` is in seconds since 1970. Raises OSError.
    """
    now = time.time() if at is None else at
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    file = f"{name}.{stamp}.{int(now % 1 * 1000):03d}Z.log"
    write(directory / file, end_of(log), OWN)
    ours = re.compile(rf"{re.escape(name)}\.\d{{8}}T\d{{6}}\.\d{{3}}Z\.log")
    for old in sorted(path for path in directory.iterdir() if ours.fullmatch(path.name))[:-KEPT]:
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
    return file


def end_of(log: bytes) -> bytes:
    """The last ``LAST_BYTES``, from the beginning of a line on where there is one."""
    if len(log) <= LAST_BYTES:
        return log
    last = log[-LAST_BYTES:]
    return last[last.find(b"\n") + 1 :]
