# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a deployment is, beside its plan: as planned, degraded or down, and in what; for people and for programs.

Pure. What a host that did not answer has is not known: its containers are left out
of the decision, and its endpoints are ``unseen``. A deploy would stop at such a host, so what it would do is told of the others.

| the deployment (an engine) | when                                                                                          |
|----------------------------|-----------------------------------------------------------------------------------------------|
| down                       | no endpoint of it gives tokens, and none may (``unknown``); nor does the public URL            |
| as planned                 | a deploy would do nothing, all hosts answered, nothing is wrong with them, every endpoint is   |
|                            | alive or busy, and so is the public URL                                                       |
| degraded                   | else                                                                                          |
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import steps
from .decide import Decision, decide, differences, gateway_faults, is_as_planned, list_faults
from .gateway.config import server_of
from .healing import Healing
from .judge import host_faults, image_faults, lacks_addresses
from .lock import duration, is_held
from .observed import ENGINE, FORMATION, SERVICE, SERVING, Container, Host, Tokens
from .planning.gateway import GatewayInputs
from .planning.types import Endpoint, Engine, Node, Plan
from .text import columns
from .timeline import last_of, line_of, ratio

AS_PLANNED, DEGRADED, DOWN = "as planned", "degraded", "down"
CODES = {AS_PLANNED: 0, DEGRADED: 2, DOWN: 3}
# Of an endpoint whose host did not answer: it is asked from there.
UNSEEN = "unseen"
# Of the proxy behind a gateway: its list counts, and what is asked for comes through the other.
UNASKED = "not asked"
NEXT = "the next deploy"  # the formation of what it would start


@dataclasses.dataclass(frozen=True)
class EndpointStatus:
    """An endpoint. ``state``: a word of M(observe)'s tokens, or unseen."""

    rank: int
    engine: str
    node: str
    url: str
    state: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ContainerStatus:
    """A container that is planned, or bears this deployment's label. ``status`` is Docker's word, or missing.

    ``as_planned``: whether Docker was asked for just this one; None where the plan could not be bound, so nobody knows.
    """

    name: str
    service: str
    engine: str | None
    status: str
    started_at: str | None
    exit_code: int | None
    restarts: int
    formation: str
    as_planned: bool | None
    differences: list[str]


@dataclasses.dataclass(frozen=True)
class NodeStatus:
    """A node. ``reached``: it gave an answer; ``reason`` is why not, or why its containers could not be compared."""

    name: str
    address: str
    engine: str
    reached: bool
    reason: str
    containers: list[ContainerStatus]


@dataclasses.dataclass(frozen=True)
class EngineStatus:
    """An engine. ``formation`` is of what runs; ``began`` and ``seconds`` are of the last start that was recorded.

    ``starts`` are by node those that were made without a run of Ansible too.
    ``timeline`` has its phases, ``former`` those of the last one like it, and ``ratio`` is how many times as long it took.
    """

    name: str
    topology: str
    state: str
    nodes: list[str]
    formation: str
    began: str | None
    seconds: float | None
    endpoints: list[EndpointStatus]
    starts: dict[str, Healing] = dataclasses.field(default_factory=dict)
    timeline: dict[str, Any] | None = None
    former: dict[str, Any] | None = None
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class ProxyStatus:
    """The proxy. ``state`` is the public URL's; ``list_right`` is None where its list could not be read."""

    node: str
    url: str
    state: str
    reason: str
    list_right: bool | None
    list_reason: str


@dataclasses.dataclass(frozen=True)
class GatewayStatus:
    """The gateway. ``state`` is the public URL's; ``right`` is None where it could not be asked, and ``told`` says what is wrong.

    ``down`` are the URLs that its own checks find ill, or that it is kept from sending requests to.
    """

    node: str
    url: str
    state: str
    reason: str
    right: bool | None
    told: str
    down: list[str]


@dataclasses.dataclass(frozen=True)
class Holder:
    """The run that has the lock. ``ended``: it is certain that its process is gone."""

    run: str
    what: str
    who: str
    control: str
    pid: int
    since: str
    seen_s: float
    expires_in_s: float
    ended: bool


