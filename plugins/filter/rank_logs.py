# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the logs of ranks that failed say, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.logs import decisive, of_rank

LOG_LINES = 6


def rank_logs(looks: Sequence[Mapping[str, Any]], ranks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for a person: the decisive ones of each rank's log, once for equal ones.

    ``looks`` are results of ``observe`` in a loop over ``node`` and ``container``; ``ranks`` are the plan's endpoints that failed.
    """
    logs = {
        (look["item"]["node"], name): container.get("lines", [])
        for look in looks
        for name, container in look.get("containers", {}).items()
    }
    said: dict[tuple[str, ...], list[str]] = {}
    for rank in ranks:
        log = logs.get((rank["node"], rank["container"]), [])
        lines = decisive(of_rank(log, rank["rank"]) or log)[-LOG_LINES:]
        gpus = ", ".join(map(str, rank["gpus"]))
        who = f"rank {rank['rank']} (GPU {gpus} of {rank['node']}; docker logs {rank['container']})"
        said.setdefault(tuple(lines), []).append(who)
    return [
        line
        for lines, who in said.items()
        for line in (f"Log of {', '.join(who)}:", *(f"  | {each}" for each in lines or ["(nothing was logged)"]))
    ]


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name -> filter."""
        return {"rank_logs": rank_logs}
