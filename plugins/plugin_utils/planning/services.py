# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every container of a deployment has in common, and those before the engines: proxy and gateway."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from .environment import PROXY_VARIABLE, direct_faults
from .gateway import GatewayInputs
from .inputs import Inputs
from .types import (
    GATEWAY_FILES,
    GATEWAY_RUN,
    HF_CACHE,
    KERNEL_CACHES,
    Engine,
    Faults,
    Image,
    Mount,
    Node,
    Secret,
    Service,
    some,
)

RAY_TOKEN_PATH = "/run/lmfleet/secrets/ray_token"  # noqa: S105 - where the token is, not what it is
GATEWAY_COMMAND = ("haproxy", "-W", "-db", "-f", f"{GATEWAY_FILES}/haproxy.cfg")
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - LMDeploy's own default: clients may be on another network than the cluster
# Torch's inductor moves Triton's cache, and its own, to /tmp once it has compiled something, unless told where they are.
KERNEL_CACHE_PLACES = {
    "TRITON_CACHE_DIR": f"{KERNEL_CACHES['triton']}/cache",
    "TORCHINDUCTOR_CACHE_DIR": f"{KERNEL_CACHES['cache']}/torchinductor",
}


# The interface of a node's cluster address, for every library that takes one by a variable of its own. NCCL and NVSHMEM take a
# bare name for the beginning of one (bond0 is bond0.2973 too), and one after "=" whole; Gloo and TensorPipe compare whole names.
INTERFACE_VARIABLES = {"GLOO_SOCKET_IFNAME": "", "TP_SOCKET_IFNAME": "", "NCCL_SOCKET_IFNAME": "="}
# NVSHMEM, which DeepEP uses, does not read NCCL's, and would take the first interface that is not docker's or lo.
DEEPEP_INTERFACE_VARIABLES = {"NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "="}


def home_of(inputs: Inputs, node: Node) -> str:
    """The deployment's own directory on a node."""
    return f"{node.state_dir}/{inputs.name}"


def engine_service(
    inputs: Inputs,
    engine: Engine,
    node: Node,
    service: str,
    command: Sequence[str],
    *,
    listens: Sequence[int],
    environment: Mapping[str, str],
    restart_policy: str,
    token: bool,
    pid_mode: str | None = None,
    mounts: Sequence[Mount] = (),
    directories: Sequence[str] = (),
) -> Service:
    """A container that works on GPUs: the model, the kernel caches, Ray's token, the network's variables and the user's.

    ``token``: the image's Ray asks its clients for one.
    """
    caches = {f"{home_of(inputs, node)}/{name}": target for name, target in KERNEL_CACHES.items()}
    given = inputs.environments[node.name]
    return Service(
        service=service,
        node=node.name,
        name=f"{inputs.name}-{service}",
        engine=node.engine,
        image=engine.image.run,
        command=list(command),
        environment={
            **network_environment(inputs, engine, node),
            **(engine.deepep.environment if engine.deepep else {}),
            **KERNEL_CACHE_PLACES,
            **environment,
            **({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": RAY_TOKEN_PATH} if token else {}),
            **given,
        },
        mounts=[
            *(Mount(source, target) for source, target in caches.items()),
            Mount(node.hf_home, HF_CACHE),
            *mounts,
            *inputs.extra_mounts,
        ],
        restart_policy=restart_policy,
        pid_mode=pid_mode,
        privileged=inputs.privileged,
        gpus=True,
        listens=list(listens),
        secrets=[Secret("ray_token", f"{home_of(inputs, node)}/secrets/ray_token", RAY_TOKEN_PATH)] if token else [],
        directories=[*caches, *directories],
        derived=sorted(node.rdma.environment.keys() - given.keys()) if node.rdma else [],
    )


def _before_engines(inputs: Inputs, head: Node, kind: str, image: str, command: Sequence[str], **more: Any) -> Service:
    """What stands before engines: no GPU, no model, no right over its host. It comes back by itself."""
    return Service(
        service=kind,
        node=head.name,
        name=f"{inputs.name}-{kind}",
        engine=None,
        image=image,
        command=list(command),
        restart_policy="unless-stopped",
        pid_mode=None,
        privileged=False,
        gpus=False,
        **more,
    )


def proxy_service(inputs: Inputs, image: Image, head: Node, options: Sequence[str]) -> Service:
    """The proxy: nothing to keep; its list of ranks is corrected by a run."""
    # Behind a gateway it is no door for clients.
    listens = head.address if inputs.gateway else ANY_ADDRESS
    command = [
        "lmdeploy",
        "serve",
        "proxy",
        "--server-name",
        listens,
        "--server-port",
        str(inputs.ports.proxy),
        *options,
    ]
    # Its ranks change with every scaling, and are all it talks to.
    environment = {"NO_PROXY": "*", "no_proxy": "*", **inputs.proxy_environment}
    return _before_engines(
        inputs, head, "proxy", image.run, command, environment=environment, mounts=[], listens=[inputs.ports.proxy]
    )


def gateway_service(inputs: Inputs, given: GatewayInputs, head: Node) -> Service:
    """The gateway. What it reads lies in a directory, so that it can read it again while it runs."""
    files, run = (f"{home_of(inputs, head)}/gateway/{name}" for name in ("files", "run"))
    return _before_engines(
        inputs,
        head,
        "gateway",
        given.image,
        GATEWAY_COMMAND,
        environment={},
        mounts=[Mount(files, GATEWAY_FILES, read_only=True), Mount(run, GATEWAY_RUN)],
        listens=[inputs.ports.gateway, inputs.ports.gateway_metrics],
        directories=[files, run],
        user="root",
    )


def network_environment(inputs: Inputs, engine: Engine, node: Node) -> dict[str, str]:
    """Set on every container of every node: Ray's workers inherit the raylet's environment, not the api_server's."""
    interface = node.interface or f"<interface of {node.address}>"
    variables = {**INTERFACE_VARIABLES, **(DEEPEP_INTERFACE_VARIABLES if engine.deepep else {})}
    return {
        **{name: f"{exactly}{interface}" for name, exactly in variables.items()},
        **(node.rdma.environment if node.rdma else {}),
        "HF_HUB_OFFLINE": "1",
        **_direct(inputs, node),
    }


def _direct(inputs: Inputs, node: Node) -> dict[str, str]:
    """What a container talks to is reached without a web proxy: its engine's nodes, and the proxy that it registers at.

    Not the other engines' nodes, and in no order of the inventory's: neither changes what runs.
    """
    direct = ",".join(["localhost", "127.0.0.1", *_reached(inputs, node)])
    return {"NO_PROXY": direct, "no_proxy": direct}


def _reached(inputs: Inputs, node: Node) -> list[str]:
    own = {each.address for each in inputs.nodes if each.engine == node.engine}
    return sorted({*own, *([inputs.nodes[0].address] if inputs.proxy else [])}, key=ipaddress.ip_address)


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def check_direct(inputs: Inputs, faults: Faults) -> list[str]:
    """Where the user's own NO_PROXY leaves out an address that a container reaches; faults, and the warnings.

    The proxy asks every rank for its health: where that goes astray, it drops them all.
    """
    told: dict[str, list[str]] = {}
    if not all(map(_is_address, (node.address for node in inputs.nodes))):
        return []  # a fault already
    for node in inputs.nodes:
        wrong, warnings = direct_faults(inputs.environments[node.name], _reached(inputs, node))
        faults.extend(wrong, node.name)
        for each in warnings:
            told.setdefault(each, []).append(node.name)
    ranks = sorted((node.address for node in inputs.nodes), key=ipaddress.ip_address)
    wrong, of_the_proxy = direct_faults(inputs.proxy_environment, ranks if inputs.proxy else [], PROXY_VARIABLE)
    faults.extend(wrong)
    all_nodes = len(inputs.nodes)
    found = [each if len(names) == all_nodes else f"{some(names)}: {each}" for each, names in told.items()]
    return [*found, *of_the_proxy]
