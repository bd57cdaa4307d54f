# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether something keeps the host's clock right."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from . import commands

UNSYNCHRONIZED = 0x40  # STA_UNSYNC in <sys/timex.h>
BAD = 5  # TIME_ERROR
TIMESYNCD = Path("/run/systemd/timesync/synchronized")


class _Timex(ctypes.Structure):
    """The begin of ``struct timex``; the kernel writes 208 bytes at most."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def clock_facts() -> dict[str, bool | None]:
    """``synchronized``; None where nobody can tell."""
    kernel = kernel_says()
    # chronyd without rtcsync does not tell the kernel, and timesyncd tells it late.
    return {"synchronized": True if kernel is False and _another_says() else kernel}


def kernel_says() -> bool | None:
    """Whether the kernel was told that its clock is right. No right is needed to ask."""
    state = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    except AttributeError:  # a C library without it
        return None
    if answer < 0:
        return None
    return answer != BAD and not state.status & UNSYNCHRONIZED


def _another_says() -> bool:
    path = commands.find("chronyc")
    if TIMESYNCD.exists():
        return True
    return bool(path) and chrony_says(commands.run([str(path), "-n", "tracking"])[0])


def chrony_says(tracking: str) -> bool:
    """Whether ``chronyc tracking`` says that the clock follows another."""
    return bool(re.search(r"^Leap status\s*:\s*(?!Not synchronised)\S", tracking, re.MULTILINE))
