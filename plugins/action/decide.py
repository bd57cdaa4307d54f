# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: judges what was seen, binds the plan once, decides, and says what will be done and why."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Round, decide
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.hidden import secret, token_fault
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import host_faults, host_warnings, image_faults
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import holder_is_gone, is_held, me, refusal
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import lock_path
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import bound
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, Plan, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import plans_kept
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rollback import without_image
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

STOPPED = "Nothing was started. To mend first:"


def stop(faults: list[str]) -> None:
    """End the run with every fault in one message."""
    raise AnsibleActionFail("\n  - ".join([STOPPED, *faults]))


def refuse_beside_another(plan: Plan, hosts: Mapping[str, Host], broken: str) -> None:
    """End the run where another one is at work: what was seen is about to change. The lock itself is taken before any step."""
    head = hosts.get(plan.head)
    lock = head.answer.get("lock") if head else None
    if head is None or not lock or not is_held(lock, head.network.get("boot_id"), head.network.get("uptime", 0.0)):
        return
    this = me()
    if lock["run"] not in (this.run, broken) and not holder_is_gone(lock, this):
        raise AnsibleActionFail(refusal(lock, head.network["uptime"], plan.name))


def _chain(plan: Plan, pulls: Mapping[str, str]) -> list[dict[str, str]]:
    """Between which hosts the image goes, where one is to have it from another."""
    return steps.image_chain(plan, pulls, [node.name for node in plan.nodes if node.name not in pulls]) if pulls else []


def _why_unanswered(host: Host) -> str:
    """What went wrong when the image was asked; what is read from a slow disk for the first time may take long."""
    said = (host.answer.get("image") or {}).get("unanswered")
    return f" ({said}; a second try is faster, because the disk was read)" if said else ""


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.decide``; documented in plugins/modules/decide.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge and decide; fails with every fault at once."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(
            {
                "ray_token": {"type": "str", "default": "", "no_log": True},
                "option_changes": {"type": "dict"},
                "image_brought": {"type": "bool", "default": False},
                "break_lock": {"type": "str", "default": ""},
            }
        )
        token = secret(arguments["ray_token"], "preflight_ray_token", task_vars, self) or ""
        fault = token_fault(token)
        if fault:
            raise AnsibleActionFail(fault)
        run = Run()
        plan, hosts = run.plan, run.hosts()
        if not self._task.check_mode:
            refuse_beside_another(plan, hosts, arguments["break_lock"])
        faults = host_faults(plan, hosts, run.waivers)
        if faults:
            stop(faults)
        if run.read("before") is None:  # what is decided again in this run would find its own
            run.write("before", plans_kept(plan, hosts))
        if run.recorded:
            faults = without_image(plan, hosts)
            if faults:
                stop(faults)
            return self._decided(run, plan, hosts, {}, token)
        pulls = {} if arguments["image_brought"] else steps.to_pull(plan, hosts)
        others = {} if arguments["image_brought"] else steps.gateway_pull(plan, hosts)
        ask = steps.to_ask(plan, hosts, pulls)
        reference = plan.engines[0].image.reference
        if (pulls or ask or others) and not (arguments["image_brought"] or self._task.check_mode):
            for line in steps.pulls_told(pulls, others):
                tell(f"  {line}")
            prepare = {"prepare": True, "pull": pulls, "chain": _chain(plan, pulls), "ask": ask, "reference": reference}
            return {"changed": False, **prepare, "gateway": others, "rounds": []}
        if ask and not self._task.check_mode:  # it was brought and asked by now
            stop([f"{ask}: {reference} did not tell which LMDeploy it has{_why_unanswered(hosts[ask])}: run again."])
        if not pulls:
            faults = image_faults(plan, reference, hosts)
            if faults:
                stop(faults)
        if not plan.bound or arguments["option_changes"] is not None:
            plan = self._bound(run, hosts, arguments["option_changes"])
        return self._decided(run, plan, hosts, pulls, token, others)

    def _bound(self, run: Run, hosts: Mapping[str, Host], changes: Mapping[str, Any] | None) -> Plan:
        """The plan with what hosts and image are; with other options of the api_server where ``changes`` has some."""
        try:
            plan = bound(run.inputs, hosts, Faults(), option_changes=changes)
        except PlanError as error:
            raise AnsibleActionFail(str(error)) from None
        run.keep_plan(plan)
        return plan

    def _decided(
        self,
        run: Run,
        plan: Plan,
        hosts: Mapping[str, Host],
        pulls: Mapping[str, str],
        token: str,
        others: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        tokens = steps.tokens(plan, hosts, token)
        of_gateway = steps.gateway_secrets(plan, hosts, None if run.recorded else run.gateway)
        formation = time.strftime("%Y%m%dT%H%M%S-", time.gmtime()) + uuid.uuid4().hex[:4]
        # In check mode what is to be pulled is as good as there.
        brought = steps.as_brought(plan, hosts, tokens, of_gateway)
        decision = decide(plan, brought, formation, image_brought=bool(pulls or others))
        if decision.faults:
            stop(decision.faults)
        if (tokens or of_gateway) and not decision.rounds:  # a file that was lost, which nothing has to be started for
            decision = dataclasses.replace(decision, rounds=[Round([], [], [])])
        run.write("tokens", tokens)
        run.write("gateway secrets", of_gateway)
        run.keep_decision(decision)
        lines = steps.told(decision, pulls, tokens, others)
        for line in lines:
            tell(f"  {line}")
        public = next((host.public for host in hosts.values() if host.public), None)
        prove = bool(decision.rounds) or (public is not None and public.state != "alive")
        warnings = host_warnings(plan, hosts, run.waivers) if decision.rounds else []
        return {
            "changed": False,
            **({"warnings": warnings} if warnings else {}),
            "prepare": False,
            "pull": pulls,
            "chain": _chain(plan, pulls),
            "ask": "",
            "reference": plan.engines[0].image.reference,
            "rounds": [steps.round_of(plan, each) for each in decision.rounds],
            "gateway": {},
            "gateway_node": plan.gateway.node if plan.gateway else "",
            "read_token": [need["holder"] for need in tokens.values() if need["from"] == "kept"],
            "prove": prove,
            # What answers others and gave this run no token of its own: it would have waited behind them.
            "busy": [] if prove else [url for url, each in decision.states.items() if each.state == "busy"],
            "head": plan.head,
            "proxy": plan.proxy.node if plan.proxy else "",
            "proxy_url": plan.proxy.url if plan.proxy else "",
            "deployment": plan.name,
            "lock": lock_path(plan),
            "serial": (hosts[plan.head].answer.get("lock") or {}).get("serial", 0),
            "url": plan.url,
            "model": plan.served_model_name,
            "image": plan.engines[0].image.run,
            "session_len": steps.session_len(plan),
            "endpoints": [each.url for each in plan.endpoints],
            "identity": plan.identity,
            "states": {url: state.state for url, state in decision.states.items()},
            "lines": lines,
        }
