# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules found, as data for programs and as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .planning.render import RDMA_TITLE, rdma_lines
from .planning.types import Plan
from .rules.judging import OK, UNKNOWN, UNNEEDED, WAIVED, Result
from .rules.registry import RULES
from .rules.types import ERROR, WARNING
from .text import columns

STATES = (ERROR, WARNING, UNKNOWN, WAIVED, OK, UNNEEDED)
# In the plural, for a line of counts.
COUNTED = {ERROR: "errors", WARNING: "warnings"}
TOLD = (ERROR, WAIVED, WARNING)
TOGETHER = "all hosts"
MOST_NAMED = 8  # rules in one line


def report_of(plan: Plan, results: Sequence[Result], looked_at: str) -> dict[str, Any]:
    """All of it: ``counts`` by state, ``findings`` in the order in which they are told, ``unknown`` by reason, ``rules``, and the
    lines ``rdma`` of the plan, which has been bound to the hosts.

    Each of ``rules`` has ``states`` by host; what is judged of all hosts together has one, under ``""``. ``looked_at`` is UTC.
    """
    by_rule: dict[str, list[Result]] = {}
    for each in results:
        by_rule.setdefault(each.rule, []).append(each)
    return {
        "deployment": plan.name,
        "looked_at": looked_at,
        "nodes": [{"name": node.name, "address": node.address} for node in plan.nodes],
        "counts": {state: sum(each.state == state for each in results) for state in STATES},
        "findings": [_finding(plan, each, told) for each in _ordered(plan, results) for told in each.told],
        "unknown": _unknown(plan, results),
        "rdma": rdma_lines(plan),
        "rules": [
            {
                **{key: getattr(rule, key) for key in ("id", "severity", "scope", "title", "remedy")},
                "states": {each.host: each.state for each in by_rule[rule.id]},
                "why": {each.host: each.why for each in by_rule[rule.id] if each.why},
            }
            for rule in RULES
            if rule.id in by_rule
        ],
    }


def _ordered(plan: Plan, results: Iterable[Result]) -> list[Result]:
    """Errors first, then what is waived, then warnings; of each host by host, then of all together."""
    places = {node.name: place for place, node in enumerate(plan.nodes)}
    found = [each for each in results if each.state in TOLD]
    return sorted(found, key=lambda each: (TOLD.index(each.state), places.get(each.host, len(places))))


def _finding(plan: Plan, result: Result, told: str) -> dict[str, Any]:
    """One sentence; ``said`` is the same without the host's name before it."""
    where = "".join(f"{node.name} ({node.address}): " for node in plan.nodes if node.name == result.host)
    said = told.removeprefix(where) if where else told
    return {
        "rule": result.rule,
        "severity": result.severity,
        "state": result.state,
        "host": result.host,
        "hosts": list(result.hosts),
        "told": told,
        "said": said,
        "waived": result.why if result.state == WAIVED else "",
    }


def _unknown(plan: Plan, results: Iterable[Result]) -> list[dict[str, Any]]:
    """What could not be read, each reason once with the hosts and rules that it concerns."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for each in results:
        if each.state == UNKNOWN:
            reasons.setdefault(each.why, {}).setdefault(each.host, []).append(each.rule)
    order = [*(node.name for node in plan.nodes), ""]
    found = []
    for why, hosts in reasons.items():
        # Hosts of which the same rules are unknown stand together.
        groups: dict[tuple[str, ...], list[str]] = {}
        for host in sorted(hosts, key=order.index):
            groups.setdefault(tuple(hosts[host]), []).append(host)
        found += [{"hosts": names, "rules": list(rules), "why": why} for rules, names in groups.items()]
    return found


def as_table(report: Mapping[str, Any]) -> list[str]:
    """The report for a terminal: what is wrong, what is unknown, and how many of each."""
    lines = []
    findings = report["findings"]
    if findings:
        rows = [("HOST", "RULE", "STATE"), *((_host(f["host"]), f["rule"], f["state"]) for f in findings)]
        head, *cells = columns(rows)
        width = max(map(len, [head, *cells]))
        lines.append(f"{head.ljust(width)}  WHAT IS WRONG, AND WHAT TO DO")
        for row, finding in zip(cells, findings):
            first, *more = finding["said"].strip().splitlines()
            lines.append(f"{row.ljust(width)}  {first}")
            lines += [" " * (width + 2) + line for line in more]
            if finding["waived"]:
                lines.append(" " * (width + 2) + f"Waived: {finding['waived']}")
    for each in report["unknown"]:
        hosts = ", ".join(map(_host, each["hosts"]))
        lines.append(f"not checked on {hosts}: {each['why']} ({_few(each['rules'])})")
    if report["rdma"]:
        lines += [RDMA_TITLE, *report["rdma"]]
    return [*lines, counted(report["counts"])]


def counted(counts: Mapping[str, int]) -> str:
    """How many results there are of each state, as a line."""
    parts = []
    for state in STATES:
        name = COUNTED.get(state, state)
        parts.append(f"{counts[state]} {name.removesuffix('s') if counts[state] == 1 and state in COUNTED else name}")
    return ", ".join(parts)


def _few(names: Sequence[str]) -> str:
    """The names, or where there are many the first of them."""
    left = len(names) - MOST_NAMED
    return ", ".join(names) if left <= 1 else f"{', '.join(names[:MOST_NAMED])} and {left} more"


def _host(name: str) -> str:
    return name or TOGETHER


def errors_of(report: Mapping[str, Any]) -> list[str]:
    """The rules at which a deployment stops, each with its hosts."""
    found: dict[str, list[str]] = {}
    for each in report["findings"]:
        if each["state"] == ERROR:
            hosts = found.setdefault(each["rule"], [])
            hosts += [host for host in each["hosts"] or [TOGETHER] if host not in hosts]
    return [f"{rule} on {', '.join(hosts)}" for rule, hosts in found.items()]
