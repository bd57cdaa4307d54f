# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that outlive the module that started them. Runs on the hosts: Python 3.9, standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def leave_behind(work: Callable[[], None], kept: Iterable[int] = ()) -> dict[str, Any]:
    """Start a process that does ``work`` in a session of its own, and ends; ``{"pid", "started"}``.

    It holds none of this one's files but those of the numbers in ``kept``, so that nobody waits for the end of a pipe.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_left_behind(work, {writing, *kept}, writing)
    os.close(writing)
    os.read(reading, 1)  # it has left this session, and holds none of the module's files any more
    os.close(reading)
    return {"pid": pid, "started": started(pid)}


def _be_left_behind(work: Callable[[], None], kept: set[int], writing: int) -> None:
    """The child's whole life. It must not return into the module's code, nor keep its pipes open."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - of Path.iterdir the descriptor would be open too
            if int(entry) > 2 and int(entry) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(entry))
        os.write(writing, b".")
        os.close(writing)
        work()
    finally:
        os._exit(0)


def stop(process: Mapping[str, Any]) -> bool:
    """End that process and see it gone. False where it had ended before. Raises TimeoutError where it does not end."""
    pid = int(process["pid"])
    if started(pid) != process["started"]:
        return False  # or the number is another's by now
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for __ in range(200):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # where it is this process's own child, as in tests
        if started(pid) != process["started"]:
            return True
        time.sleep(0.01)
    raise TimeoutError(f"process {pid}, which this run started, does not end")


def started(pid: int) -> str:
    """When a process began, in the kernel's clock ticks; empty where there is none, or only its exit code is left."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
