# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links between hosts: real firewalls and a real bottleneck, and the link test's program in the engine's image, over gloo."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox.hosts import GPUS, Sandbox

QUICK = {"link_test_max_bytes": 65536, "link_test_iterations": 5}


@pytest.fixture
def bare(sandbox: Sandbox) -> Sandbox:
    """Two hosts on which nothing of the deployment runs."""
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    return sandbox


@contextlib.contextmanager
def firewall(sandbox: Sandbox, node: int, *rule: str) -> Iterator[None]:
    sandbox.on(node, "iptables", "-A", *rule)
    try:
        yield
    finally:
        sandbox.on(node, "iptables", "-D", *rule)


def result(folder: Path) -> dict[str, list[dict[str, object]]]:
    """What the last run left on the control node."""
    found: dict[str, list[dict[str, object]]] = json.loads(max(folder.glob("links-*.json")).read_text())
    return found


def test_the_links_of_two_hosts_are_proven_and_nothing_is_left(bare: Sandbox, tmp_path: Path) -> None:
    run = bare.playbook("playbooks/link_test.yml", **QUICK, link_test_folder=str(tmp_path)).succeeded()
    groups = result(tmp_path)["groups"]
    assert [each["ok"] for each in groups] == [True] * len(groups)
    kinds = [each["group"]["kind"] for each in groups]  # type: ignore[index]
    assert kinds == (["host", "host", "pair"] if GPUS > 1 else ["pair"])
    assert groups[-1]["backend"] == "gloo"
    assert groups[-1]["gpus"] == 2 * GPUS
    assert "this was gloo on the processors" in run.text
    assert bare.containers() == {}


def test_a_port_that_is_dropped_is_named_before_anything_is_started(bare: Sandbox) -> None:
    with firewall(bare, 1, "OUTPUT", "-p", "tcp", "-d", "10.77.0.11", "--dport", "6379", "-j", "DROP"):
        run = bare.deploy()
    run.failed_with(
        "the hosts do not reach each other",
        "node1 cannot reach node0 (10.77.0.11) on TCP 6379 (plan_ports.ray): timed out",
        "set plan_ports.ray to what is open",
    )
    assert run.text.count("cannot reach node0") == 2  # Ansible prints the message of a failure twice
    assert bare.containers() == {}
    print(f"named after {run.seconds:.0f} s")


def test_dropped_and_rejected_ports_of_both_hosts_are_in_one_message(bare: Sandbox, tmp_path: Path) -> None:
    with (
        firewall(bare, 0, "INPUT", "-p", "tcp", "-s", "10.77.0.12", "--dport", "29500", "-j", "REJECT"),
        firewall(
            bare,
            1,
            "INPUT",
            "-p",
            "tcp",
            "-s",
            "10.77.0.11",
            "--dport",
            "32768:60999",
            "-m",
            "conntrack",
            "--ctstate",
            "NEW",
            "-j",
            "DROP",
        ),
    ):
        run = bare.playbook("playbooks/link_test.yml", **QUICK, link_test_folder=str(tmp_path))
    run.failed_with(
        "node1 cannot reach node0 (10.77.0.11) on TCP 29500 (plan_ports.torch): refused, though this check listened there",
        "node0 cannot reach node1 (10.77.0.12) on TCP a port of the kernel's choice",
    )
    assert list(tmp_path.iterdir()) == []  # nothing was measured


def test_a_firewall_that_comes_later_is_named_and_takes_nothing_down(deployed: Sandbox) -> None:
    """A service that holds its port is tried as it is; what serves stays."""
    before = deployed.containers()
    with firewall(
        deployed,
        1,
        "OUTPUT",
        "-p",
        "tcp",
        "-d",
        "10.77.0.11",
        "--dport",
        "6379",
        "-m",
        "conntrack",
        "--ctstate",
        "NEW",
        "-j",
        "DROP",
    ):
        run = deployed.deploy(plan_api_server_options={"max_batch_size": 64})
    run.failed_with(
        "node1 cannot reach node0 (10.77.0.11) on TCP 6379 (plan_ports.ray)", "Nothing was taken down or started"
    )
    assert deployed.containers() == before


def test_an_unchanged_run_tries_no_link(deployed: Sandbox) -> None:
    run = deployed.deploy().succeeded()
    assert set(run.changed.values()) == {0}
    assert "See that the hosts reach each other" not in run.text


def test_nothing_is_measured_beside_engines_that_run(deployed: Sandbox, tmp_path: Path) -> None:
    before = deployed.containers()
    run = deployed.playbook("playbooks/link_test.yml", **QUICK, link_test_folder=str(tmp_path))
    run.failed_with("lmdeploy-ray on node0", "Nothing was measured", "link_test_running=beside")
    assert deployed.containers() == before
    deployed.playbook(
        "playbooks/link_test.yml", **QUICK, link_test_folder=str(tmp_path), link_test_running="beside"
    ).succeeded()
    assert deployed.containers() == before


@pytest.mark.slow
def test_a_deployment_measures_first_where_it_is_told_to(bare: Sandbox, tmp_path: Path) -> None:
    bare.deploy(link_test_enabled=True, **QUICK, link_test_folder=str(tmp_path)).succeeded()
    assert result(tmp_path)["faults"] == []
    again = bare.deploy(link_test_enabled=True, **QUICK, link_test_folder=str(tmp_path)).succeeded()
    assert set(again.changed.values()) == {0}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.dpep
def test_a_host_behind_a_bottleneck_is_named_among_four(dpep: Sandbox, tmp_path: Path) -> None:
    dpep.playbook("playbooks/teardown.yml").succeeded()
    device = "eth0"
    dpep.on(
        2, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "20mbit", "burst", "32kb", "latency", "400ms"
    )
    try:
        run = dpep.playbook(
            "playbooks/link_test.yml",
            link_test_max_bytes=1 << 20,
            link_test_iterations=3,
            link_test_folder=str(tmp_path),
        )
    finally:
        dpep.on(2, "tc", "qdisc", "del", "dev", device, "root")
    run.succeeded()  # slow is a warning
    # On a busy machine others may be slow as well: the slowest comes first.
    slow = [str(each) for each in result(tmp_path)["warnings"] if "is slow with every other host" in str(each)]
    assert slow[0].startswith("node2 ")
