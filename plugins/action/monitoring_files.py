# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: what Prometheus and Grafana read of the run's plan, as files on the control node."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _files
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, warn
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.alerts import Thresholds
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.files import (
    BOARD,
    REFUSED,
    Settings,
    files_of,
    for_prometheus,
    text_files,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.targets import Exporters, without_metrics
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

LIMITS = {field.name: field for field in dataclasses.fields(Thresholds)}
ARGUMENT_SPEC: dict[str, Any] = {
    "directory": {"type": "path", "required": True},
    "prometheus_dir": {"type": "path", "default": "/etc/prometheus/lmfleet"},
    "prometheus_url": {"type": "str", "default": "http://127.0.0.1:9090"},
    "interval": {"type": "str", "default": "15s"},
    "alertmanagers": {"type": "list", "elements": "str", "default": []},
    "scrape_configs": {"type": "list", "elements": "dict", "default": []},
    "node_exporter_port": {"type": "int", "default": 0},
    "dcgm_exporter_port": {"type": "int", "default": 0},
    "gateways": {"type": "list", "elements": "str", "default": []},
    "ray": {"type": "bool", "default": False},
    **{name: {"type": str(field.type), "default": field.default} for name, field in LIMITS.items()},
}


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.monitoring_files``; documented in plugins/modules/monitoring_files.py."""

    _supports_check_mode = True
    _supports_diff = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write those that differ; fails with every fault of the variables, or where nothing can be written."""
        super().run(tmp, task_vars)
        __, given = self.validate_argument_spec(ARGUMENT_SPEC)
        plan, directory = Run().plan, Path(given["directory"]).absolute()
        settings = Settings(
            exporters=Exporters(
                given["node_exporter_port"], given["dcgm_exporter_port"], given["gateways"], given["ray"]
            ),
            limits=Thresholds(**{name: given[name] for name in LIMITS}),
            interval=given["interval"],
            alertmanagers=given["alertmanagers"],
            folder=given["prometheus_dir"],
            scrape_configs=given["scrape_configs"],
        )
        if settings.faults:
            return {"failed": True, "changed": False, "msg": str(PlanError(settings.faults, REFUSED))}
        for sentence in without_metrics(plan):
            warn(sentence)
        wanted = files_of(plan, settings, str(directory), given["prometheus_url"])
        try:
            before = {name: _read(directory / name) for name in wanted}
            differing = {name: text for name, text in wanted.items() if text != before[name]}
            if not self._task.check_mode:
                for name, text in differing.items():
                    (directory / name).parent.mkdir(parents=True, exist_ok=True)
                    # A Prometheus on this machine may read it at the same moment.
                    _files.write(directory / name, text.encode(), _files.READABLE)
        except OSError as error:
            raise AnsibleActionFail(
                f"{error.filename or directory} on the control node: {error.strerror}. Name another directory: "
                "-e monitoring_dir=DIR"
            ) from None
        return {
            "changed": bool(differing),
            "directory": str(directory),
            "files": list(wanted),
            "contents": for_prometheus(wanted),
            "text_files": {node.name: text_files(plan, node.name) for node in plan.nodes},
            "diff": [
                {"before_header": name, "after_header": name, "before": before[name] or "", "after": text}
                for name, text in differing.items()
                if name != BOARD  # a thousand lines that nobody reads
            ],
        }


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
