# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which planned ports answer from outside: what is tried, and how it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.closure import (
    Findings,
    Target,
    Vantage,
    addresses,
    judge,
    message,
    targets,
    to_json,
    tried_exposures,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.exposure import exposures, public_ports
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, running

GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
JOBS = {"image_share_port": 8731, "model_port": 8730}
TP = bound(nodes())
SHAPES = {
    "tp": TP,
    "proxy": bound(nodes(plan_proxy=True)),
    "dpep": bound(nodes(plan_topology="dpep", plan_gpus=2)),
    "native": bound(nodes(plan_topology="dpep", plan_launcher="native", plan_gpus=2)),
    "replicas": bound(nodes(4, plan_replicas=["left", "right"]), groups=GROUPS),
    "moved": bound(nodes(plan_ports={"api": 9000, "ray": 9001, "ray_worker_first": 20000, "ray_worker_last": 21000})),
}
RAY_RUNS = (
    "run any program as root in a privileged container, which is root on the host (Ray asks for its token, which goes "
    "unencrypted)"
)
Answers = Callable[[Target], bool]


def listening(world: World, node: str, **processes: Any) -> None:
    """Have processes listen on a host: port=(command, container's name or nothing)."""
    host = world.answers[node]["host"]
    host["listening"] = sorted({*host["listening"], *(int(port[1:]) for port in processes)})
    for port, (command, name) in processes.items():
        container = world.entry(node, name)["id"] if name else ""
        host.setdefault("listeners", {})[port[1:]] = {"command": command, "pid": 4711, "container": container}


def found(
    world: World,
    answers: Answers,
    *,
    names: tuple[str, ...] = ("localhost",),
    sources: Mapping[str, str] | None = None,
    given: Mapping[str, list[str]] | None = None,
) -> Findings:
    """What is told where every target that ``answers`` is true for is reached, from all of ``names``."""
    plan, hosts = world.plan, world.hosts
    tried = tried_exposures(plan, hosts, JOBS)
    where = addresses(plan, hosts, given or {})
    outcomes = {each: "reached" if answers(each) else "timeout" for each in targets(tried, hosts, where)}
    return judge(plan, hosts, tried, where, [Vantage(name, outcomes, sources or {}) for name in names])


def public(plan: Plan) -> Answers:
    """Only what is for everybody."""
    return lambda each: each.port in public_ports(plan).get(each.node, ())


# What there is


@pytest.mark.parametrize("shape", SHAPES)
def test_every_port_that_a_service_listens_on_is_a_door_and_says_what_it_allows(shape: str) -> None:
    plan = SHAPES[shape]
    known = {(exposure.node, port) for exposure in exposures(plan, JOBS) for port in exposure.ports}
    assert {(each.node, port) for each in plan.services for port in each.listens} <= known
    for node in plan.nodes:
        assert {(node.name, 8730), (node.name, 8731), (node.name, 2375)} <= known
        ports = [port for exposure in exposures(plan, JOBS) if exposure.node == node.name for port in exposure.ports]
        assert len(ports) == len({*ports})
    assert all(exposure.allows and exposure.variable for exposure in exposures(plan, JOBS))


def test_rays_workers_are_doors_of_tp_alone() -> None:
    for shape, first in (("tp", 10002), ("moved", 20000)):
        assert ("node1", first) in {(exposure.node, exposure.first) for exposure in exposures(SHAPES[shape], JOBS)}
    assert not [exposure for exposure in exposures(SHAPES["dpep"], JOBS) if "Ray" in exposure.what]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("tp", {"node0": [23333]}),
        ("proxy", {"node0": [8000]}),
        ("dpep", {"node0": [8000]}),
        ("replicas", {"node0": [8000]}),
        ("moved", {"node0": [9000]}),
    ],
)
def test_what_is_for_everybody_is_the_urls_port_alone(shape: str, expected: dict[str, list[int]]) -> None:
    assert public_ports(SHAPES[shape]) == expected


# What is tried


