# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that are planted on real hosts, and what preflight.yml says of them: all of them, at once, where they are."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox.hosts import Run, Sandbox


@dataclasses.dataclass(frozen=True)
class Plant:
    """A fault: how it comes to a host and goes again, the rule that finds it, and words of what is said."""

    rule: str
    node: int
    plant: str
    undo: str
    words: tuple[str, ...]
    state: str = "error"


PLANTS = (
    Plant(
        "ports.in-use",
        1,
        "nohup python3 -m http.server 6380 >/dev/null 2>&1 & "
        "until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 6380))' 2>/dev/null; do sleep 0.1; done",
        "pkill -f '[h]ttp.server 6380'",
        ("port 6380 of lmdeploy-ray", "python3"),
    ),
    Plant(
        "docker.foreign-container",
        0,
        "docker create --name lmdeploy-api $(docker images --quiet | head -n 1) true",
        "docker rm lmdeploy-api",
        ("a container lmdeploy-api exists", "plan_name"),
    ),
    Plant(
        "model.whole",
        1,
        "mount -t tmpfs tmpfs /srv/huggingface",
        "umount /srv/huggingface",
        ("deepseek-ai/DeepSeek-V3 is not whole on 1 of 2 hosts", "node1"),
    ),
    Plant(
        "disk.read-only",
        0,
        "mount -t tmpfs -o ro tmpfs /var/lib/lmfleet",
        "umount /var/lib/lmfleet",
        ("/var/lib/lmfleet", "plan_state_dir"),
    ),
    Plant(
        "net.same-mtu",
        1,
        "ip link set eth0 mtu 1400",
        "ip link set eth0 mtu 1500",
        ("1400 on node1 (eth0)", "1500 on node0 (eth0)"),
        state="warning",
    ),
)


@pytest.fixture(scope="module")
def clean(sandbox: Sandbox) -> Sandbox:
    """Two hosts that have the image, and on which nothing runs."""
    sandbox.deploy().succeeded()
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    return sandbox


@contextlib.contextmanager
def planted(sandbox: Sandbox, *plants: Plant) -> Iterator[None]:
    with contextlib.ExitStack() as undone:
        for each in plants:
            sandbox.on(each.node, "sh", "-c", each.plant)
            undone.callback(sandbox.on, each.node, "sh", "-c", each.undo)
        yield


def preflight(sandbox: Sandbox, folder: Path, **variables: Any) -> tuple[Run, dict[str, Any]]:
    run = sandbox.playbook("playbooks/preflight.yml", preflight_report=str(folder), **variables)
    report: dict[str, Any] = json.loads((folder / "preflight.json").read_text(encoding="utf-8"))
    return run, report


def found(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["rule"], each["state"]) for each in report["findings"]}


def test_clean_hosts_have_no_finding(clean: Sandbox, tmp_path: Path) -> None:
    run, report = preflight(clean, tmp_path)
    run.succeeded()
    assert report["findings"] == []
    assert report["counts"]["ok"] > 0
    assert (tmp_path / "preflight.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_all_faults_of_all_hosts_are_told_at_once_and_a_deployment_stops_at_them(
    clean: Sandbox, tmp_path: Path
) -> None:
    before = clean.containers()
    with planted(clean, *PLANTS):
        run, report = preflight(clean, tmp_path)
        deployment = clean.deploy()
    assert found(report) == {(each.rule, each.state) for each in PLANTS}
    run.failed_with(*(word for each in PLANTS for word in each.words))
    errors = [each for each in PLANTS if each.state == "error"]
    deployment.failed_with("Nothing was started", *(word for each in errors for word in each.words))
    assert clean.containers() == before


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=[each.rule for each in PLANTS])
def test_each_fault_is_told_alone_and_gone_when_it_is_mended(clean: Sandbox, plant: Plant, tmp_path: Path) -> None:
    with planted(clean, plant):
        run, report = preflight(clean, tmp_path)
    assert found(report) == {(plant.rule, plant.state)}
    [finding] = report["findings"]
    assert f"node{plant.node}" in (finding["host"], *finding["hosts"])
    for word in plant.words:
        assert word in finding["told"]
    assert (run.code == 0) == (plant.state != "error")
    assert preflight(clean, tmp_path)[1]["findings"] == []


@pytest.mark.slow
def test_a_fault_can_be_waived_with_a_reason_and_a_host_that_is_off_is_told(clean: Sandbox, tmp_path: Path) -> None:
    mtu = next(each for each in PLANTS if each.rule == "net.same-mtu")
    with planted(clean, mtu):
        run, report = preflight(clean, tmp_path, plan_waive={"net.same-mtu": "the switch of node1 is old"})
    run.succeeded()
    assert found(report) == {("net.same-mtu", "waived")}
    assert "Waived: the switch of node1 is old" in run.text
    refused = clean.playbook("playbooks/preflight.yml", plan_waive={"net.same-mtus": "a typing error"})
    refused.failed_with("net.same-mtu")
    clean.power(1, on=False)
    try:
        run, report = preflight(clean, tmp_path)
    finally:
        clean.power(1, on=True)
    run.failed_with("host.answers on node1", "node1 (10.77.0.12) cannot be reached")
    assert report["counts"]["unknown"] > 0


@pytest.mark.slow
@pytest.mark.dpep
def test_four_clean_hosts_have_no_finding(dpep: Sandbox, tmp_path: Path) -> None:
    run, report = preflight(dpep, tmp_path)
    print(f"preflight of four hosts took {run.seconds:.1f} s, with the start of ansible-playbook")
    run.succeeded()
    assert report["findings"] == []
