# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that Prometheus and Grafana read of a deployment, as files, and as variables of the roles that install those."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..planning.types import Plan
from .alerts import Thresholds, rules
from .targets import Exporters, address_faults, file_sd, scrape_configs, targets_of

DASHBOARD = Path(__file__).parents[1] / "data" / "dashboard.json"
RULES, TARGETS, SCRAPE, CONFIG = "rules", "targets", "scrape_configs.yml", "prometheus.yml"
REFUSED = "The monitoring was refused before any host was touched"
BOARD, ROLES = "dashboards/lmfleet.json", "role_variables.yml"
INTERVAL = re.compile(r"([1-9]\d{0,2})s|1m")
# Rules look at rates over two minutes, and a rate needs two samples.
LONGEST_INTERVAL_S = 60
# Not of which deployment: two that share a Prometheus would write its configuration in turn.
_HEAD = "# Made by lmfleet.lmdeploy, and written again by its next run: what is to be here as well is in variables monitoring_*.\n"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a deployment's variables say of its monitoring. ``folder`` is where Prometheus finds the files, on its host.

    ``alertmanagers`` are HOST:PORT. ``scrape_configs`` are more jobs of the user's own, as they stand in prometheus.yml.
    """

    exporters: Exporters = dataclasses.field(default_factory=Exporters)
    limits: Thresholds = dataclasses.field(default_factory=Thresholds)
    interval: str = "15s"
    alertmanagers: Sequence[str] = ()
    folder: str = "/etc/prometheus/lmfleet"
    scrape_configs: Sequence[Mapping[str, Any]] = ()

    @property
    def faults(self) -> list[str]:
        """A sentence for each value that Prometheus could not use, with the variable to change."""
        found = [
            *self.limits.faults,
            *address_faults("monitoring_alertmanagers", self.alertmanagers),
            *address_faults("monitoring_gateways", self.exporters.gateways),
        ]
        for name, port in (("node_exporter", self.exporters.node_port), ("dcgm_exporter", self.exporters.gpu_port)):
            if not 0 <= port < 65536:
                found.append(f"monitoring_{name}_port is {port}, and has to be a port, or 0 where there is none.")
        matched = INTERVAL.fullmatch(self.interval)
        if not matched or int(matched[1] or 60) > LONGEST_INTERVAL_S:
            found.append(f"monitoring_interval is {self.interval!r}, and has to be from 1s to 60s, as in 15s.")
        if not self.folder.startswith("/"):
            found.append(f"monitoring_prometheus_dir is {self.folder!r}, and has to be an absolute path.")
        return found


def files_of(plan: Plan, settings: Settings, directory: str, url: str) -> dict[str, str]:
    """Path below ``directory`` on the control node -> text: targets, rules, scrape jobs, a whole prometheus.yml, the dashboard, and
    ``role_variables``. ``url`` is Prometheus', as Grafana reaches it.

    Targets and rules carry the deployment's name, and the rest is the same for all: several fit into one Prometheus.
    """
    return {
        **{
            # One of a role that has no targets is empty: what an earlier run named there is gone.
            f"{TARGETS}/{plan.name}-{role}.json": json.dumps(file_sd(targets), indent=1) + "\n"
            for role, targets in targets_of(plan, settings.exporters).items()
        },
        f"{RULES}/{plan.name}.yml": _HEAD + _yaml(rules(plan.name, settings.limits)),
        SCRAPE: _HEAD + _yaml({"scrape_configs": scrape_configs(f"{settings.folder}/{TARGETS}")}),
        CONFIG: _HEAD + _yaml(config_of(settings)),
        BOARD: dashboard(),
        ROLES: _HEAD + _yaml(role_variables(settings, directory, url)),
    }


def for_prometheus(files: Mapping[str, str]) -> dict[str, str]:
    """Of ``files_of``, what goes to Prometheus' host: its targets, rules and prometheus.yml."""
    return {path: text for path, text in files.items() if path == CONFIG or path.split("/")[0] in (TARGETS, RULES)}


def config_of(settings: Settings) -> dict[str, Any]:
    """A whole prometheus.yml, for a Prometheus that has nothing else to do."""
    return {
        "global": {"scrape_interval": settings.interval, "evaluation_interval": settings.interval},
        **({"alerting": {"alertmanagers": _alertmanagers(settings)}} if settings.alertmanagers else {}),
        "rule_files": [f"{settings.folder}/{RULES}/*.yml"],
        "scrape_configs": [*scrape_configs(f"{settings.folder}/{TARGETS}"), *map(dict, settings.scrape_configs)],
    }


def text_files(plan: Plan, node: str) -> dict[str, str]:
    """What node_exporter reads of the starts on a node: the name of a link in its directory -> the file on the host.

    An empty one is of a service that the node has not: its link goes. The names are those of every deployment, for the same series
    of two of them would cost node_exporter's whole answer.
    """
    kept = {each.service: str(Path(each.starts).with_suffix(".prom")) for each in plan.services_on(node) if each.starts}
    return {f"lmfleet-{service}.prom": kept.get(service, "") for service in ("api", "dp")}


def role_variables(settings: Settings, directory: str, url: str) -> dict[str, Any]:
    """Variables of the roles prometheus.prometheus.prometheus and grafana.grafana.grafana.

    ``directory`` has ``files_of`` on the control node, whence those roles take them; ``url`` is Prometheus', for Grafana.
    """
    return {
        "prometheus_global": {"scrape_interval": settings.interval, "evaluation_interval": settings.interval},
        "prometheus_scrape_configs": [
            *scrape_configs("/etc/prometheus/file_sd"),
            *map(dict, settings.scrape_configs),
        ],
        "prometheus_static_targets_files": [f"{directory}/{TARGETS}/*.json"],
        # Not as the variable prometheus_alert_rules: Ansible would take what Prometheus fills in for its own.
        "prometheus_alert_rules": [],
        "prometheus_alert_rules_files": [f"{directory}/{RULES}/*.yml"],
        "prometheus_scrape_config_files": [],
        "prometheus_alertmanager_config": _alertmanagers(settings),
        "grafana_dashboards_dir": f"{directory}/dashboards",
        "grafana_datasources": [
            {"name": "Prometheus", "type": "prometheus", "access": "proxy", "url": url, "isDefault": True}
        ],
    }


def _alertmanagers(settings: Settings) -> list[dict[str, Any]]:
    return [{"static_configs": [{"targets": list(settings.alertmanagers)}]}] if settings.alertmanagers else []


@functools.cache
def dashboard() -> str:
    """Grafana's JSON of the dashboard, which is the same for every deployment."""
    return DASHBOARD.read_text(encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(data: Any) -> str:
    # By JSON: what comes from Ansible's variables are texts and lists of its own kinds. In ASCII: of an action's result, what a
    # terminal would obey is left out, and these are to arrive whole.
    text: str = yaml.dump(json.loads(json.dumps(data)), Dumper=_Dumper, sort_keys=False, width=130)
    return text
