# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which planned ports answer from outside the cluster: what is tried, and what it means.

Pure: a plan, what was seen of the hosts, and how connections ended, in; sentences out.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .exposure import Exposure, exposures, public_ports, runs_programs
from .network import LOOPBACK
from .observed import Host
from .planning.types import Plan
from .text import columns

REACHED = "reached"
LONGEST_LIST = 6
# The processes of Ray that take ports of their own choice where the plan names none, as those of DP+EP's ranks. Nothing else
# that chose its port is tried: NCCL and Gloo take whoever connects for a rank.
RAY_PROCESSES = ("gcs_server", "raylet")
CLOSE = (
    "Close them: playbooks/firewall.yml does, or allow from outside the cluster nothing but SSH and {public} in the firewall that "
    "you have."
)


@dataclasses.dataclass(frozen=True)
class Target:
    """One connection to try: an address of a node, IPv4 or IPv6, and a port."""

    node: str
    address: str
    port: int

    @property
    def text(self) -> str:
        """As M(sockets) takes it."""
        return f"{self.address}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Vantage:
    """What one host has tried.

    ``outcomes`` are the words of M(sockets), by target; ``sources`` by address the host's own one on the way there; ``error`` is
    why it could try nothing.
    """

    name: str
    outcomes: Mapping[Target, str]
    sources: Mapping[str, str]
    error: str = ""

    @classmethod
    def of(cls, name: str, raw: Mapping[str, Any]) -> Vantage:
        """Out of what the action has kept."""
        tried = {Target(*target): outcome for *target, outcome in raw.get("tried", [])}
        return cls(name, tried, raw.get("sources", {}), raw.get("error", ""))

    def is_inside(self, where: Mapping[str, Sequence[str]]) -> bool:
        """Whether the nodes take it for one of themselves, by the address that it comes from; ``where`` as of ``addresses``."""
        cluster = {address for listed in where.values() for address in listed}
        return any(own in cluster for own in self.sources.values())

    def reaches(self, node: str, ports: Iterable[int]) -> list[Target]:
        """What answered of a node's ports."""
        wanted = {*ports}
        return [
            each
            for each, outcome in self.outcomes.items()
            if outcome == REACHED and each.node == node and each.port in wanted
        ]


@dataclasses.dataclass(frozen=True)
class Answer:
    """A port that answers to ``source`` and should not; ``process`` is who listens there, or why nobody can tell."""

    source: str
    target: Target
    exposure: Exposure
    process: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """What came of it: ``faults`` and ``notes`` in sentences, the ``answers`` behind the faults, and a ``table`` in lines."""

    faults: list[str]
    notes: list[str]
    answers: list[Answer]
    table: list[str]


# ---- what is tried


