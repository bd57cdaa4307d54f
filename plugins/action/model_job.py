# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, follows or removes the container in which a host gets its model.

Three tasks rather than one: a host's container gives to others after its own part is done, so it is removed only once all
are, and none of them waits for a free fork of Ansible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.action.model_decide import WORD
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.hidden import secret
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import (
    PACKAGE,
    ClientAction,
    bad,
    last_words,
    program,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import Polls, Progress
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.transfer import progress_line, summary

KIND = "model"
POLL_S = 2.0


class ActionModule(ClientAction):
    """``lmfleet.lmdeploy.model_job``; documented in plugins/modules/model_job.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """One step of one host's part."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, options = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["started", "followed", "removed"], "required": True},
                "token": {"type": "str", "default": "", "no_log": True},
                "timeout": {"type": "float", "default": 86400},
            }
        )
        host = self._vars["inventory_hostname"]
        run = Run()
        kept = run.read(WORD, {"jobs": {}})
        job = kept["jobs"].get(host)
        if job is None:
            return {"changed": False, "skipped": True, "msg": "this host has no part in it"}
        if self._task.check_mode:
            return {"changed": options["state"] == "started", "msg": f"would run {job['program']}"}
        self._name = f"{run.plan.name}-{KIND}"
        if options["state"] == "started":
            return self._start(run, kept["key"], job, options["token"])
        if options["state"] == "followed":
            return self._until_done(host, options["timeout"])
        outcome = self._job("removed")
        return {**outcome, "changed": False}

    def _job(self, state: str, **more: Any) -> dict[str, Any]:
        return self.client_job(KIND, self._name, state, self._vars, **more)

    def _start(self, run: Run, key: str, job: Mapping[str, Any], token: str) -> dict[str, Any]:
        made = self._execute_module(
            module_name="lmfleet.lmdeploy.place", module_args={"directories": [job["directory"]]}, task_vars=self._vars
        )
        if bad(made):
            return {**made, "changed": False}
        outcome = self._job(
            "started",
            image=run.plan.engines[0].image.reference,
            files=program("events", "model_files", job["program"]),
            argv=["-m", f"{PACKAGE}.{job['program']}"],
            config=job["config"],
            mounts=[job["mount"]],
            owner=run.plan.name,
            **self._secrets(token) if job["program"] == "download" else {"api_key": key},
        )
        if bad(outcome):
            return {**outcome, "changed": False}
        return {"changed": True}

    def _secrets(self, token: str) -> dict[str, Any]:
        """What a download has in its file: the hub's token, and the environment, in which a proxy's password may be."""
        given = secret(token, "model_hub_token", self._vars, self)
        environment = self._templar.template(self._vars.get("model_hub_environment") or {})
        named = {str(name): str(value) for name, value in environment.items()}
        return {"api_key": given or "", "hidden": json.dumps({"environment": named})}

    def _until_done(self, host: str, timeout_s: float) -> dict[str, Any]:
        """Show how far it is until its part is done; the container stays, for the others."""

        def progress(outcome: Mapping[str, Any], seconds: float) -> Progress | None:
            now = outcome["events"].get("progress")
            if not now or outcome["events"].get("result"):
                return None
            return Progress(now["stage"], f"  {seconds:4.0f} s  {host}: {progress_line(now)}")

        def end(outcome: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
            events = outcome["events"]
            if events.get("result"):
                return self._ended(host, events["result"], seconds)
            if not outcome["running"]:
                why = (
                    f"the container that brings the model ended with exit code {outcome['exit_code']} before it was done:\n"
                    f"{last_words(outcome)}"
                )
                return {"failed": True, "msg": why}
            if seconds > timeout_s:
                shown = progress_line(events["progress"]) if events.get("progress") else "nothing"
                return {
                    "failed": True,
                    "msg": f"the model did not come within {timeout_s:.0f} s (model_timeout); last seen: {shown}. Run "
                    "again: it goes on where it was.",
                }
            return None

        polls = Polls(
            host,
            "how far its part of the model is",
            f"This part goes on there, in the container {self._name}, and a next run keeps what has come.",
        )
        last = polls.follow(lambda: self._job("polled"), progress, end, POLL_S)
        return {"changed": False, **last, "msg": f"{host}: {last.get('msg')}"} if bad(last) else last

    def _ended(self, host: str, result: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        for line in result["aside"]:
            tell(f"  {seconds:4.0f} s  {host}: put aside {line}")
        if not result["ok"]:
            return {"failed": True, "changed": False, "msg": result["fault"], "model_result": result}
        tell(f"  {seconds:4.0f} s  {host}: {summary(result)}")
        if result["needed"]:
            Run().write(f"brought-model@{host}", round(seconds, 1))
        return {"changed": bool(result["needed"] or result["aside"]), "model_result": result}
