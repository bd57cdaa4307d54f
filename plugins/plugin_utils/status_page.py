# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a deployment is as one page of HTML that needs nothing beside it: no network, no script, its style inside."""

from __future__ import annotations

import dataclasses

from .pages import environment
from .status import AS_PLANNED, DEGRADED, DOWN, Status, gateway_lines, starts_by_themselves
from .text import harmless_all
from .timeline import waterfall

# A state is a word; its sign only helps the eye, and its class the colour.
SIGNS = {
    **dict.fromkeys((AS_PLANNED, "alive", "running"), ("=", "good")),
    "busy": ("≈", "good"),
    **dict.fromkeys((DOWN, "dead", "exited", "missing"), ("✕", "bad")),
    DEGRADED: ("!", "bad"),
}
OTHER = ("?", "neutral")


def html(status: Status) -> str:
    """The page."""
    waterfalls = {each.name: waterfall(each.timeline, each.former) for each in status.engines if each.timeline}
    shown = {
        "status": dataclasses.asdict(status),
        "waterfalls": waterfalls,
        "starts": starts_by_themselves(status),
        "gateway": gateway_lines(status.gateway),
    }
    return environment().get_template("status.html.j2").render(**harmless_all(shown), signs=SIGNS, other=OTHER)
