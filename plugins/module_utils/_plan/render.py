# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan for people: as a table, and as the shell commands one would type instead.

Secrets are not in a plan, so neither can show one: only the file's name appears.
"""

from __future__ import annotations

import shlex

from .._text import columns
from .types import Plan, Service


def as_table(plan: Plan) -> str:
    """The plan on one screen."""
    release = f"LMDeploy {plan.image.release}" if plan.image.release else "LMDeploy release not known yet"
    lines = [
        f"{plan.name}: {plan.served_model_name} with tp {plan.tp} over {len(plan.nodes)} nodes and {plan.gpus} GPUs",
        f"image  {plan.image.run} ({release})",
        f"model  {plan.model}, revision {plan.model_revision}",
        f"url    {plan.url}",
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
                ("SERVICE", "NODE", "LISTENS", "RESTART", "IDENTITY"),
                *(
                    (
                        service.name,
                        service.node,
                        " ".join(map(str, service.listens)),
                        service.restart_policy,
                        service.identity,
                    )
                    for service in plan.services
                ),
            ]
        ),
    ]
    for title, notes in (("unverified until the hosts are asked", plan.unverified), ("warnings", plan.warnings)):
        if notes:
            lines += ["", f"{title}:", *(f"  - {note}" for note in notes)]
    return "\n".join(lines)


def as_shell(plan: Plan) -> str:
    """The commands to type on each node, in order, to get the same containers without this collection."""
    lines = ["# The same deployment by hand. Run each block on the node it names, from top to bottom."]
    if plan.ray_token_auth:
        token = plan.services[0].secrets[0].source
        lines.append(f"# First, on every node: the same random token, at least 32 characters, in {token} (mode 0600).")
    for service in plan.services:
        directories = shlex.join(service.directories)
        lines += ["", f"# {service.node}: {service.name}", f"mkdir -p {directories}", _docker_run(service)]
    return "\n".join(lines)


def _docker_run(service: Service) -> str:
    words = [
        ["docker", "run", "--detach", "--name", service.name],
        ["--network", "host", "--ipc", "host", *(["--pid", service.pid_mode] if service.pid_mode else [])],
        ["--gpus", "all"] if service.gpus else [],
        ["--privileged"]
        if service.privileged
        else ["--cap-add", "IPC_LOCK", "--ulimit", "memlock=-1", "--device", "/dev/infiniband"],
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
