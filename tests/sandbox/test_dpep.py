# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What DP+EP behind the proxy promises, on four real hosts: real SSH, Docker, torchrun, LMDeploy and its proxy.

Needs four hosts (LMFLEET_SANDBOX_NODES=4), which scripts/test brings up for it.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from sandbox.faults import wait
from sandbox.hosts import GPUS, MODEL, PROXY, RANKS, SIM, Sandbox

pytestmark = pytest.mark.dpep

# A rank whose engine is a process of its own, where the fault strikes that process.
DEEP = {**SIM, "LMFLEET_SIM_SHALLOW": "0"}
STRANGER = "http://10.77.0.99:23333"
OTHER_NETWORK = "lmfleet-sandbox-other"


def ask_proxy(path: str, body: dict[str, object] | None = None) -> object:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        f"{PROXY}{path}", json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
    )
    with opener.open(request, timeout=20) as answer:
        return json.load(answer)


def listed() -> list[str]:
    nodes = ask_proxy("/nodes/status")
    assert isinstance(nodes, dict)
    return sorted(nodes)


@pytest.mark.slow
def test_the_proxys_list_is_put_right_and_no_rank_is_touched(ranks: Sandbox) -> None:
    before = ranks.containers()
    assert listed() == sorted(RANKS)
    for __ in range(2):  # every 90 s the proxy itself drops what does not answer, and may be the first once
        ask_proxy("/nodes/add", {"url": STRANGER, "status": {"models": [MODEL]}})
        run = ranks.deploy().succeeded()
        if f"removed {STRANGER}" in run.output:
            break
    assert f"removed {STRANGER}: it is not of the plan" in run.output
    assert "node0: correct the list of lmdeploy-proxy: it lists what is not of the plan" in run.text
    assert run.changed["node0"] == 1
    assert listed() == sorted(RANKS)
    assert ranks.containers() == before


