# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service as arguments of community.docker.docker_container, and the files that it needs on its host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .observed import DEPLOYMENT, DERIVED, ENGINE, FORMATION, IDENTITY, SERVICE
from .planning.supervision import programs
from .planning.types import PROGRAMS_TARGET, RANK_PROGRAM_TARGET, Service


def docker_arguments(deployment: str, service: Service, formation: str) -> dict[str, Any]:
    """What starts the container, which must not be there yet."""
    asked = service.asked
    mounts = [{"source": s, "target": t, "read_only": read_only, "type": "bind"} for s, t, read_only in asked["mounts"]]
    return {
        "name": service.name,
        "image": asked["image"],
        "command": asked["command"],
        "command_handling": "correct",
        "env": asked["environment"],
        "mounts": mounts,
        "labels": {
            DEPLOYMENT: deployment,
            SERVICE: service.service,
            IDENTITY: service.identity,
            FORMATION: formation,
            **({DERIVED: ",".join(service.derived)} if service.derived else {}),
            **({ENGINE: service.engine} if service.engine else {}),
        },
        "network_mode": asked["network_mode"],
        "ipc_mode": asked["ipc_mode"],
        **({"pid_mode": asked["pid_mode"]} if asked["pid_mode"] else {}),
        "privileged": asked["privileged"],
        **({"user": asked["user"]} if "user" in asked else {}),
        # RDMA by single rights, where the container is not privileged.
        **(
            {
                "capabilities": ["IPC_LOCK"],
                "ulimits": ["memlock:-1:-1"],
                "devices": ["/dev/infiniband:/dev/infiniband"],
            }
            if asked["rdma"]
            else {}
        ),
        **({"device_requests": [{"driver": "", "count": -1, "capabilities": [["gpu"]]}]} if asked["gpus"] else {}),
        "restart_policy": asked["restart_policy"],
        "state": "started",
    }


def files_of(services: Sequence[Service], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of M(lmfleet.lmdeploy.place): what these containers need, and ``secrets`` (path -> content)."""
    directories = dict.fromkeys(path for service in services for path in service.directories)
    mounts = {mount.target: mount.source for service in services for mount in service.mounts}
    texts = programs()
    files = {mounts[RANK_PROGRAM_TARGET]: texts["rank.py"]} if RANK_PROGRAM_TARGET in mounts else {}
    if PROGRAMS_TARGET in mounts:
        files = {f"{mounts[PROGRAMS_TARGET]}/{path}": text for path, text in texts.items()}
    return {
        "directories": list(directories),
        "files": files,
        "secrets": dict(secrets),
    }
