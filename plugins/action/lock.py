# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says on the host who asks for the lock, and here who has it (see the module of this name).

Only the control node can tell that a run has ended which was killed there, so it looks at the holder that the host names
and asks again. The host takes the lock from that very run only, so that nothing can come between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._lock import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.keeping import keep
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell, warn
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import (
    Ended,
    holder_is_gone,
    lost,
    me,
    outrun,
    refusal,
    taken_over,
    wrong_break,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["taken", "kept", "released", "seen"], "default": "taken"},
    "lease_s": {"type": "int", "default": 900},
    "expected_serial": {"type": "int"},
    "deployment": {"type": "str", "default": ""},
    "break_run": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.lock``; documented in plugins/modules/lock.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take, keep, release or see the lock."""
        super().run(tmp, task_vars)
        __, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        if self._task.check_mode and options["state"] in ("kept", "released"):
            return {"changed": False, "skipped": True, "msg": "check mode: the lock was not taken"}
        try:
            this = me(playbook())
        except Ended as ended:
            return {"failed": True, "changed": False, "msg": str(ended)}
        answer = self._ask(options, this, options["break_run"], task_vars)
        gone: set[str] = set()
        while answer.get("refused") == "held" and answer["lock"]["run"] not in gone:
            holder = answer["lock"]
            if not holder_is_gone(holder, this):
                break
            gone.add(holder["run"])
            answer = self._ask(options, this, holder["run"], task_vars)
        if answer.get("failed") or "refused" not in answer:
            return answer
        refused = bool(answer["refused"]) and options["state"] != "seen"
        if answer["abandoned"].get("run") in gone:
            answer["why"] = "its process on this control node has ended"
        if answer["abandoned"]:
            tell(f"  the lock was {taken_over(answer['abandoned'], answer['why'])}")
        if answer["broken"]:
            warn(f"The lock file {options['path']} held no lock: it was put aside as {answer['broken']}")
        answer["msg"] = message(answer, options, this)
        # Whoever waits for long tells the lock meanwhile that this run is alive.
        host = self._task.delegate_to or (task_vars or {})["inventory_hostname"]
        keep(host, {**options, "me": dataclasses.asdict(this)} if answer["held"] else None)
        if refused and self._task.check_mode:
            tell(f"  check mode; a run would be refused now: {answer['msg']}")
        elif refused:
            return {key: answer[key] for key in ("msg", "held", "refused", "serial", "lock", "changed")} | {
                "failed": True
            }
        return answer

    def _ask(
        self, options: Mapping[str, Any], this: Run, gone: str, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        arguments = {**options, "me": dataclasses.asdict(this), "gone": gone}
        answer: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.lock", arguments, task_vars=task_vars)
        return answer


def playbook() -> str:
    """What ansible-playbook was called with; or the module, where it is ansible."""
    arguments: Mapping[str, Any] = context.CLIARGS
    if arguments.get("module_name"):
        return f"ansible -m {arguments['module_name']}"
    return " ".join(Path(name).name for name in arguments.get("args") or ())


def message(answer: Mapping[str, Any], options: Mapping[str, Any], this: Run) -> str:
    """What came of it, for a person."""
    lock, name = answer["lock"], options["deployment"]
    if answer["refused"] == "held" and options["state"] != "seen":
        said = refusal(lock, answer["now"], name)
        return f"{said}\n{wrong_break(lock, options['break_run'])}" if options["break_run"] else said
    if answer["refused"] == "serial":
        return outrun(lock, name)
    if answer["refused"] == "lost":
        return lost(lock, this, name)
    if answer["held"]:
        return "this run has the lock"
    if answer["refused"]:
        return f"another run has the lock: {lock['what']}, run by {lock['who']} from {lock['control']}"
    return "no run has the lock"
