# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which RDMA devices of a host its engine uses, and by which GID, out of what was seen of them. Pure.

NCCL takes every device with an active port, and NVSHMEM, which DeepEP uses, does too: a storage network's, a bond's, a slow one.
Where there is something to leave out, both are told what to take, each in its own words: NCCL_IB_HCA takes whole names after
"=", NVSHMEM_HCA_LIST knows no "=". Where there is nothing to leave out nothing is set, so that a link that comes back is used.

A RoCE device has several GIDs. NCCL finds one of RoCE v2 and IPv4 by itself since 2.21; NVSHMEM before 3 takes the first, which is
RoCE v1's. They have one number for all devices of a host, so it is set where one number fits all.

Each GPU is to have the device that is nearest to it. NCCL finds it, and so does NVSHMEM where one is nearer than all others. Where
two GPUs are at one switch with two devices, NVSHMEM under DeepEP gives both GPUs the first (DeepEP#466). The variables that it has
for that make it worse: each of DeepEP's processes takes itself for the first of its host, so with NVSHMEM_ENABLE_NIC_PE_MAPPING all
of them take the first device of the list (DeepEP#336). What helps is a NVSHMEM_HCA_LIST of its own for each process: the rank
program sets it, from ``PER_GPU``.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .types import Rdma

ACTIVE, ETHERNET, V2 = "ACTIVE", "Ethernet", "RoCE v2"
# The ways between a GPU and a card as nvidia-smi topo -m names them, the nearest first.
WAYS = ("PIX", "PXB", "PHB", "NODE", "SYS")
PER_GPU = (
    "LMFLEET_HCA_OF_GPU"  # in containers of DP ranks, the devices in the order of the GPUs; programs/rank.py reads it
)
# Where a person has set one of these, the choice is theirs.
CHOSEN = (
    "NVSHMEM_HCA_LIST",
    "NVSHMEM_HCA_PE_MAPPING",
    "NVSHMEM_ENABLE_NIC_PE_MAPPING",
    "DEEP_EP_DEVICE_TO_HCA_MAPPING",
    PER_GPU,
)
Port = Mapping[str, Any]


def rdma_of(
    hcas: Sequence[Mapping[str, Any]],
    links: Mapping[str, Mapping[str, str]] | None,
    gpus: int,
    *,
    deepep: bool,
    per_gpu: bool = False,
) -> Rdma | None:
    """What the first ``gpus`` of a host use of ``hcas``, as M(observe) tells them; None where no port is active.

    ``links`` is the GPUs' way to each device; ``deepep``: NVSHMEM is told as well; ``per_gpu``: each GPU has a process that can be
    told another device.
    """
    active = {
        f"{hca['device']}:{port['port']}": (hca, port)
        for hca in hcas
        for port in hca["ports"]
        if port["state"] == ACTIVE
    }
    if not active:
        return None
    left: dict[str, str] = {}
    kept = list(active)

    def leave(out: Iterable[str], why: str) -> None:
        """Leave some out, unless nothing would be left."""
        nonlocal kept
        wanted = set(out)
        gone = [name for name in kept if name in wanted]
        if gone and len(gone) < len(kept):
            left.update(dict.fromkeys(gone, why))
            kept = [name for name in kept if name not in gone]

    for bond in dict.fromkeys(hca["bond"] for hca, __ in active.values() if hca["bond"]):
        leave((name for name, (hca, __) in active.items() if hca["bond"] == bond), f"is part of {bond}")
    leave(
        (name for name, (__, port) in active.items() if port["layer"] == ETHERNET and not routable(port)),
        "has no RoCE v2 GID with an IPv4 address",
    )
    kinds = collections.Counter((active[name][1]["layer"], active[name][1]["rate_gbps"] or 0.0) for name in kept)
    layer, rate = max(kinds, key=lambda kind: (kinds[kind], kind[1]))
    for other in [kind for kind in kinds if kind != (layer, rate)]:
        leave(
            (name for name in kept if (active[name][1]["layer"], active[name][1]["rate_gbps"] or 0.0) == other),
            f"is {other[0]} of {other[1]:g} Gbit/s, and most are {layer} of {rate:g}",
        )
    near = {name for found in _nearest(kept, links or {}, gpus) for name in found}
    leave((name for name in kept if near and name not in near), "is farther than others from every GPU")
    index = _common_index([active[name][1] for name in kept])
    environment = _environment(kept, left, index, deepep=deepep)
    nearest = one_each(_nearest(kept, links or {}, gpus))
    if deepep and per_gpu and are_shared(kept, links or {}, gpus):
        environment[PER_GPU] = ",".join(nearest)
    return Rdma(kept, left, index, environment, nearest)


def routable(port: Port) -> set[int]:
    """The indexes of a port's GIDs of RoCE v2 and IPv4."""
    return {gid["index"] for gid in port.get("gids") or () if gid["type"] == V2 and gid["address"]}


def _common_index(ports: Sequence[Port]) -> int | None:
    """The one number that is such a GID's of every port; those of InfiniBand have none."""
    return min(set.intersection(*map(routable, ports)), default=None)


def _nearest(names: Sequence[str], links: Mapping[str, Mapping[str, str]], gpus: int) -> list[list[str]]:
    """By GPU, the devices to which it has no longer way than to any other; none at all where the ways are not known."""
    found = []
    for gpu in range(gpus):
        ways = {name: links.get(f"GPU{gpu}", {}).get(name.partition(":")[0]) for name in names}
        if any(way not in WAYS for way in ways.values()):
            return []
        best = min(WAYS.index(str(way)) for way in ways.values())
        found.append([name for name, way in ways.items() if WAYS.index(str(way)) == best])
    return found


def one_each(nearest: Sequence[Sequence[str]]) -> list[str]:
    """By GPU, one of its nearest devices, so that as few GPUs as can be have the same."""
    chosen: dict[int, str] = {}

    def give(gpu: int, most: int, tried: set[str]) -> bool:
        """Have a device that ``most`` GPUs may share, for which others may change theirs."""
        held = collections.Counter(chosen.values())
        for name in sorted(set(nearest[gpu]) - tried, key=lambda name: (held[name] >= most, nearest[gpu].index(name))):
            tried.add(name)
            holders = [other for other, device in chosen.items() if device == name]
            if len(holders) < most or any(give(other, most, tried) for other in holders):
                chosen[gpu] = name
                return True
        return False

    for most in range(1, len(nearest) + 1):
        for gpu in range(len(nearest)):
            if gpu not in chosen:
                give(gpu, most, set())
    return [chosen[gpu] for gpu in range(len(nearest))]


def are_shared(names: Sequence[str], links: Mapping[str, Mapping[str, str]], gpus: int) -> list[list[int]]:
    """The GPUs that get one device from NVSHMEM, the first of their nearest, though some could have another one as near."""
    nearest = _nearest(names, links, gpus)
    if len(set(one_each(nearest))) <= len({found[0] for found in nearest}):
        return []
    first: dict[str, list[int]] = {}
    for gpu, found in enumerate(nearest):
        first.setdefault(found[0], []).append(gpu)
    return [each for each in first.values() if len(each) > 1]


def _environment(kept: Sequence[str], left: Mapping[str, str], index: int | None, *, deepep: bool) -> dict[str, str]:
    names, number = ",".join(kept), str(index)
    return {
        **({"NCCL_IB_HCA": f"={names}"} if left else {}),
        **({"NVSHMEM_HCA_LIST": names} if left and deepep else {}),
        **({"NCCL_IB_GID_INDEX": number} if index is not None else {}),
        **({"NVSHMEM_IB_GID_INDEX": number} if index is not None and deepep else {}),
    }
