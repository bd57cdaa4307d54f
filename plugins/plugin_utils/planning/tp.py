# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensor parallelism over Ray.

The containers of one engine: ``ray`` on each of its nodes (the head's first, workers join it), then ``api`` on its head,
which shares Ray's session directory and the host's PID namespace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .inputs import Inputs
from .services import ANY_ADDRESS, engine_service, home_of
from .types import Endpoint, Engine, Faults, Image, Mount, Node, Service

RAY_TMP = "/tmp/ray"  # noqa: S108 - Ray's own session directory inside the containers
# Options of api_server that the plan computes, and the variable to set instead.
OWNED_OPTIONS = {
    "--backend": "nothing: TP over Ray needs the pytorch backend",
    "--tp": "plan_tp",
    "--dp": "nothing: in TP there is one engine over all GPUs",
    "--ep": "nothing: in TP there is one engine over all GPUs",
    "--nnodes": "nothing: Ray places the workers",
    "--node-rank": "nothing: Ray places the workers",
    "--server-port": "plan_ports.api",
}
# Enough to refuse a wrong tp before a host is touched; after the model check the hosts' own config.json decides.
ATTENTION_HEADS = {
    "deepseek-ai/DeepSeek-V3": 128,
    "deepseek-ai/DeepSeek-V3-0324": 128,
    "deepseek-ai/DeepSeek-V3.1": 128,
    "deepseek-ai/DeepSeek-R1": 128,
    "deepseek-ai/DeepSeek-R1-0528": 128,
}


def engines(
    inputs: Inputs, image: Image, arguments: Sequence[str], model_config: Mapping[str, Any] | None, faults: Faults
) -> list[Engine]:
    """The engines, one for each group of nodes, and what is wrong with their size."""
    if inputs.dp or inputs.ep:
        faults.add("plan_dp and plan_ep are for plan_topology: dpep; in TP there is one engine over all GPUs.")
    found = []
    for name in dict.fromkeys(node.engine for node in inputs.nodes):
        members = [node for node in inputs.nodes if node.engine == name]
        gpus = sum(node.gpus for node in members)
        engine = Engine(
            name=name,
            topology="tp",
            launcher=None,
            head=members[0].name,
            nodes=[node.name for node in members],
            gpus=gpus,
            tp=inputs.tp or gpus,
            dp=1,
            ep=1,
            image=image,
            arguments=list(arguments),
        )
        if all(node.gpus > 0 for node in members):  # else refused already
            _check(inputs, engine, members, model_config, faults)
        found.append(engine)
    return found


def _check(
    inputs: Inputs, engine: Engine, members: Sequence[Node], config: Mapping[str, Any] | None, faults: Faults
) -> None:
    tp, gpus = engine.tp, engine.gpus
    whose = "the plan" if engine.name == inputs.name else f"the replica {engine.name}"
    if tp > gpus:
        shares = ", ".join(f"{node.name} {node.gpus}" for node in members)
        faults.add(
            f"plan_tp is {tp}, but {whose} has {gpus} GPUs ({shares}): lower plan_tp, or raise plan_gpus or add nodes."
        )
    heads = (config or {}).get("num_attention_heads") or ATTENTION_HEADS.get(inputs.model)
    if isinstance(heads, int) and heads % tp:
        fitting = [n for n in range(1, gpus + 1) if heads % n == 0]
        faults.add(
            f"plan_tp is {tp}{'' if inputs.tp else ' (the sum of plan_gpus)'}, which does not divide the {heads} "
            f"attention heads of {inputs.model}: set plan_tp to one of {', '.join(map(str, fitting))}."
        )


def services(inputs: Inputs, engine: Engine, token: bool) -> tuple[list[Service], list[Endpoint]]:
    """The engine's containers, and where it answers."""
    members = [node for node in inputs.nodes if node.engine == engine.name]
    head = members[0]
    api = _api_service(inputs, head, engine, token)
    url = f"http://{head.address}:{inputs.ports.api}"
    endpoint = Endpoint(
        rank=0, engine=engine.name, node=head.name, url=url, gpus=list(range(head.gpus)), container=api.name
    )
    return [*(_ray_service(inputs, engine, head, node, token) for node in members), api], [endpoint]


def _ray_service(inputs: Inputs, engine: Engine, head: Node, node: Node, token: bool) -> Service:
    ports = inputs.ports
    where = (
        [
            *("--head", "--port", str(ports.ray)),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports.ray_dashboard)),
        ]
        if node.is_head
        else ["--address", f"{head.address}:{ports.ray}"]
    )
    command = [
        *("ray", "start", "--block", *where),
        *("--node-ip-address", node.address),
        *("--num-gpus", str(node.gpus)),
        *("--node-manager-port", str(ports.ray_node_manager)),
        *("--object-manager-port", str(ports.ray_object_manager)),
        *("--runtime-env-agent-port", str(ports.ray_runtime_env_agent)),
        *("--metrics-export-port", str(ports.ray_metrics)),
        *("--dashboard-agent-listen-port", str(ports.ray_dashboard_agent)),
        *("--dashboard-agent-grpc-port", str(ports.ray_dashboard_agent_grpc)),
        *("--min-worker-port", str(ports.ray_worker_first)),
        *("--max-worker-port", str(ports.ray_worker_last)),
        "--disable-usage-stats",
    ]
    listens = [
        *([ports.ray, ports.ray_dashboard] if node.is_head else []),
        *(ports.ray_node_manager, ports.ray_object_manager, ports.ray_runtime_env_agent, ports.ray_metrics),
        *(ports.ray_dashboard_agent, ports.ray_dashboard_agent_grpc),
    ]
    return _over_ray(inputs, engine.image, head, node, "ray", command, listens, "unless-stopped", token)


def _api_service(inputs: Inputs, head: Node, engine: Engine, token: bool) -> Service:
    # The proxy is told the address that the server listens on.
    name = head.address if inputs.proxy else ANY_ADDRESS
    command = [
        *("lmdeploy", "serve", "api_server", inputs.model, "--backend", "pytorch"),
        *("--tp", str(engine.tp)),
        *([] if engine.option("server-name") else ["--server-name", name]),
        *("--server-port", str(inputs.ports.api)),
        *engine.arguments,
    ]
    listens = [inputs.ports.api, inputs.ports.torch]
    # No restart: one service alone can never rejoin its group, and a crash while loading would load for ever.
    return _over_ray(inputs, engine.image, head, head, "api", command, listens, "no", token)


def _over_ray(
    inputs: Inputs,
    image: Image,
    head: Node,
    node: Node,
    service: str,
    command: Sequence[str],
    listens: Sequence[int],
    restart_policy: str,
    token: bool,
) -> Service:
    """A container that is part of the Ray cluster."""
    home = home_of(inputs, node)
    return engine_service(
        inputs,
        image,
        node,
        service,
        command,
        listens=listens,
        environment={
            "LMDEPLOY_DIST_MASTER_ADDR": head.address,
            "LMDEPLOY_DIST_MASTER_PORT": str(inputs.ports.torch),
            **({"RAY_ADDRESS": f"{head.address}:{inputs.ports.ray}"} if service == "api" else {}),
        },
        restart_policy=restart_policy,
        token=token,
        pid_mode="host",
        mounts=[Mount(f"{home}/ray", RAY_TMP)],
        directories=[f"{home}/ray"],
    )
