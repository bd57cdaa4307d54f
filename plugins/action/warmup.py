# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the warm-up client in a container on the target host and show its progress (see the module of this name)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.hidden import secret
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import PACKAGE, ClientAction, program
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns
from ansible_collections.lmfleet.lmdeploy.programs.warmup import GRACE_S, Config, measured_shapes

START_S = 120.0  # for the container's start and the imports, on top of what the requests may take

ARGUMENT_SPEC: dict[str, Any] = {
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "rank": {"type": "int", "required": True},
            "node": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
        },
    },
    "model": {"type": "str", "required": True},
    "api_key": {"type": "str", "no_log": True},
    "image": {"type": "str", "required": True},
    "shapes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "prompt_tokens": {"type": "int", "required": True},
            "max_tokens": {"type": "int", "required": True},
            "requests": {"type": "int", "default": 1},
        },
    },
    "session_len": {"type": "int", "default": 0},
    "timeout": {"type": "float", "default": 600},
    "retries": {"type": "int", "default": 3},
    "seed": {"type": "int", "default": 0},
    "container_name": {"type": "str", "default": "lmfleet-warmup"},
}

REMEDIES = {
    "engine": "The engine is dead or failing, whatever its /health says: read its container's log on that node, then"
    " deploy again, which replaces a dead engine.",
    "connection": "Nothing answers there: see on that node whether the container runs, and from this host whether the"
    " address and port can be reached.",
    "request": "The server refused the request: compare the model's name, the API key and the shapes with"
    " what it serves.",
    "timeout": "No answer in time: either the engine hangs (its container's log and metrics tell), or kernels are still"
    " being compiled: then run again with a longer time-out (-e warmup_timeout=1200; it is 600 s unless it was set).",
}


def failure_message(result: dict[str, Any]) -> str:
    """A table of the failed ranks, and what to do about each kind of failure."""
    rows = [("rank", "node", "url", "shape", "reason")]
    kinds = []
    for endpoint in result["endpoints"]:
        for shape in endpoint["shapes"]:
            if not shape["ok"]:
                rows.append((str(endpoint["rank"]), endpoint["node"], endpoint["url"], shape["name"], shape["error"]))
                kinds.append(shape["kind"])
    remedies = [REMEDIES[kind] for kind in sorted(set(kinds))]
    head = f"warm-up: {len(kinds)} of {len(result['endpoints'])} ranks failed"
    return "\n".join([head, *columns(rows), *remedies])


def progress_line(progress: Mapping[str, Any]) -> str:
    """How far the warm-up is."""
    failed = progress["failed"]
    line = f"{progress['shape']} {progress['done'] - failed}/{progress['of']} answered"
    return line + (f", {failed} failed" if failed else "")


class ActionModule(ClientAction):
    """The action behind M(lmfleet.lmdeploy.warmup)."""

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run it; the task's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = False
        __, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        config = {
            "endpoints": options["endpoints"],
            "model": options["model"],
            "shapes": options["shapes"] or [asdict(shape) for shape in measured_shapes(options["session_len"])],
            "timeout_s": options["timeout"],
            "retries": options["retries"],
            "seed": options["seed"],
        }
        try:
            Config.from_mapping(config)
        except ValueError as error:
            return {**result, "failed": True, "msg": f"warm-up: wrong configuration: {error}"}
        if self._task.check_mode:
            shapes = ", ".join(
                f"{shape['name']} ({shape['requests']} x {shape['prompt_tokens']} tokens in, {shape['max_tokens']} out)"
                for shape in config["shapes"]
            )
            would = f"warm-up: would send each of {len(config['endpoints'])} ranks: {shapes}"
            tell(would)  # a skipped task's own message is not shown
            return {**result, "skipped": True, "msg": would}

        client = self.run_client(
            "warm-up",
            options["container_name"],
            START_S + len(config["shapes"]) * (options["timeout"] + GRACE_S),
            progress_line,
            task_vars,
            image=options["image"],
            files=program("events", "warmup"),
            argv=["-m", f"{PACKAGE}.warmup"],
            config=config,
            api_key=secret(options["api_key"], "warmup_api_key", task_vars, self),
            # One that runs already was left by an interrupted run of the same deployment.
            owner=f"warm-up of {(Run().read('plan') or {}).get('name', options['container_name'])}",
        )
        if "failed" in client:
            return {**result, **client}
        found = client["event"]
        result.update(endpoints=found["endpoints"], seconds=found["seconds"])
        if not found["ok"]:
            return {**result, "failed": True, "msg": failure_message(found)}
        Run().write("warmed", time.time())
        done = f"warm-up: all {len(found['endpoints'])} ranks answered every shape, {found['seconds']:.1f} s"
        return {**result, "msg": done}
