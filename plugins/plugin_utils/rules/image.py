# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image, once it is on the hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..observed import Host
from ..planning.types import Plan
from .types import ERROR, GROUP, Found, Rule, Unknown


def _held(plan: Plan, hosts: Mapping[str, Host]) -> dict[str, str | None]:
    return {node.name: hosts[node.name].image_id for node in plan.nodes if node.name in hosts}


def same_faults(plan: Plan, reference: str, hosts: Mapping[str, Host]) -> Iterator[Found]:
    """Where the hosts hold different images under one reference."""
    held = _held(plan, hosts)
    if len(set(held.values()) - {None}) > 1:
        yield Found(
            f"The nodes hold different images under {reference}, and Ray and LMDeploy need one and the same everywhere:\n"
            + "".join(f"  {name}: {image or 'none'}\n" for name, image in held.items())
            + "Remedy: run with -e image_pull=always, or set plan_image to a digest.",
            tuple(held),
        )


def content_faults(plan: Plan, reference: str, hosts: Mapping[str, Host]) -> Iterator[Found]:
    """Where what they hold is no LMDeploy; raises ``Unknown`` where nobody has asked it."""
    held = _held(plan, hosts)
    if len(set(held.values()) - {None}) > 1:
        raise Unknown("the hosts hold different images")
    answer = next((hosts[name].image_answer for name in held if hosts[name].image_answer), None)
    if answer is None:
        raise Unknown("the image was not asked yet")
    if not answer.get("lmdeploy"):
        errors = "; ".join(answer.get("errors") or []) or "it said nothing"
        yield Found(
            f"{reference} could not say which LMDeploy it holds: {errors}. Set plan_image to an image of LMDeploy.",
            tuple(held),
        )


RULES = (
    Rule(
        id="image.same",
        severity=ERROR,
        title="The hosts hold one image",
        check=lambda of: same_faults(of.plan, of.plan.engines[0].image.reference, of.hosts),
        remedy="Run with `-e image_pull=always`, or set `plan_image` to a digest.",
        needs=("image.id",),
        scope=GROUP,
        brought=True,
        waivable=False,
    ),
    Rule(
        id="image.lmdeploy",
        severity=ERROR,
        title="The image holds LMDeploy",
        check=lambda of: content_faults(of.plan, of.plan.engines[0].image.reference, of.hosts),
        remedy="Set `plan_image` to an image of LMDeploy.",
        scope=GROUP,
        brought=True,
        waivable=False,
    ),
)
