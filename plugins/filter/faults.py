# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn what many hosts reported into one message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
                f"Without it Ray would count {len(others)} of {len(nodes)} nodes and {sum(n['gpus'] for n in others)} of "
                f"{plan['gpus']} GPUs. Bring the host up, or take it out of the inventory group."
            )
        elif result.get("failed"):
            faults.append(f"{host} ({node['address']}): {result.get('msg')}")
        faults.extend(f"{host} ({node['address']}): {fault}" for fault in result.get("faults", []))
    return faults


def _reason(result: Mapping[str, Any]) -> str:
    """Ansible's message without what core 2.19 puts before it."""
    return str(result.get("msg", "no answer")).strip().removeprefix("Task failed: ").rstrip(".")


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name -> filter."""
        return {"host_faults": host_faults}
