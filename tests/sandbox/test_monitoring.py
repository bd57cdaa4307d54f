# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus on the control node and node_exporter on the hosts, over a deployment of TP, with the files of the role.

Both programs are this machine's or the distribution's (scripts/lib/packages.sh). The role's packages are not tried here, for the
hosts reach no mirror.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sandbox.hosts import Sandbox

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.panels import ROWS, asked
from ansible_collections.lmfleet.lmdeploy.tests.unit.packages import program
from ansible_collections.lmfleet.lmdeploy.tests.unit.prometheus import Prometheus, running

NAME = "lmdeploy"
TEXT = "/var/lib/node-exporter"
PORT = 9100


@pytest.fixture
def exporters(deployed: Sandbox) -> Iterator[Sandbox]:
    """node_exporter on each host, listening on its cluster address."""
    for node in deployed.nodes:
        host = f"lmfleet-sandbox-node{node}"
        deployed.on(node, "mkdir", "-p", TEXT)
        deployed.outer("cp", program("prometheus-node-exporter"), f"{host}:/usr/local/bin/test-node-exporter")
        listens = f"--web.listen-address=10.77.0.1{node + 1}:{PORT}"
        words = ["/usr/local/bin/test-node-exporter", listens, f"--collector.textfile.directory={TEXT}"]
        deployed.outer("exec", "--detach", host, *words)
    try:
        yield deployed
    finally:
        for node in deployed.nodes:
            deployed.on(node, "sh", "-c", f"pkill -x test-node-expor; rm -rf {TEXT} /usr/local/bin/test-node-exporter")


@pytest.fixture
def prometheus(exporters: Sandbox, tmp_path: Path) -> Iterator[Prometheus]:
    """It scrapes, every second, what the role has written, on hosts to which the role has brought its links."""
    given = {
        "monitoring_dir": str(tmp_path),
        "monitoring_prometheus_dir": str(tmp_path),
        "monitoring_interval": "1s",
        "monitoring_textfile_dir": TEXT,
    }
    exporters.playbook("playbooks/monitoring.yml", **given).succeeded()
    again = exporters.playbook("playbooks/monitoring.yml", **given).succeeded()
    assert set(again.changed.values()) == {0}
    with running(tmp_path) as found:
        yield found


@pytest.mark.slow
def test_prometheus_scrapes_what_is_deployed_and_an_engine_that_is_killed_is_an_alert(
    exporters: Sandbox, prometheus: Prometheus, tmp_path: Path
) -> None:
    def up() -> bool:
        found = {(each["metric"]["role"], each["metric"]["node"]): each["value"][1] for each in prometheus.query("up")}
        wanted = {("engine", "node0"), *(("node", f"node{n}") for n in exporters.nodes)}
        return set(found) == wanted and set(found.values()) == {"1"}

    prometheus.until("every target is scraped", up)
    exporters.chat(max_tokens=32)

    # LMDeploy sets its gauges every 10 s.
    def counted() -> list[dict[str, Any]]:
        return prometheus.query('rate(lmdeploy:generation_tokens_total{role="engine"}[1m]) > 0')

    [series] = prometheus.until("tokens are counted", counted)
    assert {name: series["metric"][name] for name in ("deployment", "engine", "node", "rank")} == {
        "deployment": NAME,
        "engine": NAME,
        "node": "node0",
        "rank": "0",
    }
    prometheus.until("the gauges are set", lambda: prometheus.query("lmdeploy:gpu_cache_usage_perc"))
    prometheus.until("it is told how long the start took", lambda: prometheus.query("lmfleet_engine_ready_seconds"))
    # All are asked. What a host has of disks and links is another matter on a machine of one's own.
    silent = {
        query.expr: panel.source
        for row in ROWS.values()
        for panel in row
        for query in panel.queries
        if not prometheus.query(asked(query.expr, NAME))
    }
    assert [expr for expr, source in silent.items() if source in ("engine", "starts")] == []

    # Each rule is looked at, without an error.
    def looked_at() -> list[dict[str, Any]]:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = prometheus.until("every rule is looked at", looked_at)
    written = yaml.safe_load((tmp_path / "rules" / f"{NAME}.yml").read_text())["groups"][0]["rules"]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in written]
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    # A full disk is this machine's own.
    assert {name for name, state in prometheus.alerts().items() if state == "firing"} <= {"LMDeployDiskFull"}

    [formations] = prometheus.query("lmfleet_engine_formations_total")
    assert formations["metric"]["service"] == "api"

    exporters.on(0, "docker", "kill", f"{NAME}-api")  # which stays down until a deploy
    prometheus.until("it is pending", lambda: prometheus.alerts().get("LMDeployEndpointOut") == "pending")
    prometheus.until("it fires", lambda: prometheus.alerts().get("LMDeployEndpointOut") == "firing")

    exporters.deploy().succeeded()
    prometheus.until("it is over", lambda: "LMDeployEndpointOut" not in prometheus.alerts())

    def formed_again() -> bool:
        [now] = prometheus.query("lmfleet_engine_formations_total")
        return float(now["value"][1]) == float(formations["value"][1]) + 1

    prometheus.until("the new formation is counted", formed_again)
