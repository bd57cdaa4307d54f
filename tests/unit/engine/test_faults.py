# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import math
import signal
import subprocess
import sys

import pytest
from lmfleet_sim.faults import OUT_OF_MEMORY, Fault, RankFaults

from .conftest import ENGINE


class FakeOutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, which these tests do without."""


def test_a_fault_strikes_its_rank_only() -> None:
    faults = (Fault("crash_at_load", 3),)
    RankFaults(faults, 2).loading(FakeOutOfMemoryError)
    with pytest.raises(RuntimeError, match="rank 3 was told to crash at load"):
        RankFaults(faults, 3).loading(FakeOutOfMemoryError)


def test_a_star_means_every_rank() -> None:
    fault = Fault.parse("crash_at_load@*")
    for rank in (0, 15):
        with pytest.raises(RuntimeError):
            RankFaults((fault,), rank).loading(FakeOutOfMemoryError)


def test_out_of_memory_has_torchs_words_and_class() -> None:
    with pytest.raises(FakeOutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate 14\.00 GiB\. GPU 0 has"):
        RankFaults((Fault("oom_at_load", 0),), 0).loading(FakeOutOfMemoryError)
    assert OUT_OF_MEMORY.count("  ") == 2


def test_killed_at_load_leaves_no_exception() -> None:
    program = "from lmfleet_sim.faults import *; RankFaults((Fault('killed_at_load', 0),), 0).loading(RuntimeError)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ENGINE, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == b""


def test_a_serving_fault_waits_for_its_request() -> None:
    rank = RankFaults((Fault.parse("crash@0:2"),), 0)
    rank.loading(FakeOutOfMemoryError)
    assert [rank.forward(begins) for begins in (0, 1, 0, 1, 0)] == [0.0] * 5
    with pytest.raises(RuntimeError, match="CUDA error: an illegal memory access"):
        rank.forward(1)


def test_a_hang_is_for_ever() -> None:
    rank = RankFaults((Fault.parse("hang@0:1"),), 0)
    assert rank.forward(1) == 0.0
    assert rank.forward(1) == math.inf
    assert rank.forward(0) == math.inf


def test_a_batch_counts_as_its_requests() -> None:
    assert RankFaults((Fault.parse("hang@0:3"),), 0).forward(4) == math.inf


@pytest.mark.parametrize("text", ["", "crash", "crash@", "crash@x", "crash@1:", "crash@1:x", "@1", "crash @1"])
def test_a_malformed_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="kind@rank"):
        Fault.parse(text)