def test_a_rank_that_the_proxy_dropped_registers_again_by_itself(ranks: Sandbox) -> None:
    """The proxy drops, and for good, a rank that did not answer its check every 90 s, as while its host was cut off."""
    before = ranks.containers()
    ask_proxy(f"/nodes/remove?node_url={RANKS[3]}", {"url": RANKS[3]})
    said = f"{RANKS[3]} serves, and {PROXY} did not list it: registered again"
    wait(lambda: said in ranks.on(3 // GPUS, "docker", "logs", "lmdeploy-dp"), lambda: str(listed()))
    assert listed() == sorted(RANKS)
    assert ranks.containers() == before


def test_a_host_that_is_off_is_named_with_its_ranks(dpep: Sandbox) -> None:
    dpep.power(2, on=False)
    try:
        run = dpep.deploy()
    finally:
        dpep.power(2, on=True)
    run.failed_with("node2 (10.77.0.13) cannot be reached", f"Ranks {2 * GPUS} to {3 * GPUS - 1} are on it")
    print(f"told after {run.seconds:.0f} s")


@pytest.mark.slow
def test_a_proxy_that_was_restarted_gets_its_list_back(ranks: Sandbox) -> None:
    before = ranks.containers()
    ranks.on(0, "docker", "restart", "lmdeploy-proxy")
    ranks.deploy().succeeded()
    assert listed() == sorted(RANKS)
    after = ranks.containers()
    assert {name for name in after if after[name] != before[name]} == {"node0/lmdeploy-proxy"}


@pytest.mark.slow
def test_a_rank_that_was_killed_takes_its_group_with_it_and_a_deploy_brings_all_back(dpep: Sandbox) -> None:
    """Where nothing starts it again by itself; that it does otherwise is shown in test_healing.py."""
    dpep.deploy(plan_restarts=0).succeeded()
    ranks = dpep
    before = ranks.containers()
    ranks.on(1, "pkill", "-9", "-f", f"rank.py --engine {GPUS} ")
    ranks.on(1, "docker", "wait", "lmdeploy-dp")  # the other ranks of the host are given time to end
    run = ranks.deploy(plan_restarts=0).succeeded()
    after = ranks.containers()
    assert {name for name in before if after[name] != before[name]} == {f"node{n}/lmdeploy-dp" for n in range(4)}
    assert "node0, node1, node2, node3: replace lmdeploy-dp: lmdeploy-dp on node1 has ended with exit code" in run.text
    assert listed() == sorted(RANKS)


@pytest.mark.slow
def test_a_rank_that_crashes_at_load_is_named_with_host_gpu_and_its_own_error(dpep: Sandbox) -> None:
    rank = 3 * GPUS + 1
    run = dpep.deploy(plan_environment={**DEEP, "LMFLEET_SIM_FAULTS": f"crash_at_load@{rank}"})
    run.failed_with(
        "node3 (10.77.0.14): lmdeploy-dp",
        f"rank {rank} (GPU 1) failed",
        f"lmfleet simulator: rank {rank} was told to crash at load",
    )


@pytest.mark.slow
def test_where_one_ranks_start_was_lost_all_are_started_once_more(dpep: Sandbox) -> None:
    rank = 2 * GPUS + 1
    dpep.on(2, "rm", "-f", f"/var/lib/lmfleet/lmdeploy/cache/lmfleet-sim-lost-starts-{rank}")
    run = dpep.deploy(plan_environment={**DEEP, "LMFLEET_SIM_FAULTS": f"lose_start@{rank}"}).succeeded()
    assert f"rank {rank} (GPU 1) failed" in run.text
    assert run.text.count("It is started once more.") == 1
    assert listed() == sorted(RANKS)


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_by_the_warm_up_with_host_and_gpu(dpep: Sandbox) -> None:
    environment = {**SIM, "LMFLEET_SIM_FAULTS": f"hang@{GPUS}"}
    run = dpep.deploy(plan_environment=environment, warmup_timeout=20, warmup_retries=0)
    run.failed_with("warm-up:", f"rank {GPUS} (GPU 0 of node1; docker logs lmdeploy-dp)")


@pytest.fixture
def two_networks(dpep: Sandbox) -> Iterator[Sandbox]:
    """Every host has a second network, and its default route there."""
    dpep.outer("network", "create", "--subnet", "10.79.0.0/24", OTHER_NETWORK)
    try:
        for node in dpep.nodes:
            host = f"lmfleet-sandbox-node{node}"
            dpep.outer("network", "connect", "--ip", f"10.79.0.{11 + node}", OTHER_NETWORK, host)
            dpep.on(node, "ip", "route", "replace", "default", "via", "10.79.0.1")
        yield dpep
    finally:
        for node in dpep.nodes:
            dpep.on(node, "ip", "route", "replace", "default", "via", "10.77.0.1")
            dpep.outer("network", "disconnect", OTHER_NETWORK, f"lmfleet-sandbox-node{node}")
        dpep.outer("network", "rm", OTHER_NETWORK)


@pytest.mark.slow
def test_the_default_route_on_another_network_is_no_hindrance_but_to_lmdeploys_own_launcher(
    two_networks: Sandbox,
) -> None:
    refused = two_networks.deploy(plan_launcher="native")
    launcher = "LMDeploy's own launcher takes the address of the default route"
    refused.failed_with(f"node0 (10.77.0.11): {launcher}, 10.79.0.11", f"node3 (10.77.0.14): {launcher}, 10.79.0.14")
    two_networks.deploy().succeeded()
    assert listed() == sorted(RANKS)


@pytest.mark.slow
def test_no_default_route_is_no_hindrance_to_torchrun(dpep: Sandbox) -> None:
    dpep.on(1, "ip", "route", "del", "default")
    try:
        dpep.playbook("playbooks/teardown.yml").succeeded()
        run = dpep.deploy()
    finally:
        dpep.on(1, "ip", "route", "replace", "default", "via", "10.77.0.1")
    run.succeeded()
    assert listed() == sorted(RANKS)