def test_all_addresses_are_tried_but_those_that_lead_elsewhere() -> None:
    world = running(TP)
    world.answers["node0"]["host"].update(
        interfaces={
            "lo": ["127.0.0.1"],
            "eth0": ["10.0.0.10"],
            "mgmt0": ["192.0.2.10"],
            "docker0": ["172.17.0.1"],
            "virbr1": ["192.168.122.1"],
            "link": ["169.254.1.1"],
        },
        interfaces6={"lo": ["::1"], "eth0": ["2001:db8::10"]},
        bridges=["docker0"],
    )
    world.answers["node1"]["host"]["interfaces"]["virbr1"] = ["192.168.122.1"]
    given = {"node0": ["198.51.100.10"], "node1": ["10.0.0.11"]}
    assert addresses(TP, world.hosts, given) == {
        "node0": ["10.0.0.10", "198.51.100.10", "192.0.2.10", "2001:db8::10"],
        "node1": ["10.0.0.11"],
    }


def test_of_rays_workers_those_are_tried_that_listen_and_all_where_the_host_was_not_seen() -> None:
    world = running(TP)
    listening(world, "node0", p10005=("ray::IDLE", "lmdeploy-ray"))
    world.answers["node1"] = {"unreachable": "no route", "failed": ""}
    tried = tried_exposures(TP, world.hosts, JOBS)
    ports = targets(tried, world.hosts, addresses(TP, world.hosts, {}))
    workers: dict[str, set[int]] = {"node0": set(), "node1": set()}
    for each in ports:
        if 10002 <= each.port <= 10999:
            workers[each.node].add(each.port)
    assert workers == {"node0": {10005}, "node1": set(range(10002, 11000))}


def test_of_ports_that_nobody_planned_rays_own_are_tried_and_no_others() -> None:
    """NCCL and Gloo would take a connection for one of a rank."""
    plan = SHAPES["dpep"]
    world = running(plan)
    listening(
        world,
        "node1",
        p40001=("gcs_server", "lmdeploy-dp"),
        p40002=("raylet", "lmdeploy-dp"),
        p40003=("python3", "lmdeploy-dp"),
        p40004=("gcs_server", ""),
    )
    ports = {
        each.port
        for each in targets(tried_exposures(plan, world.hosts, JOBS), world.hosts, addresses(plan, world.hosts, {}))
    }
    assert {40001, 40002} <= ports
    assert not {40003, 40004, 22} & ports
    result = found(world, lambda each: public(plan)(each) or each.port == 40001)
    assert "Ray (gcs_server) (not of the plan, Ray chose it) answers to localhost" in result.faults[0]
    assert "firewall_strict: true" in message(plan, result)


# What is told


@pytest.mark.parametrize("shape", SHAPES)
def test_hosts_that_are_closed_but_for_the_url_are_well(shape: str) -> None:
    plan = SHAPES[shape]
    result = found(running(plan), public(plan))
    assert result.faults == []
    [note] = result.notes
    assert "is for everybody: whoever reaches it can use the model" in note


def test_an_open_port_is_told_once_with_what_it_allows_and_who_listens() -> None:
    world = running(TP)
    listening(world, "node0", p6380=("raylet", "lmdeploy-ray"))
    listening(world, "node1", p6380=("raylet", "lmdeploy-ray"))
    result = found(world, lambda each: public(TP)(each) or each.port == 6380, names=("localhost", "bastion"))
    [fault] = result.faults
    assert fault == (
        "Ray's node manager (plan_ports.ray_node_manager) answers to localhost and bastion, and should not: node0 port 6380 at "
        "10.0.0.10 (raylet, pid 4711 in lmdeploy-ray); node1 port 6380 at 10.0.0.11 (raylet, pid 4711 in lmdeploy-ray). Whoever "
        f"reaches it can {RAY_RUNS}."
    )
    assert "23333 on node0" in message(TP, result)


@pytest.mark.parametrize(
    ("shape", "node", "port", "words"),
    [
        ("tp", "node0", 8265, "Ray's dashboard and job API"),
        ("tp", "node0", 6379, "Ray's GCS"),
        ("tp", "node1", 6384, "with its job API"),
        ("tp", "node0", 29500, "stop the engine"),
        ("tp", "node1", 2375, "be root on the host"),
        ("tp", "node1", 8731, "a copy of the image or the model"),
        ("proxy", "node0", 23333, "change its weights"),
        ("dpep", "node1", 23353, "rank 2, counted from plan_ports.api"),
        ("dpep", "node0", 29555, "plan_ports.dp_master"),
        ("replicas", "node2", 23333, "change its weights"),
    ],
)
def test_each_kind_says_what_it_would_allow(shape: str, node: str, port: int, words: str) -> None:
    plan = SHAPES[shape]
    result = found(running(plan), lambda each: public(plan)(each) or (each.node, each.port) == (node, port))
    [fault] = result.faults
    assert words in fault
    assert f"{node} port {port} at" in fault
    [row] = [line for line in result.table if line.startswith(node) and str(port) in line]
    assert "localhost" in row