@dataclasses.dataclass(frozen=True)
class Status:
    """A deployment. ``deploy``: what a deploy would do to the hosts that answered, or None where it cannot be said."""

    deployment: str
    state: str
    code: int
    looked_at: str
    model: str
    url: str
    identity: str
    bound: bool
    engines: list[EngineStatus]
    nodes: list[NodeStatus]
    proxy: ProxyStatus | None
    gateway: GatewayStatus | None
    lock: Holder | None
    faults: list[str]
    deploy: list[str] | None
    notes: list[str]


def status_of(
    plan: Plan,
    hosts: Mapping[str, Host],
    looked_at: str = "",
    unbound: Sequence[str] = (),
    ended: Callable[[Mapping[str, Any]], bool] = lambda _: False,
    waivers: Mapping[str, Mapping[str, str]] | None = None,
    of_gateway: GatewayInputs | None = None,
) -> Status:
    """The status from what ``hosts`` (by node) were seen to be.

    ``unbound`` is why the plan could not be bound, ``ended`` says whether the run that a lock names is gone,
    ``waivers`` are by node the rules that do not count, ``of_gateway`` has the keys that the gateway is to have.
    """
    seen = {node.name: hosts.get(node.name) or Host(node.name, {"unreachable": "nobody looked"}) for node in plan.nodes}
    why_not = {name: _why_not(host) for name, host in seen.items()}
    comparable = plan.bound and not unbound
    # Of a host without its planned address the plan cannot be bound: that is told once.
    faults = [*host_faults(plan, hosts, waivers), *(() if lacks_addresses(plan, hosts) else unbound)]
    wanted = steps.gateway_secrets(plan, seen, of_gateway)
    decision, pulls = (
        _decided(plan, seen, [name for name, why in why_not.items() if not why], wanted) if comparable else (None, {})
    )
    if comparable and not pulls:
        faults += image_faults(plan, plan.engines[0].image.reference, seen)
    faults += decision.faults if decision else []
    endpoints = {each.url: _endpoint(each, seen[each.node]) for each in plan.endpoints}
    engines = [_engine(plan, each, seen, endpoints, why_not, decision) for each in plan.engines]
    proxy = _proxy(plan, seen, endpoints)
    gateway = _gateway(plan, seen, endpoints, wanted)
    public = gateway or proxy
    whole = (
        decision is not None
        and not (faults or decision.rounds or pulls)
        and all(each.state == AS_PLANNED for each in engines)
        and (proxy is None or proxy.list_right is True)
        and (gateway is None or gateway.right is True)
        and (public is None or _is_public_fine(public.state, endpoints.values()))
    )
    gives = any(_may_give(each.state) for each in endpoints.values()) or (
        public is not None and public.state in SERVING
    )
    state = AS_PLANNED if whole else DEGRADED if gives else DOWN
    # What a decision says beyond its steps is told where there are any.
    lines = None if decision is None else steps.told(dataclasses.replace(decision, notes=[]), pulls)
    return Status(
        deployment=plan.name,
        state=state,
        code=CODES[state],
        looked_at=looked_at,
        model=plan.served_model_name,
        url=plan.url,
        identity=plan.identity,
        bound=comparable,
        engines=engines,
        nodes=[_node(plan, node, seen[node.name], why_not[node.name], comparable) for node in plan.nodes],
        proxy=proxy,
        gateway=gateway,
        lock=_holder(seen[plan.head], ended),
        faults=faults,
        deploy=lines,
        notes=[*_notes(endpoints.values(), comparable, why_not), *(decision.notes if decision else [])],
    )


# ---- what the others are not asked for


def _why_not(host: Host) -> str:
    """Why a host's containers cannot be compared with the plan; empty where they can."""
    if host.unreachable:
        return f"cannot be reached: {host.unreachable}"
    if host.failed:
        return f"gave no answer: {host.failed}"
    if "containers" not in host.answer:
        error = (host.answer.get("docker") or {}).get("error", "its containers were not listed")
        return f"Docker does not answer: {error}"
    if not host.network.get("interfaces"):
        return f"its addresses are not known: {host.network.get('error') or 'ip address gave none'}"
    return ""


