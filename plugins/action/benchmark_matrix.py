# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: from rows to what has to be measured, with what each max batch size changes (see the module of this name)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark import matrix, plots
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import bound
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, PlanError, digest_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.clients import client_named
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row

ARGUMENT_SPEC: dict[str, Any] = {
    "preset": {"type": "str", "default": "quick"},
    "rows": {"type": "list", "elements": "dict", "default": []},
    "client": {"type": "str", "choices": ["aiperf", "lmdeploy"], "default": "aiperf"},
    "conditions": {"type": "dict", "default": {}},
    "folder": {"type": "path", "required": True},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.benchmark_matrix``."""

    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compute it, or refuse it with every fault."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        arguments["folder"] = str(Path(arguments["folder"]).resolve())  # of the folder that the playbook was started in
        try:
            plots.require()  # now, and not after hours of measuring
            rows_read = matrix.rows_of(arguments["preset"], arguments["rows"])
            run = Run()
            plan = run.plan
            urls = {
                "url": [(plan.proxy or plan.endpoints[0]).url],
                "ranks": [endpoint.url for endpoint in plan.endpoints],
            }
            client = client_named({"name": arguments["client"], "script": None})
            matrix.refuse_what_it_cannot_send(client, rows_read, urls)
            batches = [batch(run, size, rows, arguments) for size, rows in matrix.batches(rows_read)]
        except (matrix.MatrixError, plots.MissingMatplotlib, PlanError) as error:
            return {"failed": True, "changed": False, "msg": str(error)}
        rows = [row for batch in batches for row in batch["rows"]]
        todo = sum(not row["done"] for row in rows)
        says = f"{len(rows)} rows, {len(rows) - todo} measured already; results in {arguments['folder']}"
        return {"changed": False, "batches": batches, "todo": todo, "folder": arguments["folder"], "msg": says}


def batch(run: Run, size: int | str | None, rows: list[Row], arguments: dict[str, Any]) -> dict[str, Any]:
    """The rows of one max batch size, by the plan that has it; the run's own plan stays what it is."""
    changes = matrix.option_changes(size)
    plan = bound(run.inputs, run.hosts(), Faults(), option_changes=changes)
    entries = []
    for row in rows:
        data = dataclasses.asdict(row)
        key = digest_of([data, plan.identity, arguments["conditions"]])
        stem = f"{arguments['folder']}/rows/{row.name}-{key}"
        result = Path(f"{stem}.json")
        entries.append(
            {
                "row": data,
                "key": key,
                "result": str(result),
                "records": f"{stem}.records.jsonl.gz",
                "done": matrix.is_measured(result),
            }
        )
    return {
        "changes": changes,
        "identity": plan.identity,
        "max_batch_size": matrix.effective_batch_size(plan),
        "rows": entries,
    }
