# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs and observations -> the plan, for tensor parallelism over Ray.

The containers of one TP engine: ``ray`` on every node (the head's first, workers join it), then ``api`` on the head,
which shares Ray's session directory and the host's PID namespace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .._releases import ReleaseTable, option_name, release_table, resolve_image, unknown_to_image
from .inputs import Inputs
from .types import REFUSED, Endpoint, Faults, Image, Mount, Node, Plan, PlanError, Secret, Service

HF_CACHE = "/root/.cache/huggingface"
RAY_TMP = "/tmp/ray"  # noqa: S108 - Ray's own session directory inside the containers
RAY_TOKEN_PATH = "/run/lmfleet/secrets/ray_token"  # noqa: S105 - where the token is, not what it is
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - LMDeploy's own default: clients may be on another network than the cluster
# Compiled kernels are worth minutes at every start: they are kept on the host.
KERNEL_CACHES = {"cache": "/root/.cache", "triton": "/root/.triton", "deep_gemm": "/root/.deep_gemm", "nv": "/root/.nv"}
# Options of api_server that the plan computes, and the variable to set instead.
OWNED_OPTIONS = {
    "--backend": "nothing: TP over Ray needs the pytorch backend",
    "--tp": "plan_tp",
    "--dp": "nothing: this topology has one engine",
    "--ep": "nothing: this topology has one engine",
    "--nnodes": "nothing: Ray places the workers",
    "--node-rank": "nothing: Ray places the workers",
    "--server-port": "plan_ports.api",
    "--model-name": "plan_served_model_name",
    "--revision": "plan_model_revision",
    "--api-keys": "nothing: a key on a command line is readable by everyone on the host",
    "--proxy-url": "nothing: the proxy is not part of this topology",
}
# Enough to refuse a wrong tp before a host is touched; after the model check the hosts' own config.json decides.
ATTENTION_HEADS = {
    "deepseek-ai/DeepSeek-V3": 128,
    "deepseek-ai/DeepSeek-V3-0324": 128,
    "deepseek-ai/DeepSeek-V3.1": 128,
    "deepseek-ai/DeepSeek-R1": 128,
    "deepseek-ai/DeepSeek-R1-0528": 128,
}


@dataclasses.dataclass(frozen=True)
class Observations:
    """What was asked of hosts and image; every part may be missing, which leaves the plan unverified there.

    ``image`` is the probe's answer, ``run`` the reference by digest, ``interfaces`` maps a node to its interfaces and
    their IPv4 addresses, ``model_config`` is the hosts' config.json.
    """

    image: Mapping[str, Any] | None = None
    run: str | None = None
    interfaces: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
    model_config: Mapping[str, Any] | None = None


def build_plan(inputs: Inputs, seen: Observations, faults: Faults) -> Plan:
    """Compute the plan. Raises ``PlanError`` with all of ``faults`` and what inputs and observations show together."""
    image = _image(inputs, seen, faults)
    nodes = [_bind_interface(node, seen, faults) for node in inputs.nodes]
    tp = inputs.tp or sum(node.gpus for node in nodes)
    faults.extend(_tp_faults(inputs, nodes, tp, seen))
    table = release_table(image.release) if image else None
    options = _api_options(inputs, table, seen, faults)
    if faults.listed() or image is None:
        what = "The plan does not fit what the hosts and the image are" if seen.interfaces else REFUSED
        raise PlanError(faults.listed(), what)

    token = bool(seen.image["ray_token_auth"]) if seen.image else True
    bound = dataclasses.replace(inputs, nodes=nodes)
    head = nodes[0]
    url = f"http://{head.address}:{inputs.ports.api}"
    return Plan(
        name=inputs.name,
        topology=inputs.topology,
        model=inputs.model,
        served_model_name=inputs.served_model_name,
        model_revision=inputs.model_revision,
        image=image,
        tp=tp,
        head=head.name,
        nodes=nodes,
        ports=inputs.ports,
        services=[
            *(_ray_service(bound, image, node, token) for node in nodes),
            _api_service(bound, image, head, tp, options, token),
        ],
        endpoints=[Endpoint(rank=0, node=head.name, url=url)],
        url=url,
        ray_token_auth=token,
        unverified=_unverified(inputs, image, nodes, seen),
        warnings=_warnings(inputs, image, nodes, tp),
    )


def _image(inputs: Inputs, seen: Observations, faults: Faults) -> Image | None:
    try:
        known = resolve_image(inputs.image)
    except ValueError as error:
        faults.add(f"plan_image: {error}")
        return None
    release = str(seen.image["lmdeploy"]) if seen.image and seen.image.get("lmdeploy") else known.release
    return Image(
        reference=known.reference,
        run=seen.run or known.reference,
        release=release,
        moving=known.moving,
        word=known.word,
    )


def _bind_interface(node: Node, seen: Observations, faults: Faults) -> Node:
    interfaces = seen.interfaces.get(node.name)
    if interfaces is None:
        return node
    owner = next((name for name, addresses in interfaces.items() if node.address in addresses), None)
    if owner is None:
        has = ", ".join(f"{name} {' '.join(found)}" for name, found in sorted(interfaces.items()) if found) or "none"
        faults.add(
            f"{node.name}: no interface of this host has {node.address} (it has {has}): "
            "set plan_cluster_address to the address on the cluster's network."
        )
        return node
    if node.interface and node.interface not in interfaces:
        faults.add(f"{node.name}: plan_interface {node.interface!r} does not exist (it has {', '.join(interfaces)}).")
    return dataclasses.replace(node, interface=node.interface or owner)


def _tp_faults(inputs: Inputs, nodes: list[Node], tp: int, seen: Observations) -> list[str]:
    if any(node.gpus < 1 for node in nodes):  # refused already
        return []
    faults = []
    gpus = sum(node.gpus for node in nodes)
    if tp > gpus:
        shares = ", ".join(f"{node.name} {node.gpus}" for node in nodes)
        faults.append(
            f"plan_tp is {tp}, but the plan has {gpus} GPUs ({shares}): lower plan_tp, or raise plan_gpus or add nodes."
        )
    config = seen.model_config or {}
    heads = config.get("num_attention_heads") or ATTENTION_HEADS.get(inputs.model)
    if isinstance(heads, int) and heads % tp:
        fitting = [n for n in range(1, gpus + 1) if heads % n == 0]
        faults.append(
            f"plan_tp is {tp}{'' if inputs.tp else ' (the sum of plan_gpus)'}, which does not divide the {heads} "
            f"attention heads of {inputs.model}: set plan_tp to one of {', '.join(map(str, fitting))}."
        )
    return faults


def _api_options(inputs: Inputs, table: ReleaseTable | None, seen: Observations, faults: Faults) -> list[str]:
    """The user's api_server options as arguments; a fault names each one that the release or the image does not take."""
    if table is None:
        return []
    what = "plan_api_server_options"
    given = inputs.api_server_options
    for key in given:
        name = option_name(key)
        if name in OWNED_OPTIONS:
            faults.add(f"{what}: {key} is computed by the plan; set {OWNED_OPTIONS[name]}.")
    own = {key: value for key, value in given.items() if option_name(key) not in OWNED_OPTIONS}
    wrong = table.api_server.check(own)
    faults.extend(f"{what}: {fault}" for fault in wrong)
    if wrong:
        return []
    arguments = table.api_server.argv(own)
    if seen.image and seen.image.get("api_server_options"):
        faults.extend(
            f"{what}: the api_server in the image (LMDeploy {seen.image.get('lmdeploy')}) does not know {name}: "
            "remove it, or set plan_image to a release that has it."
            for name in unknown_to_image(arguments, seen.image["api_server_options"])
        )
    return arguments


def _ray_service(inputs: Inputs, image: Image, node: Node, token: bool) -> Service:
    ports = inputs.ports
    head = inputs.nodes[0]
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
    return _service(inputs, image, node, "ray", command, {}, listens, "unless-stopped", token)


def _api_service(inputs: Inputs, image: Image, head: Node, tp: int, options: list[str], token: bool) -> Service:
    command = [
        *("lmdeploy", "serve", "api_server", inputs.model),
        *("--backend", "pytorch"),
        *("--tp", str(tp)),
        *(["--revision", inputs.model_revision] if not inputs.model.startswith("/") else []),
        *("--model-name", inputs.served_model_name),
        *([] if any(word.startswith("--server-name") for word in options) else ["--server-name", ANY_ADDRESS]),
        *("--server-port", str(inputs.ports.api)),
        *options,
    ]
    environment = {"RAY_ADDRESS": f"{head.address}:{inputs.ports.ray}"}
    listens = [inputs.ports.api, inputs.ports.torch]
    # No restart: one service alone can never rejoin its group, and a crash while loading would load for ever.
    return _service(inputs, image, head, "api", command, environment, listens, "no", token)


def _service(
    inputs: Inputs,
    image: Image,
    node: Node,
    service: str,
    command: list[str],
    environment: dict[str, str],
    listens: list[int],
    restart_policy: str,
    token: bool,
) -> Service:
    """What all containers of a TP engine have in common."""
    home = f"{node.state_dir}/{inputs.name}"
    caches = {f"{home}/{name}": target for name, target in KERNEL_CACHES.items()}
    return Service(
        service=service,
        node=node.name,
        name=f"{inputs.name}-{service}",
        group=f"{inputs.name}-tp",
        image=image.run,
        command=command,
        environment={
            **_node_environment(inputs, node),
            **environment,
            **({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": RAY_TOKEN_PATH} if token else {}),
            **inputs.environments[node.name],
        },
        mounts=[
            *(Mount(source, target) for source, target in caches.items()),
            Mount(node.hf_home, HF_CACHE),
            Mount(f"{home}/ray", RAY_TMP),
            *inputs.extra_mounts,
        ],
        restart_policy=restart_policy,
        pid_mode="host",
        privileged=inputs.privileged,
        gpus=True,
        listens=listens,
        secrets=[Secret("ray_token", f"{home}/secrets/ray_token", RAY_TOKEN_PATH)] if token else [],
        directories=[*caches, f"{home}/ray"],
    )


def _node_environment(inputs: Inputs, node: Node) -> dict[str, str]:
    """Set on every container of every node: Ray's workers inherit the raylet's environment, not the api_server's."""
    head = inputs.nodes[0]
    interface = node.interface or f"<interface of {node.address}>"
    direct = ",".join(["localhost", "127.0.0.1", *(each.address for each in inputs.nodes)])
    return {
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "TP_SOCKET_IFNAME": interface,
        "LMDEPLOY_DIST_MASTER_ADDR": head.address,
        "LMDEPLOY_DIST_MASTER_PORT": str(inputs.ports.torch),
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def _unverified(inputs: Inputs, image: Image, nodes: list[Node], seen: Observations) -> list[str]:
    notes = []
    if not seen.image:
        release = f"LMDeploy {image.release} by its tag" if image.release else "not known from its tag"
        notes.append(f"release of {image.reference}: {release}; the image is asked after the pull")
        notes.append("Ray's token authentication: planned; left out where the image's Ray does not know it")
    notes.extend(
        f"{node.name}: interface of {node.address}; the host is asked" for node in nodes if node.interface is None
    )
    if seen.model_config is None:
        notes.append(f"model files of {inputs.model}; every host is asked")
    return notes


def _warnings(inputs: Inputs, image: Image, nodes: list[Node], tp: int) -> list[str]:
    warnings = []
    if image.moving:
        warnings.append(
            f"plan_image {inputs.image} is a moving tag ({image.reference}): nodes pulled on different days differ. "
            "Pin a release or a digest."
        )
    gpus = sum(node.gpus for node in nodes)
    if tp < gpus:
        warnings.append(f"plan_tp {tp} leaves {gpus - tp} of {gpus} GPUs idle.")
    return warnings
