# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Prometheus scrapes what the client library of LMDeploy's image says, with the jobs that are made for it."""

from __future__ import annotations

import json
from pathlib import Path

import prometheus_client

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.files import (
    RULES,
    TARGETS,
    Settings,
    files_of,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.prometheus import running


def test_lmdeploys_metrics_have_their_own_names_in_every_prometheus(tmp_path: Path) -> None:
    """To one before 3.0 the client library says an underscore for each colon."""
    plan = plan_of(nodes())
    for name, text in files_of(plan, Settings(folder=str(tmp_path), interval="1s"), str(tmp_path), "").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    registry = prometheus_client.CollectorRegistry()
    tokens = prometheus_client.Counter(
        "lmdeploy:generation_tokens", "As LMDeploy has it", ["engine"], registry=registry
    )
    tokens.labels(engine="0").inc(7)
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        targets = tmp_path / TARGETS / f"{plan.name}-engine.json"
        [target] = json.loads(targets.read_text())
        targets.write_text(json.dumps([{**target, "targets": [f"127.0.0.1:{server.server_port}"]}]))
        assert (tmp_path / RULES).is_dir()
        with running(tmp_path) as prometheus:
            [found] = prometheus.until(
                "it is scraped", lambda: prometheus.query('lmdeploy:generation_tokens_total{role="engine"}')
            )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert found["value"][1] == "7"
    assert (found["metric"]["engine"], found["metric"]["exported_engine"]) == (plan.engines[0].name, "0")
