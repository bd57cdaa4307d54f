# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: judges what was seen by every rule, and tells it on the screen, as data and as files."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _files
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.binding import refusals
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import bound
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.preflight import (
    as_table,
    counted,
    errors_of,
    report_of,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.judging import judged
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import harmless_all

ARGUMENT_SPEC = {"report": {"type": "path"}}
JSON = "preflight.json"
PAGE = "preflight.html"


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write the report as data and as a page."""
    # The page needs Jinja, which a control node has by Ansible; a run without a report does not load it.
    from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.preflight_page import html

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _files.write(folder / JSON, f"{json.dumps(report, indent=2)}\n".encode(), _files.READABLE)
        _files.write(folder / PAGE, html(report).encode(), _files.READABLE)
    except OSError as error:
        raise AnsibleActionFail(f"The report cannot be written to {folder}: {error.strerror}.") from None


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.preflight``; documented in plugins/modules/preflight.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge and tell; fails where an error stands that is not waived."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        run = Run()
        plan, hosts, inputs = run.plan, run.hosts(), run.inputs
        # Judged as a deployment would have it: with the settings that are taken from the hosts. What refuses it, a rule tells.
        with contextlib.suppress(PlanError):
            plan = bound(inputs, hosts, Faults())
        results = judged(plan, hosts, run.waivers, refused=lambda: refusals(inputs, hosts))
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        # What hosts wrote ends up in files as well, which are looked at in terminals too.
        report = harmless_all(report_of(plan, results, now))
        table = as_table(report)
        for line in table:
            tell(line)
        if arguments["report"]:
            write(Path(arguments["report"]), report)
            tell(f"REPORT {Path(arguments['report']) / PAGE}")
        stand = errors_of(report)
        if stand:
            raise AnsibleActionFail(f"{counted(report['counts'])}. To mend first, as said above: {'; '.join(stand)}.")
        return {"changed": False, "preflight": {**report, "table": table}}
