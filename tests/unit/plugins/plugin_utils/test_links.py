# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the link test measures and how it judges.

``fixtures/links`` are results of the program itself, over Gloo, two hosts of two ranks: all well (``whole``); rank 3 killed
with -9 (``killed``), or stopped with SIGSTOP (``stopped``), while it was at 32 B; and one host without the other (``alone``).
Only the paths in their tracebacks are others.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.links import (
    Findings,
    Group,
    Limits,
    Measured,
    configuration,
    environment,
    given_up,
    judge,
    link_rate,
    measured,
    rounds,
    running_engines,
    still,
    table,
    to_json,
    tournament,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.programs.link_test import Config, network_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.programs.test_link_test import OVER_IB, OVER_SOCKETS
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, running

FIXTURES = Path(__file__).parents[2] / "fixtures" / "links"
TP = bound(nodes(plan_gpus=2))
TP4 = bound(nodes(4, plan_gpus=2))
GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
REPLICAS = bound(nodes(4, plan_gpus=2, plan_replicas=["left", "right"]), groups=GROUPS)
PAIR = Group("pair", "lmdeploy", ("node0", "node1"))
ENGINE = ["lmdeploy"]
LIMITS = Limits()


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def hosts(plan: Plan, **links: str) -> dict[str, Host]:
    """Hosts whose links have these speeds, as M(observe) tells them."""
    world = World(plan)
    for answer in world.answers.values():
        answer["host"]["links"] = {name.replace("__", "/"): speed for name, speed in links.items()}
    return world.hosts


def result(
    group: Group,
    *,
    plan: Plan = TP4,
    slower: float = 1.0,
    later: float = 1.0,
    log: str = "",
    seen: dict[str, Host] | None = None,
) -> Measured:
    """A group's result out of a recorded one, all of whose sizes took ``slower`` times as long, the smallest ``later`` times."""
    program = recorded("whole")
    answers = {}
    for number, name in enumerate(group.nodes):
        answers[name] = copy.deepcopy(program[f"node{number % 2}"])
        answers[name]["backend"] = "nccl" if log else "gloo"
        for rank in answers[name]["ranks"]:
            rank["network"] = network_of(log)
            for row in rank["rows"]:
                row["seconds"] *= slower * (later if row["bytes"] == 8 else 1.0)
    return measured(plan, group, answers, seen or {})


def pairs(plan: Plan = TP4, **more: Any) -> list[Measured]:
    """Every pair of a plan; ``more`` has a function of the pair's hosts for each argument of ``result``."""
    names = [node.name for node in plan.nodes]
    return [
        result(Group("pair", "lmdeploy", pair), plan=plan, **{key: of(pair) for key, of in more.items()})
        for pair in itertools.combinations(names, 2)
    ]


def warned(done: Sequence[Measured], seen: dict[str, Host] | None = None, limits: Limits = LIMITS) -> list[str]:
    return judge(done, seen or {}, limits).warnings


# ---- what is measured


@pytest.mark.parametrize("count", range(10))
def test_every_pair_meets_once_and_no_host_twice_in_a_round(count: int) -> None:
    names = [f"node{number}" for number in range(count)]
    found = tournament(names)
    assert len(found) == (0 if count < 2 else count - 1 + count % 2)
    assert sorted(itertools.chain(*found)) == sorted(itertools.combinations(names, 2))
    for each in found:
        met = list(itertools.chain(*each))
        assert len(met) == len(set(met))


def test_own_gpus_then_pairs_then_all() -> None:
    found = rounds(TP4, ENGINE)
    assert [{group.kind for group in each} for each in found] == [{"host"}, {"pair"}, {"pair"}, {"pair"}, {"all"}]
    assert found[-1] == [Group("all", "lmdeploy", ("node0", "node1", "node2", "node3"))]


def test_of_two_hosts_the_pair_is_all() -> None:
    assert [[str(group) for group in each] for each in rounds(TP, ENGINE)] == [["node0", "node1"], ["node0 and node1"]]


def test_one_gpu_alone_has_nothing_to_measure() -> None:
    assert rounds(bound(nodes(1, plan_gpus=1)), ENGINE) == []
    assert rounds(bound(nodes(2, plan_gpus=1)), ENGINE) == [[PAIR]]


def test_replicas_are_measured_side_by_side_and_not_across() -> None:
    names = [engine.name for engine in REPLICAS.engines]
    own, between = rounds(REPLICAS, names)
    assert len(own) == 4
    assert {group.nodes for group in between} == {("node0", "node1"), ("node2", "node3")}
    assert rounds(REPLICAS, names[:1])[1] == [Group("pair", names[0], ("node0", "node1"))]


def test_every_host_is_told_its_own_share() -> None:
    group = Group("all", "lmdeploy", tuple(node.name for node in TP4.nodes))
    shares = [
        Config.from_mapping(configuration(TP4, group, name, TP4.ports.torch, limit_s=5.0)) for name in group.nodes
    ]
    assert [share.first_rank for share in shares] == [0, 2, 4, 6]
    assert {(share.world, share.gpus, share.address, share.port) for share in shares} == {(8, 2, "10.0.0.10", 29500)}


def test_it_has_the_engines_environment_but_nothing_of_its_services() -> None:
    plan = bound(nodes(plan_gpus=2, plan_environment={"NCCL_IB_HCA": "mlx5_0", "MINE": "1"}))
    found = environment(plan, "node1")
    assert (found["NCCL_IB_HCA"], found["MINE"], found["NCCL_SOCKET_IFNAME"]) == ("mlx5_0", "1", "=eth0")
    assert not any(name.startswith(("RAY_", "LMDEPLOY_")) for name in found)


def test_engines_that_run_are_named_and_the_proxy_is_none() -> None:
    world = running(REPLICAS)
    for name in ("node2", "node3"):
        for container in [*world.answers[name]["containers"]]:
            world.stop(name, container)
    assert running_engines(REPLICAS, world.hosts) == {
        "lmdeploy-left": ["lmdeploy-ray on node0", "lmdeploy-api on node0", "lmdeploy-ray on node1"]
    }
    assert running_engines(REPLICAS, World(REPLICAS).hosts) == {}


# ---- figures


def test_bandwidths_are_by_nccl_tests_arithmetic() -> None:
    found = measured(TP, PAIR, recorded("whole"), {})
    assert (found.gpus, found.backend, found.ok, found.wrong) == (4, "gloo", True, ())
    assert [row.bytes for row in found.rows] == [8, 32, 128, 512, 2048, 8192, 32768, 65536]
    for row in found.rows:
        assert row.algbw == pytest.approx(row.bytes / row.seconds / 1e9)
        assert row.busbw == pytest.approx(row.algbw * 2 * 3 / 4)
    assert found.latency == found.rows[0].seconds


def test_a_killed_rank_is_told_before_its_echoes() -> None:
    found = measured(TP, PAIR, recorded("killed"), {})
    assert not found.ok
    assert found.rows == []
    first, second = found.error.splitlines()
    assert first == "node1: rank 3 at the all-reduce of 32 B: killed by signal 9"
    assert second.startswith("node0: rank 0 at the all-reduce of 32 B: ")
    assert "Connection reset by peer" in second


def test_a_ranks_own_error_is_told_before_those_that_lost_it() -> None:
    answers = recorded("killed")
    for rank in answers["node1"]["ranks"]:
        rank.update(
            ended="exit", error="Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory."
        )
    [first, second] = measured(TP, PAIR, answers, {}).error.splitlines()
    assert first == "node1: rank 2 at the all-reduce of 32 B: torch.OutOfMemoryError: CUDA out of memory."
    assert second.startswith("node0: rank 0")


def test_a_hang_is_told_by_pair_and_stage() -> None:
    found = judge([measured(TP, PAIR, recorded("stopped"), {})], {}, LIMITS)
    [fault] = found.faults
    assert fault.startswith("node0 and node1: no result, at the all-reduce of 32 B")
    assert "no end within 25 s" in fault


def test_a_host_that_never_came_is_told() -> None:
    found = measured(TP, PAIR, recorded("alone"), {})
    assert found.stage == "start"
    assert found.error.splitlines() == [
        "node1: it gave no answer",
        "node0: rank 0 at the rendezvous of all ranks: no end within 15 s",
    ]


def test_a_container_that_gave_no_result_is_told_in_dockers_words() -> None:
    answers = {**recorded("alone"), "node1": {"error": "link test: Docker on this host: no space left"}}
    assert measured(TP, PAIR, answers, {}).error.startswith("node1: link test: Docker on this host: no space left")


def test_ncclss_own_failure_has_its_meaning_and_remedy() -> None:
    answers = recorded("killed")
    for answer in answers.values():
        for rank in answer["ranks"]:
            rank.update(ended="exit", error="NCCL WARN Call to ibv_modify_qp failed with error Connection timed out\n")
    [fault] = judge([measured(TP, PAIR, answers, {})], {}, LIMITS).faults
    assert "ibv_modify_qp failed" in fault
    assert "NCCL_IB_GID_INDEX" in fault


def test_a_wrong_sum_is_a_fault_and_names_the_rank() -> None:
    answers = recorded("whole")
    answers["node1"]["ranks"][0]["rows"][3]["wrong"] = 7
    found = measured(TP, PAIR, answers, {})
    assert (found.ok, found.wrong) == (False, (2,))
    [fault] = judge([found], {}, LIMITS).faults
    assert "node0 and node1: the sum of an all-reduce was WRONG on rank 2" in fault


# ---- slow


def test_alike_pairs_are_no_finding() -> None:
    assert judge(pairs(), {}, LIMITS) == Findings(
        [], [], ["torch has no CUDA there: this was gloo on the processors, whose figures say nothing about GPUs."]
    )


def test_one_slow_pair_is_named_by_its_hosts() -> None:
    [line] = warned(pairs(slower=lambda pair: 3.0 if pair == ("node1", "node3") else 1.0))
    assert line.startswith("node1 and node3: ")
    assert "what is between them is slow" in line


@pytest.mark.parametrize("count", [3, 4, 6])
def test_one_slow_host_is_named_once_though_most_pairs_may_be_its_own(count: int) -> None:
    plan = bound(nodes(count, plan_gpus=2, plan_tp=2))
    [line] = warned(pairs(plan, slower=lambda pair: 3.0 if "node2" in pair else 1.0))
    assert line.startswith("node2 is slow with every other host")


def test_the_slowest_host_is_blamed_before_those_that_are_a_little_slow() -> None:
    """As it was seen on a busy machine, where the first host had to take the blame for the third."""
    seen = {("node0", "node3"): 2.4, ("node1", "node3"): 1.0, ("node0", "node1"): 2.6}
    plan = bound(nodes(4, plan_gpus=2, plan_tp=2))
    lines = warned(pairs(plan, slower=lambda pair: seen.get(pair, 240.0)))
    assert lines[0].startswith("node2 is slow with every other host")
    assert not any(line.startswith(("node1 is", "node3 is")) for line in lines)


def test_a_host_whose_own_gpus_are_slow_is_named() -> None:
    done = [
        result(Group("host", "lmdeploy", (node.name,)), slower=2.0 if node.name == "node3" else 1.0)
        for node in TP4.nodes
    ]
    [line] = warned(done)
    assert line.startswith("node3: ")
    assert "its own GPUs' links are slow" in line


def test_a_late_pair_is_named_though_its_bandwidth_is_fine() -> None:
    [line] = warned(pairs(log=lambda pair: OVER_IB, later=lambda pair: 9.0 if pair == ("node0", "node2") else 1.0))
    assert line.startswith("node0 and node2: an all-reduce of 8 bytes takes ")


def test_two_hosts_have_no_median_but_their_links() -> None:
    seen = hosts(
        TP, mlx5_10__1="400 Gb/sec (4X NDR)", mlx5_11__1="400 Gb/sec (4X NDR)", mlx5_0__1="100 Gb/sec (2X HDR)"
    )
    found = result(PAIR, plan=TP, log=OVER_IB, seen=seen)
    assert found.allowed == 100.0  # of the three HCAs the two that NCCL lists
    [line] = warned([found], seen)
    assert "of the 100.0 GB/s that their links have (InfiniBand or RoCE (NET/IB) with GPUDirect RDMA)" in line
    assert warned([found], seen, Limits(links=0.0)) == []


@pytest.mark.parametrize(
    ("network", "devices", "expected"),
    [
        ("IB", "[0]mlx5_0:1/IB [1]mlx5_1:1/IB [RO]; OOB eth0:10.0.0.10<0>", 100.0),
        ("IB", "[0]mlx5_0:1/IB [1]mlx5_1:1/IB [2]mlx5_2:1/IB", 100.0),  # one for each of its two GPUs
        ("IB", "[0]mlx5_9:1/IB", None),  # one whose rate is not known
        ("Socket", "[0]eth0:10.0.0.10<0>", 3.125),
        ("", "", 3.125),
        ("AWS Libfabric", "", None),
    ],
)
def test_what_the_links_of_a_host_have(network: str, devices: str, expected: float | None) -> None:
    rate = "400 Gb/sec (4X NDR)"
    speeds = {"eth0": "25000 Mb/s", "mlx5_0/1": rate, "mlx5_1/1": rate, "mlx5_2/1": rate}
    assert link_rate(TP.node("node0"), network, devices, speeds) == expected
    assert link_rate(TP.node("node0"), network, devices, {}) is None


# ---- over what


def test_sockets_in_place_of_infiniband_are_said_with_the_devices() -> None:
    seen = hosts(TP, mlx5_0__1="400 Gb/sec (4X NDR)", eth0="25000 Mb/s")
    found = judge([result(PAIR, plan=TP, log=OVER_SOCKETS, seen=seen)], seen, Limits(links=0.0))
    [line] = found.warnings
    assert "NCCL went over TCP sockets between node0, node1, though node0 has mlx5_0/1" in line
    assert found.notes == ["Between hosts NCCL went over TCP sockets (NET/Socket)."]


def test_sockets_without_any_hca_are_said_too() -> None:
    seen = hosts(TP, eth0="25000 Mb/s")
    [line] = judge([result(PAIR, plan=TP, log=OVER_SOCKETS, seen=seen)], seen, Limits(links=0.0)).warnings
    assert "these hosts show no InfiniBand or RoCE device" in line


def test_rdma_without_the_gpus_memory_is_said() -> None:
    log = OVER_IB.replace("/GDRDMA", "")
    [line] = judge([result(PAIR, plan=TP, log=log)], {}, LIMITS).warnings
    assert "nvidia_peermem" in line


def test_gpus_of_a_host_that_go_through_main_memory_are_said() -> None:
    [line] = judge([result(Group("host", "lmdeploy", ("node0",)), log=OVER_SOCKETS)], {}, LIMITS).warnings
    assert line.startswith("node0: GPUs of one host reach each other through main memory (SHM)")


# ---- broken, and what is spared


def broken(group: Group, plan: Plan = TP4) -> Measured:
    return measured(plan, group, {}, {})


def test_a_host_that_fails_with_all_is_told_once() -> None:
    done = [broken(each.group) if "node3" in each.group.nodes else each for each in pairs()]
    [fault] = judge(done, {}, LIMITS).faults
    assert fault.startswith("node3 fails with every host that it was tried with (node0, node1, node2).")


def test_one_broken_pair_is_told_by_its_hosts() -> None:
    done = [broken(each.group) if each.group.nodes == ("node0", "node2") else each for each in pairs()]
    [fault] = judge(done, {}, LIMITS).faults
    assert fault.startswith("node0 and node2: no result")


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (lambda nodes: False, set()),
        (lambda nodes: nodes == ("node1", "node3"), set()),
        (lambda nodes: "node3" in nodes, {"node3"}),
        (lambda nodes: "node3" in nodes and len(nodes) == 2 and "node0" not in nodes, set()),
        (lambda nodes: nodes == ("node2",), {"node2"}),
    ],
)
def test_a_host_that_fails_alone_or_with_others_is_left_out(
    failed: Callable[[tuple[str, ...]], bool], expected: set[str]
) -> None:
    own = [result(Group("host", "lmdeploy", (node.name,))) for node in TP4.nodes]
    done = [broken(each.group) if failed(each.group.nodes) else each for each in [*own, *pairs()]]
    assert given_up(done) == expected
    everything = Group("all", "lmdeploy", ("node0", "node1", "node2", "node3"))
    going = still([everything, *(each.group for each in pairs())], done)
    assert (everything in going) == (not any(each.error for each in done))
    assert all(not expected.intersection(group.nodes) for group in going)


