# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensor parallelism over Ray.

The containers of one engine: ``ray`` on each of its nodes (the head's first, workers join it), then ``api`` on its head,
which shares Ray's session directory and the host's PID namespace.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..releases import at_least
from . import deepep
from .inputs import Inputs
from .model import Model
from .services import ANY_ADDRESS, engine_service, home_of
from .supervision import supervised
from .types import Endpoint, Engine, Faults, Image, Mount, Node, Service, some

RAY_TMP = "/tmp/ray"  # noqa: S108 - Ray's own session directory inside the containers
# Options of api_server that the plan computes, and the variable to set instead.
OWNED_OPTIONS = {
    "--backend": "nothing: TP over Ray needs the pytorch backend",
    "--tp": "plan_tp",
    "--dp": "nothing: in TP there is one engine over all GPUs",
    "--ep": "plan_ep",
    "--nnodes": "nothing: Ray places the workers",
    "--node-rank": "nothing: Ray places the workers",
    "--server-port": "plan_ports.api",
}
EP_SINCE = "0.11.0"  # before, ep had to divide dp, which is 1 here
PORT_SINCE = "0.9.0"  # before, LMDeploy took a free port where the workers of TP meet


def engines(inputs: Inputs, image: Image, arguments: Sequence[str], model: Model, faults: Faults) -> list[Engine]:
    """The engines, one for each group of nodes, and what is wrong with their size."""
    if inputs.dp > 1:
        faults.add(
            f"plan_dp is {inputs.dp}, and in TP there is one engine over all GPUs: leave it out, or set plan_topology: dpep."
        )
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
            ep=inputs.ep or 1,
            image=image,
            arguments=list(arguments),
        )
        if all(node.gpus > 0 for node in members):  # else refused already
            fits = _check(inputs, engine, members, model, faults)
            if _check_ep(engine, faults) and fits:
                engine = deepep.with_deepep(inputs, engine, model, faults)
        found.append(engine)
    return found


def _check(inputs: Inputs, engine: Engine, members: Sequence[Node], model: Model, faults: Faults) -> bool:
    """Whether the model can be split so; what it cannot goes to ``faults``."""
    tp, gpus = engine.tp, engine.gpus
    whose = "the plan" if engine.name == inputs.name else f"the replica {engine.name}"
    if tp > gpus:
        shares = some([f"{node.name} {node.gpus}" for node in members])
        faults.add(
            f"plan_tp is {tp}, but {whose} has {gpus} GPUs ({shares}): lower plan_tp, or raise plan_gpus or add nodes."
        )
        return False
    why = unfit(model, tp, tp, experts=engine.ep == 1)
    if why:
        fitting = [n for n in range(1, gpus + 1) if not unfit(model, n, n, experts=engine.ep == 1)]
        faults.add(
            f"plan_tp is {tp}{'' if inputs.tp else ' (the sum of plan_gpus)'}, which does not divide {why} of {inputs.model}: "
            + (
                f"set plan_tp to one of {', '.join(map(str, fitting))}."
                if engine.ep == 1
                else "with plan_ep it is the number of all GPUs, so set plan_topology: dpep, or leave plan_ep out."
            )
        )
    return not why


def unfit(model: Model, attention: int, tp: int, *, experts: bool) -> str | None:
    """What of the model so many GPUs cannot share: its attention, or its dense layers (``tp``), and the ``experts`` with them."""
    if model.heads and model.heads % attention:
        return f"the {model.heads} attention heads"
    for key, size, blocks in model.undivided_blocks(tp, experts=experts):
        return f"the {blocks} FP8 blocks ({key} {size})"
    return None


def _check_ep(engine: Engine, faults: Faults) -> bool:
    """Whether plan_ep is one that TP over Ray can have."""
    tp, ep, release = engine.tp, engine.ep, engine.image.release
    if ep == 1:
        return True
    if not at_least(release, EP_SINCE):
        faults.add(
            f"plan_ep is {ep}, and LMDeploy {release} has expert parallelism with data parallelism alone: set plan_topology: "
            f"dpep, or plan_image to {EP_SINCE} or later."
        )
    elif not ep == tp == engine.gpus:
        faults.add(
            f"plan_ep is {ep} and plan_tp {tp} over {engine.gpus} GPUs: in TP all three are the same number. Set plan_ep to "
            f"{engine.gpus} and leave plan_tp out, or leave plan_ep out."
        )
    else:
        return True
    return False


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
    return _over_ray(inputs, engine, head, node, "ray", command, listens, "unless-stopped", token)


def _api_service(inputs: Inputs, head: Node, engine: Engine, token: bool) -> Service:
    # The proxy is told the address that the server listens on.
    name = head.address if inputs.proxy or inputs.gateway else ANY_ADDRESS
    command = [
        *("lmdeploy", "serve", "api_server", inputs.model, "--backend", "pytorch"),
        *("--tp", str(engine.tp)),
        *(["--ep", str(engine.ep)] if engine.ep > 1 else []),
        *([] if engine.option("server-name") else ["--server-name", name]),
        *("--server-port", str(inputs.ports.api)),
        *engine.arguments,
    ]
    listens = [inputs.ports.api, *([inputs.ports.torch] if at_least(engine.image.release, PORT_SINCE) else [])]
    # No restart by Docker: a crash while loading would load for ever.
    api = _over_ray(inputs, engine, head, head, "api", command, listens, "no", token)
    if not inputs.restarts:
        return api
    members = [node for node in inputs.nodes if node.engine == engine.name]
    return supervised(
        inputs,
        head,
        api,
        {0: f"http://{head.address}:{inputs.ports.api}"},
        [
            ("--ray", f"{head.address}:{inputs.ports.ray}"),
            *(("--ray-node", f"{node.address}={node.gpus}") for node in members),
            ("--ray-claim", str(engine.tp)),
        ],
    )


def _over_ray(
    inputs: Inputs,
    engine: Engine,
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
        engine,
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
