# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over a plan: what many hosts reported as one message, an engine's part of it, and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.logs import decisive, fatal_line, of_rank
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import engine_option, engine_plan

LOG_LINES = 6


def host_faults(results: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> list[str]:
    """Every fault of every host, each with the host's name; a host that was not reached is one.

    ``results`` maps a host to a module result with ``faults``, or to an unreachable one.
    """
    nodes = {node["name"]: node for node in plan["nodes"]}
    faults = []
    for host, result in results.items():
        node = nodes[host]
        if result.get("unreachable"):
            others = [each for each in plan["nodes"] if not results[each["name"]].get("unreachable")]
            faults.append(
                f"{host} ({node['address']}) cannot be reached: {_reason(result)}. "
                f"{_without(host, others, plan)} Bring the host up, or take it out of the inventory group."
            )
        elif result.get("failed"):
            faults.append(f"{host} ({node['address']}): {result.get('msg')}")
        faults.extend(f"{host} ({node['address']}): {fault}" for fault in result.get("faults", []))
    return faults


def rank_logs(statuses: Sequence[Mapping[str, Any]], ranks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the logs of failed ranks say, as lines for a person: the decisive lines of each, once for equal ones.

    ``statuses`` are results of ``service_status`` in a loop over ``node`` and ``container``; ``ranks`` are the plan's
    endpoints that failed.
    """
    logs = {
        (status["item"]["node"], name): container.get("lines", [])
        for status in statuses
        for name, container in status.get("containers", {}).items()
    }
    said: dict[tuple[str, ...], list[str]] = {}
    for rank in ranks:
        log = logs.get((rank["node"], rank["container"]), [])
        lines = decisive(of_rank(log, rank["rank"]) or log)[-LOG_LINES:]
        gpus = ", ".join(map(str, rank["gpus"]))
        who = f"rank {rank['rank']} (GPU {gpus} of {rank['node']}; docker logs {rank['container']})"
        said.setdefault(tuple(lines), []).append(who)
    return [
        line
        for lines, who in said.items()
        for line in (f"Log of {', '.join(who)}:", *(f"  | {each}" for each in lines or ["(nothing was logged)"]))
    ]


def _without(host: str, others: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]) -> str:
    """What a deployment would be without a host, and so why there is none."""
    if plan["topology"] == "dpep":
        ranks = [each["rank"] for each in plan["endpoints"] if each["node"] == host]
        which = f"Ranks {ranks[0]} to {ranks[-1]} are" if len(ranks) > 1 else f"Rank {ranks[0]} is"
        return f"{which} on it, and all other ranks would wait for it."
    engine = engine_plan(plan, host)
    left = [node for node in engine["nodes"] if node in others]
    gpus = sum(node["gpus"] for node in left)
    return (
        f"Without it Ray would count {len(left)} of {len(engine['nodes'])} nodes and {gpus} of {engine['gpus']} GPUs."
    )


def _reason(result: Mapping[str, Any]) -> str:
    """Ansible's message without what core 2.19 puts before it."""
    return str(result.get("msg", "no answer")).strip().removeprefix("Task failed: ").rstrip(".")


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name -> filter."""
        return {
            "host_faults": host_faults,
            "engine_option": engine_option,
            "engine_plan": engine_plan,
            "rank_logs": rank_logs,
            "fatal_line": fatal_line,
        }
