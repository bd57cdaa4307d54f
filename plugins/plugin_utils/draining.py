# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When an engine that is to be replaced has no requests any more. Pure: no task, no clock, no connection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import GONE

from .decide import Decision, Round
from .observed import SERVING
from .planning.types import Plan

# LMDeploy sets its gauges once in 10 s: what they say before is of a time when new requests still came.
LATE_S = 15.0
# Where nobody can count requests; as long as most of them take.
BLIND_S = 30.0
NONE_LEFT = "no request runs there any more"


@dataclasses.dataclass
class Drain:
    """The ranks of one engine, from the moment when new requests were kept from them; ``deadline_s`` is counted from there."""

    deadline_s: float
    ended: bool = False
    news: str = ""  # to be told once, where there is any

    def take(self, ranks: Mapping[str, Mapping[str, Any]], after_s: float) -> None:
        """What M(proxy_drain) gave of the ranks, ``after_s`` seconds after new requests were kept from them."""
        counts = {url: each["requests"] for url, each in ranks.items() if "requests" in each}
        unknown = {
            url: each["error"] for url, each in ranks.items() if "requests" not in each and each["error"] != GONE
        }
        left = sum(counts.values())
        if not left and not unknown and (not counts or after_s >= LATE_S):
            self._end(NONE_LEFT if counts else GONE)
        elif after_s >= self.deadline_s:
            late = f"after {self.deadline_s:.0f} s "
            if left:
                self._end(f"{late}{left} requests still run or wait there, and are cut off now")
            else:
                self._end(f"{late}{_not_known(unknown)}" if unknown else NONE_LEFT)
        elif not left and unknown and after_s >= BLIND_S:
            self._end(f"{_not_known(unknown)}; {BLIND_S:.0f} s were waited")
        else:
            self.news = f"{left} requests run or wait there" if left else ""

    def _end(self, news: str) -> None:
        self.ended, self.news = True, news


def cold(plan: Plan, decision: Decision, each: Round) -> list[str]:
    """The URLs that a round has started and warms up, where other engines serve meanwhile; nobody waits for the cold ones then."""
    others = [one for one in plan.endpoints if one.engine not in each.engines]
    if not any(decision.states[one.url].state in SERVING for one in others):
        return []
    return [one.url for one in plan.endpoints if one.engine in each.engines and one.engine in each.warm]


def _not_known(unknown: Mapping[str, str]) -> str:
    url, why = next(iter(unknown.items()))
    return f"nobody knows whether requests run there ({url}: {why})"
