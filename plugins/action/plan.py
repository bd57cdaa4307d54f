# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: gathers variables and observations of the group's hosts, computes the plan, returns it as a fact."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import plan_group
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_shell, as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import PlanError


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.plan``; documented in plugins/modules/plan.py."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compute the plan, or refuse it with every fault."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(
            {
                "group": {"type": "str", "required": True},
                "topology": {"type": "str", "choices": ["tp", "dpep"]},
                "observed": {"type": "bool", "default": False},
            }
        )
        try:
            plan = plan_group(
                arguments["group"], task_vars or {}, topology=arguments["topology"], observed=arguments["observed"]
            )
        except PlanError as error:
            return {"failed": True, "changed": False, "msg": str(error)}
        data = plan.to_json()
        shown = {"table": as_table(plan), "shell": as_shell(plan), "json": json.dumps(data, indent=2)}
        return {"changed": False, "plan": data, "shown": shown}
