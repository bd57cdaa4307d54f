# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: binds the plan to what was seen, and tells how the deployment is, on the screen and as data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _files
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import Ended, holder_is_gone, me
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import bound
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, Plan, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status import Status, as_table, status_of

ARGUMENT_SPEC = {"files": {"type": "list", "elements": "path", "default": []}, "page": {"type": "path"}}


def has_ended(lock: Mapping[str, Any]) -> bool:
    """Whether it is certain that the run that a lock names is gone."""
    with contextlib.suppress(Ended, KeyError, ValueError):
        return holder_is_gone(lock, me())
    return False


def write(path: Path, text: str) -> None:
    """Write a file in one step, so that no reader sees half of it."""
    try:
        _files.write(path, text.encode(), _files.READABLE)
    except OSError as error:
        raise AnsibleActionFail(f"{path} cannot be written: {error.strerror}.") from None


def current(run: Run) -> tuple[Plan, Status]:
    """The plan, bound to what was seen where that is possible, and how the deployment is beside it."""
    plan, hosts = run.plan, run.hosts()
    unbound: list[str] = []
    try:
        plan = bound(run.inputs, hosts, Faults())
    except PlanError as error:
        unbound = [str(error)]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return plan, status_of(plan, hosts, now, unbound, has_ended, run.waivers, run.gateway)


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.status``; documented in plugins/modules/status.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Tell it; fails only where there is no plan, or a file cannot be written."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        __, status = current(Run())
        table = as_table(status)
        for line in table:
            tell(line)
        told = {**dataclasses.asdict(status), "table": table}
        for path in arguments["files"]:
            write(Path(path), json.dumps(told, indent=2) + "\n")
        if arguments["page"]:
            # The page needs Jinja, which a control node has by Ansible; a run without one does not load it.
            from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status_page import html

            write(Path(arguments["page"]), html(status))
            tell(f"PAGE {arguments['page']}")
        return {"changed": False, "status": told}
