# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark tools: their arguments, their arithmetic, and whole runs on this machine with a playbook made for the test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT
from ansible_collections.lmfleet.lmdeploy.tools import bench_first, bench_growth, bench_rerun, timing

RECAP = """\
TASK [x] ***
changed: [node1]

PLAY RECAP *********************************************************************
localhost                  : ok=4    changed=0    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
node0                      : ok=21   changed=0    unreachable=0    failed=0    skipped=9    rescued=0    ignored=0
node1                      : ok=7    changed=CHANGED    unreachable=0    failed=0    skipped=9    rescued=0    ignored=0
"""


# ---- arithmetic


def test_recap() -> None:
    assert timing.unchanged(RECAP.replace("CHANGED", "0"), "node0") == (21, 9)
    with pytest.raises(timing.Failed, match=r"changed something on node1:\nchanged: \[node1\]"):
        timing.unchanged(RECAP.replace("CHANGED", "2"), "node0")
    with pytest.raises(timing.Failed, match="no node7"):
        timing.unchanged(RECAP.replace("CHANGED", "0"), "node7")
    assert timing.recap("no recap") == {}


def test_rerun_table() -> None:
    cases = [
        bench_rerun.Case("tp", "a.yml", [1.0, 2.0, 30.0], [3.0, 40.0, 5.0], 21, 9),
        bench_rerun.Case("dpep", "b.yml", [1.0], [1.5], 3, 0),
    ]
    __, first, second = bench_rerun.table(cases)
    assert re.split("  +", first) == ["tp", "3", "2.00 s (1.00-30.00)", "5.00 s (3.00-40.00)", "2.50", "21 (9)"]
    assert re.split("  +", second)[4] == "1.50"


def test_first_table() -> None:
    lines = bench_first.table([60.0, 50.0, 100.0], [10.0, 20.0, 10.0], [40.0, 30.0, 60.0])
    assert re.split("  +", lines[1]) == ["1", "60.0 s", "10.0 s", "50.0 s", "40.0 s", "1.25"]
    # Medians of each column: 50, 30, 90 without the warm-up, and 40, 30, 60 by hand.
    assert re.split("  +", lines[-1]) == ["median", "60.0 s", "10.0 s", "50.0 s", "40.0 s", "1.25"]


def test_growth_table_counts_each_further_host() -> None:
    found = [
        ("tp", 2, dict.fromkeys(bench_growth.PARTS, 0.1)),
        ("tp", 12, dict.fromkeys(bench_growth.PARTS, 0.2)),
        ("dpep", 2, dict.fromkeys(bench_growth.PARTS, 0.1)),
    ]
    lines = bench_growth.table(found)
    assert [line.split()[0] for line in lines] == ["topology", "tp", "tp", "a", "dpep"]
    assert re.split("  +", lines[3].strip())[1:] == ["10.00 ms"] * len(bench_growth.PARTS)


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_growth_measures_what_is_as_planned(topology: str) -> None:
    found = bench_growth.measure(bench_growth.fleet(topology, 4), repeat=1)
    assert set(found) == set(bench_growth.PARTS)
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.parametrize("count", bench_growth.SIZES)
@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_a_fleet_of_every_measured_size_can_be_planned(topology: str, count: int) -> None:
    assert len(bench_growth.fleet(topology, count).plan.nodes) == count


# ---- arguments


def test_rerun_arguments() -> None:
    options = bench_rerun.parsed(["--playbook", "playbooks/deploy.yml", "--case", "s=status.yml", "-i", "a", "-i", "b"])
    assert [(each.name, each.playbook) for each in options.cases] == [
        ("deploy", "playbooks/deploy.yml"),
        ("s", "status.yml"),
    ]
    assert (options.runs, timing.of(options.inventory)) == (5, ["-i", "a", "-i", "b"])


@pytest.mark.parametrize("arguments", [[], ["--case", "deploy.yml"], ["--playbook", "x", "--runs", "0"]])
def test_rerun_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_rerun.parsed(arguments)
    assert ended.value.code == 2


def test_first_and_growth_arguments() -> None:
    options = bench_first.parsed(["--playbook", "d.yml", "--by-hand", "true", "--clean", "true", "-e", "a=b"])
    assert timing.extra(options) == ["-e", "a=b"]
    with pytest.raises(SystemExit):
        bench_first.parsed(["--playbook", "d.yml"])
    assert bench_growth.parsed([]).sizes == [2, 16, 64, 128]
    with pytest.raises(SystemExit):
        bench_growth.parsed(["--sizes", "3"])


# ---- whole runs

WARMUP = """\
#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
AnsibleModule({}).exit_json(changed=False, seconds=0.25)
"""

ACT = WARMUP.replace("AnsibleModule({})", "AnsibleModule({'act': {}})").replace("changed=False", "changed=True")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An inventory of this machine, and playbooks; `warmup` and `act` stand in for the actions of that name."""
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.json").write_text(
        json.dumps({"all": {"children": {"lmdeploy_nodes": {"hosts": {"node0": host}}}}})
    )
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "warmup.py").write_text(WARMUP)
    (tmp_path / "library" / "act.py").write_text(ACT)
    for name, tasks in {
        "nothing": [{"ansible.builtin.debug": {"msg": "x"}}],
        "something": [{"ansible.builtin.command": {"argv": ["true"]}}],
        "warm": [{"warmup": {}}, {"warmup": {}}],
        "again": [{"act": {"act": "remove"}}, {"warmup": {}}],
    }.items():
        (tmp_path / f"{name}.yml").write_text(
            json.dumps([{"hosts": "lmdeploy_nodes", "gather_facts": False, "tasks": tasks}])
        )
    return tmp_path


def tool(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    argv = [sys.executable, str(ROOT / "tools" / name), "-i", "hosts.json", "--runs", "1", *arguments]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_rerun_is_measured(folder: Path) -> None:
    done = tool("bench_rerun.py", folder, "--playbook", "nothing.yml")
    assert done.returncode == 0, done.stderr
    __, line = done.stdout.splitlines()
    assert line.startswith("nothing  1 ")
    assert line.endswith("1 (0)")


def test_a_rerun_that_changes_something_is_none(folder: Path) -> None:
    done = tool("bench_rerun.py", folder, "--case", "it=something.yml")
    assert done.returncode == 1
    assert "changed something on node0" in done.stderr


def test_a_first_deployment_is_measured_without_its_warm_ups(folder: Path) -> None:
    by_hand = ("--by-hand", "sleep 0.2", "--clean", "echo cleaned >>cleaned")
    done = tool("bench_first.py", folder, "--playbook", "warm.yml", *by_hand)
    assert done.returncode == 0, done.stderr
    assert re.split("  +", done.stdout.splitlines()[1])[2] == "0.5 s"
    assert (folder / "cleaned").read_text().split() == ["cleaned"] * 2
    done = tool("bench_first.py", folder, "--playbook", "nothing.yml", *by_hand)
    assert done.returncode == 1
    assert "warmed nothing up" in done.stderr
    done = tool("bench_first.py", folder, "--playbook", "again.yml", *by_hand)
    assert done.returncode == 1
    assert "removed containers" in done.stderr
