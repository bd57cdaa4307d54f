# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: reads the variables of the group's hosts, computes the plan, and begins the run with it."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import lock_path
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations, build_plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import inputs_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_shell, as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.steps import session_len

PLANNED = "lmfleet_planned"  # the group of the plan's nodes, which the playbook make_plan fills


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.plan``; documented in plugins/modules/plan.py."""

    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compute the plan, or refuse it with every fault."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(
            {"group": {"type": "str", "required": True}, "topology": {"type": "str", "choices": ["tp", "dpep"]}}
        )
        faults = Faults()
        try:
            inputs = inputs_of(
                arguments["group"], task_vars or {}, faults, loader=self._loader, topology=arguments["topology"]
            )
            plan = build_plan(inputs, Observations(), faults)
        except PlanError as error:
            return {"failed": True, "changed": False, "msg": str(error)}
        others = sorted({*(task_vars or {}).get("groups", {}).get(PLANNED, ())} - {node.name for node in plan.nodes})
        if others:
            msg = (
                f"This run has planned a deployment on {', '.join(others)} already, and would now do to these hosts what is "
                f"planned for {arguments['group']}: run ansible-playbook once for each deployment."
            )
            return {"failed": True, "changed": False, "msg": msg}
        Run().keep_inputs(inputs, plan)
        data = plan.to_json()
        shown = {"table": as_table(plan), "shell": as_shell(plan), "json": json.dumps(data, indent=2)}
        return {
            "changed": False,
            "plan": data,
            "shown": shown,
            "session_len": session_len(plan),
            "lock": lock_path(plan),
        }
