# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures all-reduce between the hosts' GPUs, in rounds, on all hosts at once (see the module of this name).

Each host runs its own part of this one task: in each round the container of its group. Hosts meet between the rounds on the
control node, not over the network that is measured. One host, the first, tells what was found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.board import Board
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import PACKAGE, ClientAction, program
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell, warn
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.links import (
    Findings,
    Group,
    Limits,
    Measured,
    configuration,
    environment,
    judge,
    measured,
    rounds,
    running_engines,
    still,
    table,
    to_json,
    told_stage,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

KIND = "link test"
START_S = 60.0  # for a container's start and its removal, on top of what the measuring may take
PATIENCE_S = 60.0  # for another host's last calls once its time is over
POLL_S = 1.0
ARGUMENT_SPEC: dict[str, Any] = {
    "min_bytes": {"type": "int", "default": 8},
    "max_bytes": {"type": "int", "default": 0},
    "factor": {"type": "int", "default": 4},
    "iterations": {"type": "int", "default": 20},
    "timeout": {"type": "float", "default": 120},
    "running": {"type": "str", "choices": ["refuse", "skip", "beside"], "default": "refuse"},
    "slow": {"type": "float", "default": 0.7},
    "links_share": {"type": "float", "default": 0.5},
    "strict": {"type": "bool", "default": False},
    "folder": {"type": "path", "required": True},
}

BESIDE = 100  # ports further, where engines run


class ActionModule(ClientAction):
    """``lmfleet.lmdeploy.link_test``; documented in plugins/modules/link_test.py."""

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do this host's part; on the first host, judge and write the result."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, options = self.validate_argument_spec(ARGUMENT_SPEC)
        run, host = Run(), task_vars["inventory_hostname"]
        plan, hosts = run.plan, run.hosts()
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "check mode: nothing is measured"}
        # All hosts see the same, so all of them end here where one does.
        busy = running_engines(plan, hosts) if options["running"] != "beside" else {}
        first = host == plan.nodes[0].name
        if busy and options["running"] == "refuse":
            return {"changed": False, **({"failed": True, "msg": refusal(plan, busy)} if first else {})}
        if busy and first:
            tell(f"  {KIND}: left out, for it runs: {'; '.join(', '.join(each) for each in busy.values())}")
        planned = rounds(plan, [engine.name for engine in plan.engines if engine.name not in busy])
        board = Board(self._task._uuid, host)
        try:
            done, trouble = self._rounds(run, board, planned, options, task_vars)
        except BaseException as error:
            board.post("failed", f"{type(error).__name__}: {error}")  # the others must not wait for this one
            raise
        if not first:
            return {"changed": False}
        return self._told(plan, hosts, done, trouble, options)

    def _rounds(
        self, run: Run, board: Board, planned: list[list[Group]], options: dict[str, Any], task_vars: dict[str, Any]
    ) -> tuple[list[Measured], list[str]]:
        """All rounds: what was measured, and why it ended before its time, where it did."""
        plan, hosts, host = run.plan, run.hosts(), task_vars["inventory_hostname"]
        names = [node.name for node in plan.nodes]
        done: list[Measured] = []
        for number, groups in enumerate(planned):
            going = still(groups, done)
            mine = next((group for group in going if host in group.nodes), None)
            if mine:
                run.write(f"links{number}@{host}", self._measure(plan, mine, host, options, task_vars))
            board.post(f"round{number}", "")
            silent = board.meet(f"round{number}", names, options["timeout"] + START_S + PATIENCE_S, POLL_S / 4)
            answers = run.every(f"links{number}")
            failed = board.read("failed")
            lost = {*failed, *silent}  # they are told as what they are, not as what their groups lack
            if lost:  # the others end where they are, and may have no answer of this round yet
                lost |= {name for group in going for name in group.nodes if name not in answers}
            done += [measured(plan, group, answers, hosts) for group in going if not lost.intersection(group.nodes)]
            trouble = [f"{name}: {why}" for name, why in failed.items()]
            trouble += [f"{name} gave no answer: its connection hangs, or it is gone." for name in silent]
            if trouble:
                board.post("left", "")  # another host may be a round ahead, and is not to wait for this one
                return done, trouble
        return done, []

    def _measure(
        self, plan: Plan, group: Group, host: str, options: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """This host's part in a group: the program's result, or ``error``."""
        settings = {key: options[key] for key in ("min_bytes", "max_bytes", "factor", "iterations")}
        # An engine that runs has the planned one.
        port = plan.ports.torch + (BESIDE if options["running"] == "beside" else 0)

        def line(progress: Mapping[str, Any]) -> str:
            return f"{group}: {told_stage(progress['stage'])}" if host == group.nodes[0] else ""

        answer = self.run_client(
            KIND,
            f"{plan.name}-link-test",
            options["timeout"] + START_S,
            line,
            task_vars,
            poll_s=POLL_S,
            image=plan.engine(group.engine).image.run,
            files=program("events", "link_test"),
            argv=["-m", f"{PACKAGE}.link_test"],
            config=configuration(plan, group, host, port, limit_s=options["timeout"], **settings),
            environment=environment(plan, host),
            owner=f"{KIND} of {plan.name}",
            gpus=True,
            privileged=any(each.privileged for each in plan.services_on(host) if each.gpus),
        )
        found: dict[str, Any] = answer["event"] if "event" in answer else {"error": str(answer.get("msg"))}
        return found

    def _told(
        self, plan: Plan, hosts: Mapping[str, Host], done: list[Measured], trouble: list[str], options: dict[str, Any]
    ) -> dict[str, Any]:
        """The table, the file, and what to mend."""
        if not done and not trouble:
            return {"changed": False, "msg": f"{KIND}: nothing to measure, for no engine has two GPUs that are free"}
        found = judge(done, hosts, Limits(options["slow"], options["links_share"]))
        found = Findings([*trouble, *found.faults], found.warnings, found.notes)
        lines = [*table(done), *found.notes]
        for each in lines:
            tell(f"  {each}")
        now = time.gmtime()
        result = to_json(plan, done, found, time.strftime("%Y-%m-%dT%H:%M:%SZ", now))
        folder = Path(options["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.absolute() / f"links-{time.strftime('%Y%m%dT%H%M%SZ', now)}.json"
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        bad = [*found.faults, *(found.warnings if options["strict"] else [])]
        for each in found.warnings if not options["strict"] else ():
            warn(each)
        more = {"changed": False, "file": str(file), "table": lines, "faults": found.faults, "warned": found.warnings}
        if bad:  # in the message alone, for Ansible prints all of a result that failed
            head = f"{KIND}: the links are not as they should be. To mend first:"
            return {
                "changed": False,
                "failed": True,
                "file": str(file),
                "msg": "\n  - ".join([head, *bad]) + f"\nAll figures: {file}",
            }
        return {**more, "msg": f"{KIND}: {len(done)} groups measured. All figures: {file}"}


def refusal(plan: Plan, busy: Mapping[str, list[str]]) -> str:
    """Why nothing is measured beside engines that hold the GPUs."""
    containers = "\n".join(f"  - {each}" for names in busy.values() for each in names)
    return (
        f"{KIND}: containers of the deployment {plan.name} run, and hold the memory of the GPUs that would be measured:\n"
        f"{containers}\n"
        "Nothing was measured. Take the deployment down first (playbooks/teardown.yml). Or run with -e link_test_running=beside, "
        "where the GPUs have 2 GiB free: the engines are slow meanwhile, and so are the figures."
    )
