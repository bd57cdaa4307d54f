# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls an image, and shows how far it is."""

from __future__ import annotations

import time
import uuid
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.docker_errors import image_remedy, may_pass
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.images import mirrored, no_room, pull_line
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import FIRST_POLL_S, bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell, warn

POLL_S = 5.0
TELL_S = 10.0
LOST = 5  # polls in a row without an answer, as from a host whose connection broke


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.image_pull``; documented in plugins/modules/image_pull.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Pull it where it is needed; a failure says what to do first, and whether another try may help."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, options = self.validate_argument_spec(
            {
                "name": {"type": "str", "required": True},
                "mirror": {"type": "str", "default": ""},
                "pull": {"type": "str", "choices": ["missing", "always"], "default": "missing"},
                "state_dir": {"type": "path", "required": True},
                "stall": {"type": "float", "default": 900},
            }
        )
        name = options["name"]
        try:
            source = mirrored(name, options["mirror"])
        except ValueError as error:
            return {"failed": True, "changed": False, "msg": str(error), "transient": False}
        self._file = f"{options['state_dir']}/pulls/{uuid.uuid4().hex[:8]}.json"
        # A check asks no registry whether it has a newer image: it takes the one that is there for it.
        begun = self._job(
            "started",
            reference=name,
            source=source,
            always=options["pull"] == "always" and not self._task.check_mode,
        )
        if bad(begun):
            return self._failed(begun, source or name, str(begun.get("msg")))
        if begun["process"] is None:
            missing = begun["before"] is None
            return {"changed": missing, "msg": f"would pull {source or name}" if missing else f"{name} is there"}
        try:
            last = self._follow(begun["process"], options["stall"], begun["root"])
        finally:
            removed = self._job("removed", process=begun["process"])
        if bad(removed):
            warn(f"what the pull of {name} wrote to {self._file} could not be removed: {removed.get('msg')}")
        if bad(last):
            return self._failed(last, source or name, str(last.get("msg")))
        return {"changed": last["image"] != begun["before"], "image": last["image"]}

    def _job(self, state: str, **more: Any) -> dict[str, Any]:
        try:
            outcome: dict[str, Any] = self._execute_module(
                "lmfleet.lmdeploy.pull_job", {"state": state, "file": self._file, **more}, task_vars=self._vars
            )
        except AnsibleConnectionFailure as error:  # a broken connection; the pull goes on meanwhile
            return {"unreachable": True, "msg": str(error)}
        return outcome

    def _follow(self, process: dict[str, Any], stall_s: float, root: dict[str, Any]) -> dict[str, Any]:
        """Poll until it has ended, showing how far it is; the result, or a failure."""
        host = self._vars.get("inventory_hostname", "")
        began = moved = time.monotonic()
        told, stage, lines, lost, pause_s = began, "", -1, 0, FIRST_POLL_S
        while True:
            outcome = self._job("polled", process=process)
            now = time.monotonic()
            if bad(outcome):
                lost += 1
                if lost >= LOST or not outcome.get("unreachable"):
                    return outcome
            else:
                lost = 0
                summary, result = outcome["summary"], outcome["result"]
                if result:
                    return result if result["ok"] else {"failed": True, "msg": result["error"]}
                full = no_room(summary, root)
                if full:
                    return {"failed": True, "msg": full}
                if summary["lines"] != lines:
                    lines, moved = summary["lines"], now
                elif now - moved > stall_s:
                    silent = (
                        f"the registry sent nothing for {stall_s:.0f} s, i/o timeout; last seen: {pull_line(summary)}"
                    )
                    return {"failed": True, "msg": silent}
                if summary["stage"] != "waits" and (summary["stage"] != stage or now - told >= TELL_S):
                    tell(f"  {now - began:4.0f} s  {host}: {pull_line(summary)}")
                    told, stage = now, summary["stage"]
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, POLL_S)

    def _failed(self, outcome: dict[str, Any], reference: str, text: str) -> dict[str, Any]:
        said = f"Error pulling image {reference}: {text.strip().rstrip('.')}"
        repeated: dict[str, Any] = {key: outcome[key] for key in ("unreachable", "exception") if key in outcome}
        return {
            **repeated,
            "failed": True,
            "changed": False,
            "msg": f"{said}: {image_remedy(said)}.",
            "transient": may_pass(said),
        }
