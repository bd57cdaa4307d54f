# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: has one host try every planned port; then, once all have, tells what was found (see the module of this name)."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.action.status import write
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.closure import (
    Vantage,
    addresses,
    judge,
    message,
    targets,
    to_json,
    tried_exposures,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.failure import failure
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import harmless_all

MODULE = "lmfleet.lmdeploy.sockets"
ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["tried", "judged"], "required": True},
    "name": {"type": "str", "default": ""},
    "image_share_port": {"type": "int", "required": True},
    "model_port": {"type": "int", "required": True},
    "timeout": {"type": "float", "default": 3.5},
    "file": {"type": "path"},
}


def resolved(name: str) -> list[str]:
    """The addresses of a name, as the control node knows them."""
    try:
        return list(dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo(name, None)))
    except OSError:
        return []


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.closure``; documented in plugins/modules/closure.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Try from one host, or judge what all have found; the latter fails where anything is wrong."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, options = self.validate_argument_spec(ARGUMENT_SPEC)
        run = Run()
        plan, hosts = run.plan, run.hosts()
        exposures = tried_exposures(plan, hosts, {name: options[name] for name in ("image_share_port", "model_port")})
        given = self._given([node.name for node in plan.nodes])
        where = addresses(plan, hosts, given)
        if options["state"] == "tried":
            todo = targets(exposures, hosts, where)
            run.write(f"closure@{options['name']}", self._tried(todo, options["timeout"]))
            return {"changed": False, "tried": len(todo)}
        all_from = [Vantage.of(name, raw) for name, raw in run.every("closure").items()]
        found = judge(plan, hosts, exposures, where, all_from)
        for line in (*found.table, *found.notes):
            tell(f"  {line}")
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        report = harmless_all(to_json(plan, found, where, all_from, now))
        if options["file"]:
            write(Path(options["file"]), json.dumps(report, indent=2) + "\n")
        if found.faults:  # in the message alone, for Ansible prints all of a result that failed
            return {"changed": False, "failed": True, "msg": message(plan, found)}
        return {
            "changed": False,
            "closure": report,
            "msg": "closure: from outside the cluster, only what is public answers",
        }

    def _given(self, nodes: list[str]) -> dict[str, list[str]]:
        """By node, the addresses at which Ansible reaches it."""
        hostvars: Mapping[str, Any] = self._vars.get("hostvars") or {}
        return {name: resolved(str(hostvars[name].get("ansible_host") or name)) for name in nodes if name in hostvars}

    def _tried(self, todo: list[Any], timeout_s: float) -> dict[str, Any]:
        """How each connection ended, or why none was tried."""
        arguments = {"state": "connected", "targets": [each.text for each in todo], "timeout": timeout_s}
        try:
            answer: dict[str, Any] = self._execute_module(MODULE, arguments, task_vars=self._vars)
        except AnsibleError as error:
            return {"error": str(error).strip().rstrip(".")}
        if bad(answer):
            return {"error": failure(answer)}
        tried = [[each.node, each.address, each.port, outcome] for each, outcome in zip(todo, answer["outcomes"])]
        return {"tried": tried, "sources": answer["sources"]}
