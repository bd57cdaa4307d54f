# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes on in a process of its own on a host while an action polls it and shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils._pull import ALONE_S
from .job import bad
from .leaving import warn
from .polling import Polls, Progress, attempt

POLL_S = 5.0


class DetachedAction(ActionBase):
    """An action over a module that starts, polls and removes such a process, and keeps how far it is in ``_file``."""

    _module: str
    _file: str
    _vars: dict[str, Any]

    def _job(self, state: str, **more: Any) -> dict[str, Any]:
        given = {"state": state, "file": self._file, **more}
        return attempt(lambda: self._execute_module(self._module, given, task_vars=self._vars))

    def _to_its_end(
        self,
        process: dict[str, Any],
        what: str,
        line: Callable[[Mapping[str, Any]], str],
        trouble: Callable[[Mapping[str, Any], float], str] = lambda *__: "",
    ) -> dict[str, Any]:
        """Follow it, and remove it in any case; the result, or a failure. Raises as ``Polls.follow`` does.

        ``what`` is its name ("the pull of IMAGE"); ``line`` makes of a summary what is shown; ``trouble``, of a summary and the
        moment, says why it is given up.
        """
        try:
            last = self._follow(process, what, line, trouble)
        finally:
            removed = self._job("removed", process=process)
        if bad(removed):
            warn(f"what {what} wrote to {self._file} could not be removed: {removed.get('msg')}")
        return last

    def _follow(
        self,
        process: dict[str, Any],
        what: str,
        line: Callable[[Mapping[str, Any]], str],
        trouble: Callable[[Mapping[str, Any], float], str],
    ) -> dict[str, Any]:
        host = self._vars.get("inventory_hostname", "")

        def progress(outcome: Mapping[str, Any], seconds: float) -> Progress | None:
            summary = outcome["summary"]
            if outcome["result"] or summary["stage"] == "waits":
                return None
            return Progress(summary["stage"], f"  {seconds:4.0f} s  {host}: {line(summary)}")

        def end(outcome: Mapping[str, Any], __: float) -> dict[str, Any] | None:
            result: dict[str, Any] | None = outcome["result"]
            if result:
                return result if result["ok"] else {"failed": True, "msg": result["error"]}
            why = trouble(outcome["summary"], time.monotonic())
            return {"failed": True, "msg": why} if why else None

        meanwhile = (
            f"The work goes on there, and stops by itself after {ALONE_S:.0f} s in which nobody asks how far it is."
        )
        polls = Polls(host, f"how far {what} is", meanwhile)
        return polls.follow(lambda: self._job("polled", process=process), progress, end, POLL_S)
