# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node's cluster address will do, by what each library makes of it.

Ray and LMDeploy's servers take the address itself. Gloo (gloo/transport/tcp/device.cc, lookupAddrForIface) and NCCL
(ncclFindInterfaces) are given an interface, and tell the other nodes the first address that it has. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .planning.types import Node

LOOPBACK = "lo"


def owner_of(address: str, interfaces: Mapping[str, Sequence[str]]) -> str | None:
    """The interface that has an address; not the loopback where another one has it too."""
    found = [name for name, addresses in interfaces.items() if address in addresses]
    return next((name for name in found if name != LOOPBACK), found[0] if found else None)


def binding_faults(node: Node, interfaces: Mapping[str, Sequence[str]]) -> list[str]:
    """Why the plan cannot be bound to this host: an address that it does not have, an interface that does not exist."""
    if owner_of(node.address, interfaces) is None:
        has = ", ".join(f"{name} {' '.join(found)}" for name, found in sorted(interfaces.items()) if found) or "none"
        missing = f"no interface of this host has {node.address} (it has {has})"
        return [f"{missing}: set plan_cluster_address to the address on the cluster's network."]
    if node.interface and node.interface not in interfaces:
        there = ", ".join(interfaces)
        return [
            f"plan_interface {node.interface!r} does not exist (this host has {there}): correct it, or take it out."
        ]
    return []


def address_faults(node: Node, seen: Mapping[str, Any], alone: bool) -> Iterator[str]:
    """What is wrong with a node's address and interface, from ``host`` of M(observe); ``alone``: its engine has no other node."""
    interfaces = seen["interfaces"]
    faults = binding_faults(node, interfaces)
    yield from faults
    if faults or alone:
        return
    name = node.interface or owner_of(node.address, interfaces) or ""
    if name in seen.get("down", ()):
        yield (
            f"{node.address} is on the interface {name}, which is down: switch it on (ip link set {name} up) and look at cable "
            "and switch, or set plan_cluster_address to an address on another network."
        )
    if name in seen.get("bridges", ()):
        yield (
            f"{node.address} is on the bridge {name}, which only containers of this host are behind, so no other node can "
            "reach it: set plan_cluster_address to the address on the cluster's network."
        )
        return
    if not interfaces[name]:
        yield (
            f"plan_interface {name} has no IPv4 address, and Gloo and NCCL need one to meet the other nodes: give it one, or "
            "set plan_interface to the interface of the cluster's network."
        )
        return
    first = interfaces[name][0]
    if first == node.address:
        return
    if node.interface:
        return  # a person has said so; there is a warning
    if name == LOOPBACK:
        yield (
            f"{node.address} is on the loopback interface, and Gloo and NCCL would tell the other nodes its first address, "
            f"{first}: set plan_interface to the network card that leads to the other nodes."
        )
    elif not _together(first, node.address, seen.get("networks") or {}):
        yield (
            f"{node.address} is not the first address of {name}: Gloo and NCCL would tell the other nodes {first}, which is in "
            f"another network. Set plan_cluster_address to {first}, or plan_interface to {name} where the other nodes reach "
            f"{first} too."
        )


def address_warnings(node: Node, seen: Mapping[str, Any], alone: bool) -> Iterator[str]:
    """What works, and should be known."""
    interfaces = seen.get("interfaces") or {}
    owner = owner_of(node.address, interfaces)
    if alone or owner is None or node.interface not in (None, owner) or owner == LOOPBACK:
        return
    name, first = owner, interfaces[owner][0]
    if first != node.address:
        yield (
            f"{node.address} is not the first address of {name}: Ray uses it, and Gloo and NCCL use {first}. A virtual address "
            "that can move to another host will not do."
        )


def _together(first: str, address: str, networks: Mapping[str, str]) -> bool:
    """Whether two addresses are in one network, by the mask of either: a second address often has /32."""
    if not networks:
        return True  # not asked
    pairs = ((first, networks.get(address)), (address, networks.get(first)))
    return any(network and ipaddress.ip_address(one) in ipaddress.ip_network(network) for one, network in pairs)


def route_fault(node: Node, source: str) -> str | None:
    """Why LMDeploy's own launcher would take another address than the planned one; ``source`` is that of the default route."""
    if source == node.address:
        return None
    return (
        f"LMDeploy's own launcher takes the address of the default route, {source or 'none'}, and not "
        f"plan_cluster_address {node.address}: set plan_launcher: torchrun, or give the host a route that "
        f"starts there (ip route add 8.8.8.8/32 dev {node.interface or 'INTERFACE'} src {node.address})."
    )
