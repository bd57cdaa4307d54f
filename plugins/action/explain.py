# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: reads a log on the control node, and shows why the service that wrote it failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.explain import read_log, told
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.logs import diagnose

ARGUMENT_SPEC = {"file": {"type": "path", "required": True}}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.explain``; documented in plugins/modules/explain.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Explain it; fails only where there is no log to read."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        result: dict[str, Any] = {"changed": False}
        if not arguments["file"].strip():
            return {**result, "failed": True, "msg": "No log was named. Name its file: -e explain_log=FILE"}
        path = Path(arguments["file"])
        try:
            lines, left_out = read_log(path)
        except ValueError as error:
            return {**result, "failed": True, "msg": f"explain_log: {error}"}
        diagnosis = diagnose(lines)
        table = told(diagnosis, path, lines, left_out)
        for line in table:
            tell(line)
        known = diagnosis.known if diagnosis else None
        return {
            **result,
            "decisive": diagnosis.lines if diagnosis else [],
            "id": known.id if known else "",
            "means": known.means if known else "",
            "remedy": known.remedy if known else "",
            "node": diagnosis.node if diagnosis else "",
            "table": table,
        }
