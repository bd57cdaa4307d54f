# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is desired and what was seen -> the steps between them, each with its host and its reason.

Pure, standard library, Python 3.9, no Ansible. The whole of it as a table; the first row that fits decides:

| an engine's                              | is                                                       | then                |
|------------------------------------------|----------------------------------------------------------|---------------------|
| containers are as planned, it has tokens | alive or busy                                            | nothing             |
| Ray container, or container of DP ranks  | missing, stopped, not as planned, or of another secret   | all is formed again  |
| the same, where there is no token        | restarted since, or of another formation than its others | all is formed again  |
| DP rank                                  | dead though its container runs                           | all is formed again  |
| api_server                               | missing, stopped, not as planned, or dead                | it alone is started |
| endpoint                                 | loading, or says nothing yet                             | it is waited for    |
| warm-up                                  | was never answered since it was started                  | it is warmed up     |
| endpoint                                 | says nothing, and its engine was warmed up               | waited for: a token |

The proxy is replaced where it is missing, stopped or not as planned, and its list is corrected where it is wrong. So is the
gateway; it reads its files again where it has read other ones (keys, limits, endpoints, certificate), and gives requests again
to an endpoint that serves and that an interrupted run has kept them from: nothing is started for either. Containers
of this deployment that the plan no longer has are removed first: they hold GPUs and ports.

Engines that do not serve are started together, in the first round; engines that serve, and are to change, one after another,
each in a round of its own, before which those of its requests that came by a proxy may end. An engine is whole when all of its
containers run as planned under one formation id; the id is a label, new for each start of an engine as a whole. An api_server
that is started over Ray that stays joins Ray's formation.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import set_aside
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._redact import Redactor

from .gateway.config import planned_description, server_of
from .judge import lacks
from .logs import fatal_line, of_rank
from .observed import DERIVED, ENGINE, FORMATION, IDENTITY, SERVING, Container, Host, Tokens
from .planning.types import PROGRAMS_TARGET, RANK_PROGRAM_TARGET, Endpoint, Engine, Plan, Service

SHOWN = 12  # words of a difference
CHANGES = "is to change"
WAITED_FOR = ("loading", "unreachable", "unknown")
# What the plan sets by itself, and did not in earlier versions of this collection. An engine that serves without is not stopped
# for it: it gets them at its next start.
ADDED = (
    "DEEPEP_MAX_BATCH_SIZE",
    "DEEPEP_MAX_TOKENS_PER_RANK",
    "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME",
    "NVSHMEM_QP_DEPTH",
)
INTERFACE = "NCCL_SOCKET_IFNAME"  # was a bare name, which NCCL takes for the beginning of one


@dataclasses.dataclass(frozen=True)
class Step:
    """One change of one host. ``act``: remove or start a container; list, which corrects the proxy's list; reload, by which the
    gateway reads its files again; open, by which it gives an endpoint requests again.

    ``name`` is the container's, ``service`` its kind (leftover: of no planned one), ``formation`` the label of one that starts.
    """

    host: str
    act: str
    name: str
    service: str
    engine: str | None
    reason: str
    formation: str = ""


