# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which RDMA devices an engine is told to use, from trees of /sys as the look reads them to what a container gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpu_details import links
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.rdma import hcas
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.rdma import rdma_of
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
    assert rdma_of(hcas(tmp_path), None, 2, deepep=True) == Rdma(["mlx5_0:1", "mlx5_1:1"], {}, None, {})
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


# ---- in the plan, and in what it stops


def planned(cards: list[dict[str, Any]], count: int = 2, **variables: Any) -> Plan:
    given = nodes(count, plan_gpus=8, **variables)
    seen = Observations(
        interfaces={name: {"eth0": [each["plan_cluster_address"]]} for name, each in given.items()},
        hcas=dict.fromkeys(given, cards),
        links=dict.fromkeys(given, LINKS or {}),
    )
    return plan_of(given, seen)


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
