# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it is worth that requests with the same beginning meet the same cache: the scenario ``prefixes``.

Two engines, each on a GPU of its own, that keep prefixes. The same load goes to them by three ways: in turn, through the
gateway as it is without ``enable_prefix_caching`` (the endpoint with the fewest requests), and as it is with it. Each turn
has prompts of its own, so that nobody finds what another turn has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpu.deployment import Deployment, get
from gpu.gateways import KEYS, gateway
from gpu.prefill import metrics_of
from tokenizers import Tokenizer

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.dataset import random_prompts
from ansible_collections.lmfleet.lmdeploy.programs.warmup import ask

if TYPE_CHECKING:
    from gpu.scenarios import Run

ENDING, OUT = 64, 16  # tokens
METRICS_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Load:
    """``prefixes`` beginnings of ``tokens``, of each ``asked`` requests, in an order by chance; ``at_once`` of them run."""

    tokens: int
    prefixes: int
    asked: int = 8
    at_once: int = 8


# Shares of a GPU's memory for the cache, and what is asked. Tight: the beginnings fit into both engines together, not into each.
CASES: dict[str, tuple[float, Load]] = {
    "4k": (0.15, Load(4096, 40)),
    "24k": (0.15, Load(24576, 14)),
    "24k-tight": (0.012, Load(24576, 14)),
}
TURNS = 2


def prefixes(run: Run, cases: Sequence[str] = tuple(CASES)) -> None:
    """Each case has two engines of its own; all start at once, and are measured one case after another."""
    from gpu.scenarios import beside_others, up_at_once

    servers = {}
    for number, (case, gpu) in enumerate(itertools.product(cases, range(2)), 1):
        options = {"cache_max_entry_count": CASES[case][0], "enable_prefix_caching": True}
        servers[f"{case}-{gpu}"] = beside_others(run, f"{case}-{gpu}", number, gpu, plan_api_server_options=options)
    with run.step("prefixes.start", 150) as go:
        if not go:
            return
        up_at_once(run, "prefixes", servers, 300)
    for case in cases:
        engines = [servers[f"{case}-{gpu}"] for gpu in range(2)]
        with run.step(f"prefixes.{case}", 60) as go:
            if go:
                measure(run, case, engines)
    for each in servers.values():
        each.stop()


def measure(run: Run, case: str, engines: Sequence[Deployment]) -> None:
    """The three ways in turn, ``TURNS`` times, after one of each that pays for compiling."""
    urls = [each.url for each in engines]
    kept = {"plan_api_server_options": {"enable_prefix_caching": True}}
    with gateway(run, urls, "fewest", 1) as fewest, gateway(run, urls, "alike", 2, **kept) as alike:
        ways = {"in turn": urls, "fewest requests": [fewest.url], "same beginning": [alike.url]}
        seen: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        load = CASES[case][1]
        for turn in range(TURNS + 1):
            for number, (way, doors) in enumerate(ways.items()):
                this = dataclasses.replace(load, prefixes=4) if turn == 0 else load
                prompts = made(engines[0].tokenizer(), this, seed=100 * turn + number)
                before = [metrics_of(get(f"{url}/metrics", 5, METRICS_BYTES)) for url in urls]
                found = asyncio.run(asked(doors, engines[0].model, prompts, this.at_once))
                after = [metrics_of(get(f"{url}/metrics", 5, METRICS_BYTES)) for url in urls]
                if turn:
                    moved = [told(old, new) for old, new in zip(before, after)]
                    found["cached_share"] = share(moved)
                    seen[way].append(found)
                    run.results.put(f"prefixes.{case}.turns", seen)
                    run.results.put(f"prefixes.{case}.metrics.{way} {turn}", moved)
    reference = statistics.median(each["ttft_p50"] for each in seen["in turn"])
    for way, turns in seen.items():
        middle = {name: round(statistics.median(each[name] for each in turns), 3) for name in turns[0]}
        run.results.put(f"prefixes.{case}.{way}", {**middle, "ratio_p50": round(middle["ttft_p50"] / reference, 2)})


def told(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What changed of an engine's counters, and how its cache stands."""
    return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}


def share(moved: Sequence[Mapping[str, float]]) -> float:
    """Of the prompts' tokens those that a cache had."""
    cached, asked_for = (
        sum(each.get(f"metric {name}", 0.0) for each in moved)
        for name in ("cached_tokens_total", "prompt_tokens_total")
    )
    return round(cached / asked_for, 3) if asked_for else 0.0


def made(tokenizer: str, load: Load, seed: int) -> list[str]:
    """The prompts in the order in which they are asked."""
    words = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    count = load.prefixes * load.asked
    beginnings = random_prompts(words, [(load.tokens, 1)] * load.prefixes, seed)
    endings = random_prompts(words, [(ENDING, 1)] * count, seed + 1)
    prompts = [f"{beginnings[number % load.prefixes].prompt} {ending.prompt}" for number, ending in enumerate(endings)]
    random.Random(seed).shuffle(prompts)
    return prompts


async def asked(doors: Sequence[str], model: str, prompts: Sequence[str], at_once: int) -> dict[str, float]:
    """Ask all, so many at once, the doors in turn: milliseconds to the first token, and requests a second."""
    import openai

    free = asyncio.Semaphore(at_once)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                openai.AsyncOpenAI(base_url=f"{door}/v1", api_key=KEYS["gpu"], max_retries=0, timeout=300)
            )
            for door in doors
        ]

        async def one(number: int, prompt: str) -> float:
            async with free:
                return (await ask(clients[number % len(clients)], model, prompt, OUT)).ttft_s

        began = time.monotonic()
        times = sorted(await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts))))
        wall = time.monotonic() - began
    return {
        "ttft_p50": round(1000 * statistics.median(times), 1),
        "ttft_p90": round(1000 * times[int(len(times) * 0.9)], 1),
        "ttft_mean": round(1000 * statistics.fmean(times), 1),
        "requests_per_s": round(len(prompts) / wall, 2),
    }