def _decided(
    plan: Plan, hosts: Mapping[str, Host], known: Sequence[str], of_gateway: Mapping[str, str]
) -> tuple[Decision, dict[str, str]]:
    """What a deploy would do to the ``known`` nodes, and on which of them the image has to be brought."""
    known_plan = dataclasses.replace(
        plan,
        nodes=[node for node in plan.nodes if node.name in known],
        services=[service for service in plan.services if service.node in known],
        proxy=plan.proxy if plan.proxy and plan.proxy.node in known else None,
        gateway=plan.gateway if plan.gateway and plan.gateway.node in known else None,
    )
    pulls = steps.to_pull(known_plan, hosts)
    tokens = steps.tokens(plan, hosts, "")
    brought = steps.as_brought(plan, hosts, tokens, of_gateway)
    return decide(
        known_plan,
        {name: _as_known(host, known) for name, host in brought.items()},
        NEXT,
        image_brought=bool(pulls or steps.gateway_pull(known_plan, hosts)),
    ), pulls


def _as_known(host: Host, known: Sequence[str]) -> Host:
    """The host; of one that is not known only that tokens flow, for why they do not is not to be seen there."""
    if host.name in known:
        return host
    asked = host.answer.get("tokens") or {}
    return Host(host.name, {"tokens": {url: each for url, each in asked.items() if each["state"] in SERVING}})


# ---- the parts


def _may_give(state: str) -> bool:
    """Whether tokens flow, or nobody can tell."""
    return state in (*SERVING, "unknown")


def _endpoint(endpoint: Endpoint, host: Host) -> EndpointStatus:
    raw = (host.answer.get("tokens") or {}).get(endpoint.url)
    if raw:
        state, reason = raw["state"], raw["reason"]
    else:
        state, reason = UNSEEN, "its host did not answer"
    return EndpointStatus(endpoint.rank, endpoint.engine, endpoint.node, endpoint.url, state, reason)


def _engine(
    plan: Plan,
    engine: Engine,
    hosts: Mapping[str, Host],
    endpoints: Mapping[str, EndpointStatus],
    why_not: Mapping[str, str],
    decision: Decision | None,
) -> EngineStatus:
    mine = [endpoints[each.url] for each in plan.endpoints_of(engine.name)]
    changes = decision is None or any(
        engine.name in (*each.engines, *each.warm, *(step.engine for step in each.steps)) for each in decision.rounds
    )
    if not any(_may_give(each.state) for each in mine):
        state = DOWN
    elif changes or any(why_not[name] for name in engine.nodes) or any(each.state not in SERVING for each in mine):
        state = DEGRADED
    else:
        state = AS_PLANNED
    member = next((found for name in engine.nodes for found in [hosts[name].member(engine.name)] if found), None)
    labels = (
        container.labels.get(FORMATION, "")
        for service in plan.services_of(engine.name)
        for container in [hosts[service.node].own(plan.name).get(service.name)]
        if container and container.running
    )
    timeline, former = last_of(hosts[engine.head].record.get("formations") or [], engine.name)
    return EngineStatus(
        timeline=timeline,
        former=former,
        ratio=ratio(timeline, former) if timeline else None,
        name=engine.name,
        topology=engine.topology,
        state=state,
        nodes=list(engine.nodes),
        formation=next((each for each in labels if each), member.formation if member else ""),
        began=member.began if member else None,
        seconds=member.seconds if member else None,
        endpoints=mine,
        starts={
            service.node: dataclasses.replace(container.healing, directory=posixpath.dirname(service.starts or ""))
            for service in plan.services_of(engine.name)
            for container in [hosts[service.node].own(plan.name).get(service.name)]
            if container and container.healing.starts
        },
    )


