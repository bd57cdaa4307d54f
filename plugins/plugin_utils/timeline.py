# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long each phase of a formation took, from the start of its first container to its warm-up: a waterfall. Pure.

Times are the control node's, for hosts' clocks differ, and are as fine as the rounds of the wait. Only what was seen is told: a
phase whose end was not seen, or not apart from the next one's, is part of the next.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .decide import Round
from .log_lines import read
from .planning.types import Engine, Plan, digest_of

# In their order; each ends where the next one begins.
PHASES = {
    "containers": "containers started",
    "ray": "Ray whole",
    "ranks": "ranks met",
    "weights": "weights loaded",
    "graphs": "graphs captured",
    "answers": "answers",
    "registered": "registered at the proxy",
    "warmed": "warmed up",
}
BEFORE = {"image": "image brought", "model": "model brought"}
APART_S = 0.5
MOST = 20  # formations that a head keeps
WIDTH = 40  # characters of a waterfall's bar
_WHOLE = re.compile(r"[^%]{0,80}100%")
_LINES = (("Loading weights", "weights"), ("Warming up ", "graphs"))
_RANK = re.compile(r"^\[rank \d+\] ")


def ends_in(line: str) -> str | None:
    """The phase whose end a log line shows, or None. Ranks have met before one of them writes a line."""
    for words, phase in _LINES:
        if words in line:
            text = read(line).text
            start = text.find(words)
            if start >= 0 and _WHOLE.match(text[start + len(words) : start + 240]):
                return phase
    return "ranks" if _RANK.match(line) else None


