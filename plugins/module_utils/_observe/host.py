# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host itself: addresses, ports in use, GPUs, links, clock. Each command has an end, and what failed is named."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import commands, parallel

LISTEN = "0A"
FIELDS = ("index", "name", "mig.mode.current", "compute_mode", "memory.used", "memory.total")
GPU_LINE = re.compile(r"\s*(?:GPU|MIG) ")
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
SOCKET_END = re.compile(r"[0-9A-F]+:([0-9A-F]{4})")  # as in /proc/net/tcp and /proc/net/tcp6
RDMA_MODULES = ("nvidia_peermem", "nv_peer_mem", "gdrdrv")
NO_IP = "the command ip is missing, which tells the interface of an address: apt-get install iproute2."


def host_facts() -> dict[str, Any]:
    """All of them; ``error`` says what could not be found out, except of the GPUs, which have their own.

    ``time`` is in seconds since 1970, ``uptime`` since the boot; ``boot_id`` is another after each boot; ``uid`` is who looks.
    """
    addresses, graphics = parallel.start(_addresses), parallel.start(gpu_facts)
    found, error = addresses.result()
    tables = read_tcp_tables()
    return {
        "interfaces": interfaces(found),
        "networks": networks(found),
        "down": down(found),
        "bridges": local_bridges(),
        "source": source_address(),
        "listening": sorted(listening_ports(tables)),
        "listeners": listeners(tables),
        "gpus": graphics.result(),
        "rdma": rdma_facts(),
        "links": link_speeds(),
        "boot_id": _boot_id(),
        "time": time.time(),
        "uptime": time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
        "uid": os.getuid(),
        "error": error,
    }


def _addresses() -> tuple[str, str]:
    """(what ``ip -json -4 address`` wrote, why it cannot be used)."""
    path = commands.find("ip")
    if path is None:
        return "", NO_IP
    output, error = commands.run([path, "-json", "-4", "address"])
    if error:
        # An ip of before 2017, or busybox's, does not know -json.
        old = any(word in error.lower() for word in ("unknown", "unrecognized", "invalid option", "usage"))
        return (
            "",
            f"{error}. This ip cannot answer in JSON: apt-get install iproute2 (4.13 or newer)." if old else error,
        )
    try:
        interfaces(output), networks(output), down(output)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", (
            f"ip -json -4 address gave no JSON: {output[:200]!r}. Install a newer iproute2 (4.13 or newer; busybox's ip "
            "does not have it)."
        )
    return output, ""


