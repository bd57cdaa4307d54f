# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: the fault of certificates that are named, and that no alert would watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.certificates import unwatched
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.files import REFUSED
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import harmless


def unwatched_certificates(reads: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Every fault in one text, or an empty one; ``reads`` are as ``unwatched`` takes them."""
    faults = unwatched(reads)
    return harmless(str(PlanError(faults, REFUSED))) if faults else ""


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name -> filter."""
        return {"unwatched_certificates": unwatched_certificates}
