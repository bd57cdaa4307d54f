# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of each host about a plan, as arguments of M(lmfleet.lmdeploy.observe)."""

from __future__ import annotations

import dataclasses
from typing import Any

from .images import mirrored
from .planning.gateway import admin_socket, secret_paths
from .planning.paths import READ_BY_SERVER, Named, named
from .planning.types import HF_CACHE, Engine, Node, Plan, Service
from .releases import at_least

CODE_IF_TRUSTED_SINCE = "0.13.0"  # before, LMDeploy ran a model's own code without being told to


@dataclasses.dataclass(frozen=True)
class Patience:
    """Seconds that a token may take, and seconds without any progress beyond that, until an engine counts as dead."""

    token_s: float = 20.0
    stall_s: float = 30.0


def questions(plan: Plan, node: Node) -> dict[str, Any]:
    """Everything that judging and deciding need of one host, asked at once; see ``with_patience``."""
    engine = plan.engine(node.engine)
    services = plan.services_on(node.name)
    named = files_of(plan, node)
    asked: dict[str, Any] = {
        "deployment": plan.name,
        "names": [service.name for service in services],
        "image": {"reference": engine.image.reference, "state_dir": node.state_dir},
        "host": True,
        "host_peers": [each.address for each in plan.nodes if each.name != node.name],
        "host_disks": sorted({node.hf_home, node.state_dir}),
        "gpu_users": True,
        "docker_settings": True,
        "files": sorted({secret.source for service in services for secret in service.secrets}),
        "paths": sorted({path for service in services for path in service.sources}),
        **({"inside": _inside(plan, node, named)} if named else {}),
        "model": _model(plan, node),
        "tokens": {
            "model": plan.served_model_name,
            "urls": {each.url: each.container for each in plan.endpoints if each.node == node.name},
        },
        "record": record_path(plan, node),
        "starts": {service.name: service.starts for service in services if service.starts},
        **({"lock": lock_path(plan)} if node.name == plan.head else {}),
    }
    if plan.proxy and plan.proxy.node == node.name:
        asked["proxy"] = plan.proxy.url
        asked["tokens"]["public"] = plan.proxy.url
    if plan.gateway and plan.gateway.node == node.name:
        service = plan.only("gateway")
        asked["gateway"] = admin_socket(service)
        asked["image_ids"] = [service.image]
        asked["files"] = sorted({*asked["files"], *secret_paths(service, tls=plan.gateway.tls).values()})
        asked["tokens"]["public"] = plan.gateway.url
    return asked


def files_of(plan: Plan, node: Node) -> list[Named]:
    """What the options of the node's engine name and a container of the node reads; in TP some by the api_server alone."""
    engine = plan.engine(node.engine)
    of_head = engine.topology == "tp" and node.name != engine.head
    found = named(engine.arguments, hub_of(plan, node))
    return [each for each in found if each.reads and not (of_head and each.option in READ_BY_SERVER)]


def _inside(plan: Plan, node: Node, files: list[Named]) -> dict[str, Any]:
    mounts = engine_of(plan, node).mounts
    kinds = {each.reads: "file" if each.kind == "directory" else each.kind for each in files}
    kinds.update({each.reads: "directory" for each in files if each.reads.endswith("/snapshots")})
    return {"mounts": [{"source": each.source, "target": each.target} for each in mounts], "paths": kinds}


def _model(plan: Plan, node: Node) -> dict[str, Any]:
    """The model as the node's engine would look for it: in its container, by its variables."""
    service = engine_of(plan, node)
    asked: dict[str, Any] = {
        "revision": plan.model_revision,
        "mounts": [{"source": each.source, "target": each.target} for each in service.mounts],
        "hub": hub_of(plan, node),
        "code": runs_code(plan.engine(node.engine)),
    }
    if plan.model.startswith("/"):
        return {**asked, "path": plan.model}
    return {**asked, "repo": plan.model, "hf_home": node.hf_home}


def engine_of(plan: Plan, node: Node) -> Service:
    """A container of the node that reads the model; all of a node's that do have the same mounts and variables."""
    return next(each for each in plan.services_on(node.name) if each.gpus)


def runs_code(engine: Engine) -> bool:
    """Whether an engine is known to run the code that comes with a model."""
    if "--trust-remote-code" in engine.arguments:
        return True
    return engine.image.release is not None and not at_least(engine.image.release, CODE_IF_TRUSTED_SINCE)


def hub_of(plan: Plan, node: Node) -> str:
    """The directory of the Hugging Face cache in a node's containers, as LMDeploy and huggingface_hub choose it."""
    service = engine_of(plan, node)
    given, chosen = service.environment, plan.engine(node.engine).option("download-dir")
    home = HF_CACHE  # where the plan mounts the host's
    if given.get("XDG_CACHE_HOME"):
        home = f"{given['XDG_CACHE_HOME']}/huggingface"
    home = given.get("HF_HOME") or home
    return chosen or given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"


def with_patience(asked: dict[str, Any], patience: Patience, *, ask_registry: bool, mirror: str = "") -> dict[str, Any]:
    """The questions, with the patience for tokens, and whether the registry, or its mirror, is asked if it has another image."""
    source = mirrored(asked["image"]["reference"], mirror) if ask_registry else ""
    return {
        **asked,
        "image": {**asked["image"], "ask_registry": ask_registry, **({"registry_reference": source} if source else {})},
        "tokens": {**asked["tokens"], "timeout_s": patience.token_s, "stall_s": patience.stall_s},
    }


def home_path(plan: Plan, node: Node) -> str:
    """The deployment's own directory on a host."""
    return f"{node.state_dir}/{plan.name}"


def record_path(plan: Plan, node: Node) -> str:
    """Where a host keeps what this collection wrote about the deployment."""
    return f"{home_path(plan, node)}/record.json"


def lock_path(plan: Plan) -> str:
    """Where the head keeps who is at work on the deployment."""
    return f"{home_path(plan, plan.node(plan.head))}/lock.json"
