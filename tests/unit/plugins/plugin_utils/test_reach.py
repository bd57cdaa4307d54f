# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which links a plan needs, and how closed ones are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.reach import (
    ANY,
    Link,
    Tried,
    concerned,
    faults_of,
    listener_faults,
    may_listen,
    needed_links,
    targets,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, running

GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
TP = bound(nodes())
TP4 = bound(nodes(4, plan_gpus=4))
DPEP = bound(nodes(plan_topology="dpep", plan_gpus=2))
REPLICAS = bound(nodes(4, plan_replicas=["left", "right"]), groups=GROUPS)


def ways(plan: Plan) -> set[tuple[str, str, int]]:
    return {(link.source, link.target, link.port) for link in needed_links(plan) if link.needed}


def tried(plan: Plan, closed: Callable[[Link], str]) -> list[Tried]:
    """Every link of a plan, open but for those for which ``closed`` has an outcome; 40000 is the kernel's choice."""
    return [Tried(link, closed(link) or "reached", link.port or 40000) for link in needed_links(plan)]


def told(plan: Plan, closed: Callable[[Link], str]) -> list[str]:
    return faults_of(plan, tried(plan, closed), 3.5)


def test_tp_needs_rays_ports_both_ways_and_the_meeting_points_on_the_head() -> None:
    both = {6380, 6381, 10002, 10999, ANY}
    assert ways(TP) == {
        *(("node0", "node1", port) for port in both),
        *(("node1", "node0", port) for port in {*both, 6379, 29500}),
    }
    extras = {link.port for link in needed_links(TP) if not link.needed}
    assert extras == {6382, 6383, 6384, 6385}
    assert 8265 not in {link.port for link in needed_links(TP)}  # on loopback alone


def test_dpep_needs_the_ranks_ports_from_the_head_and_the_proxys_from_the_ranks() -> None:
    assert ways(DPEP) == {
        ("node0", "node1", 23353),
        ("node0", "node1", 23363),
        ("node1", "node0", 8000),
        ("node1", "node0", 29500),
        ("node1", "node0", 29555),
        ("node0", "node1", ANY),
        ("node1", "node0", ANY),
    }
    native = bound(nodes(plan_topology="dpep", plan_gpus=2, plan_launcher="native"))
    assert 29500 not in {link.port for link in needed_links(native)}


def test_replicas_need_nothing_of_each_other_but_the_way_to_the_proxy_and_back() -> None:
    across = {
        (s, t, port) for s, t, port in ways(REPLICAS) if {s, t} & {"node0", "node1"} and {s, t} & {"node2", "node3"}
    }
    assert across == {("node0", "node2", 23333), ("node2", "node0", 8000)}


@pytest.mark.parametrize("plan", [TP, TP4, DPEP, REPLICAS, bound(nodes(1)), bound(nodes(1, plan_proxy=True))])
def test_every_link_is_there_once_and_between_two_hosts(plan: Plan) -> None:
    links = needed_links(plan)
    assert len(set(links)) == len(links)
    assert all(link.source != link.target for link in links)
    listens = {(s.node, port) for s in plan.services for port in s.listens}
    first, last = plan.ports.ray_worker_first, plan.ports.ray_worker_last
    assert all(
        (link.target, link.port) in {*listens, (link.target, ANY), (link.target, first), (link.target, last)}
        for link in links
    )


def test_one_host_alone_needs_no_link() -> None:
    assert needed_links(bound(nodes(1))) == []


def test_an_unchanged_run_tries_nothing_and_a_start_what_it_concerns() -> None:
    world = running(REPLICAS)
    links = needed_links(REPLICAS)
    assert concerned(links, world.decide()) == []
    world.stop("node2", "lmdeploy-api")
    assert {link.engine for link in concerned(links, world.decide())} == {"lmdeploy-right"}
    world.remove("node0", "lmdeploy-proxy")
    assert concerned(links, world.decide()) == links
    assert concerned(links, World(REPLICAS).decide()) == links


def test_the_port_of_a_container_that_runs_is_left_to_it() -> None:
    world, node = running(TP), TP.node("node0")
    links = needed_links(TP)
    nothing_runs = may_listen(TP, node, World(TP).hosts["node0"], links)
    assert nothing_runs == [ANY, 6379, 6380, 6381, 6382, 6383, 6384, 6385, 10002, 10999, 29500]
    assert may_listen(TP, node, world.hosts["node0"], links) == [ANY]
    world.remove("node0", "lmdeploy-ray")
    assert may_listen(TP, node, world.hosts["node0"], links) == nothing_runs[:-1]  # the api_server is to take 29500
    assert may_listen(TP, node, None, links) == nothing_runs


def test_what_is_tried_is_what_something_listens_on() -> None:
    there = {"node0": {"listening": {"0": 41234, "6380": 6380}, "held": [6379, 6384], "errors": {"29500": "no"}}}
    found = targets(needed_links(TP), "node1", there)
    assert [(port, held) for __, port, held in found] == [(6379, True), (6380, False), (41234, False)]
    assert targets(needed_links(TP), "node0", there) == []


