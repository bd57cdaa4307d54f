# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: notes what failed, puts the plan to bring back in the place of the run's, and tells how it ended."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import rollback
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import plans_kept
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

STATES = ["noted", "prepared", "told", "chosen"]
FIRST, SECOND = "failed", "failed-back"  # of the upgrade, and of bringing back


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.rollback``; documented in plugins/modules/rollback.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do the step of that state."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(
            {"state": {"type": "str", "choices": STATES, "required": True}, "msg": {"type": "str", "default": ""}}
        )
        run, state = Run(), arguments["state"]
        if state == "noted":
            kind = SECOND if run.recorded else FIRST
            run.write(f"{kind}@{(task_vars or {})['inventory_hostname']}", {"msg": arguments["msg"], "at": time.time()})
            return {"changed": False}
        return {"prepared": self._prepare, "told": self._tell, "chosen": self._choose}[state](run)

    @staticmethod
    def _prepare(run: Run) -> dict[str, Any]:
        """Whether an upgrade failed, and then with the plan before it in its place."""
        noted, second = run.every(FIRST), run.every(SECOND)
        if second and not noted:  # of a roll-back on demand: what it brings back is the last that there is
            raise AnsibleActionFail(rollback.first_failure(second))
        if not noted:
            return {"changed": False, "wanted": False}
        failure, kept = rollback.first_failure(noted), run.read("before", {})
        try:
            plan = rollback.before_upgrade(run.plan, kept)
        except rollback.NothingToBringBack as error:
            raise AnsibleActionFail(rollback.not_rolled_back(failure, str(error).rstrip("."))) from None
        run.keep_recorded(plan, kept)
        tell(f"  The upgrade failed. What served before is brought back: {rollback.described(plan)}")
        return {"changed": False, "wanted": True}

    @staticmethod
    def _tell(run: Run) -> dict[str, Any]:
        second = rollback.first_failure(run.every(SECOND))
        engines = [] if second else sorted({step.engine for step in run.decision.steps if step.engine})
        raise AnsibleActionFail(rollback.ended(run.plan, rollback.first_failure(run.every(FIRST)), second, engines))

    @staticmethod
    def _choose(run: Run) -> dict[str, Any]:
        """For rollback.yml: the records were read."""
        planned, hosts = run.plan, run.hosts()
        unread = [
            f"{node.name}: {host.unreachable or host.failed}"
            for node in planned.nodes
            for host in [hosts.get(node.name)]
            if host and (host.unreachable or host.failed)
        ]
        if unread:
            raise AnsibleActionFail(f"Nothing was changed. What was recorded cannot be read from {'; '.join(unread)}.")
        kept = plans_kept(planned, hosts)
        try:
            plan, why = rollback.on_demand(planned, kept, hosts)
        except rollback.NothingToBringBack as error:
            raise AnsibleActionFail(f"Nothing was changed. {error}") from None
        run.keep_recorded(plan, kept)
        tell(f"  The plan to bring back is {why}: {rollback.described(plan)}")
        return {"changed": False, "plan": plan.identity}
