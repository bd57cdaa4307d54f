# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: gives M(lmfleet.lmdeploy.completion) the key for the planned gateway, which stands in no task."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.completion``; documented in plugins/modules/completion.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for it, from this host."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        run = Run()
        planned = run.read("plan") or {}
        if planned.get("gateway") and arguments.get("url") == planned["gateway"]["url"]:
            # It is asked by its own host, to which its certificate says nothing.
            arguments = {**arguments, "api_key": run.gateway_key, "verified": False}
        result: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.completion", arguments, task_vars=task_vars)
        return result
