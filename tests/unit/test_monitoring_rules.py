# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each alert in Prometheus' own evaluation (promtool test rules): it fires where it should, and is silent where it should not.

promtool is this machine's, or the distribution's package is fetched for it (scripts/lib/packages.sh).
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.alerts import Thresholds, alerts, rules
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.files import Settings, files_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.panels import ROWS, asked
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.targets import Exporters, targets_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.packages import program
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

ROOT = Path(__file__).resolve().parents[2]
# A sample every 15 s, as Prometheus' own notation has them: `a+bxn` is a, and then n more, each b more than the one before.
A_MINUTE = 4
PLAN = plan_of(nodes(plan_gpus=8))
LABELS = {
    role: {"job": f"lmfleet-{role}", "instance": targets[0].address, **targets[0].labels}
    for role, targets in targets_of(PLAN, Exporters(9100, 9400, ["10.0.0.9:29000"], ray=True)).items()
}
FULL = {"device": "/dev/sda1", "mountpoint": "/", "fstype": "ext4"}
ANOTHER = {"deployment": "another"}


def series(name: str, role: str, **more: str) -> str:
    """A series as Prometheus has it after a scrape."""
    own = {"model_name": "m", "exported_engine": "0"} if name.startswith("lmdeploy:") else {}
    return name + "{" + ", ".join(f'{key}="{value}"' for key, value in {**LABELS[role], **own, **more}.items()) + "}"


def flat(value: float, minutes: int = 60) -> str:
    return f"{value}x{minutes * A_MINUTE - 1}"


def grows(by: float, start: float = 0, minutes: int = 60) -> str:
    return f"{start}{by:+}x{minutes * A_MINUTE - 1}"


def tokens(by: float, running: float, waiting: float = 0) -> dict[str, str]:
    """An engine with so many requests, which makes ``by`` tokens from one sample to the next."""
    return {
        series("lmdeploy:num_requests_running", "engine"): flat(running),
        series("lmdeploy:num_requests_waiting", "engine"): flat(waiting),
        series("lmdeploy:generation_tokens_total", "engine"): grows(by, 1000),
        series("lmdeploy:prompt_tokens_total", "engine"): flat(500),
    }


def first_tokens(below_10_s: float, below_20_s: float) -> dict[str, str]:
    """The histogram of first tokens, with so many more requests from one sample to the next."""
    growth = {"5.0": below_10_s, "10.0": below_10_s, "20.0": below_20_s, "+Inf": below_20_s}
    name = "lmdeploy:time_to_first_token_seconds_bucket"
    return {series(name, "engine", le=le): grows(by) for le, by in growth.items()}


def disk(free: float, **labels: str) -> dict[str, str]:
    return {
        series("node_filesystem_avail_bytes", "node", **{**FULL, **labels}): flat(free * 1e12),
        series("node_filesystem_size_bytes", "node", **{**FULL, **labels}): flat(1e12),
    }


@dataclasses.dataclass
class Case:
    """``given`` are the series; ``alert`` fires after ``minutes`` and not after ``before``; an empty one: none ever does."""

    what: str
    given: Mapping[str, str]
    alert: str = ""
    minutes: int = 30
    before: int | None = None
    limits: Thresholds = dataclasses.field(default_factory=Thresholds)


