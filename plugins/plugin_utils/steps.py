# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a decision means for Ansible's tasks: what to prepare, which rounds to carry out, and the words for a person."""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .decide import Decision, Round, Step
from .gateway.certificate import self_signed
from .gateway.config import keys_map
from .observed import Host
from .planning.gateway import CERTIFICATE_FILE, KEYS_FILE, GatewayInputs, secret_paths
from .planning.types import Plan

TOKEN_LENGTH = 64
WORDS = {
    "remove": "remove",
    "start": "start",
    "list": "correct the list of",
    "reload": "reload, without a restart,",
    "open": "send requests to every endpoint again through",
}


def to_pull(plan: Plan, hosts: Mapping[str, Host]) -> dict[str, str]:
    """Host -> why its image has to be pulled, or loaded from an archive."""
    found = {}
    for node in plan.nodes:
        host, reference = hosts[node.name], plan.engine(node.engine).image.reference
        if host.image_id is None:
            found[node.name] = f"{reference} is not on it"
        elif not host.image_is_current:
            found[node.name] = f"the registry has another image as {reference} by now, or gave no answer"
    return found


def image_chain(plan: Plan, needed: Collection[str], have: Sequence[str]) -> list[dict[str, str]]:
    """The hosts between which the image goes, ``{"name", "address"}`` each: one that has it or will bring it, and who needs it."""
    names = [node.name for node in plan.nodes if node.name in needed]
    giver = next(iter([name for name in (plan.head, *have) if name in have] or [*names, plan.head]))
    return [{"name": name, "address": plan.node(name).address} for name in dict.fromkeys([giver, *names])]


def gateway_pull(plan: Plan, hosts: Mapping[str, Host]) -> dict[str, str]:
    """Host -> the gateway's image, where it is not there. One that is there is taken as it is, whatever its tag means by now."""
    if plan.gateway is None:
        return {}
    service = plan.only("gateway")
    return {} if hosts[service.node].has_image(service.image) else {service.node: service.image}


def to_ask(plan: Plan, hosts: Mapping[str, Host], pulls: Mapping[str, str]) -> str:
    """The host on which the image is asked what it is, once it is there; empty where an answer is kept."""
    known = not pulls and any(hosts[node.name].image_answer for node in plan.nodes)
    return "" if known else plan.head


# ---- secrets


def token_path(plan: Plan, node: str) -> str | None:
    """Where the plan has Ray's token on a node."""
    found = (s for each in plan.services_on(node) for s in each.secrets if s.name == "ray_token")
    secret = next(found, None)
    return secret.source if secret else None


def mark_of(content: str) -> str:
    """The mark of a secret's content, as M(observe) gives it."""
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def tokens(plan: Plan, hosts: Mapping[str, Host], given: str) -> dict[str, dict[str, Any]]:
    """Engine -> ``{"from": given, kept or new, "content", "mark", "holder", "hosts"}``, where ``hosts`` lack the one token.

    The content of one that is kept on a host, the head's before others', is read there later.
    """
    found = {}
    for engine in plan.engines:
        paths = {name: path for name in engine.nodes for path in [token_path(plan, name)] if path}
        marks = {name: hosts[name].mark(path) for name, path in paths.items()}
        if not paths:
            continue
        holder = next((name for name in engine.nodes if marks.get(name)), "")  # the head is the first
        wanted = mark_of(given) if given else marks.get(holder)
        lacking = [name for name, mark in marks.items() if mark is None or mark != wanted]
        if lacking:
            source = "given" if given else "kept" if holder else "new"
            content = given if source == "given" else new_token() if source == "new" else ""
            found[engine.name] = {
                "from": source,
                "content": content,
                "holder": holder,
                "hosts": lacking,
                "mark": wanted or mark_of(content),
            }
    return found


def gateway_secrets(plan: Plan, hosts: Mapping[str, Host], given: GatewayInputs | None) -> dict[str, str]:
    """Path on the gateway's host -> content of what it lacks: keys, and the certificate, which is made where none is given.

    Without ``given``, as of a plan that a record has, those that are there stay.
    """
    if plan.gateway is None or given is None:
        return {}
    host = hosts[plan.gateway.node]
    paths = secret_paths(plan.only("gateway"), tls=plan.gateway.tls)
    wanted = {paths[KEYS_FILE]: keys_map(given.keys)}
    if plan.gateway.tls:
        path = paths[CERTIFICATE_FILE]
        if given.certificate:
            wanted[path] = given.certificate
        elif host.mark(path) is None:
            wanted[path] = self_signed(plan.name, plan.node(plan.gateway.node).address)
    return {path: content for path, content in wanted.items() if host.mark(path) != mark_of(content)}


