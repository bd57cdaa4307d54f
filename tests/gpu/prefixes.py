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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.deployment import Deployment, get
from gpu.prefill import metrics_of
from tokenizers import Tokenizer

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import GatewayError, state_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.config import files_of, keys_map
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import (
    GATEWAY_ADMIN,
    GATEWAY_FILES,
    GATEWAY_RUN,
    Plan,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.steps import mark_of
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.dataset import random_prompts
from ansible_collections.lmfleet.lmdeploy.programs.warmup import ask

if TYPE_CHECKING:
    from gpu.scenarios import Run

KEYS = {"gpu": "g" * 40}  # inventory/replicas.yml
ENDING, OUT = 64, 16  # tokens
METRICS_BYTES = 1 << 20
UP_S = 60.0


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
    with gateway(run, urls, "fewest", 1) as fewest, gateway(run, urls, "alike", 2, enable_prefix_caching=True) as alike:
        ways = {"in turn": urls, "fewest requests": [fewest], "same beginning": [alike]}
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


@contextlib.contextmanager
def gateway(run: Run, urls: Sequence[str], name: str, number: int, **options: Any) -> Iterator[str]:
    """The gateway of a plan before these endpoints, in the place of the plan's own; its URL."""
    ports = {"gateway": 8440 + 10 * number, "gateway_metrics": 8441 + 10 * number}
    given = run.machine.plan("replicas", plan_name=name, plan_ports=ports, plan_api_server_options=options)
    endpoints = [{**each, "url": url} for each, url in zip(given["endpoints"], urls)]
    at = Deployment(run.machine, {**given, "endpoints": endpoints}, only=["gateway"])
    admin = place(Plan.from_json({**given, "endpoints": endpoints}))
    at.start("gateway")
    try:
        began = time.monotonic()
        while not all_up(admin):
            assert time.monotonic() < began + UP_S, at.process("gateway").logs(timestamps=False, tail=20)
            time.sleep(0.2)
        yield at.url
    finally:
        at.stop()


def all_up(admin: str) -> bool:
    """Whether it answers, and has found every endpoint well."""
    with contextlib.suppress(GatewayError):
        return all(each["up"] for each in state_of(admin)["servers"].values())
    return False


def place(plan: Plan) -> str:
    """Write the files of a plan's gateway to where its service mounts them, with paths as they are here; its admin socket."""
    service, planned = plan.only("gateway"), plan.gateway
    assert planned
    places = {target: service.source_of(target) for target in (GATEWAY_FILES, GATEWAY_RUN)}
    secrets = {"keys.map": keys_map(KEYS)}
    texts = {**secrets, **files_of(plan, planned, {name: mark_of(text) for name, text in secrets.items()})}
    folder = Path(places[GATEWAY_FILES])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        own = text.replace(GATEWAY_FILES, places[GATEWAY_FILES]).replace(GATEWAY_RUN, places[GATEWAY_RUN])
        (folder / name).write_text(own, encoding="utf-8")
    return GATEWAY_ADMIN.replace(GATEWAY_RUN, places[GATEWAY_RUN])
