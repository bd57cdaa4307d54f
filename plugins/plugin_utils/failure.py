# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a module gave no answer, by what Ansible has of it."""

from __future__ import annotations

import re
from typing import Any

ELSEWHERE = "See stdout/stderr for the exact error"  # it is told here
# Lines that say nothing about a failure: of SSH, of shells without the control node's locale, of profiles that print.
NOISE = re.compile(
    r"shared connection to|^connection to \S+ closed|permanently added|warning:|setlocale|cannot (?:change|set) locale"
    r"|^killed by signal",
    re.IGNORECASE,
)


def failure(result: dict[str, Any]) -> str:
    """Why a module gave no answer: its message, and the last line that says something of what it wrote beside it."""
    raised = result.get("exception")  # a traceback, or from ansible-core 2.19 on a summary of one
    raised = getattr(getattr(raised, "event", None), "msg", raised)
    told = str(result.get("msg") or _last(raised) or "no answer").replace(ELSEWHERE, "").strip()
    beside = _last(result.get("module_stderr")) or _last(result.get("module_stdout"))
    return f"{told.rstrip('.')}: {beside}" if beside and beside not in told else told


def _last(text: object) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    said = [line for line in lines if not NOISE.search(line)]
    return (said or [""])[-1]
