# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What answers from outside the cluster on real hosts, before and after a firewall, which takes itself back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox.hosts import Run, Sandbox

pytestmark = pytest.mark.slow
TABLE = "lmfleet_lmdeploy"


def closure(sandbox: Sandbox, folder: Path, **variables: Any) -> tuple[Run, dict[str, Any]]:
    """The control node is on the hosts' network, and has no cluster address: it is outside."""
    run = sandbox.playbook("playbooks/closure.yml", closure_file=str(folder / "closure.json"), **variables)
    return run, json.loads((folder / "closure.json").read_text(encoding="utf-8"))


def tables(sandbox: Sandbox, node: int) -> str:
    return sandbox.on(node, "nft", "list", "tables")


@pytest.fixture
def bare(deployed: Sandbox) -> Iterator[Sandbox]:
    """A deployment without a firewall, before and afterwards."""
    deployed.playbook("playbooks/firewall.yml", firewall_state="absent").succeeded()
    yield deployed
    deployed.playbook("playbooks/firewall.yml", firewall_state="absent").succeeded()


def test_what_is_open_is_named_then_closed_and_a_second_run_changes_nothing(bare: Sandbox, tmp_path: Path) -> None:
    others = [tables(bare, node) for node in bare.nodes]
    run, found = closure(bare, tmp_path)
    run.failed_with(
        "Ray's GCS (plan_ports.ray) answers to localhost, and should not: node0 port 6379", "run any program"
    )
    assert "23333" not in {str(each["port"]) for each in found["open"]}
    assert {each["node"] for each in found["open"]} == {"node0", "node1"}
    assert any("gcs_server" in each["process"] and "lmdeploy-ray" in each["process"] for each in found["open"])

    checked = bare.playbook("playbooks/firewall.yml", "--check", "--diff").succeeded()
    assert f"table inet {TABLE}" in checked.output
    assert [tables(bare, node) for node in bare.nodes] == others
    engines = bare.containers()
    first = bare.playbook("playbooks/firewall.yml").succeeded()
    assert set(first.changed.values()) == {0, 1}
    assert set(bare.playbook("playbooks/firewall.yml").succeeded().changed.values()) == {0}
    for node, before in zip(bare.nodes, others):
        assert before in tables(bare, node)  # Docker's own, and whose ever else
    run, found = closure(bare, tmp_path)
    run.succeeded()
    assert found["open"] == []
    assert bare.chat()["usage"]["completion_tokens"] > 0

    again = bare.deploy(firewall_enabled=True, closure_enabled=True).succeeded()
    assert set(again.changed.values()) == {0}
    assert bare.containers() == engines
    # The hosts still reach each other: all of the engine is formed again behind the firewall.
    bare.on(1, "docker", "rm", "--force", "lmdeploy-ray")
    bare.deploy(firewall_enabled=True, closure_enabled=True).succeeded()
    assert bare.chat()["usage"]["completion_tokens"] > 0


def test_a_url_that_does_not_answer_is_told(bare: Sandbox, tmp_path: Path) -> None:
    bare.on(0, "docker", "stop", "lmdeploy-api")
    run, __ = closure(bare, tmp_path)
    run.failed_with(
        "http://10.77.0.11:23333 does not answer to localhost, and should", "Nothing listens there on node0"
    )


def test_a_host_that_nobody_comes_into_again_takes_its_rules_back(bare: Sandbox) -> None:
    """Another table, which drops new connections of SSH as soon as the deployment's is there, stands for rules that are wrong."""
    block = (
        "table inet shut_out { chain input { type filter hook input priority 5; tcp dport 22 ct state new drop; }; }"
    )
    wait = f"until nft list table inet {TABLE} >/dev/null 2>&1; do sleep 0.05; done; nft '{block}'"
    bare.outer("exec", "--detach", "lmfleet-sandbox-node1", "sh", "-c", wait)
    try:
        run = bare.playbook("playbooks/firewall.yml", firewall_rollback=20)
        run.failed_with("node1 (10.77.0.12): no new connection came in after its firewall was set", "by itself 20 s")
        deadline = time.monotonic() + 60
        while TABLE in tables(bare, 1):
            assert time.monotonic() < deadline
            time.sleep(1)
    finally:
        bare.on(1, "sh", "-c", "nft delete table inet shut_out || true")
    bare.playbook("playbooks/firewall.yml").succeeded()


def test_teardown_takes_the_firewall_with_it(bare: Sandbox) -> None:
    bare.playbook("playbooks/firewall.yml", firewall_strict=True).succeeded()
    assert TABLE in tables(bare, 0)
    bare.playbook("playbooks/teardown.yml").succeeded()
    for node in bare.nodes:
        assert TABLE not in tables(bare, node)
        assert bare.on(node, "sh", "-c", "ls /etc/lmfleet/lmdeploy 2>/dev/null || true") == ""
    assert set(bare.playbook("playbooks/teardown.yml").succeeded().changed.values()) == {0}
