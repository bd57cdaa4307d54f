# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client in a container on the target host, from its start to its removal; what actions that run one have in common."""

from __future__ import annotations

import functools
import importlib.util
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from .keeping import Keeper
from .leaving import warn
from .polling import Polls, Progress, attempt

PACKAGE = "lmfleet_client"
# By its kind, the variable that sets how long a client may take.
LIMITED_BY = {"benchmark": "benchmark_row_timeout", "link test": "link_test_timeout", "warm-up": "warmup_timeout"}
ALONE_S = 300  # without a poll for so long, as after a Ctrl-C, a client ends itself


def program(*modules: str) -> dict[str, str]:
    """The files of a client, by their paths: these modules of ``programs``, in a package of their own."""
    folders = {PACKAGE, *(f"{PACKAGE}/{name.rpartition('.')[0]}".rstrip("/") for name in modules)}
    return {
        **{f"{folder}/__init__.py": "" for folder in sorted(folders)},
        **{f"{PACKAGE}/{name.replace('.', '/')}.py": source(name) for name in modules},
    }


def source(module: str) -> str:
    """The text of one of this collection's Python modules, by its name below ``programs``."""
    found = importlib.util.find_spec(f"ansible_collections.lmfleet.lmdeploy.programs.{module}")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(module)
    return Path(found.origin).read_text(encoding="utf-8")


def bad(outcome: Mapping[str, Any]) -> bool:
    """Whether a module failed or its host could not be reached."""
    return bool(outcome.get("failed") or outcome.get("unreachable"))


def last_words(outcome: Mapping[str, Any]) -> str:
    """What a client that has ended wrote to stderr at last."""
    return str(outcome["stderr_tail"] or "it wrote nothing to stderr")


def too_long(kind: str, limit_s: float, shown: str, task_vars: Mapping[str, Any] | None) -> str:
    """That a client was still at work after ``limit_s``, and what to do; ``shown`` is the last that was seen of it."""
    return (
        f"{_client_on(task_vars)} was still at work after {limit_s:.0f} s, and was removed; last seen: {shown or 'nothing'}. "
        f"Did it still go on? Then run again with a larger {LIMITED_BY.get(kind, 'time-out')} (-e). If it stood still, "
        "ansible-playbook playbooks/status.yml shows what does not answer."
    )


def no_result(last: Mapping[str, Any], image: str, task_vars: Mapping[str, Any] | None) -> str:
    """That a client ended before its work was done, what it wrote at last, and what to do."""
    return (
        f"{_client_on(task_vars)} ended with exit code {last['exit_code']} and without a result, in image {image}:\n"
        f"{last_words(last)}\nMend what it says, then run again. Exit code 137 is a kill: by the kernel for lack of memory "
        "(dmesg on that host shows it), or by somebody."
    )


def _client_on(task_vars: Mapping[str, Any] | None) -> str:
    return f"the client on {(task_vars or {}).get('inventory_hostname', 'this host')}"


class ClientAction(ActionBase):
    """An action that runs a client to its end and shows its progress."""

    def client_job(
        self, kind: str, name: str, state: str, task_vars: dict[str, Any] | None, **more: Any
    ) -> dict[str, Any]:
        """One step of a client's container on the task's host: started, polled or removed; the outcome of M(client_job)."""
        outcome: dict[str, Any] = self._execute_module(
            module_name="lmfleet.lmdeploy.client_job",
            module_args={"state": state, "kind": kind, "name": name, **more},
            task_vars=task_vars,
        )
        return outcome

    def run_client(
        self,
        kind: str,
        container_name: str,
        limit_s: float,
        line: Callable[[Mapping[str, Any]], str],
        task_vars: dict[str, Any] | None,
        poll_s: float = 2.0,
        **started: Any,
    ) -> dict[str, Any]:
        """Run it, and remove its container in any case.

        ``line`` makes of a progress event what is shown, ``started`` is what M(client_job) starts with. Returns the result
        event as ``event``; or ``failed`` with ``msg``, and what of a failed step the task's result should repeat. Raises
        ``AnsibleConnectionFailure`` where the host is lost.
        """
        name = f"{container_name}-{uuid.uuid4().hex[:8]}"
        started["files"] = {**started["files"], "watched.py": source("watched")}
        started["argv"] = ["watched.py", str(ALONE_S), *started["argv"]]
        try:
            last = self.client_job(kind, name, "started", task_vars, **started)
            if not bad(last):
                last = self._follow(kind, name, limit_s, poll_s, line, task_vars)
        finally:
            removed = attempt(lambda: self.client_job(kind, name, "removed", task_vars))  # keeps what was raised before
        if bad(last):
            repeated: dict[str, Any] = {key: last[key] for key in ("unreachable", "exception") if key in last}
            return {**repeated, "failed": True, "msg": f"{kind}: {last.get('msg')}"}
        if bad(removed):
            warn(f"{kind}: container {name} could not be removed: {removed.get('msg')}")
        event = last["events"].get("result")
        if event is None:
            return {"failed": True, "msg": f"{kind}: {no_result(last, started['image'], task_vars)}"}
        return {"event": event}

    def _follow(
        self,
        kind: str,
        name: str,
        limit_s: float,
        poll_s: float,
        line: Callable[[Mapping[str, Any]], str],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Poll until the client has ended, showing each change; the last outcome, or a failure after `limit_s`."""
        host = str((task_vars or {}).get("inventory_hostname", ""))
        keeper, shown = Keeper(host), ""

        def poll() -> dict[str, Any]:
            execute = functools.partial(self._execute_module, task_vars=task_vars)
            return keeper.first(execute, lambda: self.client_job(kind, name, "polled", task_vars))

        def progress(outcome: Mapping[str, Any], __: float) -> Progress | None:
            nonlocal shown
            now = outcome["events"].get("progress")
            shown = line(now) if now is not None else shown
            return Progress(shown, f"{kind}: {shown}, {now['seconds']:.0f} s") if now is not None and shown else None

        def end(outcome: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
            if not outcome["running"]:
                return dict(outcome)
            if seconds > limit_s:
                return {"failed": True, "msg": too_long(kind, limit_s, shown, task_vars)}
            return None

        meanwhile = f"Its container {name} there ends itself once it was not asked for {ALONE_S} s."
        return Polls(host, f"how far the {kind} is", meanwhile).follow(poll, progress, end, poll_s)
