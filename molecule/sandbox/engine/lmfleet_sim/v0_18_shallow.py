# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LMDeploy 0.18.0, shallower, so that a machine holds many data parallel ranks (``LMFLEET_SIM_SHALLOW=1``).

A rank is one process: its engine runs in the api_server's, not in one of its own, and its GPU's worker in the engine,
not under a Ray of the rank's own. Still real: the command line, the api_server, the engine and its scheduler, the
process group of all ranks and their waiting for each other, registration at the proxy, and streaming. What differs: a
fault at load ends the api_server itself, not a process below it; and a rank's log has nothing of Ray in it. Ranks of more
than one GPU are refused.
"""

from __future__ import annotations

from typing import Any

from lmfleet_sim.hooks import ImportHooks, replace


def register(hooks: ImportHooks) -> None:
    """Have a data parallel rank's engine and worker run in the api_server's process."""

    @hooks.after("lmdeploy.pytorch.engine.mp_engine")
    def run_engine_here(mp_engine: Any) -> None:
        def build_engine(backend: str, model_path: str, engine_config: Any, **kwargs: Any) -> Any:
            from lmdeploy.pytorch.engine import Engine

            engine_config.enable_mp_engine = False
            return Engine.from_pretrained(model_path, engine_config=engine_config, **kwargs)

        replace(mp_engine, build_mp_engine=build_engine)

    @hooks.after("lmdeploy.pytorch.engine.executor.ray_executor")
    def run_worker_here(ray_executor: Any) -> None:
        replace(ray_executor, RayExecutor=make_executor())


def make_executor() -> type:
    """Return the executor of a rank with one GPU that works in the calling process."""
    from lmdeploy.pytorch import envs
    from lmdeploy.pytorch.distributed import get_dist_manager
    from lmdeploy.pytorch.engine.executor.base_worker import WorkerWrapperBase
    from lmdeploy.pytorch.engine.executor.uni_executor import UniExecutor
    from torch import distributed

    class OneProcessExecutor(UniExecutor):
        """LMDeploy's executor for a single GPU, in the process group of all ranks."""

        def __init__(self, dist_config: Any, device_type: str, dtype: str, **kwargs: Any) -> None:
            if dist_config.attn_tp > 1:
                raise NotImplementedError(
                    f"LMFLEET_SIM_SHALLOW=1 is for ranks of one GPU, this one has {dist_config.attn_tp}: leave it out"
                )
            self.world_size, self.dist_config, self.device_type = dist_config.world_size, dist_config, device_type
            WorkerWrapperBase.init_process_group(self, dist_config.dp_rank, envs.dp_master_addr, envs.dp_master_port)
            distributed.barrier()
            with get_dist_manager().context(self.dist_ctx):
                super().__init__(device_type=device_type, **kwargs)
            self.world_size, self.dist_config, self.dp = dist_config.world_size, dist_config, dist_config.dp

    return OneProcessExecutor
