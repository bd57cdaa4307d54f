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

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.matrix import PRESETS, ROW_SPEC
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.benchmark.reports import (
    guide_rows,
    result,
    run,
)

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
    refused = act("matrix", {"group": "all", "rows": rows, "folder": str(tmp_path)})
    assert refused["msg"].splitlines() == [
        "The benchmark was refused before a request was sent: 3 faults.",
        "  1. benchmark_rows, row 1: output_len is 0, it must be a whole number of 1 or more",
        "  2. benchmark_rows, row 2: missing required arguments: input_len",
        "  3. benchmark_rows, row 2: value of target must be one of: url, ranks, got: proxy",
    ]
    refused = act("matrix", {"group": "all", "preset": "slow", "folder": str(tmp_path)})
    assert f"benchmark_preset is 'slow'; there are {', '.join(PRESETS)}." in refused["msg"]


def test_a_row_that_the_client_cannot_send_is_refused_before_any_host_is_asked(tmp_path: Path) -> None:
    rows = [
        {"name": "some", "input_len": 8, "output_len": 8, "num_prompts": 1},
        {"name": "paced", "input_len": 8, "output_len": 8, "num_prompts": 9, "concurrency": 3, "stream": False},
    ]
    inventory = ROOT / "inventory" / "two_nodes"
    arguments = {"group": "lmdeploy_nodes", "rows": rows, "folder": str(tmp_path), "client": "lmdeploy"}
    refused = act("matrix", arguments, "-i", str(inventory))
    paced = "benchmark_rows, paced: lmdeploy (benchmark_client) cannot send it"
    assert refused["msg"].splitlines() == [
        "The benchmark was refused before a request was sent: 2 faults.",
        f"  1. {paced}: it cannot limit concurrency: leave it out",
        f"  2. {paced}: without streaming it makes up the number of tokens: set stream: true",
    ]
    accepted = act("matrix", {**arguments, "client": "aiperf"}, "-i", str(inventory))
    assert accepted["todo"] == 2


def test_in_check_mode_the_report_is_made_and_not_written(tmp_path: Path) -> None:
    (row, of, more), *__ = guide_rows(prompts=30)
    measured = result(row, of, **more)
    (tmp_path / "row.json").write_text(json.dumps(measured))
    there = {"key": measured["key"], "result": str(tmp_path / "row.json"), "records": str(tmp_path / "row.records")}
    missing = {key: f"{value}-missing" for key, value in there.items()}
    arguments = {"folder": str(tmp_path / "report"), "plan": run()["plan"], "rows": [there, missing]}
    checked = act("report", arguments, "--check")
    assert [line["key"] for line in checked["report"]["rows"]] == [measured["key"]]
    assert checked["msg"].endswith("1 of 2 rows are not measured.\nREPORT check mode: it is not written")
    assert not (tmp_path / "report").exists()
    written = act("report", arguments)
    assert written["msg"].endswith(f"REPORT {tmp_path}/report/report.html")
    assert (tmp_path / "report" / "report.html").exists()
    assert written["report"]["rows"] == checked["report"]["rows"]
