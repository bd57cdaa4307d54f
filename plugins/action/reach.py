# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees that the hosts reach each other on the planned ports, on all hosts at once.

Each host runs its own part of this one task. All listen; when all do, all try to connect; when all have tried, all stop. They
meet on the control node, so that no result depends on which host was quicker. One host, the first, then tells what was found.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.board import Board
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, warn
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import is_held
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.reach import (
    Link,
    Tried,
    concerned,
    faults_of,
    listener_faults,
    may_listen,
    needed_links,
    targets,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

MODULE = "lmfleet.lmdeploy.sockets"
STOPPED = "Nothing was taken down or started, for the hosts do not reach each other. To mend first:"
# A connection's first packet is sent again after 1 and 3 s; the kernel gives a neighbour that is not there up after about 3 s.
TIMEOUT_S = 3.5
PATIENCE_S = 45.0  # for the slowest host's next step: a module that is brought to a host under load
LISTENER_S = 2 * PATIENCE_S + TIMEOUT_S


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.reach``; documented in plugins/modules/reach.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do this host's part; on the first host, judge. Fails with every closed link at once."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, arguments = self.validate_argument_spec({"all": {"type": "bool", "default": False}})
        run, host = Run(), self._vars["inventory_hostname"]
        plan = run.plan
        links = needed_links(plan) if arguments["all"] else concerned(needed_links(plan), run.decision)
        hosts = sorted({name for link in links for name in (link.source, link.target)})
        if host not in hosts:
            return {"changed": False, "links": 0, "closed": []}
        if self._task.check_mode and _another_runs(run, plan):
            return {"changed": False, "skipped": True, "msg": "another run is at work, which may need the ports"}
        board = Board(self._task._uuid, host)
        try:
            self._part(run, board, host, hosts, links)
        except BaseException as error:
            board.post("failed", f"{type(error).__name__}: {error}")  # the others must not wait for this one
            raise
        return self._judged(run, board, hosts, links) if host == hosts[0] else {"changed": False, "links": len(links)}

    def _part(self, run: Run, board: Board, host: str, hosts: list[str], links: list[Link]) -> None:
        """Listen, try, stop. What was found goes to the run's directory, with a word on the board for each step."""
        node, wanted = run.plan.node(host), {link.port for link in links if link.target == host}
        ports = may_listen(run.plan, node, run.host(host), links)
        # Of what may not be listened on, a port that a service has taken can be tried all the same.
        others = sorted(wanted - {*ports})
        listener = self._module(state="listening", address=node.address, ports=ports, others=others, seconds=LISTENER_S)
        try:
            run.write(f"listens@{host}", listener)
            board.post("listening", "")
            board.meet("listening", hosts, PATIENCE_S)
            todo = targets(links, host, {name: run.read(f"listens@{name}") for name in board.read("listening")})
            addresses = [f"{run.plan.node(link.target).address}:{port}" for link, port, __ in todo]
            answer = self._module(state="connected", targets=addresses, timeout=TIMEOUT_S) if todo else {"outcomes": []}
            run.write(f"tried@{host}", answer["outcomes"])
            board.post("tried", "")
            board.meet("tried", hosts, PATIENCE_S)
        finally:
            was_there = True
            if listener["process"]:
                with contextlib.suppress(AnsibleError):  # it ends by itself
                    was_there = self._module(state="closed", process=listener["process"])["was_there"]
            run.write(f"stopped@{host}", was_there)
            board.post("stopped", "")

    def _module(self, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(MODULE, arguments, task_vars=self._vars)
        if bad(answer):
            raise AnsibleError(f"the links could not be tried: {answer.get('msg')}")
        return answer

    def _judged(self, run: Run, board: Board, hosts: list[str], links: list[Link]) -> dict[str, Any]:
        """What all hosts have found, in sentences."""
        board.meet("stopped", hosts, PATIENCE_S)
        failed, plan = board.read("failed"), run.plan
        listening = {name: run.read(f"listens@{name}") for name in board.read("listening")}
        listeners = {name: listener for name, listener in listening.items() if name not in failed}
        tried = []
        for source in board.read("tried"):
            todo = targets(links, source, listening)
            for (link, port, held), outcome in zip(todo, run.read(f"tried@{source}")):
                # What was refused by a listener that was gone says nothing.
                if outcome == "reached" or (
                    link.target in listeners and run.read(f"stopped@{link.target}", default=True)
                ):
                    tried.append(Tried(link, outcome, port, held))
        silent = [name for name in hosts if name not in failed and name not in board.read("stopped")]
        faults = [
            *(f"{name}: {why}" for name, why in failed.items()),
            *(
                f"{name} gave no answer for {PATIENCE_S:.0f} s: the connection hangs, or the host is gone."
                for name in silent
            ),
            *listener_faults(plan, listeners),
            *faults_of(plan, tried, TIMEOUT_S),
        ]
        extras = faults_of(plan, tried, TIMEOUT_S, needed=False)
        for line in extras if not faults else ():
            warn(f"{line} Serving does not need it; Ray's dashboard and monitoring may.")
        if faults:  # in the message alone, for Ansible prints all of a result that failed
            return {"changed": False, "failed": True, "msg": "\n  - ".join([STOPPED, *faults])}
        result = {"changed": False, "links": len(tried), "closed": extras}
        return {**result, "msg": f"{len(tried)} links between {len(hosts)} hosts are open"}


def _another_runs(run: Run, plan: Plan) -> bool:
    """Whether another run had the lock when this one, which takes none in check mode, looked."""
    head = run.host(plan.head)
    return is_held(head.answer.get("lock"), head.network.get("boot_id"), head.network.get("uptime", 0.0))
