# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One task on all hosts at once: every host a thread, its modules what the test says."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World

Execute = Callable[[str, dict[str, Any]], dict[str, Any]]


def looked_at(world: World) -> Run:
    """A run that has planned the world, and seen it."""
    run = Run()
    run.keep_plan(world.plan)
    for name, answer in world.answers.items():
        run.saw(name, json.loads(json.dumps(answer)))
    return run


def on_hosts(world: World, plugin: Any, arguments: Mapping[str, Any], execute: Execute) -> dict[str, dict[str, Any]]:
    """What the action gives on each host, or what it raised; ``execute`` answers for a host's module its arguments."""

    def of(host: str) -> dict[str, Any]:
        task = SimpleNamespace(args=dict(arguments), check_mode=False, async_val=0, _uuid="task", action="x")
        action = plugin.ActionModule.__new__(plugin.ActionModule)
        action._task, action._connection = task, SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
        action._execute_module = lambda module_name, module_args, **_: execute(host, module_args)
        try:
            result: dict[str, Any] = action.run(task_vars={"inventory_hostname": host})
        except AnsibleConnectionFailure as error:
            return {"raised": f"{type(error).__name__}: {error}"}
        return result

    with concurrent.futures.ThreadPoolExecutor(len(world.answers)) as pool:
        return {host: done.result() for host, done in {h: pool.submit(of, h) for h in world.answers}.items()}
