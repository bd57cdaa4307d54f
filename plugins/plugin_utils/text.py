# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How text for people is laid out, and how text that others wrote is made harmless for their terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._harmless import harmless

__all__ = ["columns", "harmless", "harmless_all"]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """``rows`` as lines whose cells stand below each other; the first row gives the number of columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def harmless_all(value: Any) -> Any:
    """``value`` with every text in it made harmless: of lists and mappings the values, as deep as they go."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, Mapping):
        return {key: harmless_all(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [harmless_all(each) for each in value]
    return value
