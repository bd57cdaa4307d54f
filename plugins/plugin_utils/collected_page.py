# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of an archive of logs as one page of HTML that needs nothing beside it but the files that it links to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .pages import environment

# A state is a word; its sign only helps the eye, and its class the colour.
SIGNS = {"running": ("=", "good"), "created": ("?", "neutral"), "paused": ("?", "neutral"), "restarting": ("!", "bad")}
ENDED, FAILED = ("–", "neutral"), ("✕", "bad")


def html(index: Mapping[str, Any], folder: str = "") -> str:
    """The page of an index, as ``index_of`` makes it; ``folder`` is where the files are, seen from the page."""
    prefix = f"{quote(folder)}/" if folder else ""
    template = environment().get_template("logs.html.j2")
    return template.render(
        index=index,
        link=lambda path: prefix + quote(path),
        size=size,
        sign=lambda each: FAILED if each["failed"] else SIGNS.get(each["status"], ENDED),
    )


def size(count: int) -> str:
    """Bytes for a person."""
    for unit, factor in (("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
