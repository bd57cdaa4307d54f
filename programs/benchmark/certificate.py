# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""May a client's figures be believed? It drives the null server as fast as asked, and both are compared.

The null server streams a token an event and waits for nobody, so a client that is too slow shows in two ways: it starts
requests late, and what it says of times and rates is not what the server stamped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from .records import Figures, Row, Spread

STEP_S, TTFT_S = 0.05, 2.0
TOKENS, PROMPT_TOKENS = 100, 64
GENERATIONS = 3
REQUEST_S = TTFT_S + (TOKENS - 1) * STEP_S
TOLERANCE = 0.03
REACHED = 0.95


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a client was seen to drive, tokens (and events) per second, and what is wrong with it, one sentence each.

    `reached_tok_s` is the server's count. `cpu_s_per_1000_events` is the client's, its start included.
    """

    ok: bool
    faults: list[str]
    asked_tok_s: float
    reached_tok_s: float
    client: Figures
    server: Figures
    cpu_s_per_1000_events: float | None
    seconds: float


def workload(asked_tok_s: float, limits_concurrency: bool) -> Row:
    """Requests that make so many tokens a second, all streams at the same speed.

    Three after the other on each stream, or one where the client cannot keep the number of streams.
    """
    streams = max(1, math.ceil(asked_tok_s * REQUEST_S / TOKENS))
    return Row(
        name="certificate",
        input_len=PROMPT_TOKENS,
        output_len=TOKENS,
        num_prompts=streams * (GENERATIONS if limits_concurrency else 1),
        concurrency=streams if limits_concurrency else None,
        lengths="fixed",
    )


def certify(asked_tok_s: float, client: Figures, server: Figures, cpu_s: float | None, seconds: float) -> Certificate:
    """Judge a run of `workload(asked_tok_s)` by the client's figures and the server's."""
    events, faults = server.output_tokens, list(_faults(asked_tok_s, client, server))
    return Certificate(
        ok=not faults,
        faults=faults,
        asked_tok_s=asked_tok_s,
        reached_tok_s=server.output_tok_s,
        client=client,
        server=server,
        cpu_s_per_1000_events=None if cpu_s is None or not events else round(1000 * cpu_s / events, 4),
        seconds=round(seconds, 1),
    )


def _faults(asked_tok_s: float, client: Figures, server: Figures) -> Iterable[str]:
    if client.failed or client.requests != server.requests:
        yield (
            f"the client counts {client.requests - client.failed} of {client.requests} requests as answered, "
            f"and the server answered {server.requests}"
        )
    if server.output_tok_s < REACHED * asked_tok_s:
        yield f"it reached {server.output_tok_s:.0f} tokens/s of the {asked_tok_s:.0f} asked for: it starts requests late"
    seen: list[tuple[str, float, float]] = [("output tokens/s", client.output_tok_s, server.output_tok_s)]
    for name, ours, theirs in (
        ("mean TTFT", client.ttft_s, server.ttft_s),
        ("mean TPOT", client.tpot_s, server.tpot_s),
        ("mean latency", client.latency_s, server.latency_s),
    ):
        seen += [(name, _mean(ours), _mean(theirs))]
    for name, said, true in seen:
        if not math.isclose(said, true, rel_tol=TOLERANCE):
            yield f"its {name} is {said:.4g}, and the server's {true:.4g}: more than {TOLERANCE:.0%} apart"


def _mean(spread: Spread | None) -> float:
    return 0.0 if spread is None else spread.mean
