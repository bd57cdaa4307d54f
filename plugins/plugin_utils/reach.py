# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the hosts reach each other on the planned ports: which have to, and what it means where they do not.

Pure: a plan, and what the hosts have tried, in; sentences out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from .decide import Decision
from .observed import Host
from .planning.types import Engine, Node, Plan

ANY = 0  # a port of the kernel's choice, as NCCL and Gloo take theirs
ANY_VARIABLE = "any port"
# Ports of every node of a TP engine. A worker's is any of its range: the ends stand for it.
RAY_PORTS = ("ray_node_manager", "ray_object_manager", "ray_worker_first", "ray_worker_last")
# Serving does without them: each is asked by its own host, or by Ray's dashboard and by monitoring.
RAY_EXTRAS = ("ray_runtime_env_agent", "ray_metrics", "ray_dashboard_agent", "ray_dashboard_agent_grpc")
LONGEST_LIST = 6


@dataclasses.dataclass(frozen=True)
class Link:
    """One way that has to be open: from the host ``source`` to a TCP port of ``target``.

    ``variable`` is where the port comes from, ``engine`` what needs it; ``needed``: it does not serve without it.
    """

    source: str
    target: str
    port: int
    variable: str
    engine: str
    needed: bool = True


@dataclasses.dataclass(frozen=True)
class Tried:
    """How a link was found: ``reached``, or why not (the outcomes of M(sockets)). ``port`` is the one that was tried.

    ``held``: a service listened there, and not this check.
    """

    link: Link
    outcome: str
    port: int
    held: bool = False


# ---- what is needed


def needed_links(plan: Plan) -> list[Link]:
    """Every link that the plan's services use between two hosts, each once; none of a host to itself.

    Between the hosts of one engine, and between the deployment's head (proxy and warm-up are there) and the endpoints.
    """
    links = [link for engine in plan.engines for link in _within(plan, engine)]
    for each in plan.endpoints:
        port = int(each.url.rpartition(":")[2])
        variable = "plan_ports.api" if port == plan.ports.api else f"rank {each.rank}, counted from plan_ports.api"
        links.append(Link(plan.head, each.node, port, variable, each.engine))
        if plan.proxy:
            links.append(Link(each.node, plan.proxy.node, plan.ports.proxy, "plan_ports.proxy", each.engine))
    return list(dict.fromkeys(link for link in links if link.source != link.target))


def _within(plan: Plan, engine: Engine) -> Iterator[Link]:
    ports = plan.ports
    for source in engine.nodes:
        for name in at_the_head(engine):
            yield Link(source, engine.head, getattr(ports, name), f"plan_ports.{name}", engine.name)
        for target in engine.nodes:
            if engine.topology == "tp":
                for name in (*RAY_PORTS, *RAY_EXTRAS):
                    variable, needed = f"plan_ports.{name}", name in RAY_PORTS
                    yield Link(source, target, getattr(ports, name), variable, engine.name, needed)
            yield Link(source, target, ANY, ANY_VARIABLE, engine.name)


def at_the_head(engine: Engine) -> list[str]:
    """Where an engine's hosts meet. LMDeploy's own launcher has no rendezvous of torchrun's."""
    if engine.topology == "tp":
        return ["ray", "torch"]
    return ["dp_master", *([] if engine.launcher == "native" else ["torch"])]


def concerned(links: Iterable[Link], decision: Decision) -> list[Link]:
    """The links of what a decision starts; none where it starts nothing. A proxy concerns all engines."""
    started = [step for each in decision.rounds for step in each.steps if step.act == "start"]
    engines = {step.engine for step in started}
    everything = any(step.service == "proxy" for step in started)
    return [link for link in links if everything or link.engine in engines]


def may_listen(plan: Plan, node: Node, seen: Host | None, links: Iterable[Link]) -> list[int]:
    """The ports of a host that the check may listen on: of the links, those that no container that runs may come to want.

    One that loads has not taken its port yet, and would find it taken.
    """
    running = {name for name, each in seen.own(plan.name).items() if each.running} if seen else set()
    wanted = {port for each in plan.services_on(node.name) if each.name in running for port in each.listens}
    if any(each.service == "ray" and each.name in running for each in plan.services_on(node.name)):
        wanted.update(range(plan.ports.ray_worker_first, plan.ports.ray_worker_last + 1))
    return sorted({link.port for link in links if link.target == node.name} - wanted)


