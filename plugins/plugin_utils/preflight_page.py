# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules found as one page of HTML that needs nothing beside it: no network, no script, its style inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .pages import environment
from .preflight import TOGETHER, counted

# A state is a word; its sign only helps the eye, and its class the colour.
SIGNS = {
    "error": ("✕", "bad"),
    "warning": ("!", "bad"),
    "waived": ("~", "neutral"),
    "unknown": ("?", "neutral"),
    "ok": ("=", "good"),
    "not needed": ("–", "plain"),
}


def html(report: Mapping[str, Any]) -> str:
    """The page of a report, as ``report_of`` makes it."""
    template = environment().get_template("preflight.html.j2")
    return template.render(
        report=report,
        counted=counted(report["counts"]),
        columns=[*(node["name"] for node in report["nodes"]), ""],
        signs=SIGNS,
        together=TOGETHER,
    )