# ---- for a person


def test_the_table_has_a_line_a_group_and_the_sizes_of_the_largest() -> None:
    whole = result(Group("all", "lmdeploy", ("node0", "node1", "node2", "node3")))
    done = [*pairs(), broken(Group("host", "lmdeploy", ("node0",))), whole]
    lines = table(done)
    assert lines[0].split() == ["HOSTS", "GPUS", "VIA", "LATENCY", "us", "BUSBW", "GB/s", "OF", "LINKS"]
    assert sum(line.startswith("node0 and node1 ") for line in lines) == 1
    assert next(line for line in lines if line.endswith("BROKEN")).startswith("node0 ")
    assert "all 4 hosts of lmdeploy, 8 GPUs:" in lines
    assert [line.split()[0] for line in lines[-8:]] == ["8", "32", "128", "512", "2048", "8192", "32768", "65536"]


def test_the_file_has_everything_as_plain_data() -> None:
    done = pairs()
    found = json.loads(json.dumps(to_json(TP4, done, judge(done, {}, LIMITS), "2026-11-24T22:25:00Z")))
    assert (found["format"], found["deployment"], len(found["groups"])) == (1, "lmdeploy", 6)
    assert found["groups"][0]["group"] == {"kind": "pair", "engine": "lmdeploy", "nodes": ["node0", "node1"]}
    assert found["groups"][0]["busbw"] == done[0].busbw