# ---- what was found


def faults_of(plan: Plan, tried: Sequence[Tried], timeout_s: float, *, needed: bool = True) -> list[str]:
    """What is closed, each told once: a host that nobody reaches, a port that is closed everywhere, then pair by pair.

    ``tried`` are the links of which something is known. ``needed``: of those that serving needs, or of the others.
    """
    tried = [each for each in tried if each.link.needed == needed]
    left = [each for each in tried if each.outcome != "reached"]
    lines = []
    for name in dict.fromkeys(each.link.target for each in left):
        of_it = [each for each in tried if name in (each.link.source, each.link.target)]
        for into, out in ((True, True), (True, False), (False, True)):
            ways = [each for each in of_it if (into and each.link.target == name) or (out and each.link.source == name)]
            if _all_closed(ways, left, name):
                lines.append(_alone(plan, name, ways, into, out, timeout_s))
                left = [each for each in left if each not in ways]
                break
    for name in dict.fromkeys(each.link.source for each in left):
        ways = [each for each in tried if each.link.source == name]
        if _all_closed(ways, left, name):
            lines.append(_alone(plan, name, ways, False, True, timeout_s))
            left = [each for each in left if each not in ways]
    for variable in dict.fromkeys(each.link.variable for each in left):
        ways = [each for each in tried if each.link.variable == variable]
        if len({each.link.target for each in ways}) > 2 and all(each in left for each in ways) and _alike(ways):
            lines.append(_everywhere(ways, timeout_s))
            left = [each for each in left if each not in ways]
    return [*lines, *_pairs(plan, tried, left, timeout_s)]


def _all_closed(ways: Sequence[Tried], left: Collection[Tried], name: str) -> bool:
    """Whether a host is cut off from several others in these directions, in one manner."""
    others = {host for each in ways for host in (each.link.source, each.link.target)} - {name}
    return len(others) > 1 and all(each in left for each in ways) and _alike(ways)


def _alike(ways: Sequence[Tried]) -> bool:
    return len({each.outcome for each in ways}) == 1


def _alone(plan: Plan, name: str, ways: Sequence[Tried], into: bool, out: bool, timeout_s: float) -> str:
    others = _names({host for each in ways for host in (each.link.source, each.link.target)} - {name})
    where = _where(plan, name)
    if into and out:
        said = f"{where} and {others} do not reach each other on any planned port"
    elif into:
        said = f"{others} cannot reach {where} on any planned port"
    else:
        said = f"{where} cannot reach {others} on any planned port"
    remedy = f"Look at the firewall of {name} first, and whether {plan.node(name).address} is its address on the cluster's network."
    return f"{said} (TCP {_ports(ways)}): {_cause(ways[0], timeout_s)}. {remedy} {ALLOW}"


def _everywhere(ways: Sequence[Tried], timeout_s: float) -> str:
    hosts = _names({host for each in ways for host in (each.link.source, each.link.target)})
    said = f"No host reaches another on TCP {_ports(ways)} ({hosts})"
    return f"{said}: {_cause(ways[0], timeout_s)}. It is closed on all hosts, or between them. {_allow(ways)}"


def _pairs(plan: Plan, tried: Sequence[Tried], left: Sequence[Tried], timeout_s: float) -> Iterator[str]:
    """One line for each host that is not reached and each set of ports; the hosts that miss the same are told together."""
    by_pair: dict[tuple[str, str, str], list[Tried]] = {}
    for each in left:
        by_pair.setdefault((each.link.source, each.link.target, each.outcome), []).append(each)
    groups: dict[tuple[str, str, tuple[str, ...]], list[tuple[str, list[Tried]]]] = {}
    for (source, target, outcome), ways in by_pair.items():
        variables = tuple(each.link.variable for each in ways)
        groups.setdefault((target, outcome, variables), []).append((source, ways))
    for (target, *__), members in groups.items():
        sources, ways = [source for source, __ in members], members[0][1]
        known = [each for each in tried if each.link.source == sources[0] and each.link.target == target]
        ports = "any planned port: TCP " if len(ways) == len(known) > 1 else "TCP "
        every = [each for __, found in members for each in found]
        yield (
            f"{_names(sources)} cannot reach {_where(plan, target)} on {ports}{_ports(every)}: {_cause(ways[0], timeout_s)}. "
            f"Look at the firewall of {target}, then at that of {_names(sources)}, then at what is between them (a security "
            f"group, a switch). {_allow(ways)}"
        )