@dataclasses.dataclass(frozen=True)
class Round:
    """What is carried out together: ``steps`` in their order, then ``engines`` are waited for, and ``warm`` warmed up.

    Those of ``warm`` that are in ``known`` were warmed up since they were started: one token of each endpoint is enough.
    ``drain`` are the URLs to which the proxy sends requests now, and whose engine serves and is taken down.
    """

    engines: list[str]
    warm: list[str]
    steps: list[Step]
    known: list[str] = dataclasses.field(default_factory=list)
    drain: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Decision:
    """Rounds in their order; none where all is as planned.

    ``faults``: why nothing may be done though something would have to be. ``states`` is every endpoint's, and ``notes`` is what a
    person should know and nothing is done about.
    """

    rounds: list[Round]
    faults: list[str]
    notes: list[str]
    states: dict[str, Tokens]

    @property
    def steps(self) -> list[Step]:
        """All steps, in their order."""
        return [step for each in self.rounds for step in each.steps]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What one engine needs: ``services`` that are taken down and started, and ``why``.

    ``serves``: it gives tokens, or may well do so at the URL that it has now, and the plan another one for it.
    """

    engine: Engine
    serves: bool
    services: list[Service]
    why: list[str]
    formation: str
    wait: bool
    warm: bool
    known: bool = False


def decide(plan: Plan, hosts: Mapping[str, Host], formation: str, *, image_brought: bool = False) -> Decision:
    """The steps from what ``hosts`` (by node) are to what ``plan`` says.

    ``formation`` is the id for engines that are formed again, and ``image_brought`` says that the image is, before any step. Of
    secrets, ``hosts`` have those that are brought (``steps.as_brought``).
    """
    states = {each.url: hosts[each.node].tokens(each.url) for each in plan.endpoints}
    wanted = [_engine(plan, engine, hosts, states, formation) for engine in plan.engines]
    leftovers = _leftovers(plan, hosts)
    before = _before_engines(plan, hosts, states)
    later = _later(wanted, leftovers, hosts)
    rounds = [_round(plan, hosts, [each for each in wanted if each not in later], [*leftovers, *before])]
    # What gives tokens comes last: it may be all that serves, where another one only may.
    later.sort(key=lambda each: all(states[one.url].state in SERVING for one in plan.endpoints_of(each.engine.name)))
    rounds += [_round(plan, hosts, [each], []) for each in later]
    rounds = [each for each in rounds if each.steps or each.engines or each.warm]
    notes = _notes(plan, wanted, later, hosts)
    if leftovers:
        notes.append("Containers that this plan no longer has are removed, and what they serve stops.")
        notes += _moved_proxy(plan, wanted, leftovers)
    decision = Decision(rounds, [], notes, states)
    starts = [step for step in decision.steps if step.act == "start"]
    services = {(service.node, service.name): service for service in plan.services}
    faults = [
        f"{step.host}: {step.name} has to be started ({step.reason}), and {' and '.join(missing)} was not seen there: nothing was "
        f"taken down. {' '.join(missing.values())}"
        for step in starts
        for missing in [lacks(services[step.host, step.name], hosts[step.host], image_brought=image_brought)]
        if missing
    ]
    return dataclasses.replace(decision, rounds=[], faults=faults) if faults else decision


# ---- one engine


def _engine(
    plan: Plan, engine: Engine, hosts: Mapping[str, Host], states: Mapping[str, Tokens], formation: str
) -> Wanted:
    endpoints = plan.endpoints_of(engine.name)
    serving = all(states[each.url].state in SERVING for each in endpoints)
    services = plan.services_of(engine.name)
    dead = [f"{url} is dead though its container runs: {why}" for url, why in _dead(states, endpoints).items()]
    heals = any(each.starts and _is_supervised(each, hosts[each.node]) for each in services)
    lost = {
        (each.node, each.name): _lost(each, hosts[each.node], engine, serving=serving, engine_heals=heals)
        for each in services
    }
    base = [service for service in services if service.service != "api"]
    api = [service for service in services if service.service == "api"]
    base_lost = _together((each, why) for each in base for why in lost[each.node, each.name])
    if not base_lost and not serving:
        base_lost = _split_formation(base, hosts)
    if engine.topology == "dpep" or base_lost:
        why = [*base_lost, *(dead if engine.topology == "dpep" else [])]
        to_start = services if why else []
    else:
        why = [f"it {reason}" for each in api for reason in lost[each.node, each.name]] or dead
        to_start = api if why else []
        formation = _formation_of(base, hosts) or formation
    waiting = not to_start and any(states[each.url].state in WAITED_FOR for each in endpoints)
    busy = any(states[each.url].state == "busy" for each in endpoints)
    # What said nothing has to prove itself, though it may have been warmed up: then with one token, for it may serve.
    known = not to_start and _is_warmed(engine, services, hosts)
    warm = bool(to_start) or waiting or not (busy or known)
    serves = serving or (not dead and _runs_changed(services, hosts, lost))
    return Wanted(engine, serves, to_start, why, formation, wait=bool(to_start) or waiting, warm=warm, known=known)


def _is_supervised(service: Service, host: Host) -> bool:
    """Whether its container runs, and starts its engine again by itself."""
    container = host.containers.get(service.name)
    return container is not None and container.running and bool(container.healing.starts)


def _together(reasons: Iterable[tuple[Service, str]]) -> list[str]:
    """The reasons as sentences, one that holds on several nodes once."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for service, why in reasons:
        nodes.setdefault((service.name, why), []).append(service.node)
    return [f"{name} on {', '.join(found)} {why}" for (name, why), found in nodes.items()]