def test_without_a_token_and_without_rights_the_words_are_others() -> None:
    plan = dataclasses.replace(bound(nodes(plan_privileged=False)), ray_token_auth=False)
    [fault] = found(running(plan), lambda each: public(plan)(each) or each.port == 6379).faults
    assert fault.endswith("Whoever reaches it can run any program as root in the engine's container.")


def test_a_port_is_open_on_another_address_too() -> None:
    world = running(TP)
    world.answers["node1"]["host"]["interfaces6"] = {"eth0": ["2001:db8::11"]}
    result = found(world, lambda each: public(TP)(each) or each.address == "2001:db8::11")
    assert all("node1 port" in fault and "at 2001:db8::11 (" in fault for fault in result.faults)
    assert len(result.faults) > 5


def test_who_listens_is_told_as_far_as_it_can_be_known() -> None:
    world = running(TP)
    listening(world, "node0", p2375=("dockerd", ""))
    world.answers["node0"]["host"]["listening"].append(6382)
    ports = (2375, 6381, 6382)
    told = "\n".join(found(world, lambda each: public(TP)(each) or each.port in ports).faults)
    assert "node0 port 2375 at 10.0.0.10 (dockerd, pid 4711)" in told
    assert "node0 port 6382 at 10.0.0.10 (a process that this user may not see)" in told
    assert "node0 port 6381 at 10.0.0.10 (nothing on the host listens there, so something before it answers)" in told


def test_a_url_that_does_not_answer_is_told_and_another_address_of_its_host_is_as_good() -> None:
    world = running(TP)
    [fault] = found(world, lambda each: False).faults
    assert "http://10.0.0.10:23333 does not answer to localhost, and should" in fault
    assert "Nothing listens there on node0" in fault
    listening(world, "node0", p23333=("python3", "lmdeploy-api"))
    assert "look at the firewall of node0" in found(world, lambda each: False).faults[0]
    given = {"node0": ["192.0.2.10"]}
    assert found(world, lambda each: each.address == "192.0.2.10" and each.port == 23333, given=given).faults == []


def test_what_comes_from_within_says_nothing() -> None:
    """A control node that is a node of the plan may reach everything."""
    within = {"10.0.0.10": "10.0.0.10", "10.0.0.11": "10.0.0.10"}
    [fault] = found(running(TP), lambda each: True, sources=within).faults
    assert "Close them" not in message(TP, found(running(TP), lambda each: True, sources=within))
    assert "Nothing was proven: localhost has an address of the cluster" in fault
    assert "closure_from" in fault


def test_a_host_that_could_not_try_and_one_that_was_not_seen_are_told() -> None:
    world = running(TP)
    world.answers["node1"] = {"unreachable": "no route to it", "failed": ""}
    plan, hosts = world.plan, world.hosts
    tried = tried_exposures(plan, hosts, JOBS)
    result = judge(plan, hosts, tried, addresses(plan, hosts, {}), [Vantage("bastion", {}, {}, "Permission denied")])
    assert result.faults == ["bastion could try nothing: Permission denied."]
    assert "node1 was not looked at (no route to it)" in result.notes[0]


def test_many_ports_are_told_shortly_and_are_all_in_the_data() -> None:
    world = running(TP)
    listening(world, "node0", **{f"p{port}": ("ray::IDLE", "lmdeploy-ray") for port in range(10002, 10022)})
    result = found(world, lambda each: public(TP)(each) or 10000 < each.port < 11000)
    [fault] = result.faults
    assert "10007 and 14 more ports at 10.0.0.10" in fault
    data = to_json(TP, result, {}, [], "2026-11-24T22:25:00Z")
    assert [each["port"] for each in data["open"]] == list(range(10002, 10022))
    assert data["open"][0]["process"] == "ray::IDLE, pid 4711 in lmdeploy-ray"
