# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks one host in rounds until its engine is ready or one of the engine's hosts has failed.

Every host runs its own wait at the same moment; a directory that lives as long as the playbook run lets each see that
another has failed, so that none waits for a deadline that cannot be met. However a host's wait ends, the others know.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.board import Board
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Decision, left_listed
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.keeping import Keeper
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import SERVING
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import Polls
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.readiness import HostWait, Limits
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

ROUND_S = 2.0
# A round may take a minute on a host under load; one that has given no sign for this long hangs.
SILENT_S = 240.0


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.wait``; documented in plugins/modules/wait.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Wait; the result has the seconds it took."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, arguments = self.validate_argument_spec(
            {
                "stage": {"type": "str", "required": True, "choices": ["ray", "api"]},
                "timeout": {"type": "int", "default": 3600},
                "no_progress_timeout": {"type": "int", "default": 600},
                "allow_lost_start": {"type": "bool", "default": False},
                "round": {"type": "int", "default": 0},
            }
        )
        if self._task.check_mode:
            return {
                "changed": False,
                "skipped": True,
                "msg": "check mode: nothing was started, so there is nothing to wait for",
            }
        host: str = task_vars["inventory_hostname"]
        run = Run()
        plan = run.plan
        limits = Limits(arguments["timeout"], arguments["no_progress_timeout"])
        decision, number = run.decision, arguments["round"]
        left = left_listed(plan, decision, number, run.host(host).listed or {})
        wait = HostWait(plan, host, arguments["stage"], limits, expected(plan, decision, number), left)
        board = Board(self._task._uuid, host)
        began = time.monotonic()
        try:
            result = self._rounds(wait, board, arguments["allow_lost_start"], began, task_vars)
        except BaseException as error:
            # Whatever it is, the other hosts must not wait for this one.
            board.post("failed", f"{type(error).__name__}: {error}")
            raise
        if not result.get("failed"):
            epoch = time.time() - time.monotonic()
            seen = {"marks": wait.marks, "listed": wait.listed}
            told = {what: {key: at + epoch for key, at in found.items()} for what, found in seen.items()}
            run.write(f"seen-{arguments['stage']}@{host}", told)
        if arguments["stage"] == "api" and not result.get("failed"):
            run.write(f"started@{host}", wait.started)
        return result

    def _rounds(
        self, wait: HostWait, board: Board, allow_lost_start: bool, began: float, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        host = task_vars["inventory_hostname"]
        polls = Polls(host, "how far the start of its containers is", "The containers are left as they are and go on.")
        keeper = Keeper(host)

        def poll() -> dict[str, Any]:
            execute = functools.partial(self._execute_module, task_vars=task_vars)
            return keeper.first(execute, lambda: execute("lmfleet.lmdeploy.observe", wait.questions()))

        while True:
            board.post("alive", str(time.monotonic()))
            answer = polls.outcome(poll)
            if answer is None:
                time.sleep(ROUND_S)
                continue
            now = time.monotonic()
            trouble = unanswered(answer)
            if trouble:
                board.post("failed", trouble)
                return {"failed": True, "changed": False, "msg": f"{host}: {trouble}"}
            elsewhere = max((float(text) for text in board.read("progress").values()), default=0.0)
            wait.take(answer, now, elsewhere)
            board.post("progress", str(wait.last_progress))
            for line in wait.news():
                tell(f"  {now - began:4.0f} s  {host}: {line}")
            if wait.failure and wait.lost_start and allow_lost_start:
                tell(f"{wait.failure}\nIt is started once more.")
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
            silent = silent_hosts(wait.hosts, board.read("alive"), began, now)
            if silent:
                why = (
                    f"{', '.join(silent)} gave no sign for {SILENT_S:.0f} s: SSH to it hangs, or it is down. "
                    "Mend that, then run again"
                )
                board.post("failed", why)  # it may come back, and is not to wait for those that are gone
                return {"failed": True, "changed": False, "msg": f"{host} stopped waiting, because {why}."}
            time.sleep(ROUND_S)


def unanswered(answer: dict[str, Any]) -> str:
    """Why a round has no answer; empty where it has one."""
    if answer.get("failed"):
        return str(answer.get("msg") or "no answer")
    docker = answer.get("docker") or {}
    return f"Docker does not answer: {docker['error']}" if "error" in docker else ""


def silent_hosts(hosts: set[str], alive: dict[str, str], began: float, now: float) -> list[str]:
    """The hosts that have given no sign for ``SILENT_S``, or none since ``began`` (seconds of this machine's clock)."""
    return sorted(host for host in hosts if now - max(float(alive.get(host, 0)), began) > SILENT_S)


def expected(plan: Plan, decision: Decision, number: int) -> list[str]:
    """The URLs that the proxy has to list after a round: of the engines that it waits for, and of those that serve.

    Not those of engines whose turn is still to come, which stay listed as they are.
    """
    later = {name for each in decision.rounds[number + 1 :] for name in each.engines}
    waited = decision.rounds[number].engines if number < len(decision.rounds) else []
    return [
        each.url
        for each in plan.endpoints
        if each.engine in waited or (each.engine not in later and decision.states[each.url].state in SERVING)
    ]
