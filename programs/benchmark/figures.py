# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From records to figures. Standard library alone: the client's container makes figures of its own records with it.

A failed request counts as failed and takes its time: it lengthens the duration and adds no token, so it can make
nothing faster.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .records import Figures, Record, Spread

ERRORS_KEPT = 10
SLICES = 20
EDGE = 0.1  # of the duration, at each end: while requests pile up or run out, the rate says nothing of its noise
T_95 = 2.16  # Student's t for 95 %, with the 13 degrees of freedom that 19 successive differences are worth
RESAMPLES = 200
SEED = 20250301


@dataclasses.dataclass(frozen=True)
class Series:
    """A run by time, in bins of one width. `times` are their middles, in seconds since the first request was sent.

    `in_flight` is the mean number of unanswered requests; `ttft_s` the mean of the answers whose first token fell into
    the bin, None where none did.
    """

    times: list[float]
    output_tok_s: list[float]
    in_flight: list[float]
    ttft_s: list[float | None]


@dataclasses.dataclass(frozen=True)
class SpreadNoise:
    """Relative half-widths of 95 % intervals of a spread's mean, median and 99th percentile."""

    mean: float
    p50: float
    p99: float


@dataclasses.dataclass(frozen=True)
class Noise:
    """How far a repetition of the same run may be off, as a share of the value (0.02: 2 %); None where unknown.

    `output_tok_s` holds for input tokens too: both are a fixed sum of tokens over the same duration.
    """

    output_tok_s: float | None
    ttft_s: SpreadNoise | None
    tpot_s: SpreadNoise | None


# Figures -------------------------------------------------------------------------------------------------------------


def figures(records: Sequence[Record], duration_s: float | None = None) -> Figures:
    """What `records` come to; all zero and None where there are none, and rates of zero where no time passed.

    `duration_s` is the run's where the records do not tell it.
    """
    answered = [record for record in records if record.error is None]
    last_answer = max((record.done for record in answered), default=_start(records))
    silent = [record for record in records if record.done > last_answer or not answered]
    asked = [record.asked_tokens for record in records if record.asked_tokens is not None]
    duration = duration_s or _end(records) - _start(records)
    input_tokens = sum(record.prompt_tokens or 0 for record in answered)
    output_tokens = sum(record.output_tokens or 0 for record in answered)
    return Figures(
        requests=len(records),
        failed=len(records) - len(answered),
        errors=dict(Counter(record.error for record in records if record.error is not None).most_common(ERRORS_KEPT)),
        duration_s=duration,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        input_tok_s=_rate(input_tokens, duration),
        output_tok_s=_rate(output_tokens, duration),
        requests_s=_rate(len(answered), duration),
        ttft_s=spread(_known(map(ttft, answered))),
        tpot_s=spread(_known(map(tpot, answered))),
        latency_s=spread([record.done - record.sent for record in answered]),
        cut_short=sum(record.cut for record in records),
        asked_tokens=sum(asked) if records and len(asked) == len(records) else None,
        silent_requests=len(silent),
        silent_s=_end(silent) - last_answer if silent else 0.0,
    )


# A few requests always end last, and those that time out do so after all others.
SILENT_SHARE = 0.01
FAILED_SHARE = 0.1


def halted(found: Mapping[str, Any]) -> str:
    """Why figures (as plain data) are not of a whole run of the row: its engine died under it. Empty where they are.

    That is so where one request in ten failed, or where at the end only failures came. Single failures are part of a run:
    they are told, and make the row not comparable.
    """
    requests, failed, silent = found["requests"], found["failed"], found.get("silent_requests", 0)
    if not requests:
        return "no request was sent"
    if failed > FAILED_SHARE * requests:
        return f"{failed} of {requests} requests failed"
    if silent > max(2, SILENT_SHARE * requests):
        return f"the last {silent} of {requests} requests all failed, for {found['silent_s']:.0f} s to the end"
    return ""


def ttft(record: Record) -> float | None:
    """Seconds to the first token; None for a failed request, and for an answer that was not streamed."""
    return None if record.error is not None or record.first is None else record.first - record.sent


def tpot(record: Record) -> float | None:
    """Seconds per output token after the first; None where that says nothing: failed, not streamed, one token."""
    tokens = record.output_tokens or 0
    if record.error is not None or record.first is None or tokens < 2:
        return None
    return (record.done - record.first) / (tokens - 1)