def _links(ip_json: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Interface and what ip says of it; without ``@`` and what it is stacked on."""
    for link in json.loads(ip_json or "[]"):
        if link:  # an interface that has no address of the family asked for is an empty object
            yield str(link["ifname"]).partition("@")[0], link


def interfaces(ip_json: str) -> dict[str, list[str]]:
    """Interface -> its IPv4 addresses in the kernel's order, from the output of ``ip -json -4 address``."""
    return {
        name: [entry["local"] for entry in link.get("addr_info", []) if "local" in entry]
        for name, link in _links(ip_json)
    }


def networks(ip_json: str) -> dict[str, str]:
    """Address -> the network that it is in, as in 10.0.0.0/24."""
    return {
        entry["local"]: str(ipaddress.ip_network(f"{entry['local']}/{entry.get('prefixlen', 32)}", strict=False))
        for __, link in _links(ip_json)
        for entry in link.get("addr_info", [])
        if "local" in entry
    }


def down(ip_json: str) -> list[str]:
    """The interfaces that are switched off, or have no carrier."""
    return [
        name
        for name, link in _links(ip_json)
        if link.get("operstate") in ("DOWN", "LOWERLAYERDOWN") or "NO-CARRIER" in link.get("flags", [])
    ]


def local_bridges(root: Path = Path("/sys/class/net")) -> list[str]:
    """The bridges that no other host is behind: none of their ports is a device, a bond, a VLAN or a tunnel."""
    found = []
    for bridge in sorted(root.glob("*/bridge")):
        ports = [root / port.name for port in (bridge.parent / "brif").glob("*")]
        if not any(_leads_out(port) for port in ports):
            found.append(bridge.parent.name)
    return found


def _leads_out(port: Path) -> bool:
    if (port / "device").exists():  # a card, be it a virtual machine's
        return True
    try:
        kind = re.search(r"^DEVTYPE=(\w+)", (port / "uevent").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return False
    # Ends of containers (veth) and of virtual machines (tap) have none.
    return kind is not None and kind.group(1) != "bridge"


def gpu_facts() -> dict[str, Any] | None:
    """``{"listing", "devices", "names", "driver", "error"}`` as nvidia-smi tells them; None where it is not installed.

    ``listing`` is the text of ``nvidia-smi -L``, ``devices`` has a row for each GPU; ``error`` is one line, or empty.
    """
    path = commands.find("nvidia-smi")
    if path is None:
        return None
    questions = (
        ("-L",),
        ("--query-gpu=name,driver_version", "--format=csv,noheader"),
        (f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"),
    )
    answers = parallel.each(lambda options: commands.run([path, *options], answer=GPU_LINE), questions)
    (listing, failed), (query, failed_too), (details, __) = (answers[options] for options in questions)
    names, driver = gpus(query)
    return {
        "listing": listing,
        "names": names,
        "driver": driver,
        "devices": devices(details),
        "error": failed or failed_too,
    }


def gpus_work() -> bool | None:
    """Whether a GPU of this host works now, or nobody can tell; None where nvidia-smi is not installed."""
    path = commands.find("nvidia-smi")
    if path is None:
        return None
    said, failed = commands.run([path, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"])
    return bool(failed) or any_works(said)


def any_works(query: str) -> bool:
    """Whether one of the percentages, a line each, is not 0; what is no number (a MIG device's) may be any."""
    return any(line.strip() != "0" for line in query.splitlines()) or not query.strip()


def gpus(query: str) -> tuple[list[str], str | None]:
    """(the GPUs' names, the driver's version), from ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader``."""
    found = [[cell.strip() for cell in line.split(",")] for line in query.splitlines() if "," in line]
    return [cells[0] for cells in found], next((cells[-1] for cells in found), None)


def devices(query: str) -> list[dict[str, str]]:
    """The GPUs as ``nvidia-smi --query-gpu`` gives ``FIELDS`` of them; a line that is none of one is left out."""
    names = ("index", "name", "mig", "compute_mode", "used", "total")
    rows = [[cell.strip() for cell in line.split(",")] for line in query.splitlines()]
    return [dict(zip(names, cells)) for cells in rows if len(cells) == len(names)]


def rdma_facts(root: Path = Path("/")) -> dict[str, Any] | None:
    """What GPUs need to speak RDMA themselves: kernel modules, parameters of NVIDIA's driver; None without that driver."""
    driver = root / "proc/driver/nvidia"
    try:
        parameters = (driver / "params").read_text(encoding="utf-8", errors="replace")
        version = (driver / "version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    rows = (line.partition(":") for line in parameters.splitlines())
    return {
        "modules": [name for name in RDMA_MODULES if (root / "sys/module" / name).exists()],
        "parameters": {name.strip(): value.strip().strip('"') for name, __, value in rows if name.strip()},
        "open": "Open Kernel Module" in version,
        "devices": sorted(path.name for path in (root / "sys/class/infiniband").glob("*")),
    }


def listening_ports(tables: Iterable[str]) -> set[int]:
    """The ports in state LISTEN in the texts of /proc/net/tcp and /proc/net/tcp6."""
    return {port for __, port in _listening(tables)}


def listeners(tables: Iterable[str], proc: Path = Path("/proc")) -> dict[str, dict[str, Any]]:
    """Port (as text) -> ``{"pid", "command", "container"}`` of the process that listens on it, as far as the user may see it.

    ``container`` is the id of its container, or empty.
    """
    ports = dict(_listening(tables))
    found: dict[str, dict[str, Any]] = {}
    if not ports:
        return found
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            for entry in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    inode = str(entry.readlink()).partition("socket:[")[2].rstrip("]")
                    if inode in ports:
                        found.setdefault(str(ports[inode]), _process(process))
    return found


def _listening(tables: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Inode and port of what listens."""
    for row in (line.split() for table in tables for line in table.splitlines()[1:]):
        end = SOCKET_END.fullmatch(row[1]) if len(row) > 3 and row[3] == LISTEN else None
        if end:
            yield row[9] if len(row) > 9 else "", int(end[1], 16)


def _process(path: Path) -> dict[str, Any]:
    groups = CONTAINER_ID.findall((path / "cgroup").read_text(encoding="utf-8", errors="replace"))
    command = (path / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return {"pid": int(path.name), "command": command, "container": groups[-1] if groups else ""}


def read_tcp_tables() -> list[str]:
    """This host's socket tables."""
    return [path.read_text() for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]


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


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
