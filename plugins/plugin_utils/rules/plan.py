# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That the plan fits what hosts, image and model are: what binding it would refuse, told before a deployment does.

Addresses, interfaces and routes have rules of their own, which ask the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable

from .types import ERROR, GROUP, Found, OfAll, Rule


def _refused(of: OfAll) -> Iterable[Found]:
    return of.refused() if of.refused else ()


RULES = (
    Rule(
        id="plan.bound",
        severity=ERROR,
        title="The plan fits what the image on the hosts and the model's configuration are",
        check=_refused,
        remedy="What the message says: correct the option, or set `plan_image` to an image that fits.",
        scope=GROUP,
        applies=lambda of: of.refused is not None,
        brought=True,
        waivable=False,
    ),
)
