# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of records: what must hold for any records, and what these come to by hand."""

from __future__ import annotations

import dataclasses
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import (
    figures,
    noise,
    percentile,
    spread,
    time_series,
)
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record, Row
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.benchmark.reports import START, records

moments = st.floats(min_value=0, max_value=1000).map(lambda seconds: START + seconds)
tokens = st.integers(min_value=0, max_value=4096)


@st.composite
def any_record(draw: st.DrawFn, failed: bool | None = None) -> Record:
    sent, first, done = sorted(draw(st.tuples(moments, moments, moments)))
    if draw(st.booleans()) if failed is None else failed:
        return Record(sent=sent, done=done, error=draw(st.sampled_from(["HTTP 500", "timed out"])))
    streamed = first if draw(st.booleans()) else None
    return Record(sent, done, streamed, prompt_tokens=draw(tokens), output_tokens=draw(tokens))


any_records = st.lists(any_record(), max_size=30)

STREAMED = [
    Record(sent=10.0, first=11.0, done=15.0, prompt_tokens=100, output_tokens=5),
    Record(sent=11.0, first=14.0, done=16.0, prompt_tokens=300, output_tokens=2),
    Record(sent=12.0, first=17.0, done=17.0, prompt_tokens=50, output_tokens=1),
    Record(sent=10.5, done=20.0, error="HTTP 500"),
]


# Figures -------------------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    found = figures(STREAMED)
    assert (found.requests, found.failed, found.errors) == (4, 1, {"HTTP 500": 1})
    assert (found.input_tokens, found.output_tokens, found.duration_s) == (450, 8, 10.0)
    assert (found.input_tok_s, found.output_tok_s, found.requests_s) == (45.0, 0.8, 0.3)
    assert found.ttft_s is not None
    assert (found.ttft_s.mean, found.ttft_s.p50, found.ttft_s.max) == (3.0, 3.0, 5.0)
    assert found.ttft_s.p90 == pytest.approx(4.6)
    assert found.tpot_s is not None
    assert (found.tpot_s.p50, found.tpot_s.max) == (1.5, 2.0)  # 4 s for 4 tokens, 2 s for one; a lone token has none
    assert found.latency_s is not None
    assert found.latency_s.mean == 5.0


@pytest.mark.parametrize(
    "of", [[], [Record(sent=1.0, done=1.0, error="refused")], [Record(sent=1.0, done=9.0, error="x")]]
)
def test_nothing_answered_is_zero_and_none(of: list[Record]) -> None:
    found = figures(of)
    assert (found.output_tok_s, found.input_tok_s, found.requests_s) == (0, 0, 0)
    assert (found.ttft_s, found.tpot_s, found.latency_s) == (None, None, None)
    assert found.failed == len(of)


def test_no_time_is_no_rate() -> None:
    assert figures([Record(sent=1.0, done=1.0, prompt_tokens=1, output_tokens=1)]).output_tok_s == 0.0


def test_the_most_common_errors_are_kept() -> None:
    texts = [f"error {n}" for n in range(20) for __ in range(n + 1)]
    found = figures([Record(sent=0.0, done=1.0, error=text) for text in texts])
    assert list(found.errors)[:2] == ["error 19", "error 18"]
    assert len(found.errors) == 10


@given(any_records, any_record(failed=True))
def test_a_failed_request_makes_nothing_faster(of: list[Record], failed: Record) -> None:
    before, after = figures(of), figures([*of, failed])
    assert after.failed == before.failed + 1
    assert (after.input_tokens, after.output_tokens) == (before.input_tokens, before.output_tokens)
    for rate in ("input_tok_s", "output_tok_s", "requests_s"):
        assert getattr(after, rate) <= getattr(before, rate) or before.duration_s == 0
    for times in ("ttft_s", "tpot_s", "latency_s"):
        assert getattr(after, times) == getattr(before, times)


@given(any_records, st.randoms(use_true_random=False))
def test_order_does_not_matter(of: list[Record], rng: random.Random) -> None:
    shuffled = list(of)
    rng.shuffle(shuffled)
    assert figures(shuffled) == figures(of)


