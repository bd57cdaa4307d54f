# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: from the rows' results to a report, in files (see the module of this name)."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark import report
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.plots import MissingMatplotlib
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.tables import as_text
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.verdict import (
    REFERENCE,
    BadReference,
    read_reference,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.version import version_of
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record

ARGUMENT_SPEC: dict[str, Any] = {
    "folder": {"type": "path", "required": True},
    "image_labels": {"type": "dict", "default": {}},
    "rows": {"type": "list", "elements": "dict", "required": True},
    "reference": {"type": "path"},
    "tolerance": {"type": "float", "default": 0.05},
    "other_release": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.benchmark_report``."""

    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make it, and write it but in check mode; the task's result."""
        super().run(tmp, task_vars)
        __, options = self.validate_argument_spec(ARGUMENT_SPEC)
        folder = Path(options["folder"])
        rows = [row for row in options["rows"] if Path(row["result"]).exists()]
        results = [json.loads(Path(row["result"]).read_text(encoding="utf-8")) for row in rows]
        records = {row["key"]: read_records(Path(row["records"])) for row in rows}
        kept = Run()
        measured = run_of(kept.plan, kept.hosts(), options["image_labels"])
        try:
            reference = read_reference(Path(options["reference"] or REFERENCE))
            made = report.build(measured, results, records, reference, options["tolerance"], options["other_release"])
            if not self._task.check_mode:
                report.write(made, records, folder)
        except (BadReference, MissingMatplotlib, OSError) as error:
            return {"failed": True, "changed": False, "msg": f"benchmark: {error}"}
        missing = len(options["rows"]) - len(rows)
        left = f"\n{missing} of {len(options['rows'])} rows are not measured." if missing else ""
        where = "check mode: it is not written" if self._task.check_mode else folder / "report.html"
        return {"changed": False, "report": made, "msg": f"{as_text(made)}{left}\nREPORT {where}"}


def run_of(plan: Plan, hosts: Mapping[str, Host], image_labels: Mapping[str, str]) -> dict[str, Any]:
    """What the rows have in common: what was measured, on what, when."""
    return {
        "plan": plan.to_json(),
        "image": plan.engines[0].image.run,
        "image_labels": dict(image_labels),
        "hosts": [{"node": node.name, **hardware(hosts.get(node.name))} for node in plan.nodes],
        "made": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "collection": version_of(),
    }


def hardware(host: Host | None) -> dict[str, Any]:
    """What a host was seen to have: its GPUs' names, their driver, and its links with their speeds."""
    seen = host.network if host else {}
    gpus = seen.get("gpus") or {}
    return {"gpus": gpus.get("names", []), "driver": gpus.get("driver"), "links": seen.get("links", {})}


def read_records(file: Path) -> list[Record]:
    """The records of one row; none where there is no file."""
    if not file.exists():
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [Record(**json.loads(line)) for line in lines]
