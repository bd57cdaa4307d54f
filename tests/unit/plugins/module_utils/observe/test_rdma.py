# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RDMA devices out of trees of /sys: InfiniBand, RoCE with VLAN and bond, other makers', none at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.network import mtus, parents
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.rdma import hcas, mapped_address, rate_gbps
from ansible_collections.lmfleet.lmdeploy.tests.unit.host_trees import (
    V1,
    V2,
    bond,
    gids_of,
    hca,
    interface,
    mapped,
    write,
)


def test_a_host_without_any(tmp_path: Path) -> None:
    assert hcas(tmp_path) == []


def test_infiniband(tmp_path: Path) -> None:
    gid = "fe80:0000:0000:0000:a088:c203:0012:3456"
    card = {"layer": "InfiniBand", "rate": "400 Gb/sec (4X NDR)", "numa": 1, "netdevs": ("ibp24s0",)}
    hca(tmp_path, "mlx5_0", "0000:18:00.0", [(gid, V1, "")], **card)  # type: ignore[arg-type]
    assert hcas(tmp_path) == [
        {
            "device": "mlx5_0",
            "driver": "mlx5_core",
            "numa": 1,
            "bus": "0000:18:00.0",
            "netdevs": ["ibp24s0"],
            "bond": "",
            "ports": [
                {
                    "port": 1,
                    "state": "ACTIVE",
                    "physical": "LinkUp",
                    "layer": "InfiniBand",
                    "rate_gbps": 400.0,
                    "gids": [{"index": 0, "gid": gid, "type": V1, "address": "", "netdev": ""}],
                }
            ],
        }
    ]


def test_roce_on_a_bond_with_a_vlan(tmp_path: Path) -> None:
    bond(tmp_path, "bond0", ("ens1f0np0", "ens1f1np1"))
    interface(tmp_path, "bond0.2973", 1500, lower=("bond0",))
    gids = gids_of(("bond0", "10.0.0.10"), ("bond0.2973", "10.29.73.10"))
    hca(tmp_path, "mlx5_bond_0", "0000:18:00.0", gids, netdevs=("ens1f0np0",), rate="200 Gb/sec (4X HDR)", places=256)
    [found] = hcas(tmp_path)
    assert (found["bond"], found["netdevs"]) == ("bond0", ["ens1f0np0"])
    [port] = found["ports"]
    chosen = [(gid["index"], gid["address"], gid["netdev"]) for gid in port["gids"] if gid["type"] == V2]
    assert chosen == [(1, "", "bond0"), (3, "10.0.0.10", "bond0"), (5, "10.29.73.10", "bond0.2973")]
    assert len(port["gids"]) == 6
    assert port["rate_gbps"] == 200.0
    assert mtus(tmp_path / "sys/class/net") == {"bond0": 9000, "bond0.2973": 1500, "ens1f0np0": 9000, "ens1f1np1": 9000}
    assert parents(tmp_path / "sys/class/net") == {"bond0": ["ens1f0np0", "ens1f1np1"], "bond0.2973": ["bond0"]}


def test_a_device_that_only_its_gids_tie_to_a_bond(tmp_path: Path) -> None:
    bond(tmp_path, "bond1", ("eth0", "eth1"))
    hca(tmp_path, "mlx5_bond_0", "0000:18:00.0", gids_of(("bond1", "10.0.0.10")))
    [found] = hcas(tmp_path)
    assert (found["netdevs"], found["bond"]) == (["bond1"], "bond1")


def test_ports_that_are_down_and_other_makers(tmp_path: Path) -> None:
    # As rdma link shows them of Broadcom's (openucx/ucx issue 11048), and Intel's irdma on ice.
    down = {"state": "1: DOWN", "physical": "3: Disabled", "rate": "2.5 Gb/sec (1X SDR)"}
    ula = "fd93:16d3:59b6:012e:8e84:74ff:fe1f:2550"
    hca(
        tmp_path, "bnxt_re0", "0000:c2:00.0", [(ula, V2, "enp194s0f0np0")], driver="bnxt_en", netdevs=("enp194s0f0np0",)
    )
    hca(tmp_path, "bnxt_re1", "0000:c2:00.1", [], driver="bnxt_en", netdevs=("enp194s0f1np1",), **down)  # type: ignore[arg-type]
    hca(
        tmp_path,
        "rocep229s0",
        "0000:e5:00.0",
        [(mapped("10.0.0.9"), V2, "enp229s0")],
        driver="ice",
        rate="100 Gb/sec (4X EDR)",
    )
    first, second, third = hcas(tmp_path)
    assert (first["driver"], first["ports"][0]["gids"][0]["address"]) == ("bnxt_en", "")
    port = second["ports"][0]
    assert (port["state"], port["physical"], port["rate_gbps"], port["gids"]) == ("DOWN", "Disabled", 2.5, [])
    assert (third["driver"], third["netdevs"]) == ("ice", ["enp229s0"])  # by its GIDs
    assert third["ports"][0]["gids"] == [
        {"index": 0, "gid": mapped("10.0.0.9"), "type": V2, "address": "10.0.0.9", "netdev": "enp229s0"}
    ]


def test_soft_roce_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    device = tmp_path / "sys/class/infiniband/rxe0"
    write(device / "parent", "eth0\n")
    write(device / "ports/1/state", "4: ACTIVE\n")
    (device / "ports/1/rate").mkdir()
    [found] = hcas(tmp_path)
    assert (found["netdevs"], found["driver"], found["bus"], found["numa"]) == (["eth0"], None, "", None)
    assert found["ports"] == [
        {"port": 1, "state": "ACTIVE", "physical": None, "layer": None, "rate_gbps": None, "gids": []}
    ]


def test_devices_come_in_their_numbers_order(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        hca(tmp_path, f"mlx5_{number}", f"0000:{number:02x}:00.0", [])
    assert [each["device"] for each in hcas(tmp_path)] == ["mlx5_0", "mlx5_2", "mlx5_10"]


@pytest.mark.parametrize(
    ("gid", "address"),
    [
        (mapped("192.168.6.6"), "192.168.6.6"),
        ("fe80:0000:0000:0000:0ac0:ebff:fe79:391a", ""),
        ("0000:0000:0000:0000:0000:0000:0000:0001", ""),
        ("nonsense", ""),
    ],
)
def test_the_address_in_a_gid(gid: str, address: str) -> None:
    assert mapped_address(gid) == address


def test_rates() -> None:
    assert [
        rate_gbps(text) for text in ("400 Gb/sec (4X NDR)", "2.5 Gb/sec (1X SDR)", "800 Gb/sec (8X NDR)", "", "4X")
    ] == [
        400.0,
        2.5,
        800.0,
        None,
        None,
    ]
