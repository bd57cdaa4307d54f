# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports that the plan needs, and who holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..observed import DEPLOYMENT, IDENTITY, Container, Host
from ..planning.types import Plan
from .types import ERROR, OfHost, Rule


def port_faults(plan: Plan, host: Host) -> Iterator[str]:
    """Planned ports that something other than this deployment's own containers listens on."""
    own = [container for container in host.own(plan.name).values() if container.running]
    held = _ports_of(plan, host, own)
    if held is None:
        return  # containers of an earlier plan hold ports that are no longer known, and go before theirs are needed
    taken = set(host.network.get("listening", ())) - held
    listeners = host.network.get("listeners") or {}
    foreign = {name: each for name, each in host.containers.items() if each.labels.get(DEPLOYMENT) != plan.name}
    # Theirs are freed, or told, with the containers themselves.
    known = {each.id for each in (*own, *foreign.values())}
    for service in plan.services_on(host.name):
        found: dict[tuple[str, int], list[int]] = {}
        for port in service.listens if service.name not in foreign else ():
            holder = listeners.get(str(port)) or {}
            if port in taken and not (holder.get("container") and holder["container"] in known):
                found.setdefault((holder.get("command", ""), holder.get("pid", 0)), []).append(port)
        for (command, pid), ports in found.items():
            one = len(ports) == 1
            numbers = ", ".join(map(str, ports))
            by = f" by {command} (pid {pid})" if command else ""
            filters = " or ".join(f"sport = :{port}" for port in ports)
            yield (
                f"port{'' if one else 's'} {numbers} of {service.name} {'is' if one else 'are'} in use on this host{by}: stop "
                f"what listens there (ss -ltnp '{filters}'), or choose {'another' if one else 'others'} with plan_ports."
            )


def _ports_of(plan: Plan, host: Host, own: Iterable[Container]) -> set[int] | None:
    """The ports that this deployment's running containers may hold; None where nothing says so of one of them."""
    recorded = host.record.get("listens") or {}
    planned = {service.name: service for service in plan.services_on(host.name)}
    held: set[int] = set()
    for container in own:
        service = planned.get(container.name)
        if service and container.labels.get(IDENTITY) == service.identity:
            held.update(service.listens)
        elif container.name in recorded:
            held.update(recorded[container.name])
        elif service:  # made by a version that kept no record
            held.update(service.listens)
        else:
            return None
    return held


def _in_use(of: OfHost) -> Iterator[str]:
    return port_faults(of.plan, of.host)


RULES = (
    Rule(
        id="ports.in-use",
        severity=ERROR,
        title="Nothing else listens on the planned ports",
        check=_in_use,
        remedy="Stop what listens there, or choose others with `plan_ports`.",
        needs=("host.listening",),
    ),
)
