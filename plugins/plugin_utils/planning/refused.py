# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that LMDeploy takes without a word, and that cannot work here or do nothing.

Read in lmdeploy/cli/serve.py of every release from 0.8.0 to 0.18.0.
"""

from __future__ import annotations

from typing import Any

from ..releases import at_least, option_name

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
    "--distributed-executor-backend": (
        ("ray",),
        "cannot be anything but ray here, which is what starts workers on other hosts: take it out",
    ),
}
PROXY: dict[str, tuple[tuple[Any, ...], str]] = {
    "--serving-strategy": (("Hybrid",), f"is for {PART}: take it out"),
    **dict.fromkeys(
        ("--disable-gdr", "--dummy-prefill", "--link-type", "--migration-protocol"),
        ((False,), f"is for {PART}, and does nothing otherwise: take it out"),
    ),
}
COMMANDS = {"api_server": API_SERVER, "proxy": PROXY}


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
    if name == "--enable-eplb" and value is True and not ep:
        return "balances the experts of several ranks, and LMDeploy ends with it where plan_ep is 1: take it out"
    return None
