# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LMDeploy 0.18.0: where the model's forward pass is cut out of the PyTorch engine.

Real: the command line, api_server, engine, scheduler, paging arithmetic, reading the safetensors shards, sampling,
stopping, executors and process groups. Simulated: the model's layers, the KV cache's memory, the GPU's operators.
The setting ``shallow`` also leaves out a rank's own processes and Ray: see v0_18_shallow.py.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmfleet_sim import v0_18_shallow
from lmfleet_sim.cuda import current_stream
from lmfleet_sim.hooks import ImportHooks, replace
from lmfleet_sim.model import hidden_states, take_the_models_place
from lmfleet_sim.settings import Settings

# DP ranks that are all idle ask each other for work this often, so a request to idle ranks waits that long. LMDeploy's own
# pause of 0.01 s is a tenth of a core for every idle rank.
IDLE_S = 0.25


def register(hooks: ImportHooks, settings: Settings) -> None:
    """Replace the model in LMDeploy's model agent, and what needs a GPU to run."""
    if settings.shallow:
        v0_18_shallow.register(hooks)

    if any(fault.kind == "lose_start" for fault in settings.faults):
        lose_starts(hooks, settings)

    @hooks.after("lmdeploy.pytorch.engine.model_agent.agent")
    def simulate_model(agent: Any) -> None:
        import torch
        from torch import distributed

        take_the_models_place(agent, agent.ModelWeightLoader, settings)

        def model_forward(runner: Any, inputs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            """Launch one step on the GPU's clock: it ends when its time is over and every rank of the group is in it.

            Of a step's many collectives this is the first; the last is the broadcast of its tokens.
            Returns hidden states of shape (1, tokens, 1).
            """
            begins = not inputs.is_decoding and not inputs.is_dummy and (inputs.is_first_chunk or not inputs.is_chunk)
            hang_s = runner.get_model().faults.forward(len(inputs.seq_length) if begins else 0)
            tokens = inputs.input_ids.numel()
            step_s = settings.step_s if inputs.is_decoding else tokens / settings.prefill_tokens_per_s
            group = agent.get_dist_manager().current_context().tp_group.gpu_group
            if group is not None and not hang_s:
                current_stream().join(lambda: distributed.all_reduce(torch.ones(1), group=group, async_op=True))
            current_stream().launch(step_s + hang_s)
            return {
                "hidden_states": hidden_states(inputs),
                "model_metas": None,
                "seq_length": inputs.seq_length,
                "position_ids": None,
            }

        replace(agent, model_forward=model_forward)

    @hooks.after("lmdeploy.pytorch.engine.model_agent.agent")
    def rest_while_idle(agent: Any) -> None:
        real_prepare = agent.BaseModelAgent._prepare_dp_v1

        async def prepare_dp(self: Any, inputs: Any) -> Any:
            """Agree with all ranks on the next step; pause if none has work, which all learn at the same time."""
            inputs, is_all_sleeping = await real_prepare(self, inputs)
            if inputs is None and not is_all_sleeping:
                await asyncio.sleep(IDLE_S)
            return inputs, is_all_sleeping

        replace(agent.BaseModelAgent, _prepare_dp_v1=prepare_dp)

    @hooks.after("lmdeploy.pytorch.strategies.ar.model_agent")
    def broadcast_as_nccl(strategy: Any) -> None:
        @contextmanager
        def broadcast_next_token(self: Any, next_token_ids: Any, extra_inputs: Any, dist_ctx: Any) -> Iterator[None]:
            """Broadcast the tokens from the group's first rank; the stream waits for it, not the host as with gloo.

            It begins when the step is over, so a rank that is killed in a step leaves the others in it for ever. The host is
            a step ahead of the device: with all that it launches done at once, the step would end, and LMDeploy's next call
            of the dead worker would tell.
            """
            group = dist_ctx.attn_tp_group.gpu_group
            first = strategy.dist.get_global_rank(group, 0)
            current_stream().join(
                lambda: strategy.dist.broadcast(next_token_ids, src=first, group=group, async_op=True)
            )
            yield

        replace(strategy.ARModelAgentStrategy, broadcast_next_token=broadcast_next_token)

    @hooks.after("lmdeploy.pytorch.engine.cache_engine.plan")
    def allocate_no_cache(plan: Any) -> None:
        real_allocate = plan.BlockCachePlan.allocate

        def allocate(self: Any, num_logical_blocks: int, device: Any) -> Any:
            return real_allocate(self, num_logical_blocks, "meta")  # shapes without memory

        replace(plan.BlockCachePlan, allocate=allocate)

    @hooks.after("lmdeploy.pytorch.backends.cuda.op_backend")
    def use_default_operators(op_backend: Any) -> None:
        from lmdeploy.pytorch.backends.graph_runner import GraphRunner

        replace(
            op_backend.CudaOpsBackend,
            build_op=op_backend.DefaultOpsBackend.build_op,
            build_graph_runner=staticmethod(GraphRunner),
            ccl_backend=staticmethod(lambda: "gloo"),
        )

    @hooks.after("lmdeploy.pytorch.check_env.triton")
    def skip_triton_check(triton: Any) -> None:
        replace(triton.TritonChecker, check=lambda self: None)


class DeafConnection:
    """A connection to a lock's manager that does not hear that the lock was let go: EOFError, as when the manager ends first."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, message: tuple[Any, str, Any, Any]) -> None:
        """Send a call (object, method, arguments, keywords)."""
        if message[1] == "release":
            with socket.socket(fileno=os.dup(self._connection.fileno())) as end:
                end.shutdown(socket.SHUT_RD)
        self._connection.send(message)

    def recv(self) -> Any:
        """Read a call's answer."""
        return self._connection.recv()


def lose_starts(hooks: ImportHooks, settings: Settings) -> None:
    """Have an engine's process lose its race against the api_server that started it, as it does on a busy host.

    It gives the api_server its port and lets go of their lock; the api_server then ends the manager that has the lock, at times
    before that has told the engine's process so. How often a rank has lost is kept in the cache that its host mounts.
    """
    starts = {fault.rank: max(1, fault.requests) for fault in settings.faults if fault.kind == "lose_start"}

    @hooks.after("lmdeploy.pytorch.engine.mp_engine.zmq_engine")
    def lose(zmq_engine: Any) -> None:
        real_mp_proc = zmq_engine.ZMQMPEngine._mp_proc

        @functools.wraps(real_mp_proc)
        def mp_proc(shared_dict: Any, condition: Any, *args: Any, engine_config: Any = None, **kwargs: Any) -> Any:
            rank = engine_config.dp_rank
            lost = Path.home() / ".cache" / f"lmfleet-sim-lost-starts-{rank}"
            before = int(lost.read_text()) if lost.exists() else 0
            if before < starts.get(rank, starts.get(None, 0)):
                lost.write_text(str(before + 1))
                condition._connect()
                condition._tls.connection = DeafConnection(condition._tls.connection)
            return real_mp_proc(shared_dict, condition, *args, engine_config=engine_config, **kwargs)

        replace(zmq_engine.ZMQMPEngine, _mp_proc=staticmethod(mp_proc))
