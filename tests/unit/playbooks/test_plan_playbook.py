# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``playbooks/plan.yml`` as a person runs it, over inventories of the shapes that people have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DPEP = {"plan_topology": "dpep"}


def plan(tmp_path: Path, gpus: list[int], **variables: Any) -> tuple[int, str]:
    """Exit status and output for hosts with so many GPUs."""
    inventory = tmp_path / "hosts.yml"
    hosts = {f"node{n}": {"ansible_host": f"10.0.0.{10 + n}", "plan_gpus": count} for n, count in enumerate(gpus)}
    group = {"lmdeploy_nodes": {"hosts": hosts, "vars": variables}}
    inventory.write_text(yaml.safe_dump({"all": {"children": group}}), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "--forks", "20", "playbooks/plan.yml"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("gpus", "variables", "words"),
    [
        ([8] * 2, {}, ["tp 16 over 2 nodes and 16 GPUs"]),
        ([8] * 2, {"plan_ep": 16}, ["tp 16, ep 16 over 2 nodes", "deepep 512 tokens a rank"]),
        ([8] * 4, DPEP, ["dp 32, ep 32, tp 1", "7633635456 bytes); NVSHMEM_QP_DEPTH=2048", "warnings:", "7.1 GiB"]),
        (
            [8] * 4,
            {**DPEP, "plan_image": "cu12-hopper"},
            ["LMDeploy 0.9.2", "DEEPEP_MAX_BATCH_SIZE=512; DEEPEP_MAX_TOKENS_PER_RANK=512; NVSHMEM_QP_DEPTH=2048"],
        ),
        (
            [8] * 4,
            {**DPEP, "plan_image": "openmmlab/lmdeploy:v0.8.0-cu12"},
            ["deepep 128 tokens a rank take 1.8 GiB", "max_batch_size is 128, and not 512"],
        ),
        ([8] * 4, {**DPEP, "plan_dp": 4, "plan_ep": 32, "plan_tp": 8}, ["dp 4, ep 32, tp 8"]),
        ([8] * 8, DPEP, ["dp 64, ep 64, tp 1"]),
        ([8] * 16, DPEP, ["dp 128, ep 128, tp 1"]),
    ],
)
def test_shapes_that_are_planned(tmp_path: Path, gpus: list[int], variables: dict[str, Any], words: list[str]) -> None:
    status, said = plan(tmp_path, gpus, **variables)
    assert status == 0, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("gpus", "variables", "words"),
    [
        ([8] * 3, DPEP, ["1 fault.", "plan_ep is 24 (all GPUs)", "set plan_ep to 16 or 32"]),
        ([8, 4], DPEP, ["2 faults.", "plan_ep is 12", "8 or 16", "node1: plan_gpus is 4", "on one host"]),
        ([4] * 4, DPEP, ["1 fault.", "node0, node1, node2, node3: plan_gpus is 4", "8 consecutive ranks"]),
        ([8] * 4, {}, ["1 fault.", "plan_tp is 32", "FP8 blocks", "1, 2, 4, 8, 16"]),
        (
            [8] * 3,
            {**DPEP, "plan_api_server_options": {"ssl": True, "cp": 2, "role": "Decode", "max_batch_size": 2048}},
            ["5 faults.", "ssl makes", "cp is an option of TurboMind", "role is for", "2048", "plan_ep is 24"],
        ),
    ],
)
def test_shapes_that_are_refused(tmp_path: Path, gpus: list[int], variables: dict[str, Any], words: list[str]) -> None:
    status, said = plan(tmp_path, gpus, **variables)
    assert status != 0
    assert "refused before any host was touched" in said
    for word in words:
        assert word in said
