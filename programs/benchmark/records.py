# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark is made of. All times are seconds; points in time are seconds of the wall clock (Unix time).

Every type turns into plain JSON with ``dataclasses.asdict``, and comes back from it by its keywords.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What is wrong with an answer that began and has no end. Without numbers, so that equal failures are counted together.
CUT_SHORT = "the answer was cut short"
FEWER = f"{CUT_SHORT}: fewer tokens came than were asked for"
NO_END = f"{CUT_SHORT}: it ended without the count of its tokens, which comes last"


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement: `num_prompts` requests of random lengths, sent in one way.

    Lengths are tokens: drawn from 1 to `input_len` and 1 to `output_len` (``uniform``, as LMDeploy's script does where no
    range ratio is given), or just those (``fixed``). `max_batch_size`: the engine's, by number, its release's own
    (``default``), or what is deployed (None). `request_rate`: a Poisson process, requests per second; None sends without
    waiting. `concurrency`: requests in flight at most; None does not limit. `target`: the deployment's ``url``, or all
    ``ranks`` in turn, past the proxy.
    """

    name: str
    input_len: int
    output_len: int
    num_prompts: int
    max_batch_size: int | str | None = None
    request_rate: float | None = None
    concurrency: int | None = None
    lengths: str = "uniform"
    stream: bool = True
    target: str = "url"


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one request, as its client saw it.

    `first` is the first token's arrival, None where the answer was not streamed. Tokens are those of the answer's `usage`,
    `asked_tokens` those that the request asked for, where the client's records tell. `error` is None for an answered
    request, and an answer that ended before its last token is none: `cut` says that it began.
    """

    sent: float
    done: float
    first: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None
    asked_tokens: int | None = None
    cut: bool = False

    @classmethod
    def of_stamp(cls, stamp: Mapping[str, Any], stream: bool = True) -> Record:
        """The same request as its server stamped it: ``in``, ``first``, ``last``, ``prompt_tokens``, ``tokens``."""
        return cls(
            sent=stamp["in"],
            done=stamp["last"],
            first=stamp["first"] if stream else None,
            prompt_tokens=stamp["prompt_tokens"],
            output_tokens=stamp["tokens"],
        )

    def compared(self) -> Record:
        """The same record; where an answer has fewer tokens than were asked for, or does not tell how many, as a failure.

        Every request asks the engine to go on to the last token (``ignore_eos``), so a whole answer has them all. One
        without a count of its tokens has lost its end, for the count comes last.
        """
        if self.error is not None:
            return self
        if self.output_tokens is None:
            return dataclasses.replace(self, error=NO_END, cut=True)
        if self.asked_tokens is not None and self.output_tokens < self.asked_tokens:
            return dataclasses.replace(self, error=FEWER, cut=True)
        return self


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a quantity is spread over the answered requests."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a set of records comes to.

    Tokens and rates are of answered requests alone, over `duration_s`, from the first request sent to the last one ended.
    `errors` counts the failures by their text, `cut_short` those of them whose answer had begun. `asked_tokens` are all that
    were asked for, those of failed requests too; None where the records do not tell. `silent_requests` are those that ended
    after the last answer, all of which failed, and `silent_s` is how long that was. TTFT and TPOT are None where nothing was
    streamed; TPOT is (last token - first token) / (tokens - 1), of answers of two tokens or more.
    """

    requests: int
    failed: int
    errors: dict[str, int]
    duration_s: float
    input_tokens: int
    output_tokens: int
    input_tok_s: float
    output_tok_s: float
    requests_s: float
    ttft_s: Spread | None
    tpot_s: Spread | None
    latency_s: Spread | None
    cut_short: int = 0
    asked_tokens: int | None = None
    silent_requests: int = 0
    silent_s: float = 0.0
