# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that LMDeploy takes without a word, and that cannot work here or do nothing.

Read in lmdeploy/cli/serve.py of every release from 0.8.0 to 0.18.0.
"""

from __future__ import annotations

import math
from typing import Any

from ..releases import at_least, option_name
from .values import shown

# Given to TurbomindEngineConfig alone, or to nothing; this collection serves with the pytorch backend.
TURBOMIND = frozenset(
    {
        "--async",
        "--communicator",
        "--cp",
        "--dist-init-addr",
        "--max-prefill-iters",
        "--moe-a2a-backend",
        "--num-tokens-per-iter",
        "--rope-scaling-factor",
    }
)
MODEL_FORMAT_SINCE = "0.9.0"  # before, TurboMind's alone
PART = "prefill and decode on engines of their own (DistServe), which this collection does not deploy"
# Option -> the values that are of use, and why no other is.
API_SERVER: dict[str, tuple[tuple[Any, ...], str]] = {
    "--ssl": (
        (False,),
        "makes the api_server speak HTTPS, and every planned URL is http: take it out, and put a gateway with TLS in front",
    ),
    "--role": (("Hybrid",), f"is for {PART}: take it out"),
    "--migration-backend": ((), f"is for {PART}, and does nothing otherwise: take it out"),
    "--device": (("cuda",), "has to be cuda, because this collection gives containers NVIDIA GPUs only: take it out"),
    "--distributed-executor-backend": (
        ("ray",),
        "cannot be anything but ray here, which is what starts workers on other hosts: take it out",
    ),
}
PROXY: dict[str, tuple[tuple[Any, ...], str]] = {
    "--ssl": (
        (False,),
        "makes the proxy speak HTTPS, and every planned URL is http: take it out, and put a gateway with TLS in front",
    ),
    "--serving-strategy": (("Hybrid",), f"is for {PART}: take it out"),
    **dict.fromkeys(
        ("--disable-gdr", "--dummy-prefill", "--link-type", "--migration-protocol"),
        ((False,), f"is for {PART}, and does nothing otherwise: take it out"),
    ),
}
# What the engine asserts of its configuration (PytorchEngineConfig in lmdeploy/messages.py, the same in all these releases).
# Option -> the lowest, the highest, and what is right. An engine ends with less or more at its start.
LIMITS: dict[str, tuple[float, float, str]] = {
    "--cache-max-entry-count": (1e-9, 1 - 1e-9, "a part of the free GPU memory above 0 and below 1, such as 0.8"),
    "--max-batch-size": (0, 1 << 31, "a number of requests, 1 or more"),
    "--max-prefill-token-num": (0, 1 << 31, "a number of tokens, 0 or more"),
    "--session-len": (1, 1 << 31, "a number of tokens, 1 or more"),
    "--speculative-num-draft-tokens": (1, 1 << 31, "a number of tokens, 1 or more"),
    "--cache-block-seq-len": (16, 1 << 31, "a number of tokens, 16 or more"),
}
QUANT_POLICIES = (0, 4, 8, 16, 17, 42)  # QuantPolicy of 0.18; the releases before have some of them
COMMANDS = {"api_server": API_SERVER, "proxy": PROXY}


def _number(value: Any) -> float:
    """A value as a number; no number is not a number either."""
    try:
        return math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        return math.nan


def reason(command: str, release: str | None, key: str, value: Any, *, ep: bool) -> str | None:
    """Why ``key: value`` is refused, as the end of a sentence that starts with the key; None where it is not.

    ``ep``: there is expert parallelism.
    """
    name = option_name(key)
    if value is None:
        return None
    useful, why = COMMANDS[command].get(name, (None, ""))
    if useful is not None and value not in useful:
        return why
    if command != "api_server":
        return None
    if name in TURBOMIND or (name == "--model-format" and not at_least(release, MODEL_FORMAT_SINCE)):
        return "is an option of TurboMind, and does nothing with the pytorch backend, which is used here: take it out"
    if name in LIMITS:
        low, high, right = LIMITS[name]
        if not low <= _number(value) <= high:
            return f"is {shown(value)}, and takes {right}"
    if name == "--quant-policy" and _number(value) not in QUANT_POLICIES:
        return f"is {shown(value)}, and takes one of {', '.join(map(str, QUANT_POLICIES))}"
    if name == "--enable-eplb" and value is True and not ep:
        return "balances the experts of several ranks, and LMDeploy ends with it where plan_ep is 1: take it out"
    return None
