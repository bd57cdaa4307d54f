# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person watches: a line for each step that changed something, and everything of what failed."""

from __future__ import annotations

DOCUMENTATION = """
name: brief
type: stdout
short_description: A line for each step that changed something
version_added: 0.1.0
description:
  - Prints a line for each task that changed something, with the seconds since the beginning and the hosts, and one line at the end.
    What roles say themselves, as the progress of a wait, is printed as it is.
  - Tasks that found everything as it should be are not printed. What failed, what could not be reached and differences are
    printed as P(ansible.builtin.default#callback) prints them, which also takes over from C(-v) on; of the modules of this
    collection the message alone is printed, for it says all.
extends_documentation_fragment:
  - ansible.builtin.default_callback
  - ansible.builtin.result_format_callback
author: lmfleet contributors (@lmfleet)
notes:
  - Set E(ANSIBLE_STDOUT_CALLBACK=lmfleet.lmdeploy.brief), or C(stdout_callback) in C(ansible.cfg).
"""

import time
from collections import Counter
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

OURS = "lmfleet.lmdeploy."


def read(result: Any) -> tuple[dict[str, Any], str, Any]:
    """What a task returned, the name of its host, and the task. The names without underscores are those of ansible-core 2.19."""
    if isinstance(getattr(result, "result", None), dict):
        return result.result, result.host.get_name(), result.task
    return result._result, result._host.get_name(), result._task


class CallbackModule(Default):
    """``lmfleet.lmdeploy.brief``."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "lmfleet.lmdeploy.brief"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._step, self._shows_titles = "", False
        self._changed: dict[str, None] = {}  # hosts, in their order

    @property
    def _all(self) -> bool:
        return bool(self._display.verbosity)

    def _end_step(self) -> None:
        """Print the step that has ended, where it changed something."""
        if self._changed:
            seconds = time.monotonic() - self._began
            self._display.display(
                f"{seconds:5.0f} s  {self._step}: {', '.join(self._changed)}", color=constants.COLOR_CHANGED
            )
        self._changed = {}

    # ---- what begins

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Print nothing of a play: its steps have names of their own."""
        self._end_step()
        if self._all:
            super().v2_playbook_on_play_start(play)
        else:
            self._play = play

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        self._end_step()
        self._step = task.get_name().rpartition(" : ")[2].strip()
        super()._task_start(task, prefix=prefix)

    def _print_task_banner(self, task: Any) -> None:
        # Of a task that is not shown there is no title either: of one that failed, the default prints it with the failure.
        if self._all or self._shows_titles:
            super()._print_task_banner(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Print nothing of an included file, but with ``-v``."""
        if self._all:
            super().v2_playbook_on_include(included_file)

    # ---- what ends

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note a change; print what a task says on purpose, as C(debug) does."""
        if self._all:
            super().v2_runner_on_ok(result)
            return
        told, host, __ = read(result)
        self._handle_warnings(told)
        if told.get("changed"):
            self._changed[host] = None
        elif told.get("_ansible_verbose_always") and "msg" in told:
            self._display.display(str(told["msg"]))

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Print nothing of an item, but with ``-v``: its task tells of the change."""
        if self._all:
            super().v2_runner_item_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Print it whole, but what a play takes into account; of this collection's own, the message, which says all."""
        told, host, task = read(result)
        if self._all or not (ignore_errors or (task.action.startswith(OURS) and told.get("msg"))):
            self._whole(super().v2_runner_on_failed, result, ignore_errors)
        elif not ignore_errors:
            self._display.display(f"FAILED  {self._step}: {host}", color=constants.COLOR_ERROR)
            self._display.display(f"{told['msg']}\n", color=constants.COLOR_ERROR)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Print it whole."""
        self._whole(super().v2_runner_item_on_failed, result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print it whole."""
        self._whole(super().v2_runner_on_unreachable, result)

    def v2_on_file_diff(self, result: Any) -> None:
        """Print differences, with the name of their step."""
        self._whole(super().v2_on_file_diff, result)

    def _whole(self, show: Any, *arguments: Any) -> None:
        self._shows_titles = True
        try:
            show(*arguments)
        finally:
            self._shows_titles = False

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print one line, or where something failed the recap that everybody knows."""
        self._end_step()
        if self._all or stats.failures or stats.dark:
            super().v2_playbook_on_stats(stats)
            return
        changes = Counter({host: stats.summarize(host)["changed"] for host in stats.processed})
        told = ", ".join(f"{host} {count}" for host, count in sorted(changes.items()) if count)
        what = f"changes: {told}" if told else "nothing was changed"
        self._display.display(f"{time.monotonic() - self._began:5.0f} s  {what}")