# ---- what is told


def test_open_links_are_no_fault() -> None:
    assert told(TP4, lambda link: "") == []


def test_one_port_between_two_hosts_has_both_the_variable_and_the_remedy() -> None:
    [line] = told(TP, lambda link: "timeout" if link.port == 6379 else "")
    assert line.startswith(
        "node1 cannot reach node0 (10.0.0.10) on TCP 6379 (plan_ports.ray): timed out: no answer in 3.5 s, so a firewall drops it."
    )
    assert "firewall of node0" in line
    assert "set plan_ports.ray to what is open" in line


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("refused", "refused, though this check listened there: a firewall rejects it"),
        ("unreachable", "no route to the host"),
        ("forbidden", "the host itself forbids it"),
        ("Cannot assign requested address", "Cannot assign requested address"),
    ],
)
def test_dropped_rejected_and_without_a_route_are_told_apart(outcome: str, words: str) -> None:
    [line] = told(TP, lambda link: outcome if link.port == 29500 else "")
    assert words in line
    assert "timed out" not in line


def test_a_port_that_a_service_holds_is_told_as_such() -> None:
    link = needed_links(TP)[0]
    [line] = faults_of(TP, [Tried(link, "refused", link.port, held=True)], 3.5)
    assert "a service listens there" in line


def test_all_ports_between_two_hosts_are_one_line() -> None:
    [line] = told(TP, lambda link: "timeout" if link.source == "node1" else "")
    assert line.startswith(
        "node1 cannot reach node0 (10.0.0.10) on any planned port: TCP 6379 (plan_ports.ray), 29500 (plan_ports.torch),"
    )
    assert "a port of the kernel's choice, such as 40000 (NCCL, Gloo)" in line
    assert "Allow all TCP between the cluster addresses" in line


def test_only_the_kernels_ports_closed_is_named_for_what_it_is() -> None:
    lines = told(TP, lambda link: "timeout" if link.port == ANY and link.target == "node1" else "")
    assert len(lines) == 1
    assert (
        "node0 cannot reach node1 (10.0.0.11) on TCP a port of the kernel's choice, such as 40000 (NCCL, Gloo)"
        in lines[0]
    )


def test_a_host_that_is_cut_off_is_told_once_and_nothing_else_is() -> None:
    [line] = told(TP4, lambda link: "timeout" if "node2" in (link.source, link.target) else "")
    assert line.startswith("node2 (10.0.0.12) and node0, node1 and node3 do not reach each other on any planned port")


def test_a_host_that_nobody_reaches_or_that_reaches_nobody_is_told_once() -> None:
    [line] = told(TP4, lambda link: "timeout" if link.target == "node2" else "")
    assert line.startswith("node0, node1 and node3 cannot reach node2 (10.0.0.12) on any planned port")
    [line] = told(TP4, lambda link: "refused" if link.source == "node2" else "")
    assert line.startswith("node2 (10.0.0.12) cannot reach node0, node1 and node3 on any planned port")


def test_a_port_that_is_closed_everywhere_is_told_once() -> None:
    [line] = told(TP4, lambda link: "timeout" if link.port == 6380 else "")
    assert line.startswith(
        "No host reaches another on TCP 6380 (plan_ports.ray_node_manager) (node0, node1, node2 and node3)"
    )


def test_hosts_that_miss_the_same_port_of_one_host_are_told_together() -> None:
    [line] = told(TP4, lambda link: "timeout" if link.port == 6379 and link.source != "node3" else "")
    assert line.startswith("node1 and node2 cannot reach node0 (10.0.0.10) on TCP 6379 (plan_ports.ray)")


def test_two_faults_are_two_lines_in_one_message() -> None:
    lines = told(
        TP4,
        lambda link: "timeout" if "node3" in (link.source, link.target) else "refused" if link.port == 29500 else "",
    )
    assert len(lines) == 2
    assert lines[0].startswith("node3 (10.0.0.13) and node0, node1 and node2 do not reach each other")
    assert lines[1].startswith(
        "node1 and node2 cannot reach node0 (10.0.0.10) on TCP 29500 (plan_ports.torch): refused"
    )


def test_many_hosts_and_ports_stay_one_readable_line() -> None:
    plan = bound(nodes(16, plan_topology="dpep"))
    [line] = told(plan, lambda link: "timeout" if "node7" in (link.source, link.target) else "")
    assert len(line) < 700
    assert "and 9 more hosts" in line


def test_what_serving_does_without_is_no_fault_but_told() -> None:
    found = tried(TP, lambda link: "timeout" if link.port == 6383 else "")
    assert faults_of(TP, found, 3.5) == []
    assert len(faults_of(TP, found, 3.5, needed=False)) == 2


def test_a_host_without_its_own_address_is_named_with_the_variable() -> None:
    there = {"node0": {"errors": {"6379": "Cannot assign requested address", "0": "Cannot assign requested address"}}}
    [line] = listener_faults(TP, there)
    assert "node0 (10.0.0.10) cannot listen on its own address, TCP 0, 6379: Cannot assign requested address" in line
    assert "plan_cluster_address" in line
