# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with GPUs and RDMA devices, as trees of /sys and /proc and as what the look makes of them.

The layout of /sys is that of the kernel's Documentation/ABI/stable/sysfs-class-infiniband and testing/sysfs-class-net.
"""

from __future__ import annotations

import copy
import functools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import (
    disks,
    fabric,
    gpu_details,
    gpus,
    kernel,
    limits,
    memory,
    network,
    rdma,
)

FIXTURES = Path(__file__).parent / "fixtures/host"
V1, V2 = "IB/RoCE v1", "RoCE v2"


def text(name: str) -> str:
    """What a tool or a file says, out of the fixtures."""
    return (FIXTURES / name).read_text(encoding="utf-8")


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def pci(root: Path, address: str, numa: int = 0, vendor: str = "0x10de", kind: str = "0x030200") -> Path:
    """A device on PCI, a GPU of NVIDIA's unless ``vendor`` and ``kind`` (its class) say otherwise."""
    device = root / "sys/devices/pci0000:00" / address
    for name, content in {"numa_node": str(numa), "vendor": vendor, "class": kind}.items():
        write(device / name, f"{content}\n")
    link = root / "sys/bus/pci/devices" / address
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(device)
    return device


def interface(root: Path, name: str, mtu: int = 9000, lower: Sequence[str] = (), master: str = "") -> Path:
    """A network interface, stacked on ``lower``, in the bond or bridge ``master``."""
    found = root / "sys/class/net" / name
    write(found / "mtu", f"{mtu}\n")
    for each in lower:
        (found / f"lower_{each}").symlink_to(root / "sys/class/net" / each)
    if master:
        (found / "master").symlink_to(root / "sys/class/net" / master)
    return found


def bond(root: Path, name: str, members: Sequence[str], mtu: int = 9000) -> None:
    for each in members:
        interface(root, each, mtu, master=name)
    (interface(root, name, mtu, lower=members) / "bonding").mkdir()


def mapped(address: str) -> str:
    """The GID that is made of an IPv4 address."""
    first, second, third, fourth = map(int, address.split("."))
    return f"0000:0000:0000:0000:0000:ffff:{first:02x}{second:02x}:{third:02x}{fourth:02x}"


def gids_of(
    *interfaces: tuple[str, str], start: str = "fe80:0000:0000:0000:0ac0:ebff:fe79:391a"
) -> list[tuple[str, str, str]]:
    """The table as mlx5 fills it: for the link-local address and each (interface, IPv4 address), RoCE v1 and then v2."""
    rows = [(start, interfaces[0][0]), *((mapped(address), name) for name, address in interfaces)]
    return [(gid, kind, name) for gid, name in rows for kind in (V1, V2)]


