# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of community.docker whose words, which may be a container's or a registry's, are harmless here."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.docker_errors import image_remedy, may_pass, remedy
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

BRINGS = ("docker_image_pull", "docker_image_load")
OF_IMAGES = ("docker_image_pull", "docker_image_load", "docker_login")


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.docker``; documented in plugins/modules/docker.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run it; a failure says where, and what to do first."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(
            {"module": {"type": "str", "required": True}, "arguments": {"type": "dict", "default": {}}}
        )
        module = arguments["module"]
        began = time.time()
        result: dict[str, Any] = self._execute_module(
            f"community.docker.{module}", arguments["arguments"], task_vars=task_vars or {}
        )
        if not result.get("failed"):
            if module in BRINGS and result.get("changed") and not self._task.check_mode:
                Run().write(f"brought-image@{(task_vars or {})['inventory_hostname']}", round(time.time() - began, 1))
            return result
        said = str(result.get("msg", "it said nothing")).strip().rstrip(".")
        todo = image_remedy(said) if module in OF_IMAGES else remedy(said)
        return {**result, "msg": f"{said}: {todo}.", "transient": may_pass(said)}
