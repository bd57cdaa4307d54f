# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that a rank can be told to have: what, on which rank, and after how many requests."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

AT_LOAD = ("crash_at_load", "killed_at_load", "oom_at_load")
SERVING = ("crash", "hang")
REFUSING = ("refuse",)
STARTING = ("lose_start",)
KINDS = AT_LOAD + SERVING + REFUSING + STARTING

# As torch words it, with the figures of an 80 GB card, two spaces included.
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 14.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.22 GiB is "
    "free. Including non-PyTorch memory, this process has 77.87 GiB memory in use. Of the allocated memory 76.51 GiB "
    "is allocated by PyTorch, and 12.34 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory "
    "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation "
    "for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)

_FAULT = re.compile(r"(?P<kind>[a-z_]+)@(?P<rank>\d+|\*)(?::(?P<requests>\d+))?")


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, its rank (None: every rank) and, for a serving rank, a number of requests.

    So many are answered before a fault strikes; of so many, one is refused; so many starts are lost.
    """

    kind: str
    rank: int | None
    requests: int = 0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``kind@rank`` or ``kind@rank:requests``; raise ValueError with what is wrong."""
        match = _FAULT.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not kind@rank or kind@rank:requests (rank: a number, or * for all)")
        kind, rank, requests = match["kind"], match["rank"], match["requests"]
        if kind not in KINDS:
            raise ValueError(f"{text!r}: no fault is called {kind!r}; there are {', '.join(KINDS)}")
        if requests and kind in AT_LOAD:
            raise ValueError(f"{text!r}: {kind} strikes while loading, before any request")
        return cls(kind, None if rank == "*" else int(rank), int(requests or 0))


class RankFaults:
    """The faults of one rank, told of its loading and of the requests that reach it."""

    def __init__(self, faults: tuple[Fault, ...], rank: int) -> None:
        self._faults = [fault for fault in faults if fault.rank in (None, rank)]
        self._rank = rank
        self._requests = 0

    def loading(self, out_of_memory: Callable[[str], Exception]) -> None:
        """Have the fault of a loading rank, if it has one.

        Args:
            out_of_memory: makes torch's out-of-memory error from its message.
        """
        kinds = {fault.kind for fault in self._faults}
        if "killed_at_load" in kinds:
            _kill_this_process()
        if "oom_at_load" in kinds:
            raise out_of_memory(OUT_OF_MEMORY)
        if "crash_at_load" in kinds:
            raise RuntimeError(f"lmfleet simulator: rank {self._rank} was told to crash at load")

    def forward(self, new_requests: int) -> float:
        """Count the requests that begin with this forward pass; return the seconds it hangs: 0, or infinity.

        Raises RuntimeError, worded as CUDA's, if the rank crashes now.
        """
        self._requests += new_requests
        due = {fault.kind for fault in self._faults if fault.kind in SERVING and self._requests > fault.requests}
        if "crash" in due:
            raise RuntimeError(
                f"CUDA error: an illegal memory access was encountered (lmfleet simulator: rank {self._rank} was told "
                f"to crash at request {self._requests})"
            )
        return math.inf if "hang" in due else 0.0


def _kill_this_process() -> NoReturn:
    """Die as by the kernel's out-of-memory killer: no exception, no clean-up, no last word."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")
