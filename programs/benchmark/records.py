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

    `first` is the first token's arrival, None where the answer was not streamed. Tokens are those of the answer's `usage`.
    `error` is None for an answered request.
    """

    sent: float
    done: float
    first: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None

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
    `errors` counts the failures by their text. TTFT and TPOT are None where nothing was streamed; TPOT is
    (last token - first token) / (tokens - 1), of answers of two tokens or more.
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
