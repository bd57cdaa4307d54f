# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.certificate import (
    REQUEST_S,
    STEP_S,
    TTFT_S,
    certify,
    workload,
)
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import figures
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record

ASKED = 1000.0
ROW = workload(ASKED, limits_concurrency=True)


def run(late_s: float = 0.0, gap_s: float = 0.0) -> list[Record]:
    """The workload as the server stamps it; `gap_s` between requests, and seen `late_s` later by the client."""
    assert ROW.concurrency is not None
    found = []
    for number in range(ROW.num_prompts):
        sent = number // ROW.concurrency * (REQUEST_S + gap_s)
        first = sent + TTFT_S + late_s
        done = first + (ROW.output_len - 1) * STEP_S + late_s
        found.append(Record(sent=sent, first=first, done=done, prompt_tokens=64, output_tokens=ROW.output_len))
    return found


def test_a_client_that_keeps_up_is_certified() -> None:
    certificate = certify(ASKED, figures(run(late_s=0.01)), figures(run()), cpu_s=21.0, seconds=30.0)
    assert (certificate.ok, certificate.faults) == (True, [])
    assert certificate.reached_tok_s == pytest.approx(ASKED, rel=0.02)
    assert certificate.cpu_s_per_1000_events == 1.0


def test_a_client_that_starts_requests_late_is_not() -> None:
    slow = figures(run(gap_s=1.0))
    certificate = certify(ASKED, slow, slow, cpu_s=None, seconds=30.0)
    assert not certificate.ok
    (fault,) = certificate.faults
    assert fault.startswith("it reached 9")
    assert certificate.cpu_s_per_1000_events is None


def test_a_client_that_sees_tokens_late_is_not() -> None:
    certificate = certify(ASKED, figures(run(late_s=0.5)), figures(run()), cpu_s=1.0, seconds=30.0)
    assert [fault.partition(" is ")[0] for fault in certificate.faults] == [
        "its output tokens/s",
        "its mean TTFT",
        "its mean TPOT",
        "its mean latency",
    ]


def test_a_client_that_loses_requests_is_not() -> None:
    records = run()
    records[3] = dataclasses.replace(records[3], error="gone", output_tokens=None)
    certificate = certify(ASKED, figures(records), figures(run()), cpu_s=1.0, seconds=30.0)
    assert certificate.faults[0] == "the client counts 209 of 210 requests as answered, and the server answered 210"


@given(st.floats(min_value=1, max_value=50_000), st.booleans())
def test_the_workload_makes_at_least_the_tokens_asked_for(asked: float, limits: bool) -> None:
    row = workload(asked, limits)
    streams = row.concurrency or row.num_prompts
    assert asked <= streams * row.output_len / REQUEST_S < asked + row.output_len / REQUEST_S + 1
    assert row.num_prompts % streams == 0
