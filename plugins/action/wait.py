# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks one host in rounds until the whole deployment is ready or one host has failed.

Every host of the play runs its own wait at the same moment; a directory that lives as long as the playbook run lets each
see that another has failed, so that none waits for a deadline that cannot be met. A host is done when all hosts of its
engine are ready.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.readiness import HostWait, Limits

ROUND_S = 2.0
display = Display()


class Board:
    """What the hosts of one wait tell each other: one small file a host for each of ready, failed and progress."""

    def __init__(self, task: str, host: str) -> None:
        self._directory = Path(constants.DEFAULT_LOCAL_TMP) / f"lmfleet-wait-{task}"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._host = host

    def post(self, kind: str, text: str) -> None:
        """Put this host's word up, in one step so that no reader sees half of it."""
        draft = self._directory / f".{kind}-{self._host}"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self._directory / f"{kind}@{self._host}")

    def read(self, kind: str) -> dict[str, str]:
        """Every host's word of one kind."""
        found = self._directory.glob(f"{kind}@*")
        return {path.name.partition("@")[2]: path.read_text(encoding="utf-8") for path in found}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.wait``; documented in plugins/modules/wait.py."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Wait; the result has the seconds it took."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, arguments = self.validate_argument_spec(
            {
                "plan": {"type": "dict", "required": True},
                "stage": {"type": "str", "required": True, "choices": ["ray", "api"]},
                "timeout": {"type": "int", "default": 3600},
                "no_progress_timeout": {"type": "int", "default": 600},
                "allow_lost_start": {"type": "bool", "default": False},
            }
        )
        if self._task.check_mode:
            return {
                "changed": False,
                "skipped": True,
                "msg": "check mode: nothing was started, so there is nothing to wait for",
            }
        host: str = task_vars["inventory_hostname"]
        plan = arguments["plan"]
        wait = HostWait(plan, host, arguments["stage"], Limits(arguments["timeout"], arguments["no_progress_timeout"]))
        board = Board(self._task._uuid, host)
        began = time.monotonic()
        try:
            return self._rounds(wait, board, arguments["allow_lost_start"], began, task_vars)
        except AnsibleConnectionFailure as error:
            board.post("failed", f"connection lost: {error}")
            raise

    def _rounds(
        self, wait: HostWait, board: Board, allow_lost_start: bool, began: float, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        host = task_vars["inventory_hostname"]
        while True:
            answer: dict[str, Any] = self._execute_module(
                "lmfleet.lmdeploy.service_status", wait.questions(), task_vars=task_vars
            )
            now = time.monotonic()
            if answer.get("failed"):
                board.post("failed", str(answer.get("msg")))
                return answer
            elsewhere = max((float(text) for text in board.read("progress").values()), default=0.0)
            wait.take(answer, now, elsewhere)
            board.post("progress", str(wait.last_progress))
            for line in wait.news():
                display.display(f"  {now - began:4.0f} s  {host}: {line}")
            if wait.failure and wait.lost_start and allow_lost_start:
                display.display(f"{wait.failure}\nIt is started once more.")
                board.post("lost", "")
            elif wait.failure:
                board.post("failed", wait.failure)
                return {"failed": True, "changed": False, "msg": wait.failure}
            failed = board.read("failed")
            if failed:
                other, reason = next(iter(failed.items()))
                first = reason.partition("\n")[0]
                return {
                    "failed": True,
                    "changed": False,
                    "msg": f"{host} stopped waiting, because {other} failed: {first}",
                }
            if wait.ready:
                board.post("ready", "")
            # Before what follows: a host that has seen all of them ready does not come to a second wait.
            if board.read("ready").keys() >= wait.hosts:
                return {"changed": False, "seconds": round(now - began, 1), "lost_start": []}
            lost = board.read("lost")
            if lost:
                return {"changed": False, "seconds": round(now - began, 1), "lost_start": sorted(lost)}
            time.sleep(ROUND_S)
