# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time to first token by the size of a request: the first of its size, and the later ones."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.dataset import random_prompts
from ansible_collections.lmfleet.lmdeploy.programs.warmup import ask

OUT = 32
REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Size:
    """``requests`` prompts of ``tokens``, sent at once."""

    tokens: int
    requests: int = 1

    @property
    def name(self) -> str:
        return str(self.tokens) if self.requests == 1 else f"{self.requests} x {self.tokens}"


# What the measurements are about, in the order they are sent; and sizes between, sent after them.
SIZES = (Size(10), Size(512), Size(2048), Size(8192), Size(128, 8), Size(128, 64))
OTHERS = (Size(100), Size(1000), Size(4000), Size(1, 2), Size(16, 16))


class Prompts:
    """Texts of so many tokens, each another one: for every size as many bursts as ``times`` says."""

    def __init__(self, tokenizer: str, sizes: Sequence[Size], times: int = 1) -> None:
        lengths = [(size.tokens, OUT) for size in sizes for __ in range(size.requests * times)]
        # Not load_tokenizer: Transformers cannot be imported after ansible-core 2.19, which replaces sys.intern.
        made = iter(random_prompts(Tokenizer.from_file(f"{tokenizer}/tokenizer.json"), lengths, seed=1))
        self._bursts = {
            size: [[next(made).prompt for __ in range(size.requests)] for __ in range(times)] for size in sizes
        }

    def take(self, size: Size) -> list[str]:
        return self._bursts[size].pop()


async def burst(url: str, model: str, prompts: Sequence[str]) -> dict[str, float]:
    """Send prompts at once: milliseconds to the slowest and the median first token, and to the end of all."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        await client.models.list()  # so that the connection's making is no part of it
        began = time.monotonic()
        replies = await asyncio.gather(*(ask(client, model, prompt, OUT) for prompt in prompts))
        wall = time.monotonic() - began
    times = [reply.ttft_s for reply in replies]
    found = {"ttft": max(times), "ttft_p50": statistics.median(times), "wall": wall}
    return {key: round(1000 * value, 1) for key, value in found.items()}


def measure(
    url: str,
    model: str,
    tokenizer: str,
    kernels: Callable[[], dict[str, int]],
    sizes: Sequence[Size] = (*SIZES, *OTHERS),
    repeats: int = REPEATS,
) -> dict[str, dict[str, Any]]:
    """By size: the first request's figures, the medians of the later ones, their ratio, and the kernels it compiled."""
    found: dict[str, dict[str, Any]] = {}
    prompts = Prompts(tokenizer, sizes, 1 + repeats)
    before = kernels()
    for size in sizes:
        first = asyncio.run(burst(url, model, prompts.take(size)))
        after = kernels()
        compiled = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
        found[size.name] = {"first": first, "compiled": compiled}
        before = after
    for size in sizes:
        later = [asyncio.run(burst(url, model, prompts.take(size))) for __ in range(repeats)]
        steady = {key: statistics.median(each[key] for each in later) for key in later[0]}
        ratio = round(found[size.name]["first"]["ttft"] / steady["ttft"], 2)
        slowest = max(each["ttft"] for each in later)
        found[size.name].update(steady=steady, ratio=ratio, slowest_later=slowest)
    return found


async def decode(url: str, model: str, prompts: Sequence[str], tokens: int) -> dict[str, float]:
    """Send prompts at once, each for so many tokens: tokens a second of all, and the median milliseconds of one after the first."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:
        await client.models.list()
        began = time.monotonic()
        replies = await asyncio.gather(*(ask(client, model, prompt, tokens) for prompt in prompts))
        wall = time.monotonic() - began
    each = [(reply.total_s - reply.ttft_s) / max(reply.completion_tokens - 1, 1) for reply in replies]
    made = sum(reply.completion_tokens for reply in replies)
    return {
        "tok_s": round(made / wall, 1),
        "tpot_ms": round(1000 * statistics.median(each), 3),
        "wall_s": round(wall, 1),
    }
