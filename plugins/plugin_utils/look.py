# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of each host about a plan, as arguments of M(lmfleet.lmdeploy.observe)."""

from __future__ import annotations

import dataclasses
from typing import Any

from .planning.types import Node, Plan


@dataclasses.dataclass(frozen=True)
class Patience:
    """Seconds that a token may take, and seconds without any progress beyond that, until an engine counts as dead."""

    token_s: float = 20.0
    stall_s: float = 30.0


def questions(plan: Plan, node: Node) -> dict[str, Any]:
    """Everything that judging and deciding need of one host, asked at once; see ``with_patience``."""
    engine = plan.engine(node.engine)
    services = plan.services_on(node.name)
    repo = {"path": plan.model} if plan.model.startswith("/") else {"repo": plan.model, "hf_home": node.hf_home}
    asked: dict[str, Any] = {
        "deployment": plan.name,
        "names": [service.name for service in services],
        "image": {"reference": engine.image.reference, "state_dir": node.state_dir},
        "host": True,
        "docker_settings": True,
        "files": sorted({secret.source for service in services for secret in service.secrets}),
        "paths": sorted({path for service in services for path in service.sources}),
        "model": {**repo, "revision": plan.model_revision},
        "tokens": {
            "model": plan.served_model_name,
            "urls": {each.url: each.container for each in plan.endpoints if each.node == node.name},
        },
        "record": record_path(plan, node),
        **({"lock": lock_path(plan)} if node.name == plan.head else {}),
    }
    if plan.proxy and plan.proxy.node == node.name:
        asked["proxy"] = plan.proxy.url
        asked["tokens"]["public"] = plan.proxy.url
    return asked


def with_patience(asked: dict[str, Any], patience: Patience, *, ask_registry: bool) -> dict[str, Any]:
    """The questions, with the patience for tokens, and whether the registry is asked if it has another image by now."""
    return {
        **asked,
        "image": {**asked["image"], "ask_registry": ask_registry},
        "tokens": {**asked["tokens"], "timeout_s": patience.token_s, "stall_s": patience.stall_s},
    }


def record_path(plan: Plan, node: Node) -> str:
    """Where a host keeps what this collection wrote about the deployment."""
    return f"{node.state_dir}/{plan.name}/record.json"


def lock_path(plan: Plan) -> str:
    """Where the head keeps who is at work on the deployment."""
    return f"{plan.node(plan.head).state_dir}/{plan.name}/lock.json"