def _node(plan: Plan, node: Node, host: Host, why_not: str, comparable: bool) -> NodeStatus:
    reached = not (host.unreachable or host.failed)
    planned = {service.name: service for service in plan.services_on(node.name)}
    found = host.containers
    containers = []
    engines = {engine.name: engine for engine in plan.engines}
    for name in dict.fromkeys([*planned, *sorted(host.own(plan.name))]) if "containers" in host.answer else ():
        service, container = planned.get(name), found.get(name)
        told: list[str] = []
        same: bool | None = False
        if service is None:
            told = ["it is not of this plan"]
        elif container is None:
            told = ["it does not exist"]
        elif name not in host.own(plan.name):
            told = [f"the deployment {plan.name} did not make it"]
        elif not comparable or why_not:
            same = None
        else:
            same = is_as_planned(container, service, engines.get(service.engine or ""))
            told = [] if same else differences(container.asked, service.asked)
        kind, engine = (service.service, service.engine) if service else _labelled(container)
        raw = host.answer["containers"].get(name) or {}
        containers.append(
            ContainerStatus(
                name=name,
                service=kind,
                engine=engine,
                status=raw["status"] if container else "missing",
                started_at=container.started_at if container else None,
                exit_code=container.exit_code if container and not container.running else None,
                restarts=int(raw.get("restarts") or 0),
                formation=container.labels.get(FORMATION, "") if container else "",
                as_planned=same,
                differences=told,
            )
        )
    return NodeStatus(node.name, node.address, node.engine, reached, why_not, containers)


def _labelled(container: Container | None) -> tuple[str, str | None]:
    labels = container.labels if container else {}
    return labels.get(SERVICE, "leftover"), labels.get(ENGINE)


def _proxy(plan: Plan, hosts: Mapping[str, Host], endpoints: Mapping[str, EndpointStatus]) -> ProxyStatus | None:
    if plan.proxy is None:
        return None
    host = hosts[plan.proxy.node]
    public = host.public or Tokens(UNSEEN, "its host did not answer")
    if plan.gateway:
        public = Tokens(UNASKED, "clients use the gateway")
    states = {url: Tokens(each.state, each.reason) for url, each in endpoints.items()}
    if host.listed is None:
        error = (host.answer.get("proxy") or {}).get("error", "its host did not answer")
        return ProxyStatus(host.name, plan.proxy.url, public.state, public.reason, None, error)
    wrong = list_faults(plan, host, states)
    return ProxyStatus(host.name, plan.proxy.url, public.state, public.reason, not wrong, wrong)


def _gateway(
    plan: Plan, hosts: Mapping[str, Host], endpoints: Mapping[str, EndpointStatus], wanted: Mapping[str, str]
) -> GatewayStatus | None:
    if plan.gateway is None:
        return None
    host = hosts[plan.gateway.node]
    public = host.public or Tokens(UNSEEN, "its host did not answer")
    told = host.gateway or {"error": "its host did not answer"}
    servers = told.get("servers") or {}
    found = {each.url: servers.get(server_of(each)) for each in plan.endpoints}
    down = [url for url, server in found.items() if server and (server["aside"] or not server["up"])]
    if "error" in told:
        return GatewayStatus(host.name, plan.gateway.url, public.state, public.reason, None, told["error"], down)
    states = {url: Tokens(each.state, each.reason) for url, each in endpoints.items()}
    __, wrong = gateway_faults(plan, steps.with_secrets(host, wanted), states)
    return GatewayStatus(host.name, plan.gateway.url, public.state, public.reason, not wrong, wrong, down)


def _is_public_fine(state: str, endpoints: Iterable[EndpointStatus]) -> bool:
    """What is before the endpoints has no counters of its own: nobody can tell it busy where it waits for one that is."""
    slow = state == "unknown" and any(each.state == "busy" for each in endpoints)
    return slow or state in SERVING


def _holder(head: Host, ended: Callable[[Mapping[str, Any]], bool]) -> Holder | None:
    lock: Mapping[str, Any] = head.answer.get("lock") or {}
    uptime = head.network.get("uptime", 0.0)
    if not is_held(lock, head.network.get("boot_id"), uptime):
        return None
    return Holder(
        **{name: lock[name] for name in ("run", "what", "who", "control", "pid", "since")},
        seen_s=round(uptime - lock["seen_uptime"], 1),
        expires_in_s=round(lock["expires_uptime"] - uptime, 1),
        ended=ended(lock),
    )


def _notes(endpoints: Iterable[EndpointStatus], comparable: bool, why_not: Mapping[str, str]) -> list[str]:
    notes = []
    if not comparable:
        notes.append("The plan could not be bound to hosts and image, so no container was compared with it.")
    missing = [name for name, why in why_not.items() if why]
    if comparable and missing:
        notes.append(f"{', '.join(missing)} could not be compared with the plan; a deploy would stop for that first.")
    if any(each.state == "unknown" for each in endpoints):
        notes.append(
            "An endpoint in the state unknown may serve or not; a deploy waits longer for its token before it decides."
        )
    return notes


