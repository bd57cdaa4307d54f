# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's network: cluster address, routes to the other hosts, its own name, proxies."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator

from ..network import address_faults, address_warnings, owner_of, route_fault
from .types import ERROR, GROUP, WARNING, Found, OfAll, OfHost, Rule, Unknown

PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")))


def _addresses(of: OfHost) -> Iterator[str]:
    if not of.host.network:
        raise Unknown("the addresses could not be read")
    if not of.get("host.interfaces"):
        yield of.get("host.error") or "ip -json -4 address shows no interface with an IPv4 address."
        return
    yield from address_faults(of.node, of.host.network, alone=not of.several)


def _first(of: OfHost) -> Iterator[str]:
    yield from address_warnings(of.node, of.host.network, alone=not of.several)


def _default_route(of: OfHost) -> Iterator[str]:
    if not of.get("host.interfaces"):
        raise Unknown("the addresses could not be read")
    # As binding the plan tells it, with the interface that the plan gets then.
    fault = route_fault(dataclasses.replace(of.node, interface=_interface(of) or None), of.known("host.source"))
    if fault:
        yield fault


def _interface(of: OfHost) -> str:
    """The interface that the engine is told to use; raises ``Unknown``."""
    interfaces = of.known("host.interfaces")
    found = of.node.interface or owner_of(of.node.address, interfaces) or ""
    if found not in interfaces:
        raise Unknown(f"no interface is {found}" if found else f"no interface has {of.node.address}")
    return found


def _routes(of: OfHost) -> Iterator[str]:
    name, routes = _interface(of), of.known("host.routes")
    silent = []
    for peer in (of.plan.node(each) for each in of.engine.nodes if each != of.node.name):
        route = routes.get(peer.address)
        if not route:
            silent.append(peer.address)
        elif not route["interface"]:
            yield (
                f"there is no route to {peer.name} ({peer.address}): give the host one (ip route get {peer.address}), or correct "
                "plan_cluster_address of either."
            )
        elif route["interface"] != name:
            yield (
                f"the way to {peer.name} ({peer.address}) leaves by {route['interface']}, and not by {name}, on which Gloo and "
                f"NCCL are told to work: correct the route (ip route get {peer.address}), plan_interface or "
                "plan_cluster_address."
            )
    if silent:
        raise Unknown(f"the route to {', '.join(silent)} could not be read")


def _own_name(of: OfHost) -> Iterator[str]:
    if of.known("host.names.loopback"):
        addresses = ", ".join(of.get("host.names.addresses") or ()) or "the loopback address"
        yield (
            f"the host's own name, {of.get('host.names.hostname')}, resolves to {addresses}: programs that look up their own "
            f"address would give that one to the other hosts. Map the name to {of.node.address} in /etc/hosts."
        )


def _registry_proxy(of: OfHost) -> Iterator[str]:
    # What Docker itself says goes before.
    told = {**of.known("host.proxies"), **(of.get("docker_settings.proxies") or {})}
    found = {name.lower(): value for name, value in told.items() if value}
    proxy = found.get("https_proxy") or found.get("http_proxy")
    registry = _private_registry(of.engine.image.reference)
    if proxy and registry and not _left_out(registry, found.get("no_proxy", "")):
        yield (
            f"Docker or this host goes through the proxy {proxy}, and no_proxy does not leave out {registry}, which the image "
            "comes from: add it (systemctl edit docker, Environment=NO_PROXY=...; or /etc/docker/daemon.json, proxies), and "
            "restart Docker."
        )


def _private_registry(reference: str) -> str:
    """The private IPv4 address or localhost that an image comes from, or nothing."""
    host = reference.partition("/")[0].partition(":")[0]
    if host == "localhost":
        return host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host if any(address in network for network in PRIVATE) else ""


def _left_out(host: str, no_proxy: str) -> bool:
    for entry in (each.strip() for each in no_proxy.split(",")):
        if entry in ("*", host):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


# ---- together


def _mtus(of: OfAll) -> Iterator[Found]:
    for engine in of.plan.engines:
        mtus: dict[int, list[str]] = {}
        for node in (of.plan.node(name) for name in engine.nodes if name in of.hosts):
            network = of.hosts[node.name].network
            name = node.interface or owner_of(node.address, network.get("interfaces") or {})
            mtu = (network.get("mtus") or {}).get(name)
            if mtu:
                mtus.setdefault(mtu, []).append(f"{node.name} ({name})")
        if len(mtus) > 1:
            told = "; ".join(f"{mtu} on {', '.join(names)}" for mtu, names in sorted(mtus.items()))
            yield Found(
                f"The interfaces of the cluster addresses have different MTUs ({told}), with which large packets get lost and "
                "transfers hang: set one on all hosts (ip link set INTERFACE mtu N, and in the host's network settings) and "
                "on the switch.",
                tuple(each.partition(" ")[0] for names in mtus.values() for each in names),
            )


RULES = (
    Rule(
        id="net.cluster-address",
        severity=ERROR,
        title="The host has its cluster address, on an interface by which the others reach it",
        check=_addresses,
        remedy="Correct `plan_cluster_address` or `plan_interface`.",
        needs=("host",),
        waivable=False,
    ),
    Rule(
        id="net.default-route",
        severity=ERROR,
        title="LMDeploy's own launcher takes the cluster address (`plan_launcher: native`)",
        check=_default_route,
        remedy="Set `plan_launcher: torchrun`, or give the host a route.",
        needs=("host.source",),
        applies=lambda of: of.engine.launcher == "native",
        waivable=False,  # the plan is not bound to such a host
    ),
)
WARNINGS = (
    Rule(
        id="net.first-address",
        severity=WARNING,
        title="The cluster address is its interface's first",
        check=_first,
        remedy="Set `plan_cluster_address` to the first address.",
        needs=("host.interfaces",),
    ),
    Rule(
        id="net.route",
        severity=WARNING,
        title="The ways to the other hosts of the engine leave by the cluster's interface",
        check=_routes,
        remedy="Correct the route, `plan_interface` or `plan_cluster_address`.",
        needs=("host.routes",),
        applies=lambda of: of.several,
    ),
    Rule(
        id="net.own-name",
        severity=WARNING,
        title="The host's own name does not resolve to the loopback",
        check=_own_name,
        remedy="Correct `/etc/hosts`.",
        needs=("host.names.loopback",),
        applies=lambda of: of.several and of.real,
    ),
    Rule(
        id="net.registry-proxy",
        severity=WARNING,
        title="A registry within the cluster is not asked through a proxy",
        check=_registry_proxy,
        remedy="Add it to `no_proxy` of Docker's service.",
        needs=("host.proxies",),
    ),
)
TOGETHER = (
    Rule(
        id="net.same-mtu",
        severity=WARNING,
        title="The interfaces of the cluster addresses have one MTU",
        check=_mtus,
        remedy="Set one on all hosts and on the switch.",
        needs=("host.mtus",),
        scope=GROUP,
        applies=lambda of: any(len(engine.nodes) > 1 for engine in of.plan.engines),
    ),
)