def addresses(plan: Plan, hosts: Mapping[str, Host], given: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Node -> its addresses, that of the cluster first, then those by which Ansible reaches it (``given``), then all it has.

    Left out is what leads elsewhere from another host: loopback, link-local, bridges for containers, and what several have.
    """
    found: dict[str, list[str]] = {}
    for node in plan.nodes:
        host = hosts.get(node.name)
        seen = host.network if host else {}
        own = [
            address
            for family in ("interfaces", "interfaces6")
            for name, listed in (seen.get(family) or {}).items()
            if name != LOOPBACK and name not in (seen.get("bridges") or ())
            for address in listed
        ]
        listed = [node.address, *given.get(node.name, ()), *own]
        found[node.name] = [each for each in dict.fromkeys(listed) if _leads_there(each)]
    holders = Counter(address for listed in found.values() for address in listed)
    return {
        node.name: [each for each in found[node.name] if holders[each] == 1 or each == node.address]
        for node in plan.nodes
    }


def unseen(host: Host | None) -> str:
    """Why nothing is known of a host's addresses; empty where they are."""
    if host is None:
        return "no answer"
    return "" if host.network else host.unreachable or host.failed or "no answer"


def _leads_there(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


def tried_exposures(plan: Plan, hosts: Mapping[str, Host], jobs: Mapping[str, int]) -> list[Exposure]:
    """What is tried: every exposure of the plan, and the ports that Ray's processes of the deployment have chosen themselves."""
    planned = exposures(plan, jobs)
    return [*planned, *(exposure for node in plan.nodes for exposure in _chosen(plan, hosts.get(node.name), planned))]


def _chosen(plan: Plan, host: Host | None, planned: Iterable[Exposure]) -> Iterator[Exposure]:
    if host is None:
        return
    known = {port for exposure in planned if exposure.node == host.name for port in exposure.ports}
    own = {each.id for each in host.own(plan.name).values()}
    for text, listener in sorted((host.network.get("listeners") or {}).items(), key=lambda item: int(item[0])):
        command, port = listener.get("command", ""), int(text)
        if port not in known and listener.get("container") in own and command.startswith(RAY_PROCESSES):
            allows = runs_programs(plan, plan.node(host.name))
            yield Exposure(
                host.name, port, port, f"Ray ({command})", "not of the plan, Ray chose it", allows, planned=False
            )


def targets(tried: Iterable[Exposure], hosts: Mapping[str, Host], where: Mapping[str, Sequence[str]]) -> list[Target]:
    """Every connection to try. Of a range of ports those that something listens on, where the host says so."""
    found = []
    for exposure in tried:
        host = hosts.get(exposure.node)
        listening = host.network.get("listening") if host else None
        ports = [port for port in exposure.ports if len(exposure.ports) == 1 or listening is None or port in listening]
        found += [Target(exposure.node, address, port) for address in where[exposure.node] for port in ports]
    return list(dict.fromkeys(found))


# ---- what was found


def judge(
    plan: Plan,
    hosts: Mapping[str, Host],
    tried: Sequence[Exposure],
    where: Mapping[str, Sequence[str]],
    all_from: Sequence[Vantage],
) -> Findings:
    """What answers and should not, and what should and does not, to hosts that are not of the cluster."""
    outside = [each for each in all_from if not each.error and not each.is_inside(where)]
    public = public_ports(plan)
    answers = [
        Answer(each.name, target, exposure, _process(hosts.get(exposure.node), target.port))
        for each in outside
        for exposure in tried
        for target in each.reaches(exposure.node, set(exposure.ports) - {*public.get(exposure.node, ())})
    ]
    faults = [
        *(f"{each.name} could try nothing: {each.error}." for each in all_from if each.error),
        *_open(answers),
        *_missing(plan, hosts, where, outside),
    ]
    if not outside and not any(each.error for each in all_from):
        names = _names(each.name for each in all_from)
        faults.append(
            f"Nothing was proven: {names} has an address of the cluster, where every port may answer. Name a host of the "
            "inventory that is outside, with closure_from."
        )
    return Findings(
        faults, list(_notes(plan, hosts, where, all_from, public)), answers, _table(plan, where, outside, public)
    )


def _process(host: Host | None, port: int) -> str:
    """Who listens there, in the host's words."""
    if host is None or not host.network:
        return "the host was not looked at"
    if port not in (host.network.get("listening") or ()):
        return "nothing on the host listens there, so something before it answers"
    listener = (host.network.get("listeners") or {}).get(str(port)) or {}
    if not listener:
        return "a process that this user may not see"
    inside = [name for name, each in host.containers.items() if each.id == listener.get("container")]
    container = f" in {inside[0]}" if inside else " in a container" if listener.get("container") else ""
    return f"{listener['command']}, pid {listener['pid']}{container}"


def _open(answers: Sequence[Answer]) -> Iterator[str]:
    """One sentence for each kind of port; the nodes, the addresses and the ports in it."""
    kinds: dict[tuple[str, str, str], list[Answer]] = {}
    for each in answers:
        kinds.setdefault((each.exposure.what, each.exposure.variable, each.exposure.allows), []).append(each)
    for (what, variable, allows), found in kinds.items():
        places: dict[str, list[Answer]] = {}
        for each in found:
            places.setdefault(each.target.node, []).append(each)
        told = "; ".join(_place(node, those) for node, those in places.items())
        sources = _names(each.source for each in found)
        yield f"{what} ({variable}) answers to {sources}, and should not: {told}. Whoever reaches it can {allows}."


def _place(node: str, answers: Sequence[Answer]) -> str:
    ports = _some(dict.fromkeys(str(each.target.port) for each in answers), "port")
    where = _some(dict.fromkeys(each.target.address for each in answers), "address")
    return f"{node} port {ports} at {where} ({answers[0].process})"


def _some(listed: Iterable[str], what: str) -> str:
    found = list(listed)
    more = len(found) - LONGEST_LIST
    plural = {"port": "ports", "address": "addresses"}[what]
    return ", ".join(found[:LONGEST_LIST]) + (f" and {more} more {plural if more > 1 else what}" if more > 0 else "")


def _names(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else "".join(found)


def _missing(
    plan: Plan, hosts: Mapping[str, Host], where: Mapping[str, Sequence[str]], outside: Sequence[Vantage]
) -> Iterator[str]:
    """What clients need, and has no answer."""
    for node, ports in public_ports(plan).items():
        for port in ports:
            lost = [each for each in outside if not each.reaches(node, [port])]
            if not lost:
                continue
            tried = [Target(node, address, port) for address in where[node]]
            how = _some(
                dict.fromkeys(f"{each.address} {lost[0].outcomes.get(each, 'not tried')}" for each in tried), "address"
            )
            host = hosts.get(node)
            listens = host is not None and port in (host.network.get("listening") or ())
            first = (
                f"Something listens there, so look at the firewall of {node}, and at what is between."
                if listens
                else f"Nothing listens there on {node}: deploy it first, or see playbooks/status.yml."
            )
            yield (
                f"{plan.url} does not answer to {_names(each.name for each in lost)}, and should: {node} port {port} ({how}). "
                f"{first}"
            )


def _notes(
    plan: Plan,
    hosts: Mapping[str, Host],
    where: Mapping[str, Sequence[str]],
    all_from: Iterable[Vantage],
    public: Mapping[str, Sequence[int]],
) -> Iterator[str]:
    for each in all_from:
        if not each.error and each.is_inside(where):
            yield f"{each.name} has an address of the cluster: what it reaches says nothing, and is left out."
    for node in plan.nodes:
        why = unseen(hosts.get(node.name))
        if why:
            yield f"{node.name} was not looked at ({why}): only the addresses that the inventory has were tried."
    for exposure in exposures(plan, {}):
        if exposure.first in public.get(exposure.node, ()):
            yield f"{exposure.node} port {exposure.first} is for everybody: whoever reaches it can {exposure.allows}."


def _table(
    plan: Plan,
    where: Mapping[str, Sequence[str]],
    outside: Sequence[Vantage],
    public: Mapping[str, Sequence[int]],
) -> list[str]:
    """A line for each address and each host that tried it."""
    rows = [["NODE", "ADDRESS", "FROM", "TRIED", "ANSWERS", "SHOULD NOT ANSWER"]]
    for node in plan.nodes:
        for address in where[node.name]:
            for each in outside:
                tried = [target for target in each.outcomes if target.node == node.name and target.address == address]
                reached = sorted(target.port for target in tried if each.outcomes[target] == REACHED)
                wrong = [str(port) for port in reached if port not in public.get(node.name, ())]
                right = [str(port) for port in reached if port in public.get(node.name, ())]
                rows.append(
                    [
                        node.name,
                        address,
                        each.name,
                        str(len(tried)),
                        ", ".join(right) or "-",
                        _some(wrong, "port") or "-",
                    ]
                )
    return columns(rows)


def message(plan: Plan, found: Findings) -> str:
    """What a run fails with."""
    public = ", ".join(f"{port} on {node}" for node, ports in public_ports(plan).items() for port in ports)
    head = "closure: what answers from outside is not what is planned. To mend first:"
    close = f"\n{CLOSE.format(public=public)}" if found.answers else ""
    if any(not each.exposure.planned for each in found.answers):
        close += " A port that is not of the plan is closed by firewall_strict: true alone."
    return "\n  - ".join([head, *found.faults]) + close


def to_json(
    plan: Plan, found: Findings, where: Mapping[str, Sequence[str]], all_from: Iterable[Vantage], at: str
) -> dict[str, Any]:
    """All of it for programs; ``at`` is UTC."""
    return {
        "deployment": plan.name,
        "tried_at": at,
        "from": [
            {"name": each.name, "inside": each.is_inside(where), "tried": len(each.outcomes), "error": each.error}
            for each in all_from
        ],
        "public": public_ports(plan),
        "open": [
            {
                "from": each.source,
                **dataclasses.asdict(each.target),
                "what": each.exposure.what,
                "variable": each.exposure.variable,
                "allows": each.exposure.allows,
                "process": each.process,
            }
            for each in found.answers
        ],
        "faults": found.faults,
        "notes": found.notes,
    }
