# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an action's words leave for a person's terminal: its result, its error, and what it shows while it runs.

All of them may quote what others wrote: a container's log, an engine's error, the answer of a proxy, of Docker, of a module
that broke. Ansible escapes a result that it dumps, but not the message of a failure, which it prints as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from .text import harmless, harmless_all

Run = Callable[..., dict[str, Any]]


def tell(text: str) -> None:
    """Show ``text`` on the screen, whatever it quotes."""
    Display().display(harmless(text))


def warn(text: str) -> None:
    """Warn with ``text``, whatever it quotes."""
    Display().warning(harmless(text))


def harmless_result(run: Run) -> Run:
    """An action's ``run``, whose result and errors have nothing that a terminal would obey."""

    @functools.wraps(run)
    def wrapper(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            result: dict[str, Any] = harmless_all(run(*arguments, **named))
        except AnsibleError as error:
            text = str(error)
            if harmless(text) == text:
                raise
            raise type(error)(harmless(text)) from None  # unreachable stays unreachable
        return result

    return wrapper