ALLOW = "Allow all TCP between the cluster addresses: NCCL and Gloo take ports that nobody can name beforehand."


def _allow(ways: Sequence[Tried]) -> str:
    """What to open, or to change: a port that is named in a variable can be moved to one that is open."""
    if any(each.link.variable == ANY_VARIABLE for each in ways):
        return ALLOW
    moved = sorted({each.link.variable for each in ways if each.link.variable.startswith("plan_ports.")})
    other = f", or set {', '.join(moved[:LONGEST_LIST])} to what is open" if moved and len(moved) <= 2 else ""
    return f"Open it for the cluster addresses{other}."


def _cause(each: Tried, timeout_s: float) -> str:
    there = "a service listens there" if each.held else "this check listened there"
    causes = {
        "timeout": f"timed out: no answer in {timeout_s:g} s, so a firewall drops it",
        "refused": f"refused, though {there}: a firewall rejects it, or another machine has that address",
        "unreachable": "no route to the host: a firewall rejects it, or the route is missing (ip route get tells)",
        "forbidden": "the host itself forbids it (a rule of its own firewall or of a security module)",
    }
    return causes.get(each.outcome, each.outcome)


def _where(plan: Plan, name: str) -> str:
    return f"{name} ({plan.node(name).address})"


def _ports(ways: Sequence[Tried]) -> str:
    """The ports with the variables that name them; those of the kernel's choice differ from host to host."""
    found: dict[str, str] = {}
    for each in ways:
        if each.link.variable == ANY_VARIABLE:
            found[each.link.variable] = f"a port of the kernel's choice, such as {each.port} (NCCL, Gloo)"
        else:
            found[each.link.variable] = f"{each.port} ({each.link.variable})"
    listed = list(found.values())
    more = [f"{len(listed) - LONGEST_LIST} more"] if len(listed) > LONGEST_LIST + 1 else []
    return ", ".join([*(listed[:LONGEST_LIST] if more else listed), *more])


def _names(hosts: Iterable[str]) -> str:
    found = sorted(dict.fromkeys(hosts))
    if len(found) > LONGEST_LIST + 1:
        return f"{', '.join(found[:LONGEST_LIST])} and {len(found) - LONGEST_LIST} more hosts"
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else "".join(found)


# ---- out of what the hosts answered


def targets(
    links: Iterable[Link], source: str, listeners: Mapping[str, Mapping[str, object]]
) -> list[tuple[Link, int, bool]]:
    """What a host tries: (link, port, whether a service holds it). Left out is what nothing listens on.

    ``listeners`` has, by host, what M(sockets) said when it began to listen there.
    """
    found = []
    for link in links:
        there = listeners.get(link.target)
        if link.source != source or there is None:
            continue
        listening, held = there.get("listening") or {}, there.get("held") or []
        if str(link.port) in listening:  # type: ignore[operator]
            found.append((link, int(listening[str(link.port)]), False))  # type: ignore[index]
        elif link.port in held and link.needed:  # type: ignore[operator]
            # Of the others some releases of Ray listen on loopback alone, which is no fault.
            found.append((link, link.port, True))
    return found


def listener_faults(plan: Plan, listeners: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Where a host could not listen on its own address, one line a host."""
    lines = []
    for name, there in listeners.items():
        errors: Mapping[str, str] = there.get("errors") or {}  # type: ignore[assignment]
        if errors:
            ports = ", ".join(sorted(errors, key=int))
            lines.append(
                f"{_where(plan, name)} cannot listen on its own address, TCP {ports}: {next(iter(errors.values()))}. "
                "Is plan_cluster_address an address of this host?"
            )
    return lines
