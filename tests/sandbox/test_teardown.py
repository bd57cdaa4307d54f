# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A teardown that removes a cache too, on real hosts; and what the deployment after it says of its start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sandbox.hosts import Sandbox

HOME = "/var/lib/lmfleet/lmdeploy"


@pytest.mark.slow
def test_a_cache_goes_where_its_path_is_typed_and_the_next_start_is_timed(deployed: Sandbox, tmp_path: Path) -> None:
    for node in deployed.nodes:
        deployed.on(node, "sh", "-c", f"echo compiled > {HOME}/triton/kernel; echo compiled > {HOME}/nv/kernel")
    deployed.on(0, "sh", "-c", "docker create --name somebody-elses $(docker images --quiet | head -n 1) true")
    try:
        before = deployed.containers()
        deployed.playbook("playbooks/teardown.yml", teardown_caches=[HOME]).failed_with(
            "Nothing was removed. To mend first", f"{HOME}/triton (compiled kernels)"
        )
        check = deployed.playbook("playbooks/teardown.yml", "--check", "--diff", teardown_caches=[f"{HOME}/triton"])
        check.succeeded()
        assert check.changed["node0"] == check.changed["node1"] == 1
        assert f"node1: remove {HOME}/triton" in check.text
        assert deployed.containers() == before

        for changed in (1, 0):
            run = deployed.playbook("playbooks/teardown.yml", teardown_caches=[f"{HOME}/triton"]).succeeded()
            assert (run.changed["node0"], run.changed["node1"]) == (changed, changed)
            assert set(deployed.containers()) == {"node0/somebody-elses"}
        for node in deployed.nodes:
            kept = deployed.on(node, "ls", HOME).split()
            assert "triton" not in kept
            assert {"nv", "record.json", "secrets"} <= set(kept)
    finally:
        deployed.on(0, "docker", "rm", "somebody-elses")

    run = deployed.deploy().succeeded()
    assert "s after the start of its first container, " in run.text
    for phase in ("containers started", "Ray whole", "warmed up"):
        assert phase in run.output
    file = tmp_path / "status.json"
    status = deployed.playbook("playbooks/status.yml", status_file=str(file)).succeeded()
    assert "lmdeploy: ready after " in status.text
    [engine] = json.loads(file.read_text(encoding="utf-8"))["engines"]
    assert engine["timeline"]["formation"] == engine["formation"]
    assert engine["timeline"]["phases"][-1] == ["warmed", engine["timeline"]["seconds"]]
    assert engine["ratio"] is None or engine["ratio"] > 0
