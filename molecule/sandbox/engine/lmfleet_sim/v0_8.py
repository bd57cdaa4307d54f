# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LMDeploy 0.8.0 and 0.9.2.post1: where the model's forward pass is cut out of the PyTorch engine.

Real: the command line, api_server, engine, scheduler, paging arithmetic, reading the safetensors shards, sampling,
stopping, executors and process groups, and so the waiting of every data parallel rank for all others. Simulated: the
model's layers, the KV cache's memory, the GPU's operators.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

from lmfleet_sim.hooks import ImportHooks, replace
from lmfleet_sim.model import hidden_states, take_the_models_place
from lmfleet_sim.settings import Settings, SettingsError

POLL_S = 0.005


def register(hooks: ImportHooks, settings: Settings) -> None:
    """Replace the model in LMDeploy's model agent, and what needs a GPU to run.

    Raises SettingsError for the setting ``shallow`` and the fault ``lose_start``, which this release does not have.
    """
    if settings.shallow:
        raise SettingsError("LMFLEET_SIM_SHALLOW=1 is for lmdeploy 0.18.0 only: leave it out")
    if any(fault.kind == "lose_start" for fault in settings.faults):
        raise SettingsError("the fault lose_start is for lmdeploy 0.18.0 only: leave it out")

    @hooks.after("lmdeploy.pytorch.engine.model_agent")
    def simulate_model(agent: Any) -> None:
        import torch
        from lmdeploy.pytorch.weight_loader.model_weight_loader import ModelWeightLoader
        from torch import distributed

        take_the_models_place(agent, ModelWeightLoader, settings)

        def model_forward(runner: Any, inputs: Any, cache_engine: Any, stream: Any) -> dict[str, Any]:
            """Launch one step on the GPU's clock: it ends when its time is over and every rank of the group is in it.

            Returns hidden states of shape (1, tokens, 1).
            """
            # A dummy batch, which only keeps the other ranks going, has one token a sequence.
            begins = (inputs.history_lengths == 0) & (inputs.seq_length > 1)
            hang_s = runner.get_model().faults.forward(int(begins.sum()))
            tokens = inputs.input_ids.numel()
            step_s = settings.step_s if inputs.is_decoding else tokens / settings.prefill_tokens_per_s
            ranks = agent.get_dist_manager().current_context()
            collectives = [
                distributed.all_reduce(torch.ones(1), group=group, async_op=True)
                for group in (ranks.tp_gpu_group, ranks.ep_gpu_group)
                if group is not None and not hang_s
            ]
            stream.launch(step_s + hang_s, *collectives)
            return {"hidden_states": hidden_states(inputs), "model_metas": None}

        def all_gather_into_tensor(output: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            """Gather scalars as NCCL does: gloo wants one dimension at least."""
            return real_all_gather_into_tensor(output, torch.atleast_1d(value), *args, **kwargs)

        real_all_gather_into_tensor = distributed.all_gather_into_tensor
        replace(agent, model_forward=model_forward)
        replace(distributed, all_gather_into_tensor=all_gather_into_tensor)

    @hooks.after("lmdeploy.pytorch.engine.mp_engine.zmq_rpc")  # 0.9.2.post1 alone has it
    def poll_now_and_then(zmq_rpc: Any) -> None:
        """The engine's process asks its socket for work without a pause, a whole core for every rank."""
        patient = ModuleType("asyncio")
        patient.__dict__.update(asyncio.__dict__, sleep=lambda seconds: asyncio.sleep(max(seconds, POLL_S)))
        replace(zmq_rpc, asyncio=patient)

    @hooks.after("lmdeploy.pytorch.engine.cache_engine")
    def allocate_no_cache(cache_engine: Any) -> None:
        real_allocate = cache_engine.CacheEngine._allocate_cache

        def allocate(self: Any, num_blocks: int, device: Any) -> Any:
            return real_allocate(self, num_blocks, "meta")  # shapes without memory

        replace(cache_engine.CacheEngine, _allocate_cache=allocate)

    @hooks.after("lmdeploy.pytorch.backends.cuda.op_backend")
    def use_default_operators(op_backend: Any) -> None:
        from lmdeploy.pytorch.backends.graph_runner import GraphRunner

        replace(
            op_backend.CudaOpsBackend,
            get_layer_impl_builder=op_backend.DefaultOpsBackend.get_layer_impl_builder,
            build_graph_runner=staticmethod(GraphRunner),
            ccl_backend=staticmethod(lambda: "gloo"),
        )

    @hooks.after("lmdeploy.pytorch.check_env.triton")
    def skip_triton_check(triton: Any) -> None:
        replace(triton.TritonChecker, check=lambda self: None)
