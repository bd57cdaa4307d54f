# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert rules of a deployment: ``data/alerts.yml``, with its thresholds and its series filled in."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..rules.gpu import XIDS

ALERTS = Path(__file__).parents[1] / "data" / "alerts.yml"


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """From where on it is an alert; the variables are these names after ``monitoring_``.

    ``no_tokens_s``: seconds without any token while requests are in the engine. ``waiting_requests``: of one api_server.
    ``first_token_s``: seconds that 19 of 20 requests stay below. ``kv_cache_share``, ``disk_free_share``: 0 to 1.
    ``restarts_per_hour``: of one engine by itself. ``certificate_days``: until it runs out.
    """

    no_tokens_s: int = 300
    waiting_requests: int = 100
    first_token_s: float = 10.0
    kv_cache_share: float = 0.95
    restarts_per_hour: int = 3
    disk_free_share: float = 0.1
    certificate_days: int = 14

    @property
    def faults(self) -> list[str]:
        """A sentence for each one that is out of its range."""
        return [
            f"monitoring_{name} is {value:g}, and has to be from {low:g} to {high:g}."
            for name, (low, high) in RANGES.items()
            if not low <= (value := getattr(self, name)) <= high
        ]


# From which value to which each may be, both included; LMDeploy's histogram of first tokens ends at 2560 s.
RANGES: Mapping[str, tuple[float, float]] = {
    "no_tokens_s": (30, 86400),
    "waiting_requests": (1, 1_000_000),
    "first_token_s": (0.001, 2560),
    "kv_cache_share": (0.01, 1),
    "restarts_per_hour": (1, 1000),
    "disk_free_share": (0.001, 0.99),
    "certificate_days": (1, 3650),
}


@functools.cache
def alerts() -> list[dict[str, str]]:
    """The alerts as they stand in ``data/alerts.yml``."""
    found: list[dict[str, str]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return found


def rules(deployment: str, limits: Thresholds) -> dict[str, Any]:
    """A file of rules, as Prometheus reads it: those of one deployment, whose name is on every alert."""
    filled = words(deployment, limits)
    # A threshold may stand before a unit, as in NO_TOKENS_Ss.
    pattern = re.compile(rf"\b(?:{'|'.join(filled)})(?=s?\b)")

    def fill(text: str) -> str:
        return pattern.sub(lambda found: filled[found[0]], text)

    made = [
        {
            "alert": alert["alert"],
            # HARDWARE_XIDS has words of its own.
            "expr": fill(fill(alert["expr"])),
            "for": fill(alert["for"]),
            "labels": {"severity": alert["severity"], "deployment": deployment},
            "annotations": {"summary": f"{deployment}: {alert['summary']}", "runbook": alert["runbook"]},
        }
        for alert in alerts()
    ]
    return {"groups": [{"name": f"lmfleet-{deployment}", "rules": made}]}


def words(deployment: str, limits: Thresholds) -> dict[str, str]:
    """The words in capitals of ``data/alerts.yml``, and what is put in their place."""
    only = f'deployment="{deployment}"'
    return {
        **{role.upper(): f'{only}, role="{role}"' for role in ("engine", "node", "gpu")},
        "DEPLOYMENT": only,
        "HARDWARE_XIDS": " or ".join(f"DCGM_FI_DEV_XID_ERRORS{{GPU}} == {xid}" for xid in sorted(XIDS)),
        **{name.upper(): f"{getattr(limits, name):g}" for name in RANGES},
    }
