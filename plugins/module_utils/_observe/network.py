# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network: interfaces, their addresses and networks, what they are stacked on, how fast they say that they are."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import commands
from .files import number_of

IPV6_TABLE = Path("/proc/net/if_inet6")
GLOBAL_SCOPE = "00"
LOWER = "lower_"  # begins the names of the links to them in /sys
NO_IP = "the command ip is missing, which tells the interface of an address: apt-get install iproute2."


def read_addresses() -> tuple[str, str]:
    """(What ``ip -json -4 address`` wrote, why it cannot be used)."""
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


def global_ipv6(table: str) -> dict[str, list[str]]:
    """Interface -> its IPv6 addresses that are not of the link or the host alone, from the text of /proc/net/if_inet6."""
    found: dict[str, list[str]] = {}
    for row in (line.split() for line in table.splitlines()):
        if len(row) == 6 and row[3] == GLOBAL_SCOPE:
            found.setdefault(row[5], []).append(str(ipaddress.IPv6Address(bytes.fromhex(row[0]))))
    return found


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


def mtus(root: Path = Path("/sys/class/net")) -> dict[str, int]:
    """Interface -> the longest packet that it takes, in bytes."""
    found = {path.name: number_of(path / "mtu") for path in sorted(root.glob("*"))}
    return {name: mtu for name, mtu in found.items() if mtu is not None}


def parents(root: Path = Path("/sys/class/net")) -> dict[str, list[str]]:
    """Interface -> those that it is stacked on: a VLAN's device, a bond's members, a bridge's ports."""
    found = {path.name: sorted(each.name[len(LOWER) :] for each in path.glob(f"{LOWER}*")) for path in root.glob("*")}
    return {name: lower for name, lower in sorted(found.items()) if lower}
