# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: writes what the hosts gave, with plan, status and preflight, as one archive with an index on the control node."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_version

from ansible_collections.lmfleet.lmdeploy.plugins.action.status import current
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._redact import Redactor
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.collected import (
    files_of_hosts,
    index_of,
    is_secret_variable,
    learn_variables,
    write_archive,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.preflight import report_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.judging import judged
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status import as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import harmless_all
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.version import version_of

ARGUMENT_SPEC = {"directory": {"type": "path"}, "page": {"type": "bool", "default": True}}
ELSEWHERE = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.logs``; documented in plugins/modules/logs.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write it; fails only where there is no plan, or nothing can be written."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        run, now = Run(), time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        plan, status = current(run)
        collected = {
            node.name: run.read(f"collected@{node.name}", {"failed": "it was not asked"}) for node in plan.nodes
        }
        redactor = self._redactor(run, [node.name for node in plan.nodes], task_vars or {})
        table = as_table(status)
        preflight = harmless_all(report_of(plan, judged(plan, run.hosts(), run.waivers), status.looked_at))
        told = harmless_all({**dataclasses.asdict(status), "table": table})
        files = {
            "plan.json": _json(redactor, harmless_all(plan.to_json())),
            "status.json": _json(redactor, told),
            "status.txt": redactor.text("\n".join(told["table"]) + "\n"),
            "preflight.json": _json(redactor, preflight),
            "preflight.html": redactor.text(_preflight_page(redactor.data(preflight))),
            "versions.json": _json(redactor, versions()),
            **files_of_hosts(collected, redactor),
        }
        index = redactor.data(
            harmless_all(
                index_of(plan, collected, files, state=status.state, now=status.looked_at, versions=versions())
            )
        )
        name = f"{plan.name}-logs-{stamp}"
        folder = Path(arguments["directory"] or name).absolute()
        archive = folder / f"{name}.tar.gz"
        self._write(archive, name, files, index, now, page=arguments["page"])
        silent = [node["name"] for node in index["nodes"] if node["failed"]]
        for node in index["nodes"]:
            if node["failed"]:
                tell(f"{node['name']} ({node['address']}) was not read: {node['failed']}")
        tell(f"LOGS {archive}")
        return {"changed": False, "archive": str(archive), "index": index, "not_read": silent}

    def _redactor(self, run: Run, nodes: list[str], task_vars: Mapping[str, Any]) -> Redactor:
        """All secrets that this control node knows, and those in what Docker was asked for."""
        redactor = Redactor(os.environ[name] for name in ELSEWHERE if os.environ.get(name))
        redactor.learn_environment(f"{name}={value}" for name, value in os.environ.items())
        for variables in _variables(nodes, task_vars):
            learn_variables(redactor, variables)
        for host in run.hosts().values():
            for container in host.containers.values():
                redactor.learn_environment(f"{n}={v}" for n, v in (container.asked.get("environment") or {}).items())
                redactor.learn_command(container.asked.get("command") or [])
        for service in run.plan.services:
            redactor.learn_environment(f"{n}={v}" for n, v in service.environment.items())
            redactor.learn_command(service.command)
        return redactor

    @staticmethod
    def _write(
        archive: Path, name: str, files: Mapping[str, str], index: Mapping[str, Any], now: float, *, page: bool
    ) -> None:
        # The page needs Jinja, which a control node has by Ansible; what has no page does not load it.
        from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.collected_page import html

        inside = {**files, "index.json": json.dumps(index, indent=1) + "\n", "index.html": html(index)}
        try:
            archive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_archive(archive, name, inside, now)
            if page:
                path = archive.parent / "index.html"
                path.touch(mode=0o600)
                path.write_text(html(index, name), encoding="utf-8")
        except OSError as error:
            raise AnsibleActionFail(
                f"The archive cannot be written to {archive.parent}: {error.strerror}. Name another directory: -e logs_dir=DIR"
            ) from None


def _json(redactor: Redactor, data: Any) -> str:
    return redactor.text(json.dumps(redactor.data(data), indent=1)) + "\n"


def _preflight_page(report: Mapping[str, Any]) -> str:
    from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.preflight_page import html

    return html(report)


def _variables(nodes: list[str], task_vars: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The variables of control node and nodes that have secrets, as they come to in templates."""
    hostvars = task_vars["hostvars"]
    for host in ("localhost", *nodes):
        try:
            raw = hostvars.raw_get(host)
        except KeyError:
            continue
        for name in raw:
            if isinstance(raw[name], Mapping):
                yield {str(name): raw[name]}
            elif is_secret_variable(str(name)):
                # One that cannot be read here, such as of a vault without its password, was used nowhere in this run.
                with contextlib.suppress(Exception):
                    yield {str(name): hostvars[host][name]}


def versions() -> dict[str, str]:
    """Of the collection, of Ansible and of what it needs here."""
    found = {"lmfleet.lmdeploy": version_of(), "ansible-core": ansible_version}
    with contextlib.suppress(ImportError):
        from ansible_collections.community import docker

        found["community.docker"] = version_of(Path(next(iter(docker.__path__))))
    return {**found, "python": platform.python_version()}
