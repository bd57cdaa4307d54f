# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets the requests of the engines that a round takes down end first, while the proxy sends them no new ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.draining import Drain, cold
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway import config
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.keeping import Keeper
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import Polls, Progress
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

MODULE = "lmfleet.lmdeploy.proxy_drain"
ROUND_S = 2.0


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.drain``; documented in plugins/modules/drain.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Drain them; fails only where this run has lost the deployment's lock, or its host."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        __, arguments = self.validate_argument_spec(
            {
                "round": {"type": "int", "default": 0},
                "timeout": {"type": "float", "default": 300},
                "warmup": {"type": "bool", "default": False},
            }
        )
        run = Run()
        plan, decision = run.plan, run.decision
        each = decision.rounds[arguments["round"]]
        if arguments["warmup"]:
            return self._keep_from(plan, cold(plan, decision, each), task_vars)
        if plan.proxy is None or not each.drain or arguments["timeout"] <= 0 or self._task.check_mode:
            return {"changed": False}
        asked = {"url": plan.proxy.url, "nodes": each.drain, "model": plan.served_model_name}
        answer: dict[str, Any] = self._execute_module(MODULE, {**asked, "aside": True}, task_vars=task_vars)
        if bad(answer):
            return answer
        self._close_gateway(plan, each.drain, task_vars)
        engines = ", ".join(each.engines)
        if answer["refused"]:  # who cannot be told to send nothing would never let the requests end
            tell(f"  {engines} is replaced without waiting for its requests: {answer['refused']}")
            return {"changed": False}
        tell(f"  {engines}: the proxy sends it no new requests, and those that it has may end")
        return self._until_none(asked, Drain(arguments["timeout"]), engines, task_vars)

    def _keep_from(self, plan: Plan, urls: list[str], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Keep new requests from ranks that are to be warmed up; where the proxy does not do it, they get them cold."""
        if plan.proxy is None or not urls or self._task.check_mode:
            return {"changed": False}
        asked = {"url": plan.proxy.url, "nodes": urls, "model": plan.served_model_name, "aside": True}
        answer: dict[str, Any] = self._execute_module(MODULE, asked, task_vars=task_vars)
        if not bad(answer):
            self._close_gateway(plan, urls, task_vars)
        return answer if bad(answer) else {"changed": False}

    def _close_gateway(self, plan: Plan, urls: list[str], task_vars: dict[str, Any]) -> None:
        """Where there is a gateway, it is what clients' requests come through."""
        if plan.gateway is None:
            return
        asked = config.told(plan, "close", urls)
        told: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.gateway", asked, task_vars=task_vars)
        if bad(told):  # it may be down, and then it sends nothing
            tell(f"  the gateway was not told to send no new requests: {told.get('msg')}")

    def _until_none(
        self, asked: dict[str, Any], drain: Drain, engines: str, task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        keeper = Keeper(task_vars["inventory_hostname"])

        def poll() -> dict[str, Any]:
            execute = functools.partial(self._execute_module, task_vars=task_vars)
            return keeper.first(execute, lambda: execute(MODULE, asked))

        def progress(answer: Mapping[str, Any], seconds: float) -> Progress | None:
            drain.take(answer["ranks"], seconds)
            return Progress(drain.news, f"  {seconds:4.0f} s  {engines}: {drain.news}") if drain.news else None

        def end(__: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
            return {"seconds": round(seconds, 1), "msg": drain.news} if drain.ended else None

        meanwhile = f"{engines} was not stopped; the proxy sends it no new requests."
        polls = Polls(task_vars["inventory_hostname"], f"how many requests {engines} still has", meanwhile)
        return {**polls.follow(poll, progress, end, ROUND_S), "changed": True}
