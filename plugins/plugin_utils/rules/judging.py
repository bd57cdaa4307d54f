# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules, a plan and what was seen in; for each rule and host a result out. Nothing raises: what breaks is unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..observed import Host
from ..planning.types import Plan
from ..releases import did_you_mean
from .registry import RULES
from .types import HOST, Found, OfAll, OfHost, Rule, Unknown, needed

OK, UNKNOWN, WAIVED, UNNEEDED = "ok", "unknown", "waived", "not needed"
# Host -> id of a rule -> why it does not count there.
Waivers = Mapping[str, Mapping[str, str]]
Refused = Callable[[], Iterable[Found]]  # see OfAll


@dataclasses.dataclass(frozen=True)
class Result:
    """How one rule stands on one host, or on all together (``host`` is empty).

    ``state`` is ok, error, warning, unknown, waived or not needed; ``told`` are sentences that say where, what and what to do;
    ``why`` is why it is unknown, in part at least, or the reason of the waiver; ``hosts`` are those it is about.
    """

    rule: str
    severity: str
    host: str
    state: str
    told: tuple[str, ...] = ()
    why: str = ""
    hosts: tuple[str, ...] = ()


def judged(
    plan: Plan,
    hosts: Mapping[str, Host],
    waivers: Waivers | None = None,
    rules: Sequence[Rule] = RULES,
    refused: Refused | None = None,
) -> list[Result]:
    """Every rule on every host of the plan, in the order of the rules; ``hosts`` are by node what was seen.

    ``refused`` tells what binding the plan would refuse; without it, that is not judged.
    """
    given = {node.name: hosts.get(node.name) or Host(node.name, {}) for node in plan.nodes}
    silent = {name for name, host in given.items() if name not in hosts or host.unreachable or host.failed}
    return list(_judged(plan, hosts, given, silent, waivers or {}, rules, refused))


def _judged(
    plan: Plan,
    hosts: Mapping[str, Host],
    given: Mapping[str, Host],
    silent: set[str],
    waivers: Waivers,
    rules: Sequence[Rule],
    refused: Refused | None,
) -> Iterator[Result]:
    for rule in rules:
        if rule.scope == HOST:
            for node in plan.nodes:
                of = OfHost(plan, node, given[node.name], hosts)
                where = f"{node.name} ({node.address})"
                if rule.answered and node.name in silent:
                    yield Result(
                        rule.id, rule.severity, node.name, UNKNOWN, why="it gave no answer", hosts=(node.name,)
                    )
                else:
                    result = _one(rule, of, [of.host], node.name, where)
                    yield _waived(result, waivers.get(node.name, {}).get(rule.id, ""))
        else:
            answered = {name: host for name, host in given.items() if name not in silent}
            result = _one(rule, OfAll(plan, answered, refused), list(answered.values()), "", "", sorted(silent))
            reasons = [each[rule.id] for name, each in waivers.items() if rule.id in each]
            yield _waived(result, reasons[0] if reasons else "")


def _one(
    rule: Rule, of: OfHost | OfAll, seen: Sequence[Host], host: str, where: str, silent: Sequence[str] = ()
) -> Result:
    """A rule's result, whatever its check does; ``silent`` are hosts that a rule about all of them knows nothing of."""
    told: list[str] = []
    no_answer = f"no answer ({', '.join(silent)})" if silent else ""
    about: list[str] = [host] if host else []
    why = ""
    try:
        if not rule.applies(of):
            return Result(rule.id, rule.severity, host, UNNEEDED, hosts=tuple(about))
        why = "; ".join(filter(None, [no_answer, _without(rule, seen, host)]))
        if not (why and host):
            for found in rule.check(of):
                if isinstance(found, Found):
                    told.append(found.told)
                    about += [each for each in found.hosts if each not in about]
                else:
                    told.append(f"{where}: {found}" if where else found)
    except Unknown as error:
        why = "; ".join(filter(None, [why, str(error)]))
    except Exception as error:  # noqa: BLE001 - a rule may be wrong about what it is given, and nothing else shall suffer from it
        why = f"the rule could not be judged: {type(error).__name__}: {error}"
    state = rule.severity if told else UNKNOWN if why else OK
    return Result(rule.id, rule.severity, host, state, tuple(told), why, tuple(about))


def _without(rule: Rule, seen: Sequence[Host], host: str) -> str:
    """What is missing of what a rule needs, by host where there are several; empty where nothing is."""
    missing: dict[str, list[str]] = {}
    for each in seen:
        why = _lacking(rule, each)
        if why:
            missing.setdefault(why, []).append(each.name)
    return "; ".join(why if host else f"{why} ({', '.join(names)})" for why, names in missing.items())


def _lacking(rule: Rule, host: Host) -> str:
    try:
        for path in rule.needs:
            needed(host, path)
    except Unknown as error:
        return str(error)
    return ""


def _waived(result: Result, reason: str) -> Result:
    """The result where its rule is waived: what was found does not count, and is told with the reason."""
    if not reason or result.state != result.severity:
        return result
    return dataclasses.replace(result, state=WAIVED, why=reason)


def waiver_faults(given: Mapping[str, object], rules: Sequence[Rule] = RULES) -> Iterator[str]:
    """What is wrong with the waivers of a node, a sentence each."""
    known = {rule.id: rule for rule in rules}
    for name, reason in given.items():
        if name not in known:
            yield f"plan_waive has {name!r}, which is no rule{did_you_mean(name, known)}: docs/preflight.md lists them."
        elif not known[name].waivable:
            yield f"plan_waive has {name}, which cannot be waived, since nothing can be started without it: take it out."
        elif not isinstance(reason, str) or not reason.strip():
            yield f"plan_waive.{name} has no reason: write in a few words why {name} does not count here."


def of_state(results: Iterable[Result], state: str, plan: Plan) -> list[str]:
    """The sentences of all results of one state: host by host, then what holds of all together; each once."""
    found = [each for each in results if each.state == state]
    order = [*(node.name for node in plan.nodes), ""]
    return list(dict.fromkeys(told for host in order for each in found if each.host == host for told in each.told))
