# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model that takes the real one's place in every release: it has no layers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from lmfleet_sim.faults import RankFaults
from lmfleet_sim.hooks import replace
from lmfleet_sim.make_model import FIRST_WORD, WORDS
from lmfleet_sim.settings import Settings


def take_the_models_place(agent: Any, weight_loader: Any, settings: Settings) -> None:
    """Have LMDeploy's module ``agent`` build and load this model; ``weight_loader`` is its ModelWeightLoader."""
    import torch

    class SimulatedModel(torch.nn.Module):
        """A model without layers. Its hidden state of a token is the token's position; its answer counts up."""

        ctx_mgr = None

        def __init__(self, model_config: Any, rank: int) -> None:
            super().__init__()
            self.vocab_size = model_config.vocab_size
            self.faults = RankFaults(settings.faults, rank)
            self.shards = 1

        def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
            """Read one shard's weights, as long as the settings say it takes, and drop them."""
            for __ in weights:
                pass
            time.sleep(settings.load_s / self.shards)
            self.faults.loading(torch.OutOfMemoryError)

        def get_logits(self, hidden_states: Any) -> Any:
            """Return logits, shape (1, tokens, vocab_size), that are sure of one plain token a position."""
            positions = hidden_states[..., 0].long()
            token_ids = FIRST_WORD + positions % len(WORDS)
            return torch.zeros(*positions.shape, self.vocab_size).scatter_(-1, token_ids[..., None], 50.0)

    def build_patched_model(model_config: Any, *args: Any, **kwargs: Any) -> SimulatedModel:
        rank = agent.get_dist_manager().current_context().rank  # of all ranks, in DP as well
        if rank == 0:
            print("lmfleet simulator: forward pass simulated", file=sys.stderr, flush=True)
        return SimulatedModel(model_config, rank)

    def load_model_weights(model: SimulatedModel, checkpoint_path: str, **kwargs: Any) -> None:
        model.shards = len(weight_loader(checkpoint_path)._shard_paths)
        real_load_model_weights(model, checkpoint_path, **kwargs)

    real_load_model_weights = agent.load_model_weights
    replace(agent, build_patched_model=build_patched_model, load_model_weights=load_model_weights)


def hidden_states(inputs: Any) -> Any:
    """Return each token's position in its sequence, as hidden states of shape (1, tokens, 1)."""
    import torch

    ends = inputs.history_lengths + inputs.seq_length
    tokens = torch.arange(inputs.input_ids.numel())
    offsets = tokens - torch.repeat_interleave(inputs.seq_length.cumsum(0), inputs.seq_length)
    positions = torch.repeat_interleave(ends, inputs.seq_length) + offsets
    return positions.to(torch.float32)[None, :, None]
