# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out one host's steps of one wave. Nothing else of the collection starts or removes a service's container."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.containers import docker_arguments, files_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Decision, Step, left_listed
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.docker_errors import remedy
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway import config
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import home_path
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.gateway import admin_socket
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Gateway, Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

CONTAINER = "community.docker.docker_container"
# A Ray worker or an engine that does not end in time is killed with its container.
STOP_S = 30
ACTS = ["read", "bring", "remove", "start", "list", "wait", "reload", "open"]


def refused(where: str, step: Step, said: str) -> str:
    """That Docker did not do a step, in its own words, and what to do."""
    return (
        f"{where}: {step.act} {step.name} failed: {said.strip().rstrip('.')}.\nRemedy: {remedy(said)}, and run again.\n"
        f"It was done because {step.reason}."
    )


def unread(plan: Plan, holder: str, path: str, why: str, command: str) -> str:
    """That the token of Ray is not to be had where it was seen, and what to do: ``command`` first, on that host."""
    return (
        f"{holder} ({plan.node(holder).address}): {path}, from which the other hosts of "
        f"{plan.engine_on(holder).name} get the token of Ray, {why}. Run {command} on {holder} as the user that Ansible "
        "becomes there, then run the playbook again: it takes the token from another host of the engine; if none has it, it makes "
        "a new one and starts the engine again with it."
    )


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.act``; documented in plugins/modules/act.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do them in their order; the first one that fails ends it, and is named."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, arguments = self.validate_argument_spec(
            {
                "act": {"type": "str", "choices": ACTS, "required": True},
                "round": {"type": "int", "default": 0},
                "services": {"type": "list", "elements": "str", "default": []},
                "proven": {"type": "bool", "default": False},
                "timeout": {"type": "float", "default": 60},
            }
        )
        run, act, host = Run(), arguments["act"], self._vars["inventory_hostname"]
        plan = run.plan
        if act == "read":
            return self._read_token(run, plan, host)
        mine = [step for step in run.decision.rounds[arguments["round"]].steps if step.host == host]
        if act == "bring":
            run.write(f"began@{host}", time.time())
            return self._bring(run, plan, host, mine)
        wanted = arguments["services"]
        todo = [step for step in mine if step.act == act and (not wanted or step.service in wanted)]
        if act == "wait":
            todo = [step for step in mine if step.act == "start" and step.service == "gateway"]
        if act in ("wait", "reload", "open"):
            return self._tell_gateway(run, plan, act, todo, arguments["timeout"])
        if act == "list":
            left = left_listed(plan, run.decision, arguments["round"], run.host(host).listed or {})
            if arguments["proven"] and not self._task.check_mode:
                return self._put_list_right(plan, left, _serving(plan, run.decision, arguments["round"]))
            return self._put_list_right(plan, left) if todo else {"changed": False}
        return self._containers(run, plan, host, todo)

    # ---- files

    def _read_token(self, run: Run, plan: Plan, host: str) -> dict[str, Any]:
        """Read the engine's token where it was made, for the hosts that lack it."""
        path, engine = steps.token_path(plan, host) or "", plan.engine_on(host)
        result = self._execute_module("ansible.builtin.slurp", {"src": path}, task_vars=self._vars)
        if result.get("failed"):
            said = str(result.get("msg") or "no reason").strip().rstrip(".")
            return {
                "failed": True,
                "changed": False,
                "msg": unread(plan, host, path, f"cannot be read any more: {said}", f"ls -l {path}"),
            }
        # A word of its own: other engines' are read at the same moment.
        run.write(f"token of {engine.name}", base64.b64decode(result["content"]).decode())
        return {"changed": False, "token_read": True}

    def _bring(self, run: Run, plan: Plan, host: str, mine: list[Step]) -> dict[str, Any]:
        """Directories, programs and secrets, before anything is taken down."""
        services = [
            service for service in plan.services_on(host) if service.name in {s.name for s in mine if s.act == "start"}
        ]
        need = run.read("tokens", {}).get(plan.engine_on(host).name, {})
        path = steps.token_path(plan, host)
        secrets = {}
        if path and host in need.get("hosts", ()):
            secrets[path] = need["content"] or run.read(f"token of {plan.engine_on(host).name}")
            if not secrets[path]:
                holder = need["holder"]
                kept = steps.token_path(plan, holder) or ""
                return {
                    "failed": True,
                    "changed": False,
                    "msg": unread(plan, holder, kept, "is empty", f"rm {kept}"),
                }
        arguments = files_of(services, secrets)
        if plan.gateway and plan.gateway.node == host:
            self._add_gateway(run, plan, plan.gateway, mine, arguments)
        if not any(arguments.values()):
            return {"changed": False}
        result: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.place", arguments, task_vars=self._vars)
        return result

    @staticmethod
    def _add_gateway(run: Run, plan: Plan, gateway: Gateway, mine: list[Step], arguments: dict[str, Any]) -> None:
        """What the gateway reads: its secrets where they differ, and the rest where it is started, or reads it again."""
        arguments["secrets"].update(run.read("gateway secrets", {}))
        if any(step.service == "gateway" and step.act in ("start", "reload") for step in mine):
            service = plan.only("gateway")
            arguments["directories"] = list(dict.fromkeys([*arguments["directories"], *service.directories]))
            arguments["files"].update(config.planned_files(plan, gateway, _gateways_host(run, gateway)))

    # ---- gateway

    def _tell_gateway(self, run: Run, plan: Plan, act: str, todo: list[Step], timeout_s: float) -> dict[str, Any]:
        if not todo or plan.gateway is None:
            return {"changed": False}
        done = [f"{step.act} {step.name}: {step.reason}" for step in todo]
        result = {"changed": act != "wait", "steps": done, "diff": [{"prepared": line} for line in done]}
        if self._task.check_mode:
            return result
        if act == "open":
            arguments = config.told(plan, act, [each.url for each in plan.endpoints])
        else:
            host, service = _gateways_host(run, plan.gateway), plan.only("gateway")
            arguments = {
                "socket": admin_socket(service),
                "act": act,
                "timeout": timeout_s,
                # One that was seen is told by its id: whatever bears the name by now, it is that one.
                "container": host.containers[service.name].id if act == "reload" else service.name,
                "expected": config.planned_description(plan, plan.gateway, host),
            }
        told: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.gateway", arguments, task_vars=self._vars)
        return told if told.get("failed") or told.get("unreachable") else result

    # ---- containers

    def _containers(self, run: Run, plan: Plan, host: str, todo: list[Step]) -> dict[str, Any]:
        services = {service.name: service for service in plan.services_on(host)}
        seen = run.host(host)
        there = seen.containers
        done: list[str] = []
        self._keep_logs(plan, host, {step.name: there[step.name].id for step in todo if step.act == "remove"})
        for step in todo:
            if step.act == "remove":
                # By id: whatever bears the name by now, only the container that was seen is removed.
                arguments = {"name": there[step.name].id, "state": "absent", "stop_timeout": STOP_S}
            elif self._task.check_mode and not seen.has_image(services[step.name].image):
                done.append(f"{step.act} {step.name}: {step.reason}")  # with an image that is not there yet
                continue
            else:
                arguments = docker_arguments(plan.name, services[step.name], step.formation)
            before = time.time()
            result = self._execute_module(CONTAINER, arguments, task_vars=self._vars)
            if result.get("failed"):
                return {
                    "failed": True,
                    "changed": bool(done),
                    "msg": refused(f"{host} ({plan.node(host).address})", step, str(result.get("msg") or "no reason")),
                }
            if result.get("changed"):
                done.append(f"{step.act} {step.name}: {step.reason}")
                if step.act == "start":
                    run.write(f"begun@{host}", {**run.read(f"begun@{host}", {}), step.name: [before, time.time()]})
        return {"changed": bool(done), "steps": done, "diff": [{"prepared": line} for line in done]}

    def _keep_logs(self, plan: Plan, host: str, containers: dict[str, str]) -> None:
        """Docker's log goes with the container, and may say why it had to. That it cannot be kept hinders nothing.

        All at once, and before anything is taken down: an engine is not away for longer because of it.
        """
        if containers and not self._task.check_mode:
            arguments = {"containers": containers, "directory": f"{home_path(plan, plan.node(host))}/logs"}
            self._execute_module("lmfleet.lmdeploy.keep_logs", arguments, task_vars=self._vars)

    def _put_list_right(self, plan: Plan, left: list[str], expected: Sequence[str] = ()) -> dict[str, Any]:
        if plan.proxy is None:
            return {"changed": False}
        addresses = {urlsplit(url).hostname for url in left}
        ranks = [url for url in plan.proxy.ranks if urlsplit(url).hostname not in addresses]
        arguments = {
            "url": plan.proxy.url,
            "nodes": ranks,
            "left": left,
            "model": plan.served_model_name,
            "expected": [url for url in expected if url in ranks],
        }
        result: dict[str, Any] = self._execute_module("lmfleet.lmdeploy.proxy_nodes", arguments, task_vars=self._vars)
        if result.get("failed") and self._task.check_mode:  # there may be no proxy yet
            return {"changed": True, "msg": "the proxy does not answer yet"}
        if plan.gateway and expected and not result.get("failed"):
            # Where it does not hear, the next run finds that, and tells.
            arguments = config.told(plan, "open", expected)
            self._execute_module("lmfleet.lmdeploy.gateway", arguments, task_vars=self._vars)
        if expected and result.get("changed"):
            tell(f"  the proxy's list after the warm-up: {result['msg']}")
        return result


def _gateways_host(run: Run, gateway: Gateway) -> Host:
    """The gateway's host, with the secrets that this run brings it."""
    return steps.with_secrets(run.host(gateway.node), run.read("gateway secrets", {}))


def _serving(plan: Plan, decision: Decision, number: int) -> list[str]:
    """What gave tokens: in this round, or when the hosts were looked at."""
    proven = {*decision.rounds[number].engines, *decision.rounds[number].warm}
    return [each.url for each in plan.endpoints if each.engine in proven or decision.states[each.url].state == "alive"]
