# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes from one host what its deployment made there; or says before, on the control node, which paths are none of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.docker_errors import remedy
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Node, Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.removal import (
    name_of,
    own,
    removable,
    users,
    wrong_paths,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

# An engine that does not end in time is killed with its container.
STOP_S = 30
ARGUMENT_SPEC: dict[str, Any] = {
    "act": {"type": "str", "choices": ["check", "remove"], "required": True},
    "caches": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.teardown``; documented in plugins/modules/teardown.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check what was typed, or remove containers, then directories."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        plan = Run().plan
        wrong = wrong_paths(plan, arguments["caches"])
        if wrong:
            told = "\n".join(f"  - {each}" for each in wrong)
            return {"failed": True, "changed": False, "msg": f"Nothing was removed. To mend first:\n{told}"}
        if arguments["act"] == "check":
            return {"changed": False}
        node = plan.node(self._vars["inventory_hostname"])
        return self._remove(plan, node, [path for path in arguments["caches"] if path in removable(plan, node)])

    def _module(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(name, dict(arguments), task_vars=self._vars)
        return result

    def _remove(self, plan: Plan, node: Node, caches: list[str]) -> dict[str, Any]:
        where, done = f"{node.name} ({node.address})", list[str]()

        def failed(what: str, result: Mapping[str, Any], todo: str) -> dict[str, Any]:
            said = str(result.get("msg") or "it said nothing").strip().rstrip(".")
            kept = {"unreachable": True} if result.get("unreachable") else {}
            return {
                "failed": True,
                "changed": bool(done),
                "steps": done,
                **kept,
                "msg": f"{where}: {what}: {said}.\nRemedy: {todo or remedy(said)}, and run again.",
            }

        found = self._module(
            "community.docker.docker_host_info", {"containers": True, "containers_all": True, "verbose_output": True}
        )
        if found.get("failed") or found.get("unreachable"):
            return failed("Docker does not list its containers", found, "")
        listed = found["containers"]
        for path in caches:
            others = users(listed, plan.name, path)
            if others:
                said = {"msg": f"{', '.join(others)} has it mounted, and runs. Nothing was removed from this host"}
                return failed(f"{path} is in use", said, f"stop {others[0]}, or take {path} out of teardown_caches")
        for each in own(listed, plan.name):
            # By id: whatever bears the name by now, only the container that was listed is removed.
            gone = self._module(
                "community.docker.docker_container", {"name": each["Id"], "state": "absent", "stop_timeout": STOP_S}
            )
            if gone.get("failed") or gone.get("unreachable"):
                return failed(f"remove {name_of(each)} failed", gone, "")
            if gone.get("changed"):
                done.append(f"remove {name_of(each)}")
        for path in caches:
            gone = self._module("ansible.builtin.file", {"path": path, "state": "absent"})
            if gone.get("failed") or gone.get("unreachable"):
                return failed(f"remove {path} failed", gone, f"see what {path} is, and whether this user may remove it")
            if gone.get("changed"):
                done.append(f"remove {path}")
        return {"changed": bool(done), "steps": done, "diff": [{"prepared": f"{node.name}: {line}"} for line in done]}
