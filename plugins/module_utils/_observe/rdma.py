# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RDMA: what NVIDIA's driver has for it, and the network cards that speak it."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Any

from .files import text_of
from .gpu_details import ADDRESS
from .gpus import numa_node

RDMA_MODULES = ("nvidia_peermem", "nv_peer_mem", "gdrdrv")


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


def hcas(root: Path = Path("/")) -> list[dict[str, Any]]:
    """The devices of InfiniBand and RoCE, with their ports and these ports' GIDs; see RETURN of M(observe)."""
    found = sorted((root / "sys/class/infiniband").glob("*"), key=lambda path: _natural(path.name))
    return [_hca(device, root / "sys/class/net") for device in found]


def _hca(device: Path, net: Path) -> dict[str, Any]:
    card = device / "device"
    bus = card.resolve().name if card.exists() else ""
    ports = [_port(path) for path in sorted((device / "ports").glob("[0-9]*"), key=lambda path: _natural(path.name))]
    netdevs = sorted(path.name for path in (card / "net").glob("*"))
    if not netdevs:  # soft RoCE has no card, only what it was put on; some drivers say it with the GIDs only
        on = {text_of(device / "parent") or ""} | {gid["netdev"] for port in ports for gid in port["gids"]}
        netdevs = sorted(on - {""})
    return {
        "device": device.name,
        "driver": (card / "driver").resolve().name if (card / "driver").exists() else None,
        "numa": numa_node(card),
        "bus": bus if ADDRESS.fullmatch(bus) else "",
        "netdevs": netdevs,
        "bond": next((bond for bond in (_bond(net / name) for name in netdevs) if bond), ""),
        "ports": ports,
    }


def _bond(interface: Path) -> str:
    """The bond that an interface is in, or is."""
    if (interface / "bonding").is_dir():
        return interface.name
    master = interface / "master"
    return master.resolve().name if (master / "bonding").is_dir() else ""


def _port(path: Path) -> dict[str, Any]:
    return {
        "port": int(path.name) if path.name.isdecimal() else 0,
        "state": _after_number(text_of(path / "state")),
        "physical": _after_number(text_of(path / "phys_state")),
        "layer": text_of(path / "link_layer"),
        "rate_gbps": rate_gbps(text_of(path / "rate") or ""),
        "gids": _gids(path),
    }


def _after_number(text: str | None) -> str | None:
    """The word in ``4: ACTIVE``."""
    return None if text is None else text.rpartition(":")[2].strip()


def rate_gbps(text: str) -> float | None:
    """Out of ``400 Gb/sec (4X NDR)``."""
    match = re.match(r"(\d+(?:\.\d+)?) Gb/sec", text)
    return float(match[1]) if match else None


def _gids(port: Path) -> list[dict[str, Any]]:
    """Those that are set; a table has some 256 places, and type and interface of an empty one cannot be read."""
    found = []
    for place in sorted((port / "gids").glob("[0-9]*"), key=lambda path: _natural(path.name)):
        gid = text_of(place) or ""
        if gid.strip("0:"):
            attributes = port / "gid_attrs"
            found.append(
                {
                    "index": int(place.name),
                    "gid": gid,
                    "type": text_of(attributes / "types" / place.name) or "",
                    "address": mapped_address(gid),
                    "netdev": text_of(attributes / "ndevs" / place.name) or "",
                }
            )
    return found


def mapped_address(gid: str) -> str:
    """The IPv4 address that a GID of RoCE is made of, as in ``0000:0000:0000:0000:0000:ffff:0a00:0001``; else empty."""
    with contextlib.suppress(ValueError):
        mapped = ipaddress.IPv6Address(gid).ipv4_mapped
        return str(mapped) if mapped else ""
    return ""


def _natural(name: str) -> tuple[str, int, str]:
    """To have mlx5_2 before mlx5_10."""
    match = re.fullmatch(r"(.*?)([0-9]{0,9})", name, re.DOTALL)
    return (match[1], int(match[2] or -1), name) if match else (name, -1, name)
