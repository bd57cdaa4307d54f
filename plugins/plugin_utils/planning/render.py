# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan for people: as a table, and as the shell commands one would type instead.

Secrets are not in a plan, so neither can show one: only the file's name appears.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ..text import columns
from .deepep import gib
from .types import RANK_PROGRAM_TARGET, DeepEP, Image, Node, Plan, Service

MANY = 12
RDMA_TITLE = "rdma, taken from the hosts:"


def as_table(plan: Plan) -> str:
    """The plan on one screen."""
    images = dict.fromkeys(engine.image for engine in plan.engines)
    lines = [
        f"{plan.name}: {plan.served_model_name} with {_sizes(plan)} over {len(plan.nodes)} nodes and {plan.gpus} GPUs",
        *(f"image  {image.reference} ({_release(image)})" for image in images),
        f"model  {plan.model}, revision {plan.model_revision}",
        f"url    {plan.url}",
        *dict.fromkeys(_deepep(engine.deepep) for engine in plan.engines if engine.deepep),
        "",
        *columns(
            [
                ("NODE", "RANK", "ADDRESS", "INTERFACE", "GPUS", "SERVICES"),
                *(
                    (
                        f"{node.name} (head)" if node.is_head else node.name,
                        str(node.rank),
                        node.address,
                        node.interface or "?",
                        str(node.gpus),
                        ", ".join(service.name for service in plan.services if service.node == node.name),
                    )
                    for node in plan.nodes
                ),
            ]
        ),
        "",
        *columns(
            [
                ("SERVICE", "NODE", "LISTENS", "RESTART"),
                *(
                    (
                        service.name,
                        service.node,
                        _ports(service.listens),
                        service.restart_policy,
                    )
                    for service in plan.services
                ),
            ]
        ),
    ]
    if len(plan.endpoints) > 1:
        ranks = [(str(each.rank), each.node, _ports(each.gpus), each.url) for each in plan.endpoints]
        lines += ["", *columns([("RANK", "NODE", "GPU", "URL"), *ranks])]
    devices = rdma_lines(plan)
    if devices:
        lines += ["", RDMA_TITLE, *devices]
    for title, notes in (("unverified until the hosts are asked", plan.unverified), ("warnings", plan.warnings)):
        if notes:
            lines += ["", f"{title}:", *(f"  - {note}" for note in notes)]
    return "\n".join(lines)


def _sizes(plan: Plan) -> str:
    """What the engines are, in a few words."""
    if plan.topology == "dpep":
        engine = plan.engines[0]
        return f"dp {engine.dp}, ep {engine.ep}, tp {engine.tp} ({engine.launcher})"
    sizes = " and ".join(
        dict.fromkeys(f"tp {engine.tp}" + (f", ep {engine.ep}" if engine.ep > 1 else "") for engine in plan.engines)
    )
    return sizes if len(plan.engines) == 1 else f"{len(plan.engines)} replicas of {sizes}"


def _deepep(needs: DeepEP) -> str:
    """What DeepEP takes, and what is set for it."""
    size = needs.buffer_bytes
    takes = f"{gib(size)} of every GPU ({size} bytes)" if size else "a buffer of unknown size: the model is asked"
    sets = "".join(f"; {name}={value}" for name, value in needs.environment.items())
    return f"deepep {needs.tokens_per_rank} tokens a rank take {takes}{sets}"


def rdma_lines(plan: Plan) -> list[str]:
    """What is taken from the hosts of their RDMA devices, and why; nothing before they were asked."""
    return [line for node in plan.nodes for line in _rdma(node)]


def _rdma(node: Node) -> list[str]:
    """What a host's RDMA devices are, what is set for them, and why others are left out."""
    if node.rdma is None:
        return []
    nearest = node.rdma.nearest
    sets = "".join(f"; {name}={value}" for name, value in node.rdma.environment.items())
    return [
        f"  {node.name}: {', '.join(node.rdma.devices)}{sets}",
        *(f"    not {name}: it {why}" for name, why in node.rdma.left_out.items()),
        *([f"    nearest to GPU 0 to {len(nearest) - 1}: {', '.join(nearest)}"] if len(nearest) > 1 else []),
    ]


def _release(image: Image) -> str:
    return f"LMDeploy {image.release}" if image.release else "LMDeploy release not known yet"


def _ports(numbers: Sequence[int]) -> str:
    """Numbers as they are, or first, second, ... last where there are many."""
    words = [str(number) for number in numbers]
    return " ".join(words if len(words) <= MANY else [*words[:2], "..", words[-1]])


def as_shell(plan: Plan) -> str:
    """The commands to type on each node, in order, to get the same containers without this collection."""
    # Whatever stands in a comment is quoted too: it stays in its line, and some shells have no comments at their prompt.
    lines = ["# The same deployment by hand. Run each block on the node it names, from top to bottom."]
    services = [service.as_earlier or service for service in plan.services]
    if services != plan.services:
        lines.append("# What starts an engine again by itself is left out: an engine that ends stays down.")
    mounts = [mount for service in services for mount in service.mounts]
    secrets = dict.fromkeys(secret.source for service in services for secret in service.secrets)
    programs = dict.fromkeys(mount.source for mount in mounts if mount.target == RANK_PROGRAM_TARGET)
    lines += [
        *(
            f"# First, on every node: the same random token, at least 32 characters, with mode 0600, in {_word(it)}"
            for it in secrets
        ),
        *(f"# First, on every node: programs/rank.py of this collection as {_word(it)}" for it in programs),
    ]
    if plan.topology == "dpep":
        lines.append("# All ranks wait for each other: start the containers of all nodes within a few minutes.")
    for service in services:
        make = [f"mkdir -p {shlex.join(service.directories)}"] if service.directories else []
        lines += ["", f"# {_word(service.node)}: {_word(service.name)}", *make, _docker_run(service)]
    return "\n".join(lines)


def _word(text: str) -> str:
    """A word in a comment: quoted where a shell would take it for more, and on one line."""
    return shlex.quote("".join(each if each.isprintable() else "?" for each in text))


def _rights(service: Service) -> list[str]:
    if service.privileged:
        return ["--privileged"]
    return ["--cap-add", "IPC_LOCK", "--ulimit", "memlock=-1", "--device", "/dev/infiniband"] if service.gpus else []


def _docker_run(service: Service) -> str:
    words = [
        ["docker", "run", "--detach", "--name", service.name],
        ["--network", "host", "--ipc", "host", *(["--pid", service.pid_mode] if service.pid_mode else [])],
        ["--gpus", "all"] if service.gpus else [],
        _rights(service),
        ["--restart", service.restart_policy],
        *(["--env", f"{key}={value}"] for key, value in sorted(service.environment.items())),
        *(
            ["--volume", f"{mount.source}:{mount.target}" + (":ro" if mount.read_only else "")]
            for mount in service.mounts
        ),
        *(["--volume", f"{secret.source}:{secret.target}:ro"] for secret in service.secrets),
        [service.image],
        service.command,
    ]
    return " \\\n  ".join(shlex.join(part) for part in words if part)
