# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nftables table of a deployment on one node: who may reach its planned ports.

Pure: a plan and what was seen of the hosts in, the text for ``nft -f`` out. The table is the deployment's own. What it accepts,
another table of the host may still drop; what it drops is dropped.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .closure import addresses, unseen
from .exposure import exposures, public_ports
from .observed import Host
from .planning.types import Node, Plan

HIGHEST_PORT = 65535
PRIORITY = -10  # before the tables of the host and of Docker, which have 0
DHCP_CLIENT_PORTS = (68, 546)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user says, and by which ports Ansible comes in.

    ``trusted`` are addresses and networks that are taken for the cluster's; ``open_ports`` are for everybody, beside SSH and the
    URL's. ``strict``: all else that comes from outside is dropped, not the planned ports alone. ``jobs`` as of ``exposures``.
    """

    ssh_ports: Sequence[int]
    trusted: Sequence[str] = ()
    open_ports: Sequence[int] = ()
    strict: bool = False
    jobs: Mapping[str, int] = dataclasses.field(default_factory=dict)


def table_of(name: str) -> str:
    """The table of the deployment of that name, in the family inet."""
    return f"lmfleet_{name}"


def faults(plan: Plan, hosts: Mapping[str, Host], settings: Settings) -> list[str]:
    """Why there can be no rules: what the user has set, and hosts whose addresses are not known."""
    found = [
        f"firewall_trusted: {each!r} is no address or network." for each in settings.trusted if _network(each) is None
    ]
    found += [
        f"firewall_open_ports: {each} is no port." for each in settings.open_ports if not 0 < each <= HIGHEST_PORT
    ]
    for node in plan.nodes:
        why = unseen(hosts.get(node.name))
        if why:
            found.append(
                f"{node.name} was not looked at ({why}), so its addresses are not known, which have to be let in."
            )
    return found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def render(plan: Plan, hosts: Mapping[str, Host], node: Node, settings: Settings) -> str:
    """What ``nft -f`` is given: in one step the former table goes and this one comes.

    Of every node all addresses are let in: a host connects from the first address of an interface, whichever it was asked at.
    """
    table = table_of(plan.name)
    known = addresses(plan, hosts, {})
    let_in = [each for listed in known.values() for each in listed] + list(settings.trusted)
    sources = {4: _networks(let_in, 4), 6: _networks(let_in, 6)}
    public = [*public_ports(plan).get(node.name, ()), *settings.open_ports]
    free = {*public, *settings.ssh_ports}
    planned = [
        port
        for exposure in exposures(plan, settings.jobs)
        if exposure.node == node.name and exposure.planned
        for port in exposure.ports
    ]
    closed = [] if settings.strict else ranges(set(planned) - free)
    lines = [
        f"# Of the deployment {plan.name}, made by lmfleet.lmdeploy: another run writes it again.",
        f"add table inet {table}",
        f"delete table inet {table}",
        f"table inet {table} {{",
        *_set("cluster", "ipv4_addr", sources[4]),
        *_set("cluster6", "ipv6_addr", sources[6]),
        *_set("planned", "inet_service", closed),
        "\tchain input {",
        f"\t\ttype filter hook input priority {PRIORITY}; policy accept;",
        *(f"\t\t{rule}" for rule in _rules(sources, settings, public)),
        "\t}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _rules(sources: Mapping[int, Sequence[str]], settings: Settings, public: Sequence[int]) -> Iterator[str]:
    yield 'iifname "lo" accept'
    yield "ip saddr @cluster accept"
    if sources[6]:
        yield "ip6 saddr @cluster6 accept"
    yield "ct state established,related accept"
    yield f'tcp dport {_elements(settings.ssh_ports)} accept comment "SSH"'
    if public:
        yield f'tcp dport {_elements(public)} accept comment "for everybody"'
    if not settings.strict:
        yield "tcp dport @planned counter drop"
        return
    # Without these a host loses its address, or its neighbours.
    yield "meta l4proto { icmp, ipv6-icmp } accept"
    yield f"udp dport {_elements(DHCP_CLIENT_PORTS)} accept"
    yield "counter drop"


def _set(name: str, kind: str, elements: Sequence[str]) -> list[str]:
    if not elements:
        return []
    return [
        f"\tset {name} {{",
        f"\t\ttype {kind}",
        "\t\tflags interval",
        f"\t\telements = {{ {', '.join(elements)} }}",
        "\t}",
    ]


def _elements(ports: Iterable[int]) -> str:
    return f"{{ {', '.join(ranges(ports))} }}"


def _networks(texts: Iterable[str], version: int) -> list[str]:
    """Those of one version, merged, for a set of nftables has none within another."""
    parsed = [network for network in map(_network, texts) if network is not None]
    if version == 4:
        merged4 = ipaddress.collapse_addresses(each for each in parsed if isinstance(each, ipaddress.IPv4Network))
        return [_short(each) for each in merged4]
    merged6 = ipaddress.collapse_addresses(each for each in parsed if isinstance(each, ipaddress.IPv6Network))
    return [_short(each) for each in merged6]


def _short(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def ranges(ports: Iterable[int]) -> list[str]:
    """Ports in order, those that follow each other as one range: ``["22", "6379-6385"]``."""
    found: list[list[int]] = []
    for port in sorted({*ports}):
        if found and port == found[-1][1] + 1:
            found[-1][1] = port
        else:
            found.append([port, port])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]
