# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps of a deployment: the plan that is carried out, the one before it, and its engine's last formation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from . import steps
from .decide import Round
from .observed import FORMATION, RECORD_FORMAT, Host, Member
from .planning.types import Plan
from .timeline import kept


def new_record(
    plan: Plan,
    host: str,
    seen: Host,
    each: Round,
    started: Mapping[str, str],
    tokens: Mapping[str, Mapping[str, Any]],
    now: str,
    seconds: float,
    formed: Mapping[str, Any] | None = None,
    *,
    former: Mapping[str, Any] | None = None,
    last: bool = True,
) -> dict[str, Any]:
    """The record of ``host`` after a round; ``started`` are its containers' start times, ``seconds`` what the round took.

    ``formed`` is the formation that it made of the host's engine, where the host is that engine's head. ``former`` are the plans
    that were kept when the run began (``plans_kept``); the plan is kept with the ``last`` round, for then all of it was proven.
    """
    old = seen.record
    engine = plan.engine_on(host)
    members = {name: member for name, member in (old.get("engines") or {}).items() if name == engine.name}
    if engine.name in (*each.engines, *each.warm):
        before = seen.member(engine.name)
        mine = {s.name: started[s.name] for s in plan.services_on(host) if s.engine and s.name in started}
        formations = [s.formation for s in each.steps if s.engine == engine.name and s.formation]
        # To wait for containers that were there before begins nothing; nor does a Ray that Docker started again under an engine.
        own = [s.name for s in plan.services_on(host) if s.engine and s.service != "ray"]
        begins = before is None or bool(formations) or any(before.started.get(n) != mine.get(n) for n in own)
        member = Member(
            formation=formations[0] if formations else _formation_of(plan, host, seen, engine.name),
            began=now if begins or before is None else before.began,
            seconds=round(seconds, 1) if begins or before is None else before.seconds,
            started=mine,
            secrets=_marks(plan, host, seen, tokens),
            warmed=engine.name in {*each.warm} - {*each.known} or (before is not None and not begins and before.warmed),
        )
        members[engine.name] = dataclasses.asdict(member)
    return {
        "format": RECORD_FORMAT,
        "identity": plan.identity,
        "listens": {service.name: service.listens for service in plan.services_on(host)},
        "engines": members,
        **_formations(host == engine.head, old, formed),
        **(_plans(plan, old if former is None else former, last=last) if host == plan.head else {}),
    }


def _formations(is_head: bool, old: Mapping[str, Any], formed: Mapping[str, Any] | None) -> dict[str, Any]:
    """The last formations, which an engine's head keeps."""
    former = old.get("formations") or []
    found = kept(former, formed) if formed else former
    return {"formations": found} if is_head and found else {}


def plans_kept(plan: Plan, hosts: Mapping[str, Host]) -> dict[str, Any]:
    """``plan`` and ``previous`` as the hosts' records have them, the head's before others': another host may have been the head."""
    names = [plan.head, *(name for name in hosts if name != plan.head)]
    records = (hosts[name].record for name in names if name in hosts)
    found = next((record for record in records if record.get("plan")), {})
    return {key: found[key] for key in ("plan", "previous") if found.get(key)}


def _plans(plan: Plan, old: Mapping[str, Any], *, last: bool) -> dict[str, Any]:
    """The plan and the one before it, which the head keeps for all: copies everywhere would grow with the hosts' square."""
    if not last:
        return {key: old[key] for key in ("plan", "previous") if key in old}
    changed = old.get("plan") and old["plan"].get("identity") != plan.identity
    return {"plan": plan.to_json(), "previous": old["plan"] if changed else old.get("previous")}


def _formation_of(plan: Plan, host: str, seen: Host, engine: str) -> str:
    """The formation of containers that were there before the round; empty where they were made before there were ids."""
    found = [
        seen.containers[s.name] for s in plan.services_on(host) if s.engine == engine and s.name in seen.containers
    ]
    return found[0].labels.get(FORMATION, "") if found else ""


def _marks(plan: Plan, host: str, seen: Host, tokens: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    path = steps.token_path(plan, host)
    if path is None:
        return {}
    need = tokens.get(plan.engine_on(host).name, {})
    mark = need["mark"] if host in need.get("hosts", ()) else seen.mark(path)
    return {path: mark} if mark else {}
