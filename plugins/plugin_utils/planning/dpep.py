# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data and expert parallelism: one engine of ``dp`` ranks behind the proxy.

One container ``dp`` a node, all started at the same moment. In it the launcher starts the node's ranks: torchrun, with one
small program of ours for each (programs/rank.py), or LMDeploy's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ..network import route_fault
from ..releases import at_least
from . import deepep
from . import tp as tp_planning
from .inputs import HIGHEST_PORT, Inputs
from .model import Model
from .services import engine_service
from .supervision import programs_on, supervised
from .types import RANK_PROGRAM_TARGET, Earlier, Endpoint, Engine, Faults, Image, Mount, Node, Service, some

STORE_S = 20  # that an agent waits for another in the store of their meeting, once they have met
RESTARTS = 1000  # of ranks within one run of torchrun: the supervisor is who counts
# From one rank to the next: the guide's step; LMDeploy's own launcher counts by one.
PORT_STEP = {"torchrun": 10, "native": 1}
NATIVE_SINCE = "0.15.0"  # before, it drew random ports where there is a proxy
WORLD_IS_EP_SINCE = "0.11.0"  # before, the world was dp, and one rank had one GPU
# The guide's, with max_batch_size (deepep.default_batch). Its table's rows say "Default", which was 512 on H100 then; since
# 0.15 it is 1024, DeepEP's buffers grow with it, and it is what runs out of memory.
DEFAULT_OPTIONS = {"cache_max_entry_count": 0.7, "max_prefill_token_num": 1000}
OWNED_OPTIONS = {
    "--backend": "nothing: DP needs the pytorch backend",
    "--tp": "plan_tp",
    "--dp": "plan_dp",
    "--ep": "plan_ep",
    "--dp-rank": "nothing: the plan counts the ranks",
    "--nnodes": "nothing: the plan counts the nodes",
    "--node-rank": "nothing: the plan counts the nodes",
    "--server-name": "plan_cluster_address",
    "--server-port": "plan_ports.api, the port of rank 0",
}


def engines(inputs: Inputs, image: Image, arguments: Sequence[str], model: Model, faults: Faults) -> list[Engine]:
    """The one engine, and what is wrong with its sizes."""
    nodes = inputs.nodes
    gpus = sum(node.gpus for node in nodes)
    dp = inputs.dp or gpus
    engine = Engine(
        name=inputs.name,
        topology="dpep",
        launcher=inputs.launcher,
        head=nodes[0].name,
        nodes=[node.name for node in nodes],
        gpus=gpus,
        tp=inputs.tp or 1,
        dp=dp,
        ep=inputs.ep or dp,
        image=image,
        arguments=list(arguments),
    )
    if all(node.gpus > 0 for node in nodes):  # else refused already
        fits = _check_sizes(inputs, engine, model, faults)
        _check_ports(inputs, engine, faults)
        if fits or gpus == engine.ep:  # what DeepEP lacks is told with the rest
            engine = deepep.with_deepep(inputs, engine, model, faults)
    if inputs.launcher == "native":
        _check_native(inputs, image, faults)
    for name, environment in inputs.environments.items():
        if "RAY_ADDRESS" in environment:
            faults.add("plan_environment sets RAY_ADDRESS, and every DP rank has a Ray of its own: take it out.", name)
    return [engine]


