# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: reads one host's logs and states, and keeps them for the archive; a host that gives no answer is an answer too."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.collected import asked_of_host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.failure import failure
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

BOUNDS = ("last_mb", "first_mb", "total_mb", "hours", "limit_s")


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.collect``; documented in plugins/modules/collect.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read, and keep what was read; never fails for the host."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, given = self.validate_argument_spec({name: {"type": "float"} for name in BOUNDS})
        run, host = Run(), task_vars["inventory_hostname"]
        silent = run.host(host).unreachable
        if silent:  # to try again takes as long as the first time
            run.write(f"collected@{host}", {"failed": f"cannot be reached: {silent}"})
            return {"changed": False}
        asked = {**asked_of_host(run.plan, host), **{name: value for name, value in given.items() if value is not None}}
        # Stands where the task's own time limit ends it.
        run.write(f"collected@{host}", {"failed": "it gave no answer in the time that it was given"})
        run.write(f"collected@{host}", self._answer(asked, task_vars))
        return {"changed": False}

    def _answer(self, asked: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.collect", asked, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return {"failed": f"cannot be reached: {error}"}
        except AnsibleError as error:  # no Python there, no temporary directory, no right to become root
            return {"failed": str(error)}
        if answer.get("unreachable"):
            return {"failed": f"cannot be reached: {failure(answer)}"}
        if answer.get("failed") or "archive" not in answer:
            return {"failed": failure(answer)}
        return {name: answer[name] for name in ("containers", "files", "unread", "archive")}
