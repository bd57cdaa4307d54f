# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's actions: what they document is what they take, and what they do in check mode."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.action import benchmark_matrix, benchmark_report
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.matrix import PRESETS, ROW_SPEC
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations, build_plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import bound
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.inputs import read_inputs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record, Row
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT, SPEC, nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.benchmark.reports import H100, guide_rows, result

PLUGINS = "ansible_collections.lmfleet.lmdeploy.plugins"
SAID = ("type", "elements", "choices", "default", "required")


def taken(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: rule[key] for key in SAID if key in rule} for name, rule in options.items()}


@pytest.mark.parametrize("name", ["compare", "job", "matrix", "report"])
def test_an_action_takes_what_is_documented(name: str) -> None:
    documented = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.benchmark_{name}").DOCUMENTATION)["options"]
    assert taken(documented) == taken(importlib.import_module(f"{PLUGINS}.action.benchmark_{name}").ARGUMENT_SPEC)
    for option in documented.values():
        assert "suboptions" not in option or taken(option["suboptions"]) == taken(ROW_SPEC)


def act(name: str, arguments: dict[str, Any], *flags: str) -> dict[str, Any]:
    """The result of an action, as a task on the control node."""
    task = ["-m", f"lmfleet.lmdeploy.benchmark_{name}", "-a", json.dumps(arguments)]
    argv = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", *task, *flags]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    said: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2])
    return said


def test_a_wrong_matrix_is_refused_with_every_fault_and_the_variable_to_change(tmp_path: Path) -> None:
    rows = [{"input_len": 8, "output_len": 0, "num_prompts": 1}, {"output_len": 8, "num_prompts": 1, "target": "proxy"}]
    refused = act("matrix", {"rows": rows, "folder": str(tmp_path)})
    assert refused["msg"].splitlines() == [
        "The benchmark was refused before a request was sent: 3 faults.",
        "  1. benchmark_rows, row 1: output_len is 0, it must be a whole number of 1 or more",
        "  2. benchmark_rows, row 2: missing required arguments: input_len",
        "  3. benchmark_rows, row 2: value of target must be one of: url, ranks, got: proxy",
    ]
    refused = act("matrix", {"preset": "slow", "folder": str(tmp_path)})
    assert f"benchmark_preset is 'slow'; there are {', '.join(PRESETS)}." in refused["msg"]


def test_without_a_plan_it_says_which_playbook_comes_before(tmp_path: Path) -> None:
    assert "make_plan" in act("matrix", {"folder": str(tmp_path)})["msg"]


