# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be true of a host before a container starts on it. Runs on the host, changes nothing."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LISTEN = "0A"
DEPLOYMENT_LABEL = "lmfleet.lmdeploy.deployment"
OLDEST_API = (1, 40)  # Docker 19.03: device requests, for --gpus


def interfaces(ip_json: str) -> dict[str, list[str]]:
    """Interface -> its IPv4 addresses, from the output of ``ip -json -4 address``."""
    return {
        link["ifname"].partition("@")[0]: [entry["local"] for entry in link.get("addr_info", []) if "local" in entry]
        for link in json.loads(ip_json or "[]")
        if link
    }


def listening_ports(tables: Iterable[str]) -> set[int]:
    """The ports in state LISTEN in the texts of /proc/net/tcp and /proc/net/tcp6."""
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTEN}


def read_tcp_tables() -> list[str]:
    """This host's socket tables."""
    return [path.read_text() for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]


def docker_faults(api_version: str) -> list[str]:
    """Why this Docker engine cannot run the services; empty when it can."""
    if tuple(map(int, api_version.split("."))) >= OLDEST_API:
        return []
    return [f"Docker is too old (API {api_version}): install 19.03 or newer."]


def gpu_faults(planned: int, listing: str) -> list[str]:
    """Why the host has fewer GPUs than planned; ``listing`` is the output of ``nvidia-smi -L``."""
    has = sum(line.startswith("GPU ") for line in listing.splitlines())  # the parts of a MIG device are indented
    if has >= planned:
        return []
    missing = f"nvidia-smi -L lists {has} of the {planned} GPUs that plan_gpus says"
    return [f"{missing}: lower it, or find the missing ones (dmesg | grep -i nvrm)."]


def gpus(query: str) -> tuple[list[str], str | None]:
    """(the GPUs' names, the driver's version), from ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader``."""
    found = [[cell.strip() for cell in line.split(",")] for line in query.splitlines() if "," in line]
    return [cells[0] for cells in found], next((cells[-1] for cells in found), None)


def link_speeds(root: Path = Path("/sys/class")) -> dict[str, str]:
    """How fast the host's links say that they are: Ethernet interfaces that are up, and InfiniBand ports."""
    found = {}
    for file in sorted(root.glob("net/*/speed")):
        with contextlib.suppress(OSError, ValueError):  # an interface that is down, or has no speed
            megabits = int(file.read_text())
            if megabits > 0:
                found[file.parent.name] = f"{megabits} Mb/s"
    for file in sorted(root.glob("infiniband/*/ports/*/rate")):
        with contextlib.suppress(OSError):
            found[f"{file.parts[-4]}/{file.parent.name}"] = file.read_text().strip()
    return found


def source_address() -> str:
    """This host's own address on its default route, as LMDeploy and Ray find theirs; empty where there is no route.

    Nothing is sent: connecting a UDP socket only looks the route up.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def leftover_faults(containers: Mapping[str, Mapping[str, Any]], deployment: str, planned: set[str]) -> list[str]:
    """Containers of this deployment that the plan no longer has, as after a change of topology: they hold the GPUs."""
    return [
        f"the container {name} is of the deployment {deployment}, but not of this plan (another "
        "topology or head, or no proxy any more): run playbooks/teardown.yml first."
        for name, labels in containers.items()
        if labels.get(DEPLOYMENT_LABEL) == deployment and name not in planned
    ]


def container_faults(containers: Mapping[str, Mapping[str, Any]], deployment: str) -> list[str]:
    """Containers that bear a planned name but were not made for this deployment; each is left alone."""
    return [
        f"a container {name} exists that the deployment {deployment} did not make; it was left alone: "
        "rename or remove it, or set plan_name to another name."
        for name, labels in containers.items()
        if labels.get(DEPLOYMENT_LABEL) != deployment
    ]


def port_faults(services: Iterable[Mapping[str, Any]], running: set[str], listening: set[int]) -> list[str]:
    """Planned ports that something else listens on; ``running`` are the service containers that hold theirs already."""
    return [
        f"port {port} of {service['name']} is in use on this host: stop what listens there (ss -ltnp 'sport = :{port}'), "
        "or choose another with plan_ports."
        for service in services
        if service["name"] not in running
        for port in service["listens"]
        if port in listening
    ]
