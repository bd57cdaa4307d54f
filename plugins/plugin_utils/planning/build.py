# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs and observations -> the plan. What the two topologies differ in is in ``tp.py`` and ``dpep.py``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..network import binding_faults, owner_of
from ..releases import Command, at_least, option_name, release_table, releases, resolve_image, unknown_to_image
from . import deepep, dpep, mounted, tp
from .gateway import gateway_of
from .inputs import Inputs
from .model import Model
from .rdma import CHOSEN, rdma_of
from .refused import reason
from .services import ANY_ADDRESS, check_direct, gateway_service, proxy_service
from .types import PLAN_FORMAT, REFUSED, Endpoint, Engine, Faults, Image, Node, Plan, PlanError, Proxy, Service
from .values import shown

# Options of api_server that the plan computes in every topology, and the variable to set instead.
OWNED_OPTIONS = {
    "--model-name": "plan_served_model_name",
    "--revision": "plan_model_revision",
    "--api-keys": "nothing: a key on a command line is readable by everyone on the host",
    "--proxy-url": "plan_proxy",
}
OWNED_PROXY_OPTIONS = {
    "--server-name": "nothing: the proxy listens on all addresses of the head",
    "--server-port": "plan_ports.proxy",
    "--routing-strategy": "plan_routing_strategy",
    "--strategy": "plan_routing_strategy",
    "--api-keys": OWNED_OPTIONS["--api-keys"],
}
# Before, the template was chosen by the model's path, and a path that says nothing got one that cannot chat.
TEMPLATE_FROM_MODEL_SINCE = "0.10.0"
TOPOLOGIES = {"tp": tp, "dpep": dpep}
TEMPLATES = {"DeepseekV3ForCausalLM": "deepseek-v3"}


