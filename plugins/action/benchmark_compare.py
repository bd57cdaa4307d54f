# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: two reports beside each other (see the module of this name)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.compare import as_text, compare
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell

ARGUMENT_SPEC: dict[str, Any] = {
    "before": {"type": "path", "required": True},
    "after": {"type": "path", "required": True},
    "tolerance": {"type": "float", "default": 0.03},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.benchmark_compare``."""

    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare; fails where something became worse beyond noise."""
        super().run(tmp, task_vars)
        __, options = self.validate_argument_spec(ARGUMENT_SPEC)
        try:
            before, after = (read_report(Path(options[key])) for key in ("before", "after"))
        except ValueError as error:
            return {"failed": True, "changed": False, "msg": f"benchmark: {error}"}
        comparison = compare(before, after, options["tolerance"])
        tell(as_text(comparison))
        result = {"changed": False, "comparison": comparison.to_json()}
        if not comparison.changes:
            return {**result, "failed": True, "msg": "benchmark: the two reports have no row in common"}
        if comparison.regressions:
            listed = "\n  - ".join(comparison.regressions)
            return {**result, "failed": True, "msg": f"benchmark: worse beyond noise:\n  - {listed}"}
        return {**result, "msg": "benchmark: nothing became worse beyond noise"}


def read_report(path: Path) -> dict[str, Any]:
    """A report, by its file or by its folder. Raises ValueError."""
    file = path / "report.json" if path.is_dir() else path
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no report: {error}") from None
    if not isinstance(found, dict) or found.get("format") != 1 or "rows" not in found:
        raise ValueError(f"{file} is no report of this collection's benchmark")
    return found