UP = series("up", "engine")
QUEUE, AT_THE_API = (
    series("lmdeploy:num_requests_waiting", "engine"),
    series("lmdeploy:num_api_requests_waiting", "engine"),
)
CACHE = series("lmdeploy:gpu_cache_usage_perc", "engine")
RESTARTS = series("lmfleet_engine_restarts_total", "node", service="dp")
XID = series("DCGM_FI_DEV_XID_ERRORS", "gpu", gpu="3")
ENDS = series("lmfleet_certificate_expiry_timestamp_seconds", "node", path="/etc/ssl/a.pem")
DAY = 86400
CASES = [
    Case("an endpoint that is out", {UP: f"{flat(1, 5)} {flat(0)}"}, "LMDeployEndpointOut", 20, before=6),
    Case("an endpoint that misses some scrapes", {UP: f"{flat(1, 5)} {flat(0, 1)} {flat(1)}"}),
    Case("another deployment's endpoint", {series("up", "engine", **ANOTHER): flat(0)}),
    Case("a series that is not of a deployment", {'up{job="x"}': flat(0)}),
    Case(
        "one that gave up",
        {series("lmfleet_engine_gave_up", "node", service="api"): flat(1)},
        "LMDeployEngineGaveUp",
        0,
    ),
    Case("one that did not give up", {series("lmfleet_engine_gave_up", "node", service="api"): flat(0)}),
    Case("no tokens, though requests run", tokens(0, 3), "LMDeployNoTokens", 8, before=4),
    Case("no tokens, though requests wait", tokens(0, 0, 3), "LMDeployNoTokens", 8),
    Case("no tokens, sooner", tokens(0, 3), "LMDeployNoTokens", 3, limits=Thresholds(no_tokens_s=60)),
    Case("tokens", tokens(50, 3, 3)),
    Case("an idle engine", tokens(0, 0)),
    Case(
        "a long prompt",
        {**tokens(0, 1), series("lmdeploy:generation_tokens_total", "engine"): f"{flat(0, 4)} {grows(1, 1)}"},
    ),
    Case("prompts of one token", {**tokens(0, 1), series("lmdeploy:prompt_tokens_total", "engine"): grows(1)}),
    Case(
        "three starts in an hour",
        {RESTARTS: f"{flat(5, 10)} {flat(6, 5)} {flat(8)}"},
        "LMDeployEngineRestarts",
        20,
        before=12,
    ),
    Case(
        "the same, as two nodes count them",
        {RESTARTS: f"{flat(0, 10)} {flat(3)}", RESTARTS.replace("node0", "node1"): f"{flat(0, 10)} {flat(3)}"},
        "LMDeployEngineRestarts",
        20,
    ),
    Case("two starts in an hour", {RESTARTS: f"{flat(5, 10)} {flat(7)}"}),
    Case("three starts, long ago", {RESTARTS: flat(3)}),
    Case(
        "one start, where one is too much",
        {RESTARTS: f"{flat(0, 10)} {flat(1)}"},
        "LMDeployEngineRestarts",
        20,
        limits=Thresholds(restarts_per_hour=1),
    ),
    Case("a start by a deploy", {series("lmfleet_engine_formations_total", "node", service="dp"): grows(1)}),
    Case("a full cache, and requests wait", {CACHE: flat(0.99), QUEUE: flat(2)}, "LMDeployKVCacheFull", 12, before=8),
    Case("a cache full of prefixes", {CACHE: flat(1), QUEUE: flat(0)}),
    Case("a cache that has room", {CACHE: flat(0.9), QUEUE: flat(2)}),
    Case("a queue that grows", {QUEUE: grows(2, 90)}, "LMDeployQueueGrowing", 15, before=8),
    Case("a queue at the server that grows", {QUEUE: flat(0), AT_THE_API: grows(2, 90)}, "LMDeployQueueGrowing", 15),
    Case("a long queue that stays", {QUEUE: flat(500)}),
    Case("a long queue that gets shorter", {QUEUE: grows(-1, 900)}),
    Case("a short queue that grows", {QUEUE: grows(0.25)}),
    Case("slow first tokens", first_tokens(8, 10), "LMDeployFirstTokenSlow", 13, before=8),
    Case("one slow first token in thirty", first_tokens(29, 30)),
    Case(
        "one slow first token in thirty, with a lower bound",
        first_tokens(29, 30),
        "LMDeployFirstTokenSlow",
        13,
        limits=Thresholds(first_token_s=2),
    ),
    Case("no requests", first_tokens(0, 0)),
    Case("a GPU that has fallen off the bus", {XID: f"{flat(0, 5)} {flat(79)}"}, "LMDeployGPUError", 6, before=4),
    Case("an NVLink error", {XID: flat(149)}, "LMDeployGPUError", 1),
    Case("a program's own XID", {XID: flat(31)}),
    Case("what a killed engine leaves", {XID: flat(45)}),
    Case(
        "broken memory",
        {series("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gpu", gpu="3"): flat(1)},
        "LMDeployGPURowRemapFailed",
        0,
    ),
    Case("memory that is well", {series("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gpu", gpu="3"): flat(0)}),
    Case("a full disk", disk(0.05), "LMDeployDiskFull", 12, before=8),
    Case("a disk with room", disk(0.5)),
    Case("a small file system in memory", disk(0.01, fstype="tmpfs", mountpoint="/run")),
    Case("an image's file system", disk(0, fstype="squashfs", mountpoint="/snap")),
    *(
        Case(f"no answer of {role}", {series("up", role): flat(0)}, "LMDeployExporterOut", 6, before=4)
        for role in ("node", "gpu", "ray", "gateway")
    ),
    Case("a certificate of 13 days", {ENDS: flat(13 * DAY)}, "LMDeployCertificateRunsOut", 0),
    Case("a certificate that ran out", {ENDS: flat(60)}, "LMDeployCertificateRunsOut", 2),
    Case("a certificate of 15 days", {ENDS: flat(15 * DAY)}),
]


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool")


