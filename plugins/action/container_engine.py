# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what a host lacks of Docker Engine, and what has to be restarted for it."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.container_engine import (
    Decision,
    Wanted,
    decide,
    standard_settings,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result

REPOSITORIES = {"docker": "download.docker.com", "nvidia": "libnvidia-container"}
TEXTS = {"type": "list", "elements": "str"}
_LOGIN = re.compile(r"://[^/\s\"@]+:[^/\s\"@]+@")


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.container_engine``; documented in plugins/modules/container_engine.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look, and decide; fails with all that has to be mended first."""
        super().run(tmp, task_vars)
        __, options = self.validate_argument_spec(
            {
                "config": {"type": "path", "default": "/etc/docker/daemon.json"},
                "pending": {"type": "path", "required": True},
                "log_driver": {"type": "str", "default": "json-file"},
                "log_max_size": {"type": "str", "default": "100m"},
                "log_max_file": {"type": "int", "default": 5},
                "memlock": {"type": "bool", "default": True},
                "settings": {"type": "dict", "default": {}},
                "overwrite": {**TEXTS, "default": []},
                "toolkit": {"type": "bool", "default": True},
                "source": {"type": "str", "choices": ["distribution", "docker"], "default": "distribution"},
                "packages": {**TEXTS, "default": []},
                "toolkit_packages": {**TEXTS, "default": ["nvidia-container-toolkit"]},
                "python_packages": {**TEXTS, "default": ["python3-docker"]},
                "restart": {"type": "bool", "default": False},
                "restart_command": {"type": "str", "default": "systemctl restart docker"},
                "before": {"type": "dict", "default": {}},
            }
        )
        answer = self._execute_module(
            "lmfleet.lmdeploy.container_engine_facts",
            {"config": options["config"], "pending": options["pending"], "repositories": REPOSITORIES},
            task_vars=task_vars or {},
        )
        if bad(answer):
            return dict(answer)
        seen = answer["engine"]
        process = (seen["dockerd"] or {}).get("process", "")
        before = options["before"]
        came = bool(process and before and before["install"]["toolkit"] and before["seen"]["process"] == process)
        decision = decide(seen, wanted_of(options), toolkit_came=came, check=self._task.check_mode)
        if decision.faults:
            return {"failed": True, "changed": False, "msg": "\n  - ".join(["To mend first:", *decision.faults])}
        return {"changed": False, **result_of(decision, seen, process)}


def wanted_of(options: dict[str, Any]) -> Wanted:
    """What the task's arguments come to."""
    settings = standard_settings(
        log_driver=options["log_driver"],
        log_max_size=options["log_max_size"],
        log_max_file=options["log_max_file"],
        memlock=options["memlock"],
        more=options["settings"],
    )
    return Wanted(
        settings,
        overwrite=tuple(options["overwrite"]),
        packages=tuple(options["packages"]),
        toolkit_packages=tuple(options["toolkit_packages"]),
        python_packages=tuple(options["python_packages"]),
        **{name: options[name] for name in ("toolkit", "source", "restart", "restart_command", "config")},
    )


def result_of(decision: Decision, seen: dict[str, Any], process: str) -> dict[str, Any]:
    """What the role carries out."""
    content = decision.settings.content
    return {
        "install": dataclasses.asdict(decision.install),
        "settings": {
            "content": content,
            "differing": list(decision.settings.changed),
            # A proxy's login is in the file in clear text, and a diff would show it.
            "shown": not _LOGIN.search(decision.settings.before + content),
        },
        "apply": {
            **dataclasses.asdict(decision.apply),
            "kept": json.dumps({"process": process, "reasons": list(decision.apply.later)}) + "\n",
        },
        "seen": {
            "process": process,
            "os": seen["os"],
            "systemd": seen["systemd"],
            "config": seen["config"] is not None,
            "config_directory": seen["config_directory"],
            "dockerd": seen["programs"]["dockerd"],
            "validates": seen["validates"],
        },
    }
