# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That every host of the plan was looked at, and answered."""

from __future__ import annotations

from collections.abc import Iterator

from .. import connection
from .types import ERROR, Found, OfHost, Rule


def _answers(of: OfHost) -> Iterator[Found]:
    where = f"{of.node.name} ({of.node.address})"
    told = ""
    if of.node.name not in of.hosts:
        told = f"{where} was not looked at: a deployment is one unit of all its nodes, so run it without --limit."
    elif of.host.failed:
        told = f"{where} gave no answer: {connection.failed(of.host.failed).told()}"
    elif of.host.unreachable:
        told = _unreached(where, of)
    if told:
        yield Found(told, (of.node.name,))


def _unreached(where: str, of: OfHost) -> str:
    """Why a host gave no answer, what it would be missed for, and what to do."""
    trouble = connection.unreachable(of.host.unreachable)
    if trouble.kind in connection.REACHED:
        return f"{where} gave no answer: {trouble.told()}"
    remedy = trouble.remedy or "Bring the host up, or take it out of the inventory group."
    if trouble.kind in connection.GONE:
        remedy = f"{remedy} A host that is gone for good is to be taken out of the inventory group."
    return f"{where} cannot be reached: {trouble.said.rstrip('.')}. {_without(of)} {remedy}"


def _without(of: OfHost) -> str:
    """What the engine would be without a host, and so why there is none."""
    plan, engine = of.plan, of.engine
    if engine.topology == "dpep":
        ranks = [each.rank for each in plan.endpoints_of(engine.name) if each.node == of.node.name]
        which = f"Ranks {ranks[0]} to {ranks[-1]} are" if len(ranks) > 1 else f"Rank {ranks[0]} is"
        return f"{which} on it, and all other ranks would wait for it."
    left = [plan.node(name) for name in engine.nodes if name in of.hosts and not of.hosts[name].unreachable]
    gpus = sum(each.gpus for each in left)
    return f"Without it Ray would count {len(left)} of {len(engine.nodes)} nodes and {gpus} of {engine.gpus} GPUs."


RULES = (
    Rule(
        id="host.answers",
        severity=ERROR,
        title="The host can be reached, and the look at it came to an end",
        check=_answers,
        remedy="What the message says of SSH, sudo or Python on that host; run the play without `--limit`.",
        answered=False,
        waivable=False,
    ),
)