# ---- for a person


def as_table(status: Status) -> list[str]:
    """The status on one screen."""
    lines = [f"{status.deployment}: {status.state}", f"{status.model} at {status.url}"]
    if status.lock:
        lines.append(_lock_line(status.lock))
    rows = [("ENGINE", "STATE", "FORMATION", "BEGAN", "READY AFTER", "NODES")]
    for engine in status.engines:
        took = "?" if engine.seconds is None else f"{engine.seconds:.0f} s"
        nodes = ", ".join(engine.nodes)
        rows.append((engine.name, engine.state, engine.formation or "?", engine.began or "?", took, nodes))
    lines += ["", *columns(rows)]
    lines += [line_of(engine.timeline, engine.former) for engine in status.engines if engine.timeline]
    rows_of_urls = [("ENDPOINT", "NODE", "STATE", "REASON")]
    rows_of_urls += [(e.url, e.node, e.state, e.reason) for engine in status.engines for e in engine.endpoints]
    if status.proxy:
        rows_of_urls.append((f"{status.proxy.url} (proxy)", status.proxy.node, status.proxy.state, status.proxy.reason))
    if status.gateway:
        door = status.gateway
        rows_of_urls.append((f"{door.url} (gateway)", door.node, door.state, door.reason))
    lines += ["", *columns(rows_of_urls)]
    rows_of_containers = [("NODE", "CONTAINER", "STATUS", "STARTED", "AS PLANNED")]
    for node in status.nodes:
        for each in node.containers:
            ended = f" ({each.exit_code})" if each.exit_code is not None else ""
            told = (
                "?" if each.as_planned is None else "yes" if each.as_planned else f"no: {'; '.join(each.differences)}"
            )
            started = (each.started_at or "")[:19]
            rows_of_containers.append((node.name, each.name, f"{each.status}{ended}", started, told))
    if len(rows_of_containers) > 1:
        lines += ["", *columns(rows_of_containers)]
    if starts := starts_by_themselves(status):
        lines += ["", *starts]
    lines += ["", *(f"{node.name} ({node.address}) {node.reason}" for node in status.nodes if node.reason)]
    if status.proxy and not status.proxy.list_right:
        known = "could not be read" if status.proxy.list_right is None else "is wrong"
        lines.append(f"The proxy's list {known}: {status.proxy.list_reason}")
    lines += gateway_lines(status.gateway)
    for title, texts in (
        ("faults, at which a deploy stops", status.faults),
        ("a deploy would, once they are mended" if status.faults else "a deploy would", status.deploy or []),
        ("notes", status.notes),
    ):
        if texts:
            lines += ["", f"{title}:"]
            lines += [line for text in texts for line in f"  - {text}".replace("\n", "\n    ").splitlines()]
    if status.deploy == [] and not status.faults:
        lines += ["", "A deploy would change nothing."]
    return _without_double_blanks(lines)


def gateway_lines(gateway: GatewayStatus | None) -> list[str]:
    """What is to be told of the gateway, where it is not as it should be."""
    if gateway is None:
        return []
    lines = []
    if gateway.right is None:
        lines.append(f"The gateway could not be asked: {gateway.told}")
    elif not gateway.right:
        lines.append(f"The gateway: {gateway.told}")
    return [*lines, *([f"The gateway sends nothing to {', '.join(gateway.down)}"] if gateway.down else [])]


def starts_by_themselves(status: Status) -> list[str]:
    """What is to be told of the starts that no run of Ansible made."""
    return [
        f"{each.name}: {line}"
        for each in status.engines
        for node, starts in each.starts.items()
        for line in [starts.told(node)]
        if line
    ]


def _lock_line(lock: Holder) -> str:
    ended = "; its process is gone" if lock.ended else ""
    return (
        f"in use: {lock.what}, run by {lock.who} from {lock.control} (process {lock.pid} there) since {lock.since}; "
        f"last sign of life {duration(lock.seen_s)} ago{ended}"
    )


def _without_double_blanks(lines: Sequence[str]) -> list[str]:
    kept = [line for line, before in zip(lines, ["", *lines]) if line or before]
    return kept[:-1] if kept and not kept[-1] else kept