def formation_of(
    plan: Plan,
    engine: Engine,
    each: Round,
    *,
    begun: Mapping[str, Mapping[str, Sequence[float]]],
    marks: Mapping[str, Mapping[str, float]],
    listed: Mapping[str, float],
    brought: Mapping[str, Mapping[str, float]],
    warmed: float | None,
) -> dict[str, Any] | None:
    """The formation of ``engine`` that a round started; None where it started no container of it.

    Moments are seconds since 1970 of one clock. ``begun``: host -> container -> before and after its start; ``marks``: host ->
    phase -> its end; ``listed``: URL -> when the proxy had it; ``brought``: image or model -> host -> seconds that it took there;
    ``warmed``: when the warm-up ended. The result has ``phases`` as ``[name, seconds from the first container's start]``, and
    ``before`` as seconds.
    """
    steps = [step for step in each.steps if step.act == "start" and step.engine == engine.name]
    starts = {(s.host, s.name): begun.get(s.host, {}).get(s.name) for s in steps}
    if not steps or not all(starts.values()):
        return None
    kinds = sorted({step.service for step in steps})
    first = [starts[s.host, s.name] or (0, 0) for s in steps if s.service == "ray" or "ray" not in kinds]
    zero = min(moment for moment, __ in first)
    ends = {"containers": max(moment for __, moment in first)}
    seen = {host: {phase: at for phase, at in marks.get(host, {}).items() if at >= zero} for host in engine.nodes}
    if "ray" in kinds and "ray" in seen[engine.head]:
        ends["ray"] = seen[engine.head]["ray"]
    for phase in ("ranks", "weights", "graphs"):
        found = [at[phase] for at in seen.values() if phase in at]
        ends.update({phase: max(found)} if found else {})
    endpoints = plan.endpoints_of(engine.name)
    answering = {each.node for each in endpoints}
    if all("answers" in seen[host] for host in answering):
        ends["answers"] = max(seen[host]["answers"] for host in answering)
    if plan.proxy and all(listed.get(each.url, -1.0) >= zero for each in endpoints):
        ends["registered"] = max(listed[each.url] for each in endpoints)
    if warmed is not None and warmed >= zero and engine.name in {*each.warm} - {*each.known}:
        ends["warmed"] = warmed
    phases = _apart([(phase, ends[phase] - zero) for phase in PHASES if phase in ends])
    return {
        "engine": engine.name,
        "formation": next((step.formation for step in steps if step.formation), ""),
        "began": datetime.datetime.fromtimestamp(zero, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "like": _like(plan, engine, kinds),
        "started": kinds,
        "before": {
            what: round(max(took.values()), 1)
            for what in BEFORE
            for took in [{host: s for host, s in brought.get(what, {}).items() if host in engine.nodes}]
            if took
        },
        "phases": phases,
        "seconds": phases[-1][1],
    }


def _apart(ends: Sequence[tuple[str, float]]) -> list[list[Any]]:
    """The phases whose ends were seen one after another; of those that were not, the last one."""
    kept: list[list[Any]] = []
    for phase, seen in ends:
        end = seen
        while kept and end - kept[-1][1] < APART_S:
            end = max(end, kept.pop()[1])
        kept.append([phase, round(end, 1)])
    return kept


def _like(plan: Plan, engine: Engine, kinds: Sequence[str]) -> str:
    """What formations have to share for their times to be comparable."""
    sizes = [engine.tp, engine.dp, engine.ep, engine.gpus, len(engine.nodes)]
    return digest_of([engine.name, engine.topology, engine.launcher, engine.image.run, plan.model, sizes, list(kinds)])


# ---- of several


def kept(former: Sequence[Mapping[str, Any]], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The formations to keep, the newest last."""
    return [dict(each) for each in [*former, new]][-MOST:]


def last_of(
    formations: Sequence[Mapping[str, Any]], engine: str
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """An engine's last formation, and the one before it that is like it."""
    mine = [
        dict(each)
        for each in formations
        if isinstance(each, Mapping) and each.get("engine") == engine and _is_whole(each)
    ]
    if not mine:
        return None, None
    return mine[-1], next((each for each in reversed(mine[:-1]) if each.get("like") == mine[-1]["like"]), None)


def _is_whole(each: Mapping[str, Any]) -> bool:
    """Whether it has what is told of it: another version of the collection may have kept it."""
    phases = each.get("phases")
    return (
        isinstance(phases, list)
        and bool(phases)
        and all(isinstance(phase, list) and len(phase) == 2 and isinstance(phase[1], (int, float)) for phase in phases)
        and all(key in each for key in ("formation", "began", "like", "before"))
        and isinstance(each.get("seconds"), (int, float))
        and isinstance(each["before"], Mapping)
    )


def ratio(new: Mapping[str, Any], former: Mapping[str, Any] | None) -> float | None:
    """How many times as long it took as the one before; None where there is none."""
    return round(new["seconds"] / former["seconds"], 2) if former and former["seconds"] > 0 else None


# ---- for a person


def compared(new: Mapping[str, Any], former: Mapping[str, Any] | None) -> str:
    """The ratio as words."""
    times = ratio(new, former)
    if former is None or times is None:
        return "the first formation of this kind"
    return (
        f"{times:.2f} times the last one like it ({former['seconds']:.0f} s, {former['began'] or former['formation']})"
    )


def line_of(new: Mapping[str, Any], former: Mapping[str, Any] | None) -> str:
    """A formation on one line."""
    spans = ", ".join(f"{PHASES.get(phase, phase)} {to - begin:.0f} s" for phase, begin, to in _spans(new))
    return f"{new['engine']}: ready after {new['seconds']:.0f} s, {compared(new, former)}: {spans}"


def waterfall(new: Mapping[str, Any], former: Mapping[str, Any] | None) -> list[str]:
    """A formation as a waterfall of text; ``former`` is the last one like it, if any."""
    before = [f"  {BEFORE.get(what, what):<24}{seconds:7.0f} s  before" for what, seconds in new["before"].items()]
    whole = max(new["seconds"], 0.1)
    bars = []
    for phase, begin, to in _spans(new):
        left = min(round(begin / whole * WIDTH), WIDTH - 1)
        line = "#" * max(1, round(to / whole * WIDTH) - left)
        bars.append(f"  {PHASES.get(phase, phase):<24}{to - begin:7.0f} s  {' ' * left}{line}")
    head = (
        f"{new['engine']}: ready {new['seconds']:.0f} s after the start of its first container, {compared(new, former)}"
    )
    return [head, *before, *bars]


def _spans(new: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    ends = [(str(phase), float(end)) for phase, end in new["phases"]]
    return [(phase, begin, end) for (phase, end), begin in zip(ends, [0.0, *(end for __, end in ends)])]