def hca(
    root: Path,
    name: str,
    address: str,
    gids: Sequence[tuple[str, str, str]],
    *,
    driver: str = "mlx5_core",
    netdevs: Sequence[str] = (),
    numa: int = 0,
    state: str = "4: ACTIVE",
    physical: str = "5: LinkUp",
    layer: str = "Ethernet",
    rate: str = "400 Gb/sec (4X NDR)",
    places: int = 16,
) -> None:
    """An RDMA device with one port, whose GIDs are (GID, type, interface); the other places of its table are empty."""
    card = pci(root, address, numa, vendor="0x15b3", kind="0x020000")
    (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
    (card / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)
    for each in netdevs:
        (card / "net" / each).mkdir(parents=True)
    device = root / "sys/class/infiniband" / name
    device.mkdir(parents=True)
    (device / "device").symlink_to(card)
    port = device / "ports/1"
    for file, content in (("state", state), ("phys_state", physical), ("link_layer", layer), ("rate", rate)):
        write(port / file, f"{content}\n")
    for place in range(places):
        gid, kind, netdev = gids[place] if place < len(gids) else ("0000:" * 7 + "0000", "", "")
        write(port / "gids" / str(place), f"{gid}\n")
        if kind:  # of an empty place the kernel gives an error
            write(port / "gid_attrs/types" / str(place), f"{kind}\n")
        if netdev:
            write(port / "gid_attrs/ndevs" / str(place), f"{netdev}\n")


def repeated(count: int) -> str:
    """What ``nvidia-smi -q -x`` says of the two H200, of ``count`` of them, as in an HGX machine."""
    xml = text("h200/q.xml")
    start, end = xml.index("<gpu id="), xml.index("</gpu>") + len("</gpu>")
    blocks = []
    for index in range(count):
        block = re.sub(r"00000000:00:06\.0", f"00000000:{0x10 + 0x10 * index:02X}:00.0", xml[start:end])
        blocks.append(block.replace("GPU-00000000-", f"GPU-{index:08d}-"))
    ending = xml.rindex("</gpu>") + len("</gpu>")
    return xml[:start] + "\n\n\t".join(blocks) + xml[ending:]


def repeated_status(count: int) -> tuple[str, str]:
    """The same of ``nvidia-smi -L`` and ``nvidia-smi nvlink --status``."""
    first = text("h200/nvlink.txt").split("GPU 1:")[0]
    status = "".join(
        first.replace("GPU 0:", f"GPU {index}:").replace("GPU-00000000-", f"GPU-{index:08d}-") for index in range(count)
    )
    return "".join(line + "\n" for line in status.splitlines() if line.startswith("GPU ")), status


def _card(index: int) -> int:
    """The number of a GPU's card in topo_hgx_h100.txt, where the fourth one is the hosts' own."""
    return index + (index > 3)


@functools.cache
def _looked(address: str, peers: tuple[str, ...], count: int, bonded: str) -> dict[str, Any]:
    listing, status = repeated_status(count)
    xml = repeated(count)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        addresses = [f"0000:{0x10 + 0x10 * index:02x}:00.0" for index in range(count)]
        for index, each in enumerate(addresses):
            (root / "sys/kernel/iommu_groups" / str(index)).mkdir(parents=True)
            write(root / "sys/kernel/iommu_groups" / str(index) / "type", "identity\n")
            device = pci(root, each, index * 2 // count)
            (device / "iommu_group").symlink_to(root / "sys/kernel/iommu_groups" / str(index))
            name, on = f"mlx5_{_card(index)}", bonded if index == 0 else f"eth{index}"
            if index:
                interface(root, on)
            # The cluster's own address is on the first; the others have one each in a network of their own.
            gids = gids_of((on, address if index == 0 else f"10.{100 + index}.0.{address.rpartition('.')[2]}"))
            members = ("ens1f0np0",) if index == 0 else (on,)
            hca(root, name, f"0000:{0x11 + 0x10 * index:02x}:00.0", gids, netdevs=members, numa=index * 2 // count)
        bond(root, bonded, ("ens1f0np0", "ens1f1np1"))
        write(root / "proc/driver/nvidia/params", text("h200/params.txt"))
        write(root / "proc/driver/nvidia/version", text("h200/version.txt"))
        (root / "sys/module/nvidia_peermem").mkdir(parents=True)
        write(root / "sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
        write(root / "proc/sys/kernel/numa_balancing", "0\n")
        write(root / "proc/meminfo", text("h200/meminfo.txt"))
        topology = text("h200/topo.txt" if count == 2 else "topo_hgx_h100.txt")
        seen = {
            "listing": listing,
            "names": ["NVIDIA H200"] * count,
            "driver": "580.159.04",
            "devices": gpus.devices(
                "".join(f"{index}, NVIDIA H200, Disabled, Default, 0, 143771\n" for index in range(count))
            ),
            "cuda": gpu_details.cuda(xml),
            "details": gpus.details(xml, listing, status, root),
            "links": gpu_details.links(topology),
            "error": "",
        }
        interfaces = {"lo": ["127.0.0.1"], bonded: [address], "ens1f0np0": [], "ens1f1np1": []}
        mounted = disks.mounts("25 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n40 25 9:0 / /data rw - xfs /dev/md0 rw\n")
        room = {"total_bytes": 28 << 40, "free_bytes": 20 << 40, "free_inodes": 10**9, "writable": True}
        route = {"interface": bonded, "source": address, "gateway": ""}
        return {
            "interfaces": interfaces,
            "interfaces6": {},
            "networks": {"127.0.0.1": "127.0.0.0/8", address: f"{address.rpartition('.')[0]}.0/24"},
            "down": [],
            "bridges": [],
            "source": address,
            "listening": [22],
            "listeners": {"22": {"pid": 1000, "command": "sshd", "container": ""}},
            "links": {
                bonded: "800000 Mb/s",
                **{f"mlx5_{_card(index)}/1": "400 Gb/sec (4X NDR)" for index in range(count)},
            },
            "boot_id": "1",
            "time": 1795737685.9,
            "uptime": 1000.0,
            "uid": 0,
            "error": "",
            "gpus": seen,
            "rdma": rdma.rdma_facts(root),
            "hcas": rdma.hcas(root),
            "fabric_manager": {
                "switches": fabric.has_switches(root),
                "needed": fabric.needed(False, seen),
                "running": True,
                "version": fabric.version("Fabric Manager version is : 580.159.04"),
            },
            "mtus": network.mtus(root / "sys/class/net"),
            "parents": network.parents(root / "sys/class/net"),
            "routes": {peer: dict(route) for peer in peers},
            "names": {"hostname": "gpu-host", "addresses": [address], "loopback": False},
            "kernel": {
                **kernel.kernel_facts(root),
                "release": "6.8.0-60-generic",
                "xids": kernel.xids(text("h200/dmesg.txt")),
                "sxids": kernel.sxids(text("h200/dmesg.txt")),
            },
            "limits": limits.parse(text("h200/limits.txt")),
            "memory": {**memory.parse(text("h200/meminfo.txt")), "shm_bytes": 256 << 30},
            "disks": {
                path: dict(zip(("device", "type"), disks.on(path, mounted)), **room)
                for path in ("/root/.cache/huggingface", "/var/lib/lmfleet", "/var/lib/docker")
            },
            "acs": [],
            "ephemeral": {"first": 32768, "last": 60999, "reserved": []},
            "clock": {"synchronized": True},
            "proxies": {},
        }


def h200_host(
    address: str = "10.0.0.10", peers: Sequence[str] = ("10.0.0.11",), count: int = 8, bonded: str = "bond0"
) -> dict[str, Any]:
    """``host`` of M(observe) of a healthy host with ``count`` (2 or 8) H200, each with a network card of 400 Gbit/s.

    The first card is a bond named ``bonded``, which has the cluster's address; the others have networks of their own.
    Made by the parsers out of the fixtures and a tree of /sys. The caller may break it.
    """
    return copy.deepcopy(_looked(address, tuple(peers), count, bonded))