def spread(values: Sequence[float]) -> Spread | None:
    """How `values` are spread; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p90, p95, p99 = (percentile(ordered, share) for share in (0.5, 0.9, 0.95, 0.99))
    # Between the extremes whatever rounding does: a mean of equal values is that value.
    mean = min(max(math.fsum(ordered) / len(ordered), ordered[0]), ordered[-1])
    return Spread(mean=mean, p50=p50, p90=p90, p95=p95, p99=p99, max=ordered[-1])


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the sorted values lie, linear between its neighbours."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    if below == len(ordered) - 1:
        return ordered[-1]
    low, high = ordered[below], ordered[below + 1]
    return min(low + (high - low) * (place - below), high)


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _start(records: Sequence[Record]) -> float:
    return min((record.sent for record in records), default=0.0)


def _end(records: Sequence[Record]) -> float:
    return max((record.done for record in records), default=0.0)


# By time -------------------------------------------------------------------------------------------------------------


class _Bins:
    """Amounts by time, in `count` bins between `start` and `end`; what lies outside is left out."""

    def __init__(self, start: float, end: float, count: int) -> None:
        self.start = start
        self.span = end - start
        self.amounts = [0.0] * count

    @property
    def width(self) -> float:
        """Of one bin, in seconds."""
        return self.span / len(self.amounts)

    def place(self, moment: float) -> float:
        """Where `moment` lies, in bins: 0 is the start, and the end exactly their number."""
        return (moment - self.start) / self.span * len(self.amounts)

    def pour(self, amount: float, start: float, end: float) -> None:
        """Add `amount`, spread evenly from `start` to `end`, or at once where that is one moment."""
        begin, finish = self.place(start), self.place(end)
        last = len(self.amounts) - 1
        if begin == finish:
            if 0 <= begin <= last + 1:
                self.amounts[min(math.floor(begin), last)] += amount
            return
        for place in range(max(0, math.floor(begin)), min(last, math.floor(finish)) + 1):
            inside = min(finish, place + 1) - max(begin, place)
            self.amounts[place] += amount * inside / (finish - begin)


def time_series(records: Sequence[Record], bins: int) -> Series:
    """`records` by time, in `bins` bins from the first request sent to the last one ended; empty where no time passed.

    The tokens of one answer are taken as spread evenly between its first and its last; of one that was not streamed all
    come at its end.
    """
    start, end = _start(records), _end(records)
    if end <= start:
        return Series([], [], [], [])
    tokens, busy, firsts, waited = (_Bins(start, end, bins) for __ in range(4))
    for record in records:
        busy.pour(record.done - record.sent, record.sent, record.done)
        _pour_tokens(tokens, record)
        if (wait := ttft(record)) is not None:
            moment = record.sent + wait
            firsts.pour(1, moment, moment)
            waited.pour(wait, moment, moment)
    width = tokens.width
    return Series(
        times=[(place + 0.5) * width for place in range(bins)],
        output_tok_s=[amount / width for amount in tokens.amounts],
        in_flight=[amount / width for amount in busy.amounts],
        ttft_s=[wait / count if count else None for wait, count in zip(waited.amounts, firsts.amounts)],
    )


def _pour_tokens(bins: _Bins, record: Record) -> None:
    if record.error is None and record.output_tokens:
        bins.pour(record.output_tokens, record.done if record.first is None else record.first, record.done)


# Noise ---------------------------------------------------------------------------------------------------------------


def noise(records: Sequence[Record]) -> Noise:
    """How far another run of the same row may be off, judged by this one alone."""
    return Noise(
        output_tok_s=_throughput_noise(records),
        ttft_s=_spread_noise(_known(map(ttft, records))),
        tpot_s=_spread_noise(_known(map(tpot, records))),
    )


def _throughput_noise(records: Sequence[Record]) -> float | None:
    """By batch means: the run's middle in slices, their variance from successive differences.

    So a slow rise or fall (more and more long answers, requests running out) is not taken for noise.
    """
    start, end = _start(records), _end(records)
    margin = EDGE * (end - start)
    if end <= start:
        return None
    slices = _Bins(start + margin, end - margin, SLICES)
    for record in records:
        _pour_tokens(slices, record)
    mean = math.fsum(slices.amounts) / SLICES
    if mean <= 0:
        return None
    differences = [after - before for before, after in zip(slices.amounts, slices.amounts[1:])]
    variance = math.fsum(each * each for each in differences) / (2 * len(differences))
    return T_95 * math.sqrt(variance / SLICES) / mean


def _spread_noise(values: Sequence[float]) -> SpreadNoise | None:
    """By bootstrap, with a fixed seed: the same records always have the same noise."""
    if not values:
        return None
    rng = random.Random(SEED)  # noqa: S311 - a statistic, not a secret
    samples = [sorted(rng.choices(values, k=len(values))) for __ in range(RESAMPLES)]

    def half_width(statistic: Callable[[Sequence[float]], float]) -> float:
        found = sorted(map(statistic, samples))
        middle = statistic(sorted(values))
        return (percentile(found, 0.975) - percentile(found, 0.025)) / 2 / middle if middle > 0 else 0.0

    return SpreadNoise(
        mean=half_width(lambda sample: math.fsum(sample) / len(sample)),
        p50=half_width(lambda sample: percentile(sample, 0.5)),
        p99=half_width(lambda sample: percentile(sample, 0.99)),
    )