@given(st.lists(any_record(failed=False), max_size=20))
def test_the_servers_stamps_come_to_the_same_as_equal_records(of: list[Record]) -> None:
    streamed = [dataclasses.replace(record, first=record.first or record.done) for record in of]
    stamps = [
        {
            "in": record.sent,
            "first": record.first,
            "last": record.done,
            "prompt_tokens": record.prompt_tokens,
            "tokens": record.output_tokens,
        }
        for record in streamed
    ]
    assert figures([Record.of_stamp(stamp) for stamp in stamps]) == figures(streamed)
    unstreamed = figures([Record.of_stamp(stamp, stream=False) for stamp in stamps])
    assert (unstreamed.ttft_s, unstreamed.tpot_s) == (None, None)
    assert unstreamed.output_tok_s == figures(streamed).output_tok_s


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=50))
def test_a_spread_is_in_order(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert min(values) <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max == max(values)
    assert min(values) <= found.mean <= max(values)


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=2, max_size=50))
def test_percentiles_are_the_standard_librarys(values: list[float]) -> None:
    theirs = statistics.quantiles(values, n=100, method="inclusive")
    ours = [percentile(sorted(values), n / 100) for n in range(1, 100)]
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)


# By time -------------------------------------------------------------------------------------------------------------


@given(any_records, st.integers(min_value=1, max_value=40))
def test_a_series_keeps_every_token_and_every_second(of: list[Record], bins: int) -> None:
    found, whole = time_series(of, bins), figures(of)
    if whole.duration_s == 0:
        assert found.times == []
        return
    width = whole.duration_s / bins
    assert sum(found.output_tok_s) * width == pytest.approx(whole.output_tokens, rel=1e-6, abs=1e-6)
    waited = sum(record.done - record.sent for record in of)
    assert sum(found.in_flight) * width == pytest.approx(waited, rel=1e-6, abs=1e-6)
    assert any(value is not None for value in found.ttft_s) == (whole.ttft_s is not None)


def test_a_series_by_hand() -> None:
    found = time_series(STREAMED, 5)
    assert found.times == [1.0, 3.0, 5.0, 7.0, 9.0]
    # 5 tokens from 11 to 15, 2 from 14 to 16, one at 17
    assert found.output_tok_s == pytest.approx([1.25 / 2, 2.5 / 2, 3.25 / 2, 1 / 2, 0])
    assert found.ttft_s == [1.0, None, 3.0, 5.0, None]
    assert found.in_flight == pytest.approx([(2 + 1 + 1.5) / 2, 4, 3.5, 1.5, 1])


# Noise ---------------------------------------------------------------------------------------------------------------


def test_noise_is_the_same_each_time_and_unknown_for_nothing() -> None:
    of = records(Row("row", 100, 100, 200), 1000.0, slots=8)
    assert noise(of) == noise(of)
    assert noise([]).output_tok_s is None
    assert noise([Record(sent=0.0, done=5.0, error="x")]).output_tok_s is None
    unstreamed = noise(records(Row("row", 100, 100, 200, stream=False), 1000.0, slots=8))
    assert (unstreamed.ttft_s, unstreamed.tpot_s) == (None, None)
    assert unstreamed.output_tok_s is not None


def test_a_slow_change_is_no_noise() -> None:
    """Throughput that falls evenly to a tenth: its slices differ widely, but nothing in it is by chance."""
    of = [Record(t / 10, t / 10 + 0.1, t / 10, 1, round(10000 - 9 * t)) for t in range(1000)]
    found = noise(of).output_tok_s
    assert found is not None
    assert found < 0.03  # by the slices' spread it would be 0.18


def test_throughput_noise_covers_the_truth() -> None:
    """Of runs with the same true rate, about 19 of 20 have it in their interval."""
    rng = random.Random(1)
    inside = 0
    for __ in range(100):
        of = [Record(t / 10, t / 10 + 0.1, t / 10, 1, rng.randint(1, 199)) for t in range(200)]
        measured, half_width = figures(of).output_tok_s, noise(of).output_tok_s
        assert half_width is not None
        inside += abs(measured - 1000) <= half_width * measured
    assert 88 <= inside <= 99


def test_latency_noise_covers_the_truth() -> None:
    rng = random.Random(1)
    inside = 0
    for __ in range(60):
        of = [Record(0.0, 100.0, rng.uniform(1, 3), 1, 1) for __ in range(100)]
        measured, found = figures(of).ttft_s, noise(of).ttft_s
        assert measured is not None
        assert found is not None
        inside += abs(measured.mean - 2) <= found.mean * measured.mean
    assert 51 <= inside <= 60
