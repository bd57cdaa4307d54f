# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which RDMA devices an engine is told to use, from trees of /sys as the look reads them to what a container gets."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpu_details import links
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.rdma import hcas
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.rdma import PER_GPU, one_each, rdma_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan, Rdma
from ansible_collections.lmfleet.lmdeploy.tests.unit.host_trees import V1, bond, gids_of, hca, text
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of, service
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World

HGX = [f"mlx5_{number}" for number in (0, 1, 2, 3, 5, 6, 7, 8)]
LINKS = links(text("topo_hgx_h100.txt"))
IB: dict[str, Any] = {"layer": "InfiniBand"}


def hgx(root: Path, **card: Any) -> list[dict[str, Any]]:
    """Eight cards, and a bond of two others, which is the hosts' own network, as in topo_hgx_h100.txt."""
    for number, name in enumerate(HGX):
        gids = gids_of((f"eth{number}", f"10.{number}.0.1")) if card.get("layer") != "InfiniBand" else []
        hca(root, name, f"0000:{number + 16:02x}:00.0", gids, netdevs=(f"eth{number}",), **card)
    bond(root, "bond0", ("ens1f0", "ens1f1"))
    hca(root, "mlx5_bond_0", "0000:f0:00.0", gids_of(("bond0", "10.0.0.1")), netdevs=("ens1f0",))
    return hcas(root)


def all_of(found: Rdma | None) -> Rdma:
    assert found is not None
    return found


def test_a_bond_is_left_out_and_each_is_told_in_its_own_words(tmp_path: Path) -> None:
    found = all_of(rdma_of(hgx(tmp_path, **IB), LINKS, 8, deepep=True))
    names = ",".join(f"{name}:1" for name in HGX)
    assert found.left_out == {"mlx5_bond_0:1": "is part of bond0"}
    assert found.environment == {"NCCL_IB_HCA": f"={names}", "NVSHMEM_HCA_LIST": names}


def test_on_ethernet_the_gid_of_roce_v2_and_ipv4_is_told(tmp_path: Path) -> None:
    found = all_of(rdma_of(hgx(tmp_path), LINKS, 8, deepep=False))
    assert found.gid_index == 3
    assert found.environment.keys() == {"NCCL_IB_HCA", "NCCL_IB_GID_INDEX"}
    assert found.environment["NCCL_IB_GID_INDEX"] == "3"


def test_where_all_are_to_be_used_nothing_is_told(tmp_path: Path) -> None:
    for number in range(2):
        hca(tmp_path, f"mlx5_{number}", f"0000:{number + 16:02x}:00.0", [], **IB)
    assert rdma_of(hcas(tmp_path), None, 2, deepep=True) == Rdma(["mlx5_0:1", "mlx5_1:1"], {}, None, {}, [])
    hca(tmp_path, "mlx5_2", "0000:30:00.0", [], **IB, state="1: DOWN")
    assert all_of(rdma_of(hcas(tmp_path), None, 2, deepep=True)).environment == {}


def test_without_an_active_port_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert rdma_of([], None, 8, deepep=True) is None
    hca(tmp_path, "mlx5_0", "0000:10:00.0", [], state="1: DOWN")
    assert rdma_of(hcas(tmp_path), None, 8, deepep=True) is None


def test_storage_cards_are_told_by_rate_layer_or_distance(tmp_path: Path) -> None:
    for number in range(4):
        hca(tmp_path, f"mlx5_{number}", f"0000:{number + 16:02x}:00.0", [], **IB)
    hca(tmp_path, "mlx5_4", "0000:20:00.0", [], **IB, rate="200 Gb/sec (4X HDR)")
    hca(tmp_path, "mlx5_5", "0000:21:00.0", gids_of(("eth0", "10.0.0.1")))
    ways = {f"GPU{gpu}": {f"mlx5_{card}": "PIX" if card == gpu else "NODE" for card in range(6)} for gpu in range(3)}
    found = all_of(rdma_of(hcas(tmp_path), ways, 3, deepep=False))
    assert found.left_out == {
        "mlx5_4:1": "is InfiniBand of 200 Gbit/s, and most are InfiniBand of 400",
        "mlx5_5:1": "is Ethernet of 400 Gbit/s, and most are InfiniBand of 400",
        "mlx5_3:1": "is farther than others from every GPU",
    }
    assert found.environment == {"NCCL_IB_HCA": "=mlx5_0:1,mlx5_1:1,mlx5_2:1"}


def test_something_is_always_left(tmp_path: Path) -> None:
    bond(tmp_path, "bond0", ("ens1f0", "ens1f1"))
    hca(tmp_path, "mlx5_bond_0", "0000:f0:00.0", [("fe80::1", V1, "bond0")], netdevs=("ens1f0",))
    found = all_of(rdma_of(hcas(tmp_path), None, 8, deepep=True))
    assert (found.devices, found.left_out, found.gid_index) == (["mlx5_bond_0:1"], {}, None)