def _check_sizes(inputs: Inputs, engine: Engine, model: Model, faults: Faults, *, advise: bool = True) -> bool:
    """Whether LMDeploy takes these sizes over these GPUs; what it does not take goes to ``faults``.

    ``advise``: with the sizes next to them that it does take.
    """
    tp, dp, ep, gpus = engine.tp, engine.dp, engine.ep, engine.gpus
    release = engine.image.release
    sizes = f"tp {tp}, dp {dp}, ep {ep}"
    found = []
    if dp < 2:
        faults.add(f"plan_dp is {dp}: DP+EP has 2 ranks or more; for one engine set plan_topology: tp.")
        return False
    if at_least(release, WORLD_IS_EP_SINCE):
        world, rule = (ep, "ep") if ep > 1 else (tp, "tp, as ep is 1")
        if world % dp:
            found.append(
                f"{sizes} is a world of {world} GPUs ({rule}), which cannot be split over {dp} ranks: "
                "make plan_ep (or plan_tp, without ep) a multiple of plan_dp."
            )
    else:
        world, rule = dp, f"dp, in LMDeploy {release}"
        if dp % ep:
            found.append(f"plan_ep {ep} does not divide plan_dp {dp}, as LMDeploy {release} needs it.")
    found += _with_ep(engine) if ep > 1 else []
    if at_least(release, WORLD_IS_EP_SINCE) and not found:
        # Attention is split over a rank's GPUs, and the dense layers over tp.
        why = tp_planning.unfit(model, world // dp, tp, experts=ep == 1)
        if why:
            found.append(f"{sizes} cannot split {why} of {inputs.model} evenly: change plan_tp, or plan_dp.")
    if world != gpus:
        shares = some([f"{node.name} {node.gpus}" for node in inputs.nodes])
        found.append(
            f"{sizes} is a world of {world} GPUs ({rule}), but the hosts have {gpus} ({shares}): set plan_dp and plan_ep "
            f"so that it is {gpus} (0 takes all GPUs), or change plan_gpus or the nodes."
        )
    per_rank = gpus // dp if world == gpus and world % dp == 0 else 1
    apart = [node for node in inputs.nodes if node.gpus % per_rank]
    near = _nearest(inputs, engine, model) if advise and (found or apart) else ""
    for node in apart:
        faults.add(
            f"plan_gpus is {node.gpus}, and a rank has {per_rank} GPUs ({sizes}), all on one node: "
            f"make plan_gpus a multiple of {per_rank}.{near}",
            node.name,
        )
    if found:
        found[-1] += near
    faults.extend(found)
    return not found and not apart


def _nearest(inputs: Inputs, engine: Engine, model: Model) -> str:
    """A sentence with the sizes for these GPUs that are next to those of the engine; empty where there are none."""
    gpus, release = engine.gpus, engine.image.release
    asked = (engine.tp, engine.dp, engine.ep)
    fitting = []
    for dp in (ranks for ranks in range(2, gpus + 1) if gpus % ranks == 0):
        for ep in (1, gpus):
            tp = gpus if ep == 1 and at_least(release, WORLD_IS_EP_SINCE) else 1
            other = dataclasses.replace(engine, tp=tp, dp=dp, ep=ep)
            fits = _check_sizes(inputs, other, model, Faults(), advise=False)
            if fits and (ep == 1 or deepep.fits(inputs, other, model)):
                fitting.append((tp, dp, ep))
    if not fitting or asked in fitting:
        return ""
    tp, dp, ep = min(
        fitting, key=lambda sizes: sum(abs(math.log2(new / max(old, 1))) for new, old in zip(sizes, asked, strict=True))
    )
    return f" The nearest that {gpus} GPUs can have is plan_tp: {tp}, plan_dp: {dp}, plan_ep: {ep}."


def _with_ep(engine: Engine) -> list[str]:
    """What is wrong with plan_tp where there is expert parallelism: dense layers may be split over a rank's own GPUs."""
    tp, dp, ep, release = engine.tp, engine.dp, engine.ep, engine.image.release
    if tp == 1:
        return []
    if not at_least(release, WORLD_IS_EP_SINCE):
        return [f"plan_tp is {tp} and plan_ep is {ep}: in LMDeploy {release} set plan_tp to 1, or leave it 0."]
    own = ep // dp if ep % dp == 0 else 1
    if tp == own:
        return []
    others = f", or to {own}, the GPUs of a rank" if own > 1 else ""
    nearest = f"with expert parallelism set plan_tp to 1{others}"
    upstream = "LMDeploy itself can split dense layers over several ranks; this collection does not plan that yet"
    return [f"plan_tp is {tp} and plan_ep is {ep}: {nearest}. {upstream}."]


def _check_ports(inputs: Inputs, engine: Engine, faults: Faults) -> None:
    step, first = PORT_STEP[inputs.launcher], inputs.ports.api
    last = first + step * (engine.dp - 1)
    if last > HIGHEST_PORT:
        faults.add(
            f"plan_ports.api {first} gives the last of {engine.dp} ranks port {last} ({step} for each rank), "
            f"above {HIGHEST_PORT}: lower it."
        )
    taken = range(first, last + 1, step)
    for name in ("proxy", "torch", "dp_master"):
        port = getattr(inputs.ports, name)
        if port in taken and port != first:  # two variables with one port are refused already
            rank = (port - first) // step
            faults.add(f"plan_ports.{name} ({port}) is the port of rank {rank}: move it, or plan_ports.api.")


def _check_native(inputs: Inputs, image: Image, faults: Faults) -> None:
    if not at_least(image.release, NATIVE_SINCE):
        faults.add(
            f"plan_launcher is native, but LMDeploy {image.release} (plan_image {image.reference}) gives its ranks random "
            f"ports: set plan_launcher: torchrun, or plan_image to {NATIVE_SINCE} or later, such as cu12.8."
        )
    counts = {node.gpus for node in inputs.nodes}
    if len(counts) > 1:
        shares = some([f"{node.name} {node.gpus}" for node in inputs.nodes])
        faults.add(
            f"plan_launcher is native, which wants as many GPUs on every node ({shares}): set plan_launcher: torchrun, "
            "or the same plan_gpus everywhere."
        )


def check_observed(inputs: Inputs, sources: Mapping[str, str], faults: Faults) -> None:
    """What the hosts lack for this engine; ``sources`` is each node's own address on its default route."""
    if inputs.launcher != "native":
        return
    for node in inputs.nodes:
        fault = route_fault(node, sources.get(node.name, node.address))
        if fault:
            faults.add(f"{node.name}: {fault}")


def services(inputs: Inputs, engine: Engine, token: bool) -> tuple[list[Service], list[Endpoint]]:
    """One container a node, and where each rank answers."""
    per_rank = engine.gpus // engine.dp
    step = PORT_STEP[inputs.launcher]
    # Where all nodes meet, on the head; LMDeploy's own launcher needs no rendezvous of its own.
    meeting = [*([inputs.ports.torch] if inputs.launcher == "torchrun" else []), inputs.ports.dp_master]
    found, endpoints = [], []
    rank = 0
    for node in inputs.nodes:
        count = node.gpus // per_rank
        first = inputs.ports.api + step * rank
        ports = [first + step * local for local in range(count)]
        service = engine_service(
            inputs,
            engine,
            node,
            "dp",
            [
                *_launcher(inputs, engine, node, count),
                *("serve", "api_server", inputs.model, "--backend", "pytorch"),
                *("--tp", str(engine.tp), "--dp", str(engine.dp), "--ep", str(engine.ep)),
                *_place(inputs, node, first),
                *engine.arguments,
            ],
            listens=[*ports, *(meeting if node.is_head else [])],
            environment={
                "LMDEPLOY_DP_MASTER_ADDR": inputs.nodes[0].address,
                "LMDEPLOY_DP_MASTER_PORT": str(inputs.ports.dp_master),
                "PYTHONUNBUFFERED": "1",  # else a crash stays in the engine's buffer (0.9.2)
            },
            token=token,
            restart_policy="no",  # one node's ranks alone can never rejoin their group
            mounts=[Mount(f"{programs_on(inputs, node)}/rank.py", RANK_PROGRAM_TARGET, read_only=True)]
            if inputs.launcher == "torchrun"
            else [],
        )
        urls = {rank + local: f"http://{node.address}:{port}" for local, port in enumerate(ports)}
        found.append(_supervised(inputs, engine, node, service, urls) if inputs.launcher == "torchrun" else service)
        for local in range(count):
            gpus = list(range(local * per_rank, (local + 1) * per_rank))
            endpoints.append(Endpoint(rank + local, engine.name, node.name, urls[rank + local], gpus, service.name))
        rank += count
    return found, endpoints


def _supervised(inputs: Inputs, engine: Engine, node: Node, service: Service, urls: Mapping[int, str]) -> Service:
    """The ranks of a node as they come back by themselves: torchrun's agents start all of a group again, and meet for that.

    The head's agent keeps the store in which they meet; which one that is has to be said, for torchrun would compare the address
    with what the host's own name resolves to. What waits for an agent that is gone waits for the store, which is 60 s otherwise.
    """
    if not inputs.restarts:
        return service
    start = service.command.index("--node-rank")
    end = service.command.index(RANK_PROGRAM_TARGET)
    meeting = [
        *("--rdzv-backend", "c10d", "--rdzv-id", engine.name),
        *("--rdzv-endpoint", f"{inputs.nodes[0].address}:{inputs.ports.torch}"),
        *("--rdzv-conf", f"is_host={int(node.is_head)},read_timeout={STORE_S}", "--local-addr", node.address),
        *("--max-restarts", str(RESTARTS)),
    ]
    command = [*service.command[:start], *meeting, RANK_PROGRAM_TARGET, "--first-rank", str(min(urls))]
    changed = dataclasses.replace(service, command=[*command, *service.command[end + 1 :]])
    found = supervised(inputs, node, changed, urls)
    return dataclasses.replace(found, earlier=Earlier(service.command, service.mounts, service.restart_policy))


def _launcher(inputs: Inputs, engine: Engine, node: Node, count: int) -> list[str]:
    """What starts the ``count`` ranks of a node, up to the arguments of LMDeploy's command."""
    if inputs.launcher == "native":
        return ["lmdeploy"]
    return [
        *("torchrun", "--nnodes", str(len(inputs.nodes)), "--nproc-per-node", str(count)),
        *("--node-rank", str(node.rank)),
        *("--master-addr", inputs.nodes[0].address, "--master-port", str(inputs.ports.torch)),
        RANK_PROGRAM_TARGET,
        *("--port", str(inputs.ports.api), "--port-step", str(PORT_STEP["torchrun"])),
        *("--gpus-per-rank", str(engine.gpus // engine.dp), "--"),
    ]


def _place(inputs: Inputs, node: Node, first_port: int) -> list[str]:
    """Where the ranks of a node answer; the rank program adds each rank's own port."""
    if inputs.launcher == "torchrun":
        return ["--server-name", node.address]
    return ["--nnodes", str(len(inputs.nodes)), "--node-rank", str(node.rank), "--server-port", str(first_port)]