def run(promtool: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([promtool, *arguments], cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tried(case: Case) -> dict[str, Any]:
    """The case as promtool reads it: which alerts fire, each how often, at the times that are asked for."""
    firing = "count by (alertname) (ALERTS{alertstate='firing'})"
    fires = [{"labels": f'{{alertname="{case.alert}"}}', "value": 1}]
    at = {case.minutes: fires} if case.alert else {minutes: [] for minutes in (1, 10, 20, 30, 50)}
    if case.before is not None:
        at[case.before] = []
    return {
        "interval": f"{60 // A_MINUTE}s",
        "input_series": [{"series": name, "values": values} for name, values in case.given.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{minutes}m1s", "exp_samples": samples} for minutes, samples in at.items()
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_an_alert_fires_when_it_should_and_not_else(case: Case, promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules(PLAN.name, case.limits)))
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [tried(case)]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    run(promtool, "test", "rules", "test.yml", cwd=tmp_path)


def test_every_alert_is_tried() -> None:
    assert {case.alert for case in CASES} - {""} == {alert["alert"] for alert in alerts()}


def test_every_alert_is_on_the_page_with_its_variable_and_default() -> None:
    page = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    for alert in alerts():
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{alert['alert']}` | {alert['severity']} |")]
        for name, default in vars(Thresholds()).items():
            used = f"{name.upper()}" in f"{alert['expr']} {alert['for']}"
            assert (f"`monitoring_{name}` ({default:g})" in row) is used, row


def test_a_person_reads_where_it_is(promtool: str, tmp_path: Path) -> None:
    """What Prometheus fills in, whole: one alert for all, with the labels that routes go by."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules(PLAN.name, Thresholds())))
    [rule] = [
        each for each in rules(PLAN.name, Thresholds())["groups"][0]["rules"] if each["alert"] == "LMDeployGPUError"
    ]
    wanted = {
        "alertname": "LMDeployGPUError",
        "eval_time": "1m",
        "exp_alerts": [
            {
                "exp_labels": {**LABELS["gpu"], "gpu": "3", "severity": "critical"},
                "exp_annotations": {
                    "summary": "lmdeploy: GPU 3 of node0 had XID 79, an error of the hardware",
                    "runbook": rule["annotations"]["runbook"],
                },
            }
        ],
    }
    given = {"interval": "15s", "input_series": [{"series": XID, "values": flat(79)}], "alert_rule_test": [wanted]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [given]}))
    run(promtool, "test", "rules", "test.yml", cwd=tmp_path)


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_promtool_takes_the_files(topology: str, promtool: str, tmp_path: Path) -> None:
    plan = plan_of(nodes(plan_gpus=8, plan_topology=topology, plan_name="a-b"))
    job = {"job_name": "mine", "static_configs": [{"targets": ["x:1"]}]}
    settings = Settings(
        exporters=Exporters(9100, 9400, ["10.0.0.9:29000"], ray=True),
        alertmanagers=["a.example.com:9093"],
        folder=str(tmp_path),
        scrape_configs=[job],
    )
    for name, text in files_of(plan, settings, str(tmp_path), "http://127.0.0.1:9090").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert "1 rule files found" in run(promtool, "check", "config", "prometheus.yml", cwd=tmp_path)
    assert f"{len(alerts())} rules found" in run(promtool, "check", "rules", "rules/a-b.yml", cwd=tmp_path)
    # promtool reads no targets of a pattern: a job for each file, and the jobs to include as a configuration of their own.
    targets = sorted(tmp_path.glob("targets/*"))
    assert sum(json.loads(each.read_text()) != [] for each in targets) >= 4
    jobs = [{"job_name": each.name, "file_sd_configs": [{"files": [str(each)]}]} for each in targets]
    (tmp_path / "targets.yml").write_text(json.dumps({"scrape_configs": jobs}))
    for name in ("targets.yml", "scrape_configs.yml"):
        run(promtool, "check", "config", name, cwd=tmp_path)


def test_prometheus_takes_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    queries = {query.expr for row in ROWS.values() for panel in row for query in panel.queries}
    recorded = [{"record": f"tried:{n}", "expr": asked(expr, "x")} for n, expr in enumerate(sorted(queries))]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": recorded}]}))
    assert f"{len(queries)} rules found" in run(promtool, "check", "rules", "queries.yml", cwd=tmp_path)


def test_where_promtool_cannot_be_had_it_is_said(tmp_path: Path) -> None:
    """A copy of the script, in a checkout that has fetched nothing, on a machine without packages."""
    script = tmp_path / "scripts" / "lib" / "packages.sh"
    script.parent.mkdir(parents=True)
    script.write_text((ROOT / "scripts/lib/packages.sh").read_text())
    for name in ("dirname", "bash"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", f"source {script} && ensure_packages"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert "there is no apt-get: install Prometheus, node_exporter, HAProxy and nftables" in " ".join(
        done.stderr.split()
    )