def test_indexes_that_differ_are_left_to_the_libraries(tmp_path: Path) -> None:
    hca(tmp_path, "mlx5_0", "0000:10:00.0", gids_of(("eth0", "10.0.0.1")), netdevs=("eth0",))
    hca(tmp_path, "mlx5_1", "0000:11:00.0", gids_of(("eth1", "10.1.0.1"))[2:], netdevs=("eth1",))
    assert all_of(rdma_of(hcas(tmp_path), None, 2, deepep=True)).environment == {}


# ---- one for each GPU


def switches(root: Path, *shape: tuple[int, int]) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Cards, and ways to them, of a host whose switches have so many GPUs and so many cards each."""
    of_gpu = [number for number, (count, __) in enumerate(shape) for __ in range(count)]
    of_card = [number for number, (__, count) in enumerate(shape) for __ in range(count)]
    for card, __ in enumerate(of_card):
        hca(root, f"mlx5_{card}", f"0000:{card + 16:02x}:00.0", [], **IB)
    ways = {
        f"GPU{gpu}": {f"mlx5_{card}": "PXB" if place == at else "SYS" for card, at in enumerate(of_card)}
        for gpu, place in enumerate(of_gpu)
    }
    return hcas(root), ways


def devices(*numbers: int) -> list[str]:
    return [f"mlx5_{number}:1" for number in numbers]


def test_each_gpu_has_the_device_at_its_own_switch_and_nothing_is_told(tmp_path: Path) -> None:
    found = all_of(rdma_of(hgx(tmp_path, **IB), LINKS, 8, deepep=True, per_gpu=True))
    assert found.nearest == [f"{name}:1" for name in HGX]
    assert PER_GPU not in found.environment


def test_two_gpus_at_a_switch_with_two_devices_get_one_each(tmp_path: Path) -> None:
    cards, ways = switches(tmp_path, (2, 2), (2, 2), (2, 2), (2, 2))
    found = all_of(rdma_of(cards, ways, 8, deepep=True, per_gpu=True))
    assert sorted(found.nearest) == devices(*range(8))
    assert [name.partition(":")[0] for name in found.nearest] == [f"mlx5_{gpu}" for gpu in range(8)]
    assert found.environment == {PER_GPU: ",".join(found.nearest)}
    # Without DeepEP, or without a process for each GPU, there is nobody to tell.
    assert all_of(rdma_of(cards, ways, 8, deepep=False, per_gpu=True)).environment == {}
    assert all_of(rdma_of(cards, ways, 8, deepep=True, per_gpu=False)).environment == {}


@pytest.mark.parametrize(
    ("shape", "nearest", "told"),
    [
        ([(2, 1), (2, 1)], devices(0, 0, 1, 1), False),  # there are no others
        ([(1, 2), (1, 2)], devices(0, 2), False),  # the first is as good
        ([(4, 2)], devices(0, 1, 0, 1), True),
        ([(3, 2), (1, 1)], devices(0, 1, 0, 2), True),
        ([(4, 4)], devices(0, 1, 2, 3), True),
    ],
)
def test_as_few_gpus_as_can_be_share_a_device(
    tmp_path: Path, shape: list[tuple[int, int]], nearest: list[str], told: bool
) -> None:
    cards, ways = switches(tmp_path, *shape)
    found = all_of(rdma_of(cards, ways, sum(count for count, __ in shape), deepep=True, per_gpu=True))
    shares = collections.Counter(found.nearest)
    assert sorted(shares.values()) == sorted(collections.Counter(nearest).values())
    for gpu, name in enumerate(found.nearest):
        assert ways[f"GPU{gpu}"][name.partition(":")[0]] == "PXB"
    assert (PER_GPU in found.environment) is told


def test_a_device_is_given_up_for_a_gpu_that_has_no_other() -> None:
    """GPU 0 may have either; GPU 1 only the first."""
    assert one_each([["a", "b"], ["a"]]) == ["b", "a"]
    assert one_each([["a", "b"], ["b", "c"], ["a"]]) == ["b", "c", "a"]
    assert one_each([]) == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True), max_size=9))
def test_every_gpu_has_one_of_its_own_nearest(nearest: list[list[str]]) -> None:
    chosen = one_each(nearest)
    assert len(chosen) == len(nearest)
    assert all(name in found for name, found in zip(chosen, nearest))
    assert len(set(chosen)) >= len({found[0] for found in nearest})


# ---- in the plan, and in what it stops


def planned(
    cards: list[dict[str, Any]], count: int = 2, ways: dict[str, dict[str, str]] | None = None, **variables: Any
) -> Plan:
    hosts = nodes(count, plan_gpus=8, **variables)
    seen = Observations(
        interfaces={name: {"eth0": [each["plan_cluster_address"]]} for name, each in hosts.items()},
        hcas=dict.fromkeys(hosts, cards),
        links=dict.fromkeys(hosts, ways or LINKS or {}),
    )
    return plan_of(hosts, seen)


def test_the_plan_shows_what_is_set_and_why(tmp_path: Path) -> None:
    plan = planned(hgx(tmp_path, **IB))
    ray = service(plan, "ray", "node1")
    assert ray.environment["NCCL_IB_HCA"].startswith("=mlx5_0:1,")
    assert ray.derived == ["NCCL_IB_HCA"]
    table = as_table(plan)
    assert "    not mlx5_bond_0:1: it is part of bond0" in table.splitlines()
    assert "; NCCL_IB_HCA==mlx5_0:1," in table
    assert Plan.from_json(plan.to_json()) == plan


def test_the_users_own_value_is_taken(tmp_path: Path) -> None:
    plan = planned(hgx(tmp_path, **IB), plan_environment={"NCCL_IB_HCA": "=mlx5_7:1"})
    ray = service(plan, "ray", "node1")
    assert (ray.environment["NCCL_IB_HCA"], ray.derived) == ("=mlx5_7:1", [])


def test_an_engine_on_one_host_needs_none(tmp_path: Path) -> None:
    plan = planned(hgx(tmp_path, **IB), count=1)
    assert plan.nodes[0].rdma is None
    assert not any("NCCL_IB" in name for each in plan.services for name in each.environment)


def deployed(plan: Plan) -> World:
    world = World(plan)
    world.carry_out(world.decide())
    return world


def test_a_link_that_goes_and_comes_stops_nothing_that_serves(tmp_path: Path) -> None:
    cards = hgx(tmp_path, **IB)
    before = planned(cards)
    fewer = planned([card for card in cards if card["device"] != "mlx5_3"])
    none = planned([card for card in cards if card["device"] != "mlx5_bond_0"])
    for first, then in ((before, fewer), (fewer, before), (before, none), (none, before)):
        decision = deployed(first).follow(then).decide()
        assert decision.steps == []
        assert any("NCCL_IB_HCA" in note and "at its next start" in note for note in decision.notes)


def test_what_the_user_sets_or_takes_out_is_a_change(tmp_path: Path) -> None:
    cards = hgx(tmp_path, **IB)
    derived, own = planned(cards), planned(cards, plan_environment={"NCCL_IB_HCA": "=mlx5_7:1"})
    for first, then in ((derived, own), (own, derived)):
        reasons = [step.reason for step in deployed(first).follow(then).decide().steps]
        assert any("NCCL_IB_HCA" in reason for reason in reasons)


def test_an_engine_of_a_version_that_set_none_serves_on(tmp_path: Path) -> None:
    plan = planned(hgx(tmp_path, **IB))
    bare = dataclasses.replace(plan, services=planned([]).services)
    assert deployed(bare).follow(plan).decide().steps == []


PAIRS = [(2, 2)] * 4


def test_ranks_are_told_their_devices_and_the_plan_shows_them(tmp_path: Path) -> None:
    cards, ways = switches(tmp_path, *PAIRS)
    plan = planned(cards, ways=ways, plan_topology="dpep")
    ranks = service(plan, "dp", "node1")
    assert ranks.environment[PER_GPU] == ",".join(devices(*range(8)))
    assert ranks.derived == [PER_GPU]
    assert f"    nearest to GPU 0 to 7: {', '.join(devices(*range(8)))}" in as_table(plan).splitlines()
    assert Plan.from_json(plan.to_json()) == plan
    for other in (
        {"plan_launcher": "native", "plan_image": "openmmlab/lmdeploy:v0.18.0-cu12.8"},
        {"plan_dp": 8, "plan_ep": 16, "plan_tp": 2},
        {"plan_environment": {"NVSHMEM_HCA_LIST": "mlx5_0:1"}},
        {"plan_environment": {"NVSHMEM_ENABLE_NIC_PE_MAPPING": "1"}},
    ):
        assert PER_GPU not in service(planned(cards, ways=ways, plan_topology="dpep", **other), "dp").environment
    assert PER_GPU not in service(planned(cards, ways=ways), "ray").environment


def test_devices_of_ranks_that_change_stop_nothing_that_serves(tmp_path: Path) -> None:
    cards, ways = switches(tmp_path, *PAIRS)
    before = planned(cards, ways=ways, plan_topology="dpep")
    fewer = planned([card for card in cards if card["device"] != "mlx5_3"], ways=ways, plan_topology="dpep")
    none = planned(cards, ways={}, plan_topology="dpep")
    for first, then in ((before, fewer), (fewer, before), (before, none), (none, before)):
        assert service(first, "dp").environment != service(then, "dp").environment
        assert deployed(first).follow(then).decide().steps == []


def test_a_mapping_that_gives_all_gpus_one_device_is_warned_of() -> None:
    def told(value: str, count: int = 2) -> list[str]:
        hosts = nodes(count, plan_topology="dpep", plan_environment={"NVSHMEM_ENABLE_NIC_PE_MAPPING": value})
        return [each for each in plan_of(hosts).warnings if "NVSHMEM_ENABLE_NIC_PE_MAPPING" in each]

    [warning] = told("1")
    assert "(node0, node1)" in warning
    assert "Take it out" in warning
    assert told("0") == []
    assert told("1", 1) == []
