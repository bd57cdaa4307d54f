# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks one host everything about the plan at once; a host that does not answer is an answer too."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.connection import unreachable
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.failure import failure
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import Patience, with_patience
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

MODULE = "lmfleet.lmdeploy.observe"
SENDING = "Data could not be sent"
PIPE = "[Errno 32]"  # Python's own words for the same


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.look``; documented in plugins/modules/look.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look, and keep what was seen for this run's decision."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, arguments = self.validate_argument_spec(
            {
                "ask_registry": {"type": "bool", "default": False},
                "registry_mirror": {"type": "str", "default": ""},
                "token_timeout": {"type": "float"},
                "stall_timeout": {"type": "float"},
                "limit": {"type": "float"},
                "only": {"type": "list", "elements": "str", "default": []},
            }
        )
        run, host = Run(), task_vars["inventory_hostname"]
        patience = self._patience(run, arguments["token_timeout"], arguments["stall_timeout"])
        try:
            asked = with_patience(
                run.questions(host),
                patience,
                ask_registry=arguments["ask_registry"],
                mirror=arguments["registry_mirror"],
            )
        except ValueError as error:
            raise AnsibleError(str(error)) from None
        if "gateway" in asked:
            asked["tokens"] = {**asked["tokens"], "public_key": run.gateway_key}
        only = arguments["only"]
        limit = {"limit_s": arguments["limit"]} if arguments["limit"] else {}
        # Stands where the task's own time limit ends it.
        run.saw(host, {"unreachable": "it gave no answer in the time that it was given"})
        before = time.time()
        answer = self._answer({**{key: asked[key] for key in only or asked}, **limit}, task_vars)
        # Between these moments of the control node the host told its own time.
        looked = {"looked": [before, time.time()]} if "host" in answer else {}
        run.saw(host, {**answer, **looked})
        return {"changed": False}

    @staticmethod
    def _patience(run: Run, token_s: float | None, stall_s: float | None) -> Patience:
        """What this task asks for, else what the run's first look did."""
        kept = Patience(**run.read("patience", dataclasses.asdict(Patience())))
        found = Patience(kept.token_s if token_s is None else token_s, kept.stall_s if stall_s is None else stall_s)
        run.write("patience", dataclasses.asdict(found))
        return found

    def _answer(self, asked: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._execute_module(MODULE, asked, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return {"unreachable": self._why(_short(error)), "failed": ""}
        except AnsibleError as error:  # no Python there, no temporary directory, no right to become root
            return {"unreachable": "", "failed": _short(error)}
        if answer.get("unreachable"):
            return {"unreachable": failure(answer), "failed": ""}
        if answer.get("failed") or not answer.keys() & asked.keys():
            return {"unreachable": "", "failed": failure(answer)}
        return {"unreachable": "", "failed": "", **answer}

    def _why(self, text: str) -> str:
        """Why there is no connection. Where SSH ends while a module is sent to it, its own words may be lost."""
        if PIPE not in text and (SENDING not in text or unreachable(text).kind):
            return text
        try:
            self._low_level_execute_command("true", sudoable=False)  # has nothing to send
        except AnsibleError as error:
            return _short(error)
        return text


def _short(error: Exception) -> str:
    return str(error).strip().removeprefix("Task failed: ").rstrip(".")
