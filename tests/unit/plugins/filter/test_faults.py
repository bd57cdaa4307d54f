# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One message from what many hosts reported."""

from __future__ import annotations

from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.filter.faults import FilterModule, host_faults

PLAN: dict[str, Any] = {
    "gpus": 20,
    "nodes": [
        {"name": "node0", "address": "10.0.0.10", "gpus": 8},
        {"name": "node1", "address": "10.0.0.11", "gpus": 8},
        {"name": "node2", "address": "10.0.0.12", "gpus": 4},
    ],
}
FIT: dict[str, Any] = {"faults": [], "interfaces": {}}


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


def test_a_module_that_failed_is_a_fault_with_its_message() -> None:
    results = {"node0": {"failed": True, "msg": "no python3"}, "node1": FIT, "node2": {"unreachable": True}}
    faults = host_faults(results, PLAN)
    assert faults[0] == "node0 (10.0.0.10): no python3"
    assert "node2 (10.0.0.12) cannot be reached" in faults[1]
    assert len(faults) == 2


def test_the_filter_is_registered_under_its_name() -> None:
    assert FilterModule().filters() == {"host_faults": host_faults}