def play(folder: Path, tasks: list[dict[str, Any]], *flags: str) -> list[dict[str, Any]]:
    """The results of tasks on the control node, after the plan of the example inventory."""
    planned = {"lmfleet.lmdeploy.plan": {"group": "lmdeploy_nodes"}}
    results = [f"result{number}" for number, __ in enumerate(tasks)]
    done = [{**task, "register": name, "failed_when": False} for task, name in zip(tasks, results)]
    told = folder / "told.json"
    tell = {"copy": {"content": f"{{{{ [{', '.join(results)}] | to_json }}}}", "dest": str(told)}, "check_mode": False}
    playbook = folder / "playbook.yml"
    each = {"hosts": "localhost", "gather_facts": False, "tasks": [planned, *done, tell]}
    playbook.write_text(yaml.safe_dump([each], sort_keys=False))
    argv = [sys.executable, "-m", "ansible", "playbook", str(playbook), "-i", str(ROOT / "inventory" / "two_nodes")]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    ran = subprocess.run([*argv, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: list[dict[str, Any]] = json.loads(told.read_text())
    return found


def test_a_row_that_the_client_cannot_send_is_refused_before_any_host_is_asked(tmp_path: Path) -> None:
    rows = [
        {"name": "some", "input_len": 8, "output_len": 8, "num_prompts": 1},
        {"name": "paced", "input_len": 8, "output_len": 8, "num_prompts": 9, "concurrency": 3, "stream": False},
    ]
    arguments = {"rows": rows, "folder": str(tmp_path)}
    tasks = [
        {"lmfleet.lmdeploy.benchmark_matrix": {**arguments, "client": client}} for client in ("lmdeploy", "aiperf")
    ]
    refused, accepted = play(tmp_path, tasks)
    paced = "benchmark_rows, paced: lmdeploy (benchmark_client) cannot send it"
    assert refused["msg"].splitlines() == [
        "The benchmark was refused before a request was sent: 2 faults.",
        f"  1. {paced}: it cannot limit concurrency: leave it out",
        f"  2. {paced}: without streaming it makes up the number of tokens: set stream: true",
    ]
    assert accepted["todo"] == 2
    assert [batch["changes"] for batch in accepted["batches"]] == [{}]


# What was seen of each of two hosts.
SEEN: dict[str, Any] = {
    "image": {"id": f"sha256:{'a' * 64}", "answer": {"lmdeploy": "0.8.0", "ray_token_auth": False}},
    "host": {
        "interfaces": {"eth0": ["10.0.0.10", "10.0.0.11"]},
        "source": "10.0.0.10",
        "gpus": {"names": [H100] * 8, "driver": "570.133.20", "listing": "", "error": ""},
        "links": {"mlx5_0/1": "400 Gb/sec (4X NDR)"},
    },
    "model": {"config": {"num_attention_heads": 128}},
}


def seen_run(folder: Path, **variables: Any) -> Run:
    """A run that has seen both of its hosts, and has its plan bound to them."""
    given = read_inputs(SPEC, nodes(2, plan_image="openmmlab/lmdeploy:v0.8.0-cu12", **variables), Faults())
    run = Run(folder)
    run.keep_inputs(given, build_plan(given, Observations(), Faults()))
    for host in ("node0", "node1"):
        run.saw(host, SEEN)
    run.keep_plan(bound(run.inputs, run.hosts(), Faults()))
    return run


def test_each_max_batch_size_has_its_own_plan_and_the_run_keeps_its(tmp_path: Path) -> None:
    run = seen_run(tmp_path / "run", plan_api_server_options={"max-batch-size": 64, "cache_max_entry_count": 0.7})
    before = run.plan
    assert before.bound
    rows = [Row("one", 8, 8, 1, max_batch_size=size) for size in (None, 64, 256, "default")]
    arguments = {"folder": str(tmp_path), "conditions": {"seed": 1}}
    batches = [benchmark_matrix.batch(run, row.max_batch_size, [row], arguments) for row in rows]
    assert run.plan == before
    assert [batch["changes"] for batch in batches] == [
        {},
        {"max_batch_size": 64},
        {"max_batch_size": 256},
        {"max_batch_size": None},
    ]
    # What is deployed already needs no other engines; everything else does.
    same, given, other, default = [batch["identity"] for batch in batches]
    assert same == given == before.identity
    assert len({same, other, default}) == 3
    assert [batch["max_batch_size"] for batch in batches] == [64, 64, 256, 512]
    assert all("plan" not in batch for batch in batches)
    changed = bound(run.inputs, run.hosts(), Faults(), option_changes={"max_batch_size": None})
    assert changed.identity == default
    assert changed.engines[0].option("max-batch-size") is None
    assert changed.engines[0].option("cache-max-entry-count") == "0.7"


def test_a_row_is_measured_once_for_each_plan_and_its_conditions(tmp_path: Path) -> None:
    row = Row("one", 8, 8, 1)
    keys = set()
    for image, seed in (("a", 1), ("a", 2), ("b", 1)):
        run = seen_run(tmp_path / f"{image}{seed}", plan_served_model_name=image)
        arguments = {"folder": str(tmp_path), "conditions": {"seed": seed}}
        (entry,) = benchmark_matrix.batch(run, None, [row], arguments)["rows"]
        assert not entry["done"]
        Path(entry["result"]).parent.mkdir(exist_ok=True)
        Path(entry["result"]).write_text(json.dumps(result(row, [Record(0.0, 1.0, 0.5, 8, 8)])))
        (entry,) = benchmark_matrix.batch(run, None, [row], arguments)["rows"]
        assert entry["done"]
        keys.add(entry["key"])
    assert len(keys) == 3


def test_the_report_has_the_plan_and_the_hardware_of_the_run(tmp_path: Path) -> None:
    run = seen_run(tmp_path)
    run.saw("node1", {"host": {**SEEN["host"], "gpus": None}})
    found = benchmark_report.run_of(run.plan, run.hosts(), {"label": "value"})
    assert found["image"] == SEEN["image"]["id"]
    assert found["image_labels"] == {"label": "value"}
    assert found["plan"] == run.plan.to_json()
    links = {"mlx5_0/1": "400 Gb/sec (4X NDR)"}
    assert found["hosts"] == [
        {"node": "node0", "gpus": [H100] * 8, "driver": "570.133.20", "links": links},
        {"node": "node1", "gpus": [], "driver": None, "links": links},
    ]
    assert benchmark_report.hardware(None) == {"gpus": [], "driver": None, "links": {}}


@pytest.mark.long
def test_in_check_mode_the_report_is_made_and_not_written(tmp_path: Path) -> None:
    (row, of, more), *__ = guide_rows(prompts=30)
    measured = result(row, of, **more)
    (tmp_path / "row.json").write_text(json.dumps(measured))
    there = {"key": measured["key"], "result": str(tmp_path / "row.json"), "records": str(tmp_path / "row.records")}
    missing = {key: f"{value}-missing" for key, value in there.items()}
    tasks = [{"lmfleet.lmdeploy.benchmark_report": {"folder": str(tmp_path / "report"), "rows": [there, missing]}}]
    (checked,) = play(tmp_path, tasks, "--check")
    assert [line["key"] for line in checked["report"]["rows"]] == [measured["key"]]
    assert checked["msg"].endswith("1 of 2 rows are not measured.\nREPORT check mode: it is not written")
    assert not (tmp_path / "report").exists()
    (written,) = play(tmp_path, tasks)
    assert written["msg"].endswith(f"REPORT {tmp_path}/report/report.html")
    assert (tmp_path / "report" / "report.html").exists()
    assert written["report"]["rows"] == checked["report"]["rows"]
