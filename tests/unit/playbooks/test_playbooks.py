# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks as they are typed, on the control node alone."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
TWO_DEPLOYMENTS = """
[gpu]
a ansible_host=192.0.2.1 plan_cluster_address=10.0.0.1
[others]
b ansible_host=192.0.2.2 plan_cluster_address=10.0.0.2
"""


def test_one_run_plans_one_deployment(tmp_path: Path) -> None:
    """The group of planned nodes cannot be emptied, so what follows would be done to the first one's hosts as well."""
    (tmp_path / "inventory").write_text(TWO_DEPLOYMENTS, encoding="utf-8")
    plays = [
        f"- ansible.builtin.import_playbook: lmfleet.lmdeploy.make_plan\n  vars: {{plan_group: {group}, plan_gpus: 2}}\n"
        for group in ("gpu", "others")
    ]
    (tmp_path / "twice.yml").write_text("".join(plays), encoding="utf-8")
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "twice.yml"]
    environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "This run has planned a deployment on a already" in done.stdout + done.stderr
    assert "run ansible-playbook once for each deployment" in done.stdout + done.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_play_over_hosts_has_its_strategy(playbook: Path) -> None:
    """Row 4: with ANSIBLE_STRATEGY=free a host would go on before the others have answered, whose answers it reads."""
    plays = [play for play in yaml.safe_load(playbook.read_text(encoding="utf-8")) if "hosts" in play]
    assert [play["name"] for play in plays if play["hosts"] != "localhost" and play.get("strategy") != "linear"] == []


def test_a_host_that_loses_its_power_does_not_hold_a_task_for_long() -> None:
    """Row 60: TCP alone would take a quarter of an hour or more to notice."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "ansible.cfg", encoding="utf-8")
    words = dict(re.findall(r"-o (\w+)=(\d+)", config["ssh_connection"]["ssh_args"]))
    assert 0 < int(words["ServerAliveInterval"]) * int(words["ServerAliveCountMax"]) <= 120
