# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sizes of a plan depend on in a model's config.json.

Of the models below it is known before a host is touched; after the model check the hosts' own file decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DEEPSEEK_V3: dict[str, Any] = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
KNOWN = {
    f"deepseek-ai/{name}": DEEPSEEK_V3
    for name in ("DeepSeek-V3", "DeepSeek-V3-0324", "DeepSeek-V3.1", "DeepSeek-R1", "DeepSeek-R1-0528")
}
EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts")


class Model:
    """A model's sizes; each is None where nothing says it."""

    def __init__(self, name: str, seen: Mapping[str, Any] | None) -> None:
        seen = seen or {}
        # A file that a host has is whole: what it leaves out, the model has not.
        self._config = dict(seen) if "hidden_size" in seen else {**KNOWN.get(name, {}), **seen}

    def _number(self, *keys: str) -> int | None:
        return next((found for key in keys if isinstance(found := self._config.get(key), int) and found > 0), None)

    @property
    def heads(self) -> int | None:
        """Attention heads."""
        return self._number("num_attention_heads")

    @property
    def hidden(self) -> int | None:
        """The size of a token's activation, in elements."""
        return self._number("hidden_size")

    @property
    def experts(self) -> int | None:
        """Routed experts of a layer."""
        return self._number(*EXPERTS)

    def undivided_blocks(self, tp: int, *, experts: bool) -> Iterator[tuple[str, int, int]]:
        """(key, size, blocks) of each weight of block FP8 whose scales ``tp`` ranks cannot share; ``experts`` too.

        LMDeploy chunks the rows of scales as it does those of weights (nn/linear/blocked_fp8.py and nn/moe/blocked_fp8.py,
        0.8.0 to 0.18.0): a rank without a chunk ends with an IndexError, and one with another's is wrong.
        """
        quantization = self._config.get("quantization_config") or {}
        if quantization.get("quant_method") != "fp8" or not quantization.get("weight_block_size"):
            return
        block = int(quantization["weight_block_size"][0])
        shared = (self._number("moe_intermediate_size") or 0) * (self._number("n_shared_experts") or 0)
        sizes = {
            "intermediate_size": self._number("intermediate_size"),
            "moe_intermediate_size": self._number("moe_intermediate_size") if experts else None,
            "moe_intermediate_size x n_shared_experts": None if experts else shared,
        }
        for key, size in sizes.items():
            if size and -(-size // block) % tp:
                yield key, size, -(-size // block)
