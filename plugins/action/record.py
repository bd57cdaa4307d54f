# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes on one host what a round made: the plan, the one before, and its engine's formation."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Round
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import record_path
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import new_record
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.timeline import formation_of, last_of, waterfall


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.record``; documented in plugins/modules/record.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write it, where it differs."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, arguments = self.validate_argument_spec({"round": {"type": "int", "default": 0}})
        run, host = Run(), task_vars["inventory_hostname"]
        plan, seen = run.plan, run.host(host)
        rounds = run.decision.rounds
        each = rounds[arguments["round"]]
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        started = {**{c.name: c.began for c in seen.containers.values()}, **run.read(f"started@{host}", {})}
        tokens = run.read("tokens", {})
        took = time.time() - run.read(f"began@{host}", time.time())
        formed = self._formed(run, plan, host, each)
        last = arguments["round"] == len(rounds) - 1
        record = new_record(
            plan, host, seen, each, started, tokens, now, took, formed, former=run.read("before"), last=last
        )
        if formed:
            for line in waterfall(formed, last_of(record["formations"], formed["engine"])[1]):
                tell(f"  {line}")
        run.saw(host, {"record": record})
        written = {
            "directories": [],
            "files": {record_path(plan, plan.node(host)): json.dumps(record, indent=1) + "\n"},
            "secrets": {},
        }
        result: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.place", written, task_vars=task_vars)
        # What was done was told by the steps; that it was written down is no further change.
        return {**{key: result[key] for key in ("failed", "msg", "unreachable") if key in result}, "changed": False}

    @staticmethod
    def _formed(run: Run, plan: Plan, host: str, each: Round) -> dict[str, Any] | None:
        """The formation that this round made, which its engine's head keeps."""
        engine = plan.engine_on(host)
        if host != engine.head:
            return None
        begun, whole, up = run.every("begun"), run.every("seen-ray"), run.every("seen-api")
        marks = {
            name: {**whole.get(name, {}).get("marks", {}), **up.get(name, {}).get("marks", {})} for name in engine.nodes
        }
        return formation_of(
            plan,
            engine,
            each,
            begun=begun,
            marks=marks,
            listed=up.get(plan.proxy.node, {}).get("listed", {}) if plan.proxy else {},
            brought={"image": run.every("brought-image"), "model": run.every("brought-model")},
            warmed=run.read("warmed"),
        )
