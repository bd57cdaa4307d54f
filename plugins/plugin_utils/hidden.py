# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that an action takes from a role's variable: callbacks print a task's arguments (display_args_to_stdout)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORTEST_TOKEN = 32  # characters of Ray's token; one that is shorter can be guessed


def token_fault(token: str) -> str | None:
    """What is wrong with a token for Ray that somebody gave."""
    if not token or len(token) >= SHORTEST_TOKEN:
        return None
    return f"ray_token_value has {len(token)} characters: give it {SHORTEST_TOKEN} or more."


def secret(argument: str | None, variable: str, task_vars: Mapping[str, Any] | None, action: Any) -> str | None:
    """The argument where the task has one, else what ``variable`` comes to; None where both are empty."""
    if argument or not (task_vars or {}).get(variable):
        return argument or None
    value = action._templar.template((task_vars or {})[variable])
    return str(value) if value else None
