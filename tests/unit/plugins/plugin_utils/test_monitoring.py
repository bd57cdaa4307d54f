# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is scraped of a plan, and the files that are made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.alerts import RANGES, Thresholds, rules, words
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.certificates import unwatched
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.files import (
    Settings,
    files_of,
    for_prometheus,
    text_files,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.panels import ROWS, asked
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.targets import (
    ROLES,
    Exporters,
    gpus_told,
    has_metrics,
    targets_of,
    without_metrics,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import harmless_all
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

FIXTURES = Path(__file__).parents[2] / "fixtures" / "metrics"
METRIC = re.compile(r"\b(?:lmdeploy:\w+|lmfleet_\w+|node_\w+(?=\{)|DCGM_\w+)")
RELEASE = "openmmlab/lmdeploy:v{}-cu12"


def scraped(plan: Plan, exporters: Exporters | None = None) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """By role, the address and the labels that are not the same for all."""
    found = targets_of(plan, exporters or Exporters(node_port=0))
    assert {(role, target.labels["role"]) for role, targets in found.items() for target in targets} <= {
        (role, role) for role in ROLES
    }
    common = {"deployment", "role"}
    return {
        role: [
            (target.address, {name: value for name, value in target.labels.items() if name not in common})
            for target in targets
        ]
        for role, targets in found.items()
        if targets
    }


def files(plan: Plan, settings: Settings | None = None) -> dict[str, str]:
    return files_of(plan, settings or Settings(), "/out", "http://127.0.0.1:9090")


# ---- targets


def test_of_tp_the_api_server_is_scraped_and_ray_on_every_node_where_it_has_metrics() -> None:
    plan = plan_of(nodes(plan_gpus=8, plan_ports={"api": 25000, "ray_metrics": 7000}))
    engine = {"engine": [("10.0.0.10:25000", {"engine": "lmdeploy", "node": "node0", "rank": "0", "gpu": "0-7"})]}
    assert scraped(plan) == engine
    assert scraped(plan, Exporters(node_port=0, ray=True)) == {
        **engine,
        "ray": [
            ("10.0.0.10:7000", {"engine": "lmdeploy", "node": "node0"}),
            ("10.0.0.11:7000", {"engine": "lmdeploy", "node": "node1"}),
        ],
    }


def test_each_replica_is_an_engine_of_its_own() -> None:
    groups = {"a": ["node0"], "b": ["node1"]}
    plan = plan_of(nodes(plan_gpus=8, plan_replicas=["a", "b"]), groups=groups)
    engines = [(address, labels["engine"], labels["node"]) for address, labels in scraped(plan)["engine"]]
    assert engines == [(f"10.0.0.1{n}:23333", plan.engines[n].name, f"node{n}") for n in (0, 1)]
    assert engines[0][1] != engines[1][1]


@pytest.mark.parametrize(("launcher", "step"), [("torchrun", 10), ("native", 1)])
def test_each_dp_rank_is_scraped_with_its_gpu(launcher: str, step: int) -> None:
    plan = plan_of(nodes(4, plan_gpus=8, plan_topology="dpep", plan_launcher=launcher))
    found = scraped(plan)
    assert list(found) == ["engine"]
    assert [(labels["rank"], labels["node"], labels["gpu"]) for __, labels in found["engine"]] == [
        (str(rank), f"node{rank // 8}", str(rank % 8)) for rank in range(32)
    ]
    assert [address for address, __ in found["engine"]] == [
        endpoint.url.removeprefix("http://") for endpoint in plan.endpoints
    ]
    assert len({address for address, __ in found["engine"]}) == 32
    assert found["engine"][1][0] == f"10.0.0.10:{23333 + step}"


def test_exporters_are_on_every_node_and_a_gateway_is_on_none() -> None:
    found = scraped(plan_of(nodes()), Exporters(9101, 9401, ["10.0.0.9:29000"]))
    assert [address for address, __ in found["node"]] == ["10.0.0.10:9101", "10.0.0.11:9101"]
    assert found["gpu"] == [(f"10.0.0.1{n}:9401", {"engine": "lmdeploy", "node": f"node{n}"}) for n in (0, 1)]
    assert found["gateway"] == [("10.0.0.9:29000", {})]


@pytest.mark.parametrize(
    ("release", "options", "todo"),
    [
        ("0.8.0", {}, "take an image with 0.9.2 or later"),
        ("0.9.1", {}, "take an image with 0.9.2 or later"),
        ("0.9.2", {"enable_metrics": False}, "take enable_metrics: false out"),
        ("0.10.2", {"enable-metrics": False}, "take enable_metrics: false out"),
        ("0.18.0", {"disable_metrics": True}, "take disable_metrics out"),
        ("0.9.2", {}, ""),
        ("0.10.2", {}, ""),
        ("0.11.0", {}, ""),
        ("0.18.0", {"disable-metrics": False}, ""),
    ],
)
def test_an_engine_without_metrics_is_not_scraped_and_it_is_said_why(
    release: str, options: dict[str, Any], todo: str
) -> None:
    plan = plan_of(nodes(plan_image=RELEASE.format(release), plan_api_server_options=options))
    assert has_metrics(plan.engines[0]) is not bool(todo)
    assert ("engine" in scraped(plan)) is not bool(todo)
    said = without_metrics(plan)
    assert len(said) == bool(todo)
    assert all(f"LMDeploy {release} has no /metrics" in each and todo in each for each in said)


def test_an_image_whose_release_nobody_knows_is_scraped() -> None:
    assert "engine" in scraped(plan_of(nodes(plan_image="registry.example.com/own:1")))


@pytest.mark.parametrize(
    ("gpus", "word"), [([0], "0"), ([3], "3"), ([0, 1], "0,1"), ([*range(8)], "0-7"), ([0, 2, 4], "0,2,4"), ([], "")]
)
def test_gpus_in_a_word(gpus: list[int], word: str) -> None:
    assert gpus_told(gpus) == word


# ---- files


def test_several_deployments_share_one_prometheus() -> None:
    one, other = (files(plan_of(nodes(plan_name=name))) for name in ("one", "other"))
    same = {"scrape_configs.yml", "prometheus.yml", "dashboards/lmfleet.json", "role_variables.yml"}
    assert set(one) & set(other) == same
    assert {one[name] == other[name] for name in same} == {True}
    alerts = [each["alert"] for each in yaml.safe_load(one["rules/one.yml"])["groups"][0]["rules"]]
    assert len(alerts) == len(set(alerts)) > 0


def test_what_an_earlier_run_named_is_emptied() -> None:
    written = files(plan_of(nodes()), Settings(exporters=Exporters(node_port=0)))
    assert {json.loads(written[f"targets/lmdeploy-{role}.json"]) == [] for role in ("node", "gpu", "gateway")} == {True}


def test_alertmanagers_and_jobs_of_ones_own_are_in_the_configuration() -> None:
    job = {"job_name": "mine", "static_configs": [{"targets": ["x:1"]}]}
    written = files(plan_of(nodes()), Settings(alertmanagers=["a.example.com:9093"], scrape_configs=[job]))
    config, variables = (yaml.safe_load(written[name]) for name in ("prometheus.yml", "role_variables.yml"))
    wanted = [{"static_configs": [{"targets": ["a.example.com:9093"]}]}]
    assert config["alerting"]["alertmanagers"] == variables["prometheus_alertmanager_config"] == wanted
    assert config["scrape_configs"][-1] == variables["prometheus_scrape_configs"][-1] == job
    assert "alerting" not in yaml.safe_load(files(plan_of(nodes()))["prometheus.yml"])


def test_each_fault_of_the_variables_is_told_at_once() -> None:
    settings = Settings(
        exporters=Exporters(70000, -1, ["10.0.0.9"]),
        limits=Thresholds(no_tokens_s=5, kv_cache_share=95, first_token_s=float("nan")),
        interval="2m",
        alertmanagers=["http://a:9093", "a:99999", "[::1]:9093"],
        folder="etc/prometheus",
    )
    said = "\n".join(settings.faults)
    for words_ in (
        "monitoring_no_tokens_s is 5, and has to be from 30 to 86400",
        "monitoring_kv_cache_share is 95, and has to be from 0.01 to 1",
        "monitoring_first_token_s is nan",
        "monitoring_alertmanagers: 'http://a:9093' is no HOST:PORT",
        "monitoring_alertmanagers: 'a:99999' is no HOST:PORT",
        "monitoring_gateways: '10.0.0.9' is no HOST:PORT",
        "monitoring_node_exporter_port is 70000",
        "monitoring_dcgm_exporter_port is -1",
        "monitoring_interval is '2m'",
        "monitoring_prometheus_dir is 'etc/prometheus'",
    ):
        assert words_ in said
    assert len(settings.faults) == 10
    assert Settings(interval="1m").faults == Settings(interval="60s").faults == Settings().faults == []
    assert [each for each in ("0s", "61s", "15", "1h", "") if not Settings(interval=each).faults] == []


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_what_engines_keep_of_their_starts_is_linked_where_it_is_written(topology: str) -> None:
    plan = plan_of(nodes(plan_gpus=8, plan_topology=topology, plan_state_dir="/data/state"))
    kept = {service.node: service.starts for service in plan.services if service.starts}
    assert kept["node0"]
    for node in plan.nodes:
        links = text_files(plan, node.name)
        assert set(links) == {"lmfleet-api.prom", "lmfleet-dp.prom"}
        starts = kept.get(node.name)
        wanted = [str(Path(starts).with_suffix(".prom"))] if starts else []
        assert [path for path in links.values() if path] == wanted


# ---- rules and dashboard, beside what LMDeploy has


def exported(release: str) -> set[str]:
    """The series that LMDeploy's own code has registered, by the types that it said."""
    found = set()
    for line in (FIXTURES / f"lmdeploy-{release}.txt").read_text().splitlines():
        __, __, name, kind = line.split()
        found |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found


def test_what_rules_read_every_release_with_metrics_has() -> None:
    read = {name for rule in rules("x", Thresholds())["groups"][0]["rules"] for name in METRIC.findall(rule["expr"])}
    ours = {name for name in read if name.startswith("lmdeploy:")}
    # The one of two names is a pattern, which test_monitoring_rules.py tries.
    assert ours - {"lmdeploy:num_"} <= exported("0.9.2") & exported("0.18.0")
    assert len(ours) > 4


def test_what_the_dashboard_reads_lmdeploy_has() -> None:
    for panel in (panel for row in ROWS.values() for panel in row):
        for query in panel.queries:
            names = {name for name in METRIC.findall(query.expr) if name.startswith("lmdeploy:")}
            assert names <= exported("0.18.0"), panel.title
            assert bool(names) == (panel.source == "engine" and "up{" not in query.expr)
        first = {name for name in METRIC.findall(panel.queries[0].expr) if name.startswith("lmdeploy:")}
        assert (first <= exported("0.9.2")) is not bool(panel.since), panel.title


def test_each_word_of_the_alerts_is_filled_in() -> None:
    limits = Thresholds(**{name: (low + high) / 2 for name, (low, high) in RANGES.items()})  # type: ignore[arg-type]
    made = json.dumps([[each["expr"], each["for"]] for each in rules("one", limits)["groups"][0]["rules"]])
    assert [word for word in words("one", limits) if re.search(rf"(?<![A-Z_]){word}", made)] == []
    assert [name for name in RANGES if f"{getattr(limits, name):g}" not in made] == []


def test_the_dashboards_file_has_every_panel() -> None:
    board = json.loads(files(plan_of(nodes()))["dashboards/lmfleet.json"])
    shown = {
        panel["title"]: [each["expr"] for each in panel["targets"]] for panel in board["panels"] if "targets" in panel
    }
    assert shown == {panel.title: [each.expr for each in panel.queries] for row in ROWS.values() for panel in row}
    assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "deployment", "engine"}
    assert "$" not in "".join(asked(query, "x") for queries in shown.values() for query in queries)


# ---- certificates


def test_each_certificate_that_no_alert_would_watch_is_told_once_with_its_nodes() -> None:
    good = {"item": ["/a.pem", "/text"], "rc": 0, "stdout": "notAfter=Nov 27 12:00:00 2027 GMT", "stderr": ""}
    gone = {"item": ["/b.pem", "/text"], "rc": 1, "stdout": "", "stderr": "Could not open /b.pem\n40:error:x\n"}
    bare = {"item": ["/a.pem", ""], "rc": 2, "msg": "No such file or directory: b'openssl'"}
    assert unwatched({"node0": [good], "node1": [], "node2": [good]}) == []
    first, second, third = unwatched({"node0": [good, gone], "node1": [gone], "node2": [bare, {**good, **bare}]})
    assert first.startswith(
        "node0, node1: openssl reads no certificate from /b.pem (Could not open /b.pem), so no alert"
    )
    assert "take it out of monitoring_certificates" in first
    assert second.startswith("node2: monitoring_certificates names some, and monitoring_textfile_dir is empty")
    assert third.startswith("node2: openssl reads no certificate from /a.pem (No such file or directory: b'openssl')")


def test_what_goes_to_prometheus_is_of_the_files_and_survives_an_actions_result() -> None:
    job = {"job_name": "\u00e9\u202e\x1b[2J", "static_configs": [{"targets": ["x:1"]}]}
    made = files(plan_of(nodes()), Settings(scrape_configs=[job]))
    brought = for_prometheus(made)
    assert set(brought) == {
        "prometheus.yml",
        "rules/lmdeploy.yml",
        *(f"targets/lmdeploy-{role}.json" for role in ROLES),
    }
    assert harmless_all(brought) == {name: made[name] for name in brought}
    assert yaml.safe_load(brought["prometheus.yml"])["scrape_configs"][-1] == job
