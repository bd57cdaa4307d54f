# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports that the plan needs, and who holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..observed import DEPLOYMENT, IDENTITY, Container, Host
from ..planning.types import Plan
from .types import ERROR, WARNING, OfHost, Rule

# Ray takes them from its range, and passes over those that are taken: actors of the GPUs, idle workers, its own programs.
WORKERS_OF_A_GPU, WORKERS_OF_RAY = 2, 16


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


def _ranges(of: OfHost) -> list[tuple[str, int, int]]:
    """What listens on the host by the plan, and on which ports."""
    found = [(each.name, port, port) for each in of.plan.services_on(of.node.name) for port in each.listens]
    ports = of.plan.ports
    if of.engine.topology == "tp":
        found.append(("Ray's workers", ports.ray_worker_first, ports.ray_worker_last))
    return found


def _ephemeral(of: OfHost) -> Iterator[str]:
    kernel = of.known("host.ephemeral")
    free = [[kernel["first"], kernel["last"]]]
    for first, last in kernel["reserved"]:
        free = [
            part
            for low, high in free
            for part in ([low, min(high, first - 1)], [max(low, last + 1), high])
            if part[0] <= part[1]
        ]
    told = [
        (name, first, last)
        for name, first, last in _ranges(of)
        if any(low <= last and first <= high for low, high in free)
    ]
    if told:
        numbers = ",".join(
            dict.fromkeys(str(first) if first == last else f"{first}-{last}" for __, first, last in told)
        )
        names = ", ".join(dict.fromkeys(name for name, __, __ in told))
        yield (
            f"outgoing connections may take any port from {kernel['first']} to {kernel['last']}, also {numbers} of {names}: while "
            "one holds such a port, a start fails (Address already in use). Set sysctl "
            f"net.ipv4.ip_local_reserved_ports={_reserved(kernel['reserved'], numbers)}, or choose others with plan_ports."
        )


def _reserved(before: Iterable[Iterable[int]], numbers: str) -> str:
    """What to reserve, with what is reserved already: setting it replaces it."""
    kept = [str(first) if first == last else f"{first}-{last}" for first, last in before]
    return ",".join([*kept, numbers])


def _workers(of: OfHost) -> Iterator[str]:
    first, last = of.plan.ports.ray_worker_first, of.plan.ports.ray_worker_last
    own = any(each.running for each in of.host.own(of.plan.name).values())
    taken = [port for port in of.known("host.listening") if first <= port <= last]
    left = last - first + 1 - len(taken)
    least = WORKERS_OF_A_GPU * of.node.gpus + WORKERS_OF_RAY
    if not own and left < least:
        yield (
            f"{left} ports from {first} to {last} are free for Ray's workers, and it needs {least}: set plan_ports.ray_worker_first"
            " and plan_ports.ray_worker_last to a larger range, or stop what listens there "
            f"(ss -ltnp 'sport >= :{first} and sport <= :{last}')."
        )


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
    Rule(
        id="ports.ray-workers",
        severity=WARNING,
        title="Enough ports are free for Ray's workers (TP)",
        check=_workers,
        remedy="Set `plan_ports.ray_worker_first` and `plan_ports.ray_worker_last` to a larger range.",
        needs=("host.listening",),
        applies=lambda of: of.engine.topology == "tp",
    ),
    Rule(
        id="ports.ephemeral",
        severity=WARNING,
        title="The kernel gives the planned ports to nobody else",
        check=_ephemeral,
        remedy="Set the sysctl `net.ipv4.ip_local_reserved_ports`, or choose others with `plan_ports`.",
        needs=("host.ephemeral",),
    ),
)