def as_brought(
    plan: Plan,
    hosts: Mapping[str, Host],
    needed: Mapping[str, Mapping[str, Any]],
    of_gateway: Mapping[str, str] | None = None,
) -> dict[str, Host]:
    """The hosts as they will be once they have the secrets that they need: what is decided of is what will be there.

    A host that lost its file gets the same again, which is no reason to start anything; one whose engine gets another token is.
    """
    found = dict(hosts)
    for need in needed.values():
        for host in need["hosts"]:
            found[host] = _with_files(hosts[host], {token_path(plan, host): need["mark"]})
    if plan.gateway and of_gateway:
        found[plan.gateway.node] = with_secrets(found[plan.gateway.node], of_gateway)
    return found


def with_secrets(host: Host, contents: Mapping[str, str]) -> Host:
    """The host, once it has these secrets, content by path."""
    return _with_files(host, {path: mark_of(content) for path, content in contents.items()})


def _with_files(host: Host, marks: Mapping[str | None, str]) -> Host:
    return Host(host.name, {**host.answer, "files": {**(host.answer.get("files") or {}), **marks}})


def new_token() -> str:
    """A secret that nobody can guess."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for __ in range(TOKEN_LENGTH))


# ---- for Ansible's tasks


def round_of(plan: Plan, each: Round) -> dict[str, Any]:
    """A round as roles need it; ``services`` are the kinds that it starts, and ``heals``: its engines start again by themselves.

    ``endpoints`` are warmed up after it, at every shape; those in ``known`` were, and give one token.
    """
    started = [step.service for step in each.steps if step.act == "start"]
    topologies = {plan.engine(name).topology for name in each.engines}
    waited = [node for name in each.engines for node in plan.engine(name).nodes]

    def endpoints_of(names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {"rank": e.rank, "node": e.node, "url": e.url, "container": e.container, "gpus": e.gpus}
            for name in names
            for e in plan.endpoints_of(name)
        ]

    return {
        "engines": each.engines,
        "hosts": waited,
        "services": sorted(set(started)),
        "acts": sorted({step.act for step in each.steps}),
        "heals": any(service.starts for name in each.engines for service in plan.services_of(name)),
        "tp": "tp" in topologies,
        "dpep": "dpep" in topologies,
        "warm": each.warm,
        "endpoints": endpoints_of([name for name in each.warm if name not in each.known]),
        "known": endpoints_of(each.known),
        "drain": each.drain,
    }


def session_len(plan: Plan) -> int:
    """The longest session of the engines in tokens, or 0 where it is not limited."""
    limits = [int(limit) for engine in plan.engines for limit in [engine.option("session-len")] if limit]
    return min(limits, default=0)


# ---- for a person


def pulls_told(pulls: Mapping[str, str], of_gateway: Mapping[str, str]) -> list[str]:
    """What is pulled where: engines' images by why, the gateway's by its reference."""
    return [
        *(f"{host}: pull the image: {why}" for host, why in pulls.items()),
        *(f"{host}: pull the gateway's image: {reference} is not on it" for host, reference in of_gateway.items()),
    ]


def told(
    decision: Decision,
    pulls: Mapping[str, str] | None = None,
    needed: Mapping[str, Mapping[str, Any]] | None = None,
    of_gateway: Mapping[str, str] | None = None,
) -> list[str]:
    """The decision in lines: what is done where, and why; what is as planned needs none."""
    lines = pulls_told(pulls or {}, of_gateway or {})
    for name, need in (needed or {}).items():
        lines.append(f"{', '.join(need['hosts'])}: bring Ray's token of {name}, which is missing there or differs")
    for number, each in enumerate(decision.rounds, 1):
        if len(decision.rounds) > 1:
            lines.append(f"round {number} of {len(decision.rounds)}:")
        lines += _grouped(each.steps)
        waits = [name for name in each.engines if not any(step.engine == name for step in each.steps)]
        lines += [f"{name}: wait, because it does not serve yet" for name in waits]
        warm = [name for name in each.warm if name not in each.engines]
        lines += [f"{name}: warm up, because nobody has since it was started" for name in warm]
    return [*lines, *decision.notes]


def _grouped(steps: Sequence[Step]) -> list[str]:
    """One line for each container and reason, hosts together."""
    acts: dict[tuple[str, str], dict[str, list[str]]] = {}
    for step in steps:
        acts.setdefault((step.name, step.reason), {}).setdefault(step.act, []).append(step.host)
    lines = []
    for (name, reason), by_act in acts.items():
        found = by_act.get("start") or next(iter(by_act.values()))
        hosts = ", ".join(dict.fromkeys(found))
        what = "replace" if {"remove", "start"} <= by_act.keys() else WORDS[next(iter(by_act))]
        lines.append(f"{hosts}: {what} {name}: {reason}")
    return lines