def _runs_changed(
    services: Sequence[Service], hosts: Mapping[str, Host], lost: Mapping[tuple[str, str], Sequence[str]]
) -> bool:
    """Whether every container runs, and is only to change: then it may serve, at another URL than the plan's."""
    found = [hosts[each.node].containers.get(each.name) for each in services]
    reasons = [why for whys in lost.values() for why in whys]
    return all(each and each.running for each in found) and bool(reasons) and all(CHANGES in why for why in reasons)


def _dead(states: Mapping[str, Tokens], endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """URL -> why no token will ever come: the engine's own error, or a line of its start after which it cannot come up."""
    found = {}
    for each in endpoints:
        url = each.url
        lines = of_rank(states[url].lines, each.rank) or states[url].lines  # one log has all ranks of a host
        if states[url].state == "dead":
            found[url] = states[url].reason
        elif states[url].state in WAITED_FOR and fatal_line(lines):
            found[url] = f"its log says {fatal_line(lines)!r}"
    return found


def _lost(service: Service, host: Host, engine: Engine, *, serving: bool, engine_heals: bool) -> list[str]:
    """Why a container is not the one that is planned, and that its engine was formed with.

    What a supervisor has started again is not lost, and nor is the Ray that was while one waits for it.
    """
    container = host.containers.get(service.name)
    if container is None:
        return ["does not exist"]
    if not container.running:
        if container.healing.gave_up:
            return [f"gave up: {container.healing.gave_up}"]
        return [f"has ended with exit code {container.exit_code}"]
    if not is_as_planned(container, service, engine):
        return [f"{CHANGES}: {'; '.join(differences(container.asked, service.asked))}"]
    member = host.member(engine.name)
    formation = container.labels.get(FORMATION, "")
    if member is None or (formation and formation != member.formation):
        return []  # nothing was recorded of this start yet: it is under way, or its run was interrupted
    marks = {secret.source: host.mark(secret.source) for secret in service.secrets}
    other = [path for path, mark in marks.items() if path in member.secrets and member.secrets[path] != mark]
    if other:
        return [f"was started before {', '.join(other)} changed"]
    # While tokens flow, nothing that it needs was lost.
    if (
        not serving
        and service.service != "api"
        and not engine_heals
        and member.started.get(service.name, container.began) != container.began
    ):
        return [
            f"was started again at {container.started_at[:19]} UTC, and the engine that was formed with it has lost it"
        ]
    return []


def is_as_planned(container: Container, service: Service, engine: Engine | None = None) -> bool:
    """Whether Docker was asked for just this container, or for what an earlier version of this collection would have asked.

    One that was made before containers were given formation ids has an identity of another kind: it is compared with what
    Docker says of it, but for what did not change what runs (the list of addresses in NO_PROXY, the rank program's file name).
    """
    if container.labels.get(IDENTITY) == service.identity:
        return True
    if service.as_earlier and is_as_planned(container, service.as_earlier, engine):
        return True
    late = missed(container, service, engine)
    environment = {**container.asked.get("environment", {}), **late}
    asked = {
        **container.asked,
        "environment": {name: value for name, value in environment.items() if value is not None},
    }
    if FORMATION in container.labels:
        return bool(late) and _ordered(asked) == _ordered(service.asked)
    return _essence(asked) == _essence(service.asked)


def missed(container: Container, service: Service, engine: Engine | None) -> dict[str, str | None]:
    """The variables that the plan sets by itself, and that the container has not, or has otherwise; None: it is not to have it.

    Earlier versions of this collection did not set them, or not so; or they are taken from the host, where a link is down for a
    while. Nothing that serves is stopped for that.
    """
    old, new = container.asked.get("environment", {}), service.environment
    if engine is None:
        return {}
    computed = {name: new.get(INTERFACE) if name.endswith("_IFNAME") else None for name in ADDED}
    computed.update(engine.deepep.environment if engine.deepep else {})
    found: dict[str, str | None] = {
        name: new[name] for name in ADDED if name in new and name not in old and new[name] == computed.get(name)
    }
    if INTERFACE in old and new.get(INTERFACE) == f"={old[INTERFACE]}":
        found[INTERFACE] = new[INTERFACE]
    before = set(filter(None, container.labels.get(DERIVED, "").split(",")))
    found.update({name: new[name] for name in service.derived if name not in old or name in before})
    found.update(dict.fromkeys(name for name in before & old.keys() if name not in new))
    return {name: value for name, value in found.items() if value != old.get(name)}


def _ordered(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {**asked, "mounts": sorted(map(list, asked["mounts"]))}


def _essence(asked: Mapping[str, Any]) -> dict[str, Any]:
    environment = {key: value for key, value in asked["environment"].items() if key.lower() != "no_proxy"}
    mounts = [
        ["" if target == RANK_PROGRAM_TARGET else source, target, read_only]
        for source, target, read_only in asked["mounts"]
    ]
    return _ordered({**asked, "environment": environment, "mounts": mounts})


def _split_formation(services: Sequence[Service], hosts: Mapping[str, Host]) -> list[str]:
    found = {s.node: hosts[s.node].containers[s.name].labels.get(FORMATION, "") for s in services}
    if len(set(found.values())) < 2:
        return []
    told = ", ".join(f"{node} {formation or 'none'}" for node, formation in found.items())
    return [f"its containers are of different formations ({told}), as after an interrupted run"]


def _formation_of(services: Sequence[Service], hosts: Mapping[str, Host]) -> str:
    """The formation that running containers are of; empty where they were made before there were ids."""
    return next((hosts[s.node].containers[s.name].labels.get(FORMATION, "") for s in services), "")


def _is_warmed(engine: Engine, services: Sequence[Service], hosts: Mapping[str, Host]) -> bool:
    """Whether just these containers have answered every shape of the warm-up."""
    for service in services:
        host = hosts[service.node]
        member, container = host.member(engine.name), host.containers.get(service.name)
        if member is None or container is None or not member.warmed:
            return False
        if service.service != "ray" and member.started.get(service.name) != container.began:
            return False
    return True


# ---- proxy and leftovers


def _leftovers(plan: Plan, hosts: Mapping[str, Host]) -> list[Step]:
    """This deployment's containers that the plan has no more, as after a change of the topology, or of the number of engines."""
    planned = {(service.node, service.name) for service in plan.services}
    return [
        Step(
            name, "remove", container.name, "leftover", container.labels.get(ENGINE), "it is not of this plan any more"
        )
        for name in (node.name for node in plan.nodes)
        for container in sorted(hosts[name].own(plan.name).values(), key=lambda each: each.name)
        if (name, container.name) not in planned
    ]


def _before_engines(plan: Plan, hosts: Mapping[str, Host], states: Mapping[str, Tokens]) -> list[Step]:
    """What is done to proxy and gateway, where the plan has them: replaced, else corrected while they run."""
    found = []
    for service in plan.services:
        if service.engine is not None:
            continue
        host = hosts[service.node]
        why = _why_replaced(service, host)
        if why:
            found += _replace(service, host, why, "")
            continue
        faults = gateway_faults if service.service == "gateway" else _proxy_faults
        act, why = faults(plan, host, states)
        if why:
            found.append(Step(host.name, act, service.name, service.service, None, why))
    return found


def _why_replaced(service: Service, host: Host) -> str:
    """Why the container of a service that no engine has part in is another one than the one that is planned; empty if it is not."""
    container = host.containers.get(service.name)
    if container is None:
        return "it does not exist"
    if not container.running:
        return f"it has ended with exit code {container.exit_code}"
    if not is_as_planned(container, service):
        return f"it is to change: {'; '.join(_changes(container, service))}"
    return ""


def _changes(container: Container, service: Service) -> list[str]:
    if service.service != "gateway":
        return differences(container.asked, service.asked)
    # Of its image the plan has the reference, and its container the id: where all else is the same, it is that.
    same = {"image": service.image, "user": service.user}
    return differences({**container.asked, **same}, service.asked, "the image is another one")


def _proxy_faults(plan: Plan, host: Host, states: Mapping[str, Tokens]) -> tuple[str, str]:
    return "list", list_faults(plan, host, states)


def gateway_faults(plan: Plan, host: Host, states: Mapping[str, Tokens]) -> tuple[str, str]:
    """What is to be done to a gateway that runs, and why; both are empty where all is well, or where nobody asked."""
    told = host.gateway
    if plan.gateway is None or told is None:
        return "", ""
    if "error" in told:
        return "reload", f"it does not say what it has read ({told['error']})"
    if told["description"] != planned_description(plan, plan.gateway, host):
        return "reload", "its keys, limits, endpoints, options or certificate differ from what it has read"
    aside = [
        each.url
        for each in plan.endpoints
        if states[each.url].state in SERVING and told["servers"].get(server_of(each), {}).get("aside")
    ]
    if not aside:
        return "", ""
    return "open", f"it sends nothing to {', '.join(aside)}, which {'serves' if len(aside) == 1 else 'serve'}"


def list_faults(plan: Plan, host: Host, states: Mapping[str, Tokens]) -> str:
    """What is wrong with the list of a proxy that runs. One that does not answer may be starting, with an empty list."""
    if plan.proxy is None or not host.answer.get("proxy"):
        return ""
    if host.listed is None:
        return f"its list cannot be read yet ({host.answer['proxy'].get('error')})"
    strangers = [url for url in host.listed if url not in plan.proxy.ranks]
    missing = [
        url
        for url in plan.proxy.ranks
        if states[url].state in SERVING and plan.served_model_name not in host.listed.get(url, ())
    ]
    return "; ".join(
        [
            *([f"it lists what is not of the plan: {', '.join(strangers)}"] if strangers else []),
            *([f"it does not list {', '.join(missing)}, which serves"] if missing else []),
        ]
    )


def _drained(plan: Plan, hosts: Mapping[str, Host], wanted: Sequence[Wanted]) -> list[str]:
    """The URLs to which the proxy sends requests of engines that serve, and are taken down."""
    if plan.proxy is None:
        return []
    found = [url for each in wanted if each.serves and each.services for url in _urls_of(plan, each.engine, hosts)]
    return list(dict.fromkeys(found))


def _urls_of(plan: Plan, engine: Engine, hosts: Mapping[str, Host]) -> list[str]:
    """Where an engine answers now, which may be another port than the plan's."""
    addresses = {node.address for node in plan.nodes if node.engine == engine.name}
    listed = (hosts[plan.proxy.node].listed if plan.proxy and plan.proxy.node in hosts else None) or {}
    found = [url for url in listed if urlsplit(url).hostname in addresses]
    return found or [each.url for each in plan.endpoints_of(engine.name)]


def left_listed(plan: Plan, decision: Decision, number: int, listed: Mapping[str, Sequence[str]]) -> list[str]:
    """What stays on the proxy's list in a round as it is: the URLs of engines that serve, and whose turn is still to come.

    Not what a run that was interrupted has put aside: it serves until its turn.
    """
    later = {name for each in decision.rounds[number + 1 :] for name in each.engines}
    addresses = {node.address for node in plan.nodes if node.engine in later}
    aside = [set_aside(plan.served_model_name)]
    ranks = plan.proxy.ranks if plan.proxy else []
    kept = [url for url, models in listed.items() if url not in ranks or [*models] != aside]
    return [url for url in kept if urlsplit(url).hostname in addresses]


# ---- rounds


def _later(wanted: Sequence[Wanted], leftovers: Sequence[Step], hosts: Mapping[str, Host]) -> list[Wanted]:
    """The engines that serve until their own turn comes.

    What the first round takes down may be a part of what serves: one engine that becomes two is gone as a whole with the first
    of its containers.
    """
    later = [each for each in wanted if each.serves and each.services]
    ended = {step.engine for step in leftovers}
    while True:
        ended |= {name for each in wanted if each not in later for name in _served_by(each.services, hosts)}
        left = [each for each in later if not ended & _served_by(each.services, hosts)]
        if len(left) == len(later):
            return left
        later = left


def _served_by(services: Sequence[Service], hosts: Mapping[str, Host]) -> set[str | None]:
    """The engines that the containers of these services belong to now; nothing is known of those made before there were labels."""
    found = [hosts[each.node].containers.get(each.name) for each in services]
    return {each.labels[ENGINE] for each in found if each and ENGINE in each.labels}


def _round(plan: Plan, hosts: Mapping[str, Host], wanted: Sequence[Wanted], before: Sequence[Step]) -> Round:
    removed = [step for step in before if step.act == "remove"]
    started = [step for step in before if step.act == "start"]
    listed = [step for step in before if step.act == "list"]
    told = [step for step in before if step.act in ("reload", "open")]
    for each in wanted:
        why = "; ".join(each.why)
        for service in reversed(each.services):  # the engine before the Ray that it runs on
            removed += [step for step in _replace(service, hosts[service.node], why, "") if step.act == "remove"]
        for service in each.services:
            steps = _replace(service, hosts[service.node], why, each.formation)
            started += [step for step in steps if step.act == "start"]
    of_ranks = {step.service for step in (*removed, *started)} - {"gateway"}
    if plan.proxy and not listed and of_ranks:
        changes_ranks = of_ranks != {"proxy"}
        # Ranks register once, when they come up: a proxy that is started again learns of those that live from nobody else.
        reason = "its ranks are started again" if changes_ranks else "it knows no rank when it is started"
        listed = [Step(plan.proxy.node, "list", f"{plan.name}-proxy", "proxy", None, reason)]
    return Round(
        engines=[each.engine.name for each in wanted if each.wait],
        warm=[each.engine.name for each in wanted if each.warm],
        steps=[*removed, *started, *listed, *told],
        known=[each.engine.name for each in wanted if each.warm and each.known],
        drain=_drained(plan, hosts, wanted),
    )


def _replace(service: Service, host: Host, why: str, formation: str) -> list[Step]:
    there = service.name in host.containers
    act = [*(["remove"] if there else []), "start"]
    return [
        Step(host.name, each, service.name, service.service, service.engine, why, formation if each == "start" else "")
        for each in act
    ]


def _notes(plan: Plan, wanted: Sequence[Wanted], later: Sequence[Wanted], hosts: Mapping[str, Host]) -> list[str]:
    notes = []
    for each in wanted:
        member = hosts[each.engine.head].member(each.engine.name)
        last = f"; its last start took {member.seconds:.0f} s" if member else ""
        if each.serves and each.services:
            rest = ", and the other engines serve meanwhile" if each in later and len(wanted) > 1 else ""
            notes.append(f"{each.engine.name} serves now, and answers nothing while it is started again{last}{rest}.")
        elif each.services and member:
            notes.append(f"{each.engine.name} is started again{last}.")
        elif each.serves:
            lacking = _missed_by(plan, each.engine, hosts)
            if lacking:
                notes.append(f"{each.engine.name} serves as it is, and gets {', '.join(lacking)} at its next start.")
            if not _is_planned_so(plan, each.engine, hosts):
                notes.append(
                    f"{each.engine.name} serves as it is, and starts again by itself only once a deploy has started it."
                )
    return notes


def _moved_proxy(plan: Plan, wanted: Sequence[Wanted], leftovers: Sequence[Step]) -> list[str]:
    """That engines are started again for a proxy that moves, as where a new host is the first one of the inventory."""
    before = next((step.host for step in leftovers if step.name == f"{plan.name}-proxy"), None)
    again = [each.engine.name for each in wanted if each.serves and each.services]
    if before is None or plan.proxy is None or not again:
        return []
    told = f"The proxy moves from {before} to {plan.proxy.node}, which is the head now, and for that {', '.join(again)}"
    return [
        f"{told} {'is' if len(again) == 1 else 'are'} started again. With plan_head: {before} it stays where it is."
    ]


def _is_planned_so(plan: Plan, engine: Engine, hosts: Mapping[str, Host]) -> bool:
    """Whether its containers are supervised, where the plan has them so."""
    found = [
        (service, hosts[service.node].containers.get(service.name))
        for service in plan.services_of(engine.name)
        if service.earlier
    ]
    return all(
        container is None or service.command[:2] == container.asked["command"][:2] for service, container in found
    )


def _missed_by(plan: Plan, engine: Engine, hosts: Mapping[str, Host]) -> list[str]:
    found: dict[str, str | None] = {}
    for service in plan.services_of(engine.name):
        container = hosts[service.node].containers.get(service.name)
        if container and container.labels.get(IDENTITY) != service.identity:
            found.update(missed(container, service, engine))
    return [f"{name}={value}" if value is not None else f"no {name}" for name, value in sorted(found.items())]


def differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    else_: str = "it was made by an earlier version of this collection",
) -> list[str]:
    """What another container is asked for, in a person's words, one for each kind of thing; ``else_`` where none is seen."""
    told = []
    for key in after:
        old, new = before.get(key), after[key]
        if old == new or (key == "mounts" and _binds(old or []) == _binds(new)):
            continue
        if key == "command":
            told.append("command " + _words(*_inner(list(old or []), new)))
        elif key == "environment":
            told.append("environment " + _words(_pairs(old or {}), _pairs(new)))
        elif key == "mounts":
            told.append("mounts " + _words(_binds(old or []), _binds(new)))
        else:
            told.append(f"{key.replace('_', ' ')} {_short(old)} -> {_short(new)}")
    secrets = Redactor()  # a container may have what is refused today
    for each in (before, after):
        secrets.learn_environment(_pairs(each.get("environment") or {}))
        secrets.learn_command(each.get("command") or [])
    told = [secrets.known(line) for line in told]
    return told or [else_]


def _inner(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    """The commands that supervisors run, where they are what differs: theirs have the same URLs and sizes once more."""
    if PROGRAMS_TARGET in old and PROGRAMS_TARGET in new and "--" in old and "--" in new:
        inner = old[old.index("--") + 1 :], new[new.index("--") + 1 :]
        return inner if inner[0] != inner[1] else (old, new)
    return old, new


def _pairs(environment: Mapping[str, str]) -> list[str]:
    # Both spellings are always the same.
    return [f"{key}={value}" for key, value in sorted(environment.items()) if key != "no_proxy"]


def _binds(mounts: Iterable[Sequence[Any]]) -> list[str]:
    return sorted(f"{source}:{target}{':ro' if read_only else ''}" for source, target, read_only in mounts)


def _short(value: Any) -> str:
    return str(value).replace("sha256:", "")[:SHOWN] if isinstance(value, str) else str(value)


def _words(old: Sequence[str], new: Sequence[str]) -> str:
    """Words taken out and put in, with the word before each, which is the option's name."""
    told = []
    matcher = difflib.SequenceMatcher(None, list(old), list(new), autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            name = (
                [old[a - 1]]
                if a and old[a - 1].startswith("--") and not (new[c:d] or old[a:b])[0].startswith("--")
                else []
            )
            gone, come = " ".join([*name, *old[a:b]]), " ".join([*name, *new[c:d]])
            told.append(f"{gone} -> {come}" if a < b and c < d else f"without {gone}" if a < b else f"with {come}")
    return ", ".join(told)
