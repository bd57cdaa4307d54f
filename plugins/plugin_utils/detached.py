# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes on in a process of its own on a host while an action polls it and shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from .job import FIRST_POLL_S, bad
from .leaving import tell, warn

POLL_S = 5.0
TELL_S = 10.0
LOST = 5  # polls in a row without an answer, as from a host whose connection broke


class DetachedAction(ActionBase):
    """An action over a module that starts, polls and removes such a process, and keeps how far it is in ``_file``."""

    _module: str
    _file: str
    _vars: dict[str, Any]

    def _job(self, state: str, **more: Any) -> dict[str, Any]:
        try:
            outcome: dict[str, Any] = self._execute_module(
                self._module, {"state": state, "file": self._file, **more}, task_vars=self._vars
            )
        except AnsibleConnectionFailure as error:  # a broken connection; it goes on meanwhile
            return {"unreachable": True, "msg": str(error)}
        return outcome

    def _to_its_end(
        self,
        process: dict[str, Any],
        what: str,
        line: Callable[[Mapping[str, Any]], str],
        trouble: Callable[[Mapping[str, Any], float], str] = lambda *__: "",
    ) -> dict[str, Any]:
        """Follow it, and remove it in any case; the result, or a failure.

        ``line`` makes of a summary what is shown; ``trouble``, of a summary and the moment, says why it is given up.
        """
        try:
            last = self._follow(process, line, trouble)
        finally:
            removed = self._job("removed", process=process)
        if bad(removed):
            warn(f"{what} {self._file} could not be removed: {removed.get('msg')}")
        return last

    def _follow(
        self,
        process: dict[str, Any],
        line: Callable[[Mapping[str, Any]], str],
        trouble: Callable[[Mapping[str, Any], float], str],
    ) -> dict[str, Any]:
        host = self._vars.get("inventory_hostname", "")
        began = time.monotonic()
        told, stage, lost, pause_s = began, "", 0, FIRST_POLL_S
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
                why = trouble(summary, now)
                if why:
                    return {"failed": True, "msg": why}
                if summary["stage"] != "waits" and (summary["stage"] != stage or now - told >= TELL_S):
                    tell(f"  {now - began:4.0f} s  {host}: {line(summary)}")
                    told, stage = now, summary["stage"]
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, POLL_S)