@dataclasses.dataclass(frozen=True)
class Observations:
    """What was asked of hosts and image; every part may be missing, which leaves the plan unverified there.

    ``image`` is the probe's answer, ``image_id`` the image's identity, ``interfaces`` maps a node to its interfaces and
    their IPv4 addresses, ``sources`` to its own address on its default route, ``hcas`` to its RDMA devices and ``links`` to its
    GPUs' ways to them; ``model_config`` is the hosts' config.json.
    """

    image: Mapping[str, Any] | None = None
    image_id: str | None = None
    interfaces: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    model_config: Mapping[str, Any] | None = None
    hcas: Mapping[str, Sequence[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
    links: Mapping[str, Mapping[str, Mapping[str, str]]] = dataclasses.field(default_factory=dict)


def build_plan(inputs: Inputs, seen: Observations, faults: Faults) -> Plan:
    """Compute the plan. Raises ``PlanError`` with all of ``faults`` and what inputs and observations show together."""
    image = _image(inputs, seen, faults)
    inputs = dataclasses.replace(inputs, nodes=[_bind_interface(node, seen, faults) for node in inputs.nodes])
    table = release_table(image.release)
    arguments = _api_arguments(inputs, table.api_server, seen, faults)
    proxy_arguments = _proxy_arguments(inputs, table.proxy, seen, faults)
    model = Model(inputs.model, seen.model_config)
    engines = TOPOLOGIES[inputs.topology].engines(inputs, image, arguments, model, faults)
    if seen.image:
        deepep.check_image(engines[0], seen.image, faults)
        if inputs.topology == "dpep":
            dpep.check_observed(inputs, seen.sources, faults)
    indirect = check_direct(inputs, faults)
    if faults.listed():
        what = "The plan does not fit what the hosts and the image are" if seen.interfaces else REFUSED
        raise PlanError(faults.listed(), what)

    token = bool(seen.image["ray_token_auth"]) if seen.image else True
    inputs = dataclasses.replace(inputs, nodes=[_bind_rdma(node, engines, seen, inputs) for node in inputs.nodes])
    head = inputs.nodes[0]
    services, endpoints = _services(inputs, image, engines, proxy_arguments, token)
    proxy = Proxy(head.name, _proxy_url(inputs), [each.url for each in endpoints]) if inputs.proxy else None
    gateway = gateway_of(inputs.gateway, head, inputs.ports, engines) if inputs.gateway else None
    return Plan(
        format=PLAN_FORMAT,
        bound=bool(seen.interfaces),
        name=inputs.name,
        model=inputs.model,
        served_model_name=inputs.served_model_name,
        model_revision=inputs.model_revision,
        head=head.name,
        engines=engines,
        nodes=inputs.nodes,
        ports=inputs.ports,
        services=services,
        endpoints=endpoints,
        proxy=proxy,
        gateway=gateway,
        url=(gateway or proxy or endpoints[0]).url,
        ray_token_auth=token,
        unverified=_unverified(inputs, image, engines, seen),
        warnings=[*_warnings(inputs, image, engines), *indirect],
    )


def _services(
    inputs: Inputs,
    image: Image,
    engines: Sequence[Engine],
    proxy_arguments: Sequence[str],
    token: bool,
) -> tuple[list[Service], list[Endpoint]]:
    """Every container in the order of its start, and every rank; TP engines are counted as ranks of the deployment."""
    services = [proxy_service(inputs, image, inputs.nodes[0], proxy_arguments)] if inputs.proxy else []
    if inputs.gateway:
        services.append(gateway_service(inputs, inputs.gateway, inputs.nodes[0]))
    endpoints: list[Endpoint] = []
    for engine in engines:
        found, answers = TOPOLOGIES[engine.topology].services(inputs, engine, token)
        services += found
        endpoints += [dataclasses.replace(each, rank=len(endpoints) + each.rank) for each in answers]
    return services, endpoints


def _proxy_url(inputs: Inputs) -> str:
    return f"http://{inputs.nodes[0].address}:{inputs.ports.proxy}"


def _image(inputs: Inputs, seen: Observations, faults: Faults) -> Image:
    try:
        known = resolve_image(inputs.image)
    except ValueError as error:
        faults.add(f"plan_image: {error}")
        return Image(inputs.image, None, None, moving=False)  # the rest is checked all the same
    release = str(seen.image["lmdeploy"]) if seen.image and seen.image.get("lmdeploy") else known.release
    return Image(
        reference=known.reference,
        id=seen.image_id,
        release=release,
        moving=known.moving,
    )


def _bind_interface(node: Node, seen: Observations, faults: Faults) -> Node:
    interfaces = seen.interfaces.get(node.name)
    if interfaces is None:
        return node
    wrong = binding_faults(node, interfaces)
    if wrong:
        faults.extend(f"{node.name}: {fault}" for fault in wrong)
        return node
    owner = owner_of(node.address, interfaces)
    return dataclasses.replace(node, interface=node.interface or owner)


def _bind_rdma(node: Node, engines: Sequence[Engine], seen: Observations, inputs: Inputs) -> Node:
    engine = next(each for each in engines if each.name == node.engine)
    if len(engine.nodes) < 2 or not seen.hcas.get(node.name):
        return node
    # Ranks over Ray have one environment on each host, and LMDeploy's own launcher starts all of a host as one.
    alone = (
        engine.launcher == "torchrun"
        and engine.gpus == engine.dp
        and not set(CHOSEN) & set(inputs.environments[node.name])
    )
    links = seen.links.get(node.name)
    found = rdma_of(seen.hcas[node.name], links, node.gpus, deepep=engine.deepep is not None, per_gpu=alone)
    return dataclasses.replace(node, rdma=found)


def _api_arguments(inputs: Inputs, command: Command, seen: Observations, faults: Faults) -> list[str]:
    """The arguments that every api_server gets, the user's options among them."""
    given = inputs.api_server_options
    owned = {**OWNED_OPTIONS, **TOPOLOGIES[inputs.topology].OWNED_OPTIONS}
    if inputs.proxy:
        owned["--server-name"] = "plan_cluster_address: the proxy is told this address"
    defaults: dict[str, Any] = dict(dpep.DEFAULT_OPTIONS) if inputs.topology == "dpep" else {}
    if _has_ep(inputs):
        defaults["max_batch_size"] = deepep.default_batch(command.release)
    elif inputs.topology == "dpep":
        defaults["max_batch_size"] = deepep.DEFAULT_BATCH
    known = (seen.image or {}).get("api_server_options") or command
    if "--enable-metrics" in known and "--disable-metrics" not in known:
        defaults["enable_metrics"] = True  # later the default; without counters, a hanging engine looks like a busy one
    template = _chat_template(inputs, command.release, seen)
    if template:
        defaults["chat_template"] = template
    computed = [
        *(["--revision", inputs.model_revision] if not inputs.model.startswith("/") else []),
        *("--model-name", inputs.served_model_name),
        *(["--proxy-url", _proxy_url(inputs)] if inputs.proxy else []),
    ]
    options = _with_defaults(given, defaults)
    if not inputs.proxy:
        faults.extend(_server_name_faults(given, inputs.nodes[0].address))
    arguments = _options("plan_api_server_options", command, options, owned, seen, faults, ep=_has_ep(inputs))
    faults.extend(mounted.faults(inputs, command.release, arguments))
    return [*computed, *arguments]


def _server_name_faults(given: Mapping[str, Any], address: str) -> Iterator[str]:
    """The engine is looked for at its head's cluster address."""
    for key, value in given.items():
        if option_name(key) == "--server-name" and value not in (None, ANY_ADDRESS, "::", address):
            yield (
                f"plan_api_server_options: {key} is {shown(value)}, and the plan's URL is that of {address}: take it out, or set "
                f"it to {address} or {ANY_ADDRESS}."
            )


def _has_ep(inputs: Inputs) -> bool:
    """Whether there is expert parallelism; 0 takes the ranks in DP+EP, and none in TP."""
    return inputs.ep > 1 or (inputs.topology == "dpep" and inputs.ep == 0)


def _proxy_arguments(inputs: Inputs, command: Command, seen: Observations, faults: Faults) -> list[str]:
    if not inputs.proxy:
        given = {"plan_proxy_options": inputs.proxy_options, "plan_proxy_environment": inputs.proxy_environment}
        for name in (name for name, values in given.items() if values):
            faults.add(f"{name} is set, but there is no proxy: set plan_proxy: true, or take it out.")
        return []
    observed = (seen.image or {}).get("proxy_options") or []
    old = "--strategy" in (observed or command)
    options = _with_defaults(inputs.proxy_options, {"disable_cache_status": True})
    strategy = ["--strategy" if old else "--routing-strategy", inputs.routing_strategy]
    return [*strategy, *_options("plan_proxy_options", command, options, OWNED_PROXY_OPTIONS, seen, faults)]


def _with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options may be written with - or _: a default gives way to either."""
    names = {option_name(key) for key in given}
    return {**{key: value for key, value in defaults.items() if option_name(key) not in names}, **given}


def _options(
    what: str,
    command: Command,
    given: Mapping[str, Any],
    owned: Mapping[str, str],
    seen: Observations,
    faults: Faults,
    *,
    ep: bool = False,
) -> list[str]:
    """Options as arguments; a fault names each one that the plan computes, or that the release or the image does not take."""
    for key in given:
        name = option_name(key)
        if name in owned:
            faults.add(f"{what}: {key} is computed by the plan; set {owned[name]}.")
    own = {key: value for key, value in given.items() if option_name(key) not in owned}
    for key, value in list(own.items()):
        # What the release does not know is told as that.
        why = None if command.check_option(key, value) else reason(command.name, command.release, key, value, ep=ep)
        if why:
            faults.add(f"{what}: {key} {why}.")
            del own[key]
    wrong = command.check(own)
    faults.extend(f"{what}: {fault}" for fault in wrong)
    if wrong:
        return []
    arguments = command.argv(own)
    observed = (seen.image or {}).get(f"{command.name}_options")
    if observed:
        faults.extend(
            f"{what}: the {command.name} in the image (LMDeploy {command.release}) does not know {name}: "
            "remove it, or set plan_image to a release that has it."
            for name in unknown_to_image(arguments, observed)
        )
    return arguments


def _chat_template(inputs: Inputs, release: str | None, seen: Observations) -> str | None:
    """The template to name, where this release would choose one that cannot chat."""
    path = inputs.model.lower()
    if at_least(release, TEMPLATE_FROM_MODEL_SINCE) or "deepseek-v3" in path or "deepseek-r1" in path:
        return None
    architectures = (seen.model_config or {}).get("architectures") or [""]
    return TEMPLATES.get(str(architectures[0]))


def _unverified(inputs: Inputs, image: Image, engines: Sequence[Engine], seen: Observations) -> list[str]:
    notes = []
    if not seen.image:
        release = f"LMDeploy {image.release} by its tag" if image.release else "not known from its tag"
        notes.append(f"release of {image.reference}: {release}; the image is asked after the pull")
        notes.append("Ray's token authentication: planned; left out where the image's Ray does not know it")
        if engines[0].ep > 1:
            notes.append(
                "what expert parallelism needs (DeepEP, DeepGEMM or dlBLAS); the image is asked after the pull"
            )
            if not image.release:
                notes.append(
                    "DeepEP's cap of tokens a rank: both variables are set that a release may read; once the image has said "
                    "its release, only what that needs is set, or max_batch_size is refused"
                )
    notes.extend(
        f"{node.name}: interface of {node.address}; the host is asked"
        for node in inputs.nodes
        if node.interface is None
    )
    if seen.model_config is None:
        notes.append(f"model files of {inputs.model}; every host is asked")
    return notes


def _warnings(inputs: Inputs, image: Image, engines: Sequence[Engine]) -> list[str]:
    warnings = []
    if image.moving:
        warnings.append(
            f"plan_image {inputs.image} is a moving tag ({image.reference}): nodes pulled on different days differ. "
            "Pin a release or a digest."
        )
    oldest = releases()[0]
    if not at_least(image.release, oldest):
        warnings.append(
            f"LMDeploy {image.release} is older than {oldest}, the first that this collection knows: nobody has tried whether its "
            "options and containers are right for it. Set plan_image to a later release."
        )
    warnings.extend(
        f"plan_tp {engine.tp} leaves {engine.gpus - engine.tp} of {engine.gpus} GPUs idle."
        for engine in engines
        if inputs.topology == "tp" and engine.tp < engine.gpus
    )
    if inputs.topology == "tp" and not at_least(image.release, tp.PORT_SINCE):
        warnings.append(
            f"LMDeploy {image.release} takes a free port for torch.distributed, whatever plan_ports.torch says: allow all TCP "
            "between the nodes."
        )
    for engine in engines:
        warnings.extend(deepep.warnings(inputs, engine))
    return warnings
