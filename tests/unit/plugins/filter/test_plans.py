# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One message from what many hosts reported, and the part of a plan that is one engine."""

from __future__ import annotations

from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.filter.plans import FilterModule, host_faults, rank_logs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.logs import fatal_line
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import engine_option, engine_plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

PLAN: dict[str, Any] = {
    "topology": "tp",
    "engines": [{"head": "node0", "nodes": ["node0", "node1", "node2"], "gpus": 20, "tp": 16, "dp": 1, "ep": 1}],
    "services": [],
    "endpoints": [],
    "nodes": [
        {"name": "node0", "address": "10.0.0.10", "gpus": 8},
        {"name": "node1", "address": "10.0.0.11", "gpus": 8},
        {"name": "node2", "address": "10.0.0.12", "gpus": 4},
    ],
}
FIT: dict[str, Any] = {"faults": [], "interfaces": {}}
REPLICAS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}


def test_hosts_that_are_fit_have_no_faults() -> None:
    assert host_faults({"node0": FIT, "node1": FIT, "node2": FIT}, PLAN) == []


def test_every_fault_of_every_host_is_listed_with_its_host() -> None:
    results = {"node0": {"faults": ["a", "b"]}, "node1": FIT, "node2": {"faults": ["a"]}}
    assert host_faults(results, PLAN) == ["node0 (10.0.0.10): a", "node0 (10.0.0.10): b", "node2 (10.0.0.12): a"]


def test_a_host_that_is_not_reached_is_named_with_what_ray_would_miss() -> None:
    results = {"node0": FIT, "node1": {"unreachable": True, "msg": " No route to host\n"}, "node2": FIT}
    [fault] = host_faults(results, PLAN)
    assert fault.startswith("node1 (10.0.0.11) cannot be reached: No route to host. Without it ")
    assert "Ray would count 2 of 3 nodes and 12 of 20 GPUs" in fault


def test_a_host_that_is_not_reached_is_named_with_the_ranks_it_would_have_run() -> None:
    plan = plan_of(nodes(3, plan_topology="dpep")).to_json()
    results = {"node0": FIT, "node1": {"unreachable": True, "msg": "No route to host"}, "node2": FIT}
    [fault] = host_faults(results, plan)
    assert fault.startswith("node1 (10.0.0.11) cannot be reached: No route to host. Ranks 8 to 15 are on it")
    assert "Ray" not in fault


def test_a_replica_misses_what_its_own_ray_would_count() -> None:
    plan = plan_of(nodes(4, plan_replicas=["left", "right"]), groups=REPLICAS).to_json()
    results = {"node0": FIT, "node1": FIT, "node2": {"unreachable": True, "msg": "down"}, "node3": FIT}
    [fault] = host_faults(results, plan)
    assert "Ray would count 1 of 2 nodes and 8 of 16 GPUs" in fault


def test_a_module_that_failed_is_a_fault_with_its_message() -> None:
    results = {"node0": {"failed": True, "msg": "no python3"}, "node1": FIT, "node2": {"unreachable": True}}
    faults = host_faults(results, PLAN)
    assert faults[0] == "node0 (10.0.0.10): no python3"
    assert "node2 (10.0.0.12) cannot be reached" in faults[1]
    assert len(faults) == 2


def test_the_plan_of_an_engine_has_its_own_nodes_containers_and_url() -> None:
    plan = plan_of(nodes(4, plan_replicas=["left", "right"]), groups=REPLICAS).to_json()
    left, right = engine_plan(plan, "node1"), engine_plan(plan, "node2")
    assert engine_plan(plan, "node3") == right != left
    assert [(part["head"], part["gpus"], part["tp"]) for part in (left, right)] == [
        ("node0", 16, 16),
        ("node2", 16, 16),
    ]
    assert [node["name"] for node in right["nodes"]] == ["node2", "node3"]
    assert [node["rank"] for node in right["nodes"]] == [0, 1]
    assert [endpoint["url"] for endpoint in right["endpoints"]] == ["http://10.0.0.12:23333"]
    assert [(each["service"], each["node"]) for each in right["services"]] == [
        ("ray", "node2"),
        ("ray", "node3"),
        ("api", "node2"),
    ]
    assert (right["name"], right["image"]) == (plan["name"], plan["image"])


def test_the_engine_of_all_ranks_is_the_whole_plan() -> None:
    plan = plan_of(nodes(2, plan_topology="dpep")).to_json()
    assert engine_plan(plan, "node1") == {**plan, "tp": 1, "dp": 16, "ep": 16}


def test_the_logs_of_failed_ranks_are_their_own_lines_once_for_equal_ones() -> None:
    endpoints = plan_of(nodes(2, plan_topology="dpep", plan_gpus=2)).to_json()["endpoints"]
    out_of_memory = "torch.OutOfMemoryError: CUDA out of memory."
    log = ["[rank 9] ValueError: of another rank", f"[rank 2] {out_of_memory}", f"[rank 3] {out_of_memory}"]
    statuses = [
        {"item": {"node": "node0", "container": "lmdeploy-dp"}, "unreachable": True},
        {
            "item": {"node": "node1", "container": "lmdeploy-dp"},
            "containers": {"lmdeploy-dp": {"lines": log}},
        },
    ]
    assert rank_logs(statuses, endpoints[1:]) == [
        "Log of rank 1 (GPU 1 of node0; docker logs lmdeploy-dp):",
        "  | (nothing was logged)",
        "Log of rank 2 (GPU 0 of node1; docker logs lmdeploy-dp), rank 3 (GPU 1 of node1; docker logs lmdeploy-dp):",
        f"  | {out_of_memory}",
    ]


def test_an_engines_option_is_as_its_command_line_has_it() -> None:
    plan = plan_of(nodes(2, plan_api_server_options={"session_len": 4096})).to_json()
    assert engine_option(plan, "session-len") == "4096"
    assert engine_option(plan, "max-prefill-token-num") is None


def test_the_filters_are_registered_under_their_names() -> None:
    assert FilterModule().filters() == {
        "host_faults": host_faults,
        "engine_option": engine_option,
        "engine_plan": engine_plan,
        "rank_logs": rank_logs,
        "fatal_line": fatal_line,
    }
