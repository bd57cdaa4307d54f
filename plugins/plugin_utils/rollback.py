# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which plan is brought back, whether it can be, and how that is told. Pure: no task, no clock, no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .decide import is_as_planned
from .observed import Host
from .planning.types import Node, Plan, PlanFormatError

ECHO = "stopped waiting, because"  # what the wait says on hosts where nothing is wrong
OTHERWISE = "Set the inventory to what it was, and deploy"


class NothingToBringBack(Exception):
    """There is no plan that can be brought back; the message says why, and what to do instead."""


def before_upgrade(planned: Plan, kept: Mapping[str, Any]) -> Plan:
    """The plan that was proven last, before ``planned`` was begun. Raises ``NothingToBringBack``.

    ``kept`` are the plans of the records when the run began (``record.plans_kept``).
    """
    if not kept.get("plan"):
        raise NothingToBringBack("the hosts have no record of an earlier plan")
    if kept["plan"].get("identity") == planned.identity:
        raise NothingToBringBack("the plan that served last is this same one")
    found = _plan(kept["plan"])
    _refuse_other_nodes(planned, found)
    return found


def on_demand(planned: Plan, kept: Mapping[str, Any], hosts: Mapping[str, Host]) -> tuple[Plan, str]:
    """The plan that rollback.yml brings back, and why that one. Raises ``NothingToBringBack``.

    It is the one before the one that was proven last. Where containers of yet another plan are there, an upgrade was begun that
    never served: then it is the one that was proven last.
    """
    if not kept.get("plan"):
        raise NothingToBringBack(f"The hosts have no record of a plan that served. {OTHERWISE}.")
    last = _plan(kept["plan"])
    begun = _others(last, hosts)
    if begun:
        belongs = "belongs" if len(begun) == 1 else "belong"
        found, why = last, f"the last one that served; {', '.join(begun)} {belongs} to a plan that was never proven"
    elif not kept.get("previous"):
        raise NothingToBringBack(
            f"The hosts have no record of a plan before the one that serves: it is the first one that did. {OTHERWISE}."
        )
    else:
        found, why = _plan(kept["previous"]), "the one before the one that served last"
    _refuse_other_nodes(planned, found)
    return found, why


def _plan(data: Mapping[str, Any]) -> Plan:
    try:
        return Plan.from_json(data)
    except PlanFormatError as error:
        raise NothingToBringBack(
            f"The plan before was recorded by another version of this collection ({error}). {OTHERWISE}."
        ) from None


def _others(last: Plan, hosts: Mapping[str, Host]) -> list[str]:
    """The deployment's containers that are not of the plan ``last``."""
    services = {(service.node, service.name): service for service in last.services}
    engines = {engine.name: engine for engine in last.engines}
    found = []
    for name, host in hosts.items():
        for container in host.own(last.name).values():
            service = services.get((name, container.name))
            engine = engines.get(service.engine or "") if service else None
            if service is None or not is_as_planned(container, service, engine):
                found.append(f"{container.name} on {name}")
    return sorted(found)


def _refuse_other_nodes(planned: Plan, found: Plan) -> None:
    """A host that is not of the inventory is not looked at, and containers that go on there would hold its ports and GPUs."""
    now, then = ({node.name: _place(node) for node in plan.nodes} for plan in (planned, found))
    gone = [f"{name} ({then[name][0]})" for name in then if name not in now]
    new = [f"{name} ({now[name][0]})" for name in now if name not in then]
    moved = [
        f"{name} ({now[name][0]}, {now[name][1]}; then {then[name][0]}, {then[name][1]})"
        for name in now
        if name in then and now[name] != then[name]
    ]
    told = [
        *([f"without {', '.join(gone)}"] if gone else []),
        *([f"with {', '.join(new)} besides"] if new else []),
        *([f"with {', '.join(moved)}"] if moved else []),
    ]
    if told:
        raise NothingToBringBack(
            f"The inventory has other nodes than the plan to bring back: it is {', '.join(told)}. Give the inventory the nodes of "
            f"that plan again, then run playbooks/rollback.yml. Or: {OTHERWISE[0].lower()}{OTHERWISE[1:]}."
        )


def _place(node: Node) -> tuple[str, str]:
    return node.address, node.state_dir


def without_image(plan: Plan, hosts: Mapping[str, Host]) -> list[str]:
    """Where the image of a recorded plan is not there any more, with how to get it."""
    found = []
    for engine in plan.engines:
        lacking = [
            name
            for name in engine.nodes
            if name in hosts and "docker" in hosts[name].answer and not hosts[name].has_image(engine.image.run)
        ]
        if lacking:
            found.append(
                f"{', '.join(lacking)}: the image that {engine.name} ran, {engine.image.run}, is not there any more. It was "
                f"{engine.image.reference}: run docker pull {engine.image.reference} there and see whether docker image inspect "
                "gives this id, or load it from where it still is (docker save, docker load). Then run again."
            )
    return found


# ---- for a person


def first_failure(noted: Mapping[str, Mapping[str, Any]]) -> str:
    """Of the hosts' failures (``msg``, ``at``), the one that the others followed; empty where none was noted."""
    if not noted:
        return ""
    told = [(ECHO in each["msg"], each["at"], host, each["msg"]) for host, each in noted.items() if each.get("msg")]
    if not told:  # of a host that was lost, which notes nothing
        return "a host could not be reached any more; the message above names it."
    __, __, host, message = min(told)
    return message if message.startswith(host) else f"{host}: {message}"


def described(plan: Plan) -> str:
    """What a plan serves, in a few words."""
    images = dict.fromkeys(engine.image.reference for engine in plan.engines)
    engines = f"{len(plan.engines)} engines" if len(plan.engines) > 1 else "1 engine"
    return f"{plan.model} ({plan.model_revision}), {engines}, image {', '.join(images)}, plan {plan.identity}"


def ended(plan: Plan, failure: str, second: str, rolled_back: Sequence[str]) -> str:
    """How an upgrade ended that failed with ``failure``, and at bringing ``plan`` back with ``second``; empty: that went well.

    ``rolled_back`` are the engines that were started again with it.
    """
    if second:
        return (
            f"The upgrade failed, and so did the roll-back to what served before ({described(plan)}).\n"
            f"The upgrade: {failure}\nThe roll-back: {second}\n"
            "To do first: mend what the roll-back says, then run ansible-playbook playbooks/rollback.yml."
        )
    what = (
        f"{', '.join(rolled_back)} {'was' if len(rolled_back) == 1 else 'were'} rolled back to what served before"
        if rolled_back
        else "What served before was left as it is"
    )
    return (
        f"The upgrade failed: {failure}\n{what} ({described(plan)}), and it serves: {plan.url}\n"
        "To do first: mend what the upgrade says. Until then the inventory says something else than what serves, and a deploy "
        "would try the same again."
    )


def not_rolled_back(failure: str, why: str) -> str:
    """That nothing is brought back."""
    return f"The upgrade failed: {failure}\nNothing was rolled back: {why}. What serves now: playbooks/status.yml."
