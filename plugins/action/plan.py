# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: gathers variables and observations of the group's hosts, computes the plan, returns it as a fact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._plan.build import Observations, build_plan
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._plan.inputs import PREFIX, read_inputs
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._plan.render import as_shell, as_table
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._plan.types import Faults, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._releases import did_you_mean

SPECS = Path(__file__).parents[2] / "roles" / "plan" / "meta" / "argument_specs.yml"


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.plan``; documented in plugins/modules/plan.py."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compute the plan, or refuse it with every fault."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, arguments = self.validate_argument_spec(
            {
                "group": {"type": "str", "required": True},
                "topology": {"type": "str", "choices": ["tp", "dpep"]},
                "observed": {"type": "bool", "default": False},
            }
        )
        try:
            return self._plan(arguments["group"], arguments["topology"], task_vars, observed=arguments["observed"])
        except PlanError as error:
            return {"failed": True, "changed": False, "msg": str(error)}

    def _plan(
        self, group: str, topology: str | None, task_vars: Mapping[str, Any], *, observed: bool
    ) -> dict[str, Any]:
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        if group not in groups:
            known = [name for name in groups if name not in ("all", "ungrouped")]
            missing = f"the inventory has no group {group}{did_you_mean(group, known)}"
            raise PlanError([f"{missing}: put the GPU hosts under it, or name their group with -e plan_group=..."])
        nodes = list(groups[group])
        spec = yaml.safe_load(SPECS.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
        faults = Faults()
        variables = {node: _variables(node, hostvars[node]) for node in nodes}
        inputs = read_inputs(spec, variables, faults, f"group {group}", groups, topology)
        faults.extend(_forks_faults(len(nodes)))
        plan = build_plan(inputs, _observations(nodes, hostvars) if observed else Observations(), faults)
        return {
            "changed": False,
            "plan": plan.to_json(),
            "shown": {"table": as_table(plan), "shell": as_shell(plan), "json": json.dumps(plan.to_json(), indent=2)},
        }


def _variables(node: str, hostvars: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: hostvars[key] for key in hostvars if key.startswith(PREFIX)}
    if not values.get("plan_cluster_address"):
        values["plan_cluster_address"] = str(hostvars.get("ansible_host") or node)
    return values


def _observations(nodes: list[str], hostvars: Mapping[str, Any]) -> Observations:
    def first(fact: str) -> Mapping[str, Any]:
        return next((hostvars[node][fact] for node in nodes if fact in hostvars[node] and hostvars[node][fact]), {})

    return Observations(
        image=first("image_observed").get("probe"),
        run=first("image_observed").get("run"),
        interfaces={
            node: hostvars[node]["preflight_observed"]["interfaces"]
            for node in nodes
            if "preflight_observed" in hostvars[node]
        },
        sources={
            node: hostvars[node]["preflight_observed"]["source"]
            for node in nodes
            if "preflight_observed" in hostvars[node]
        },
        model_config=first("model_observed").get("config"),
    )


def _forks_faults(nodes: int) -> list[str]:
    forks = int(context.CLIARGS.get("forks") or 0)
    if not forks or forks >= nodes:
        return []
    few = f"forks is {forks} for {nodes} nodes, but they have to be watched at the same moment"
    return [f"{few}: run with --forks {nodes} or more, or set forks in ansible.cfg."]
