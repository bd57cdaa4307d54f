# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's memory and clock. They only matter to real engines, so hosts without NVIDIA's driver are left out."""

from __future__ import annotations

from collections.abc import Iterator

from .types import GROUP, WARNING, Found, OfAll, OfHost, Rule

GIB = 2**30
PER_GPU = 8 * GIB  # a rank's process with its libraries and buffers, while it loads
MOST_STORE, STORE_SHARE = 80 * 10**9, 0.3  # what LMDeploy has Ray's object store ask for, of all memory
APART_S = 2.0


def _memory(of: OfHost) -> Iterator[str]:
    free, needs = of.known("host.memory.available_bytes"), of.node.gpus * PER_GPU
    if free < needs:
        yield (
            f"{free / GIB:.0f} GiB of memory are free, and {of.node.gpus} ranks need about {needs / GIB:.0f} GiB while they load: "
            "see who takes it (free -h; ps aux --sort=-rss | head), and stop it."
        )


def _shared(of: OfHost) -> Iterator[str]:
    has = of.known("host.memory.shm_bytes")
    needs = min(MOST_STORE, STORE_SHARE * of.known("host.memory.total_bytes"))
    if has < needs:
        yield (
            f"the shared memory (/dev/shm) has {has / GIB:.1f} GiB, and Ray's object store asks for {needs / GIB:.1f} GiB; it "
            f"uses /tmp then, which is slow: mount -o remount,size={needs / GIB + 1:.0f}G /dev/shm, and in /etc/fstab."
        )


def _clock(of: OfHost) -> Iterator[str]:
    if of.known("host.clock.synchronized") is False:
        yield (
            "the clock is not synchronized, so the times in logs of several hosts do not fit together, and certificates may "
            "not be valid: systemctl enable --now chrony (or systemd-timesyncd), and see chronyc tracking."
        )


def _clocks(of: OfAll) -> Iterator[Found]:
    """Apart for certain: no moment within each host's look would put both right."""
    # Host -> the least and the most by which its clock is ahead of the control node's.
    ahead = {}
    for name, (before, after) in of.each("looked").items():
        now = of.each("host.time").get(name)
        if now is not None:
            ahead[name] = (now - after, now - before)
    if len(ahead) < 2:
        return
    last = min(ahead, key=lambda name: ahead[name][1])
    first = max(ahead, key=lambda name: ahead[name][0])
    apart = ahead[first][0] - ahead[last][1]
    if apart > APART_S:
        yield Found(
            f"The clock of {first} is at least {apart:.0f} s ahead of that of {last}: have all hosts take the time from one "
            "source (chrony or systemd-timesyncd; chronyc tracking, timedatectl).",
            (first, last),
        )


def _iommu(of: OfHost) -> Iterator[str]:
    kind = of.known("host.kernel.iommu")
    if kind not in ("off", "identity"):
        yield (
            f"the IOMMU translates what the GPUs send ({kind}), which makes transfers from GPU to GPU and to network cards slow, "
            "or hang: boot with iommu=pt (in /etc/default/grub, then update-grub), or switch the IOMMU off in the firmware."
        )


RULES = (
    Rule(
        id="system.memory",
        severity=WARNING,
        title="Memory is free for the ranks where no container of the deployment runs",
        check=_memory,
        remedy="Stop who takes it.",
        needs=("host.memory.available_bytes",),
        applies=lambda of: of.real and of.idle,
    ),
    Rule(
        id="system.shm",
        severity=WARNING,
        title="`/dev/shm` has room for Ray's object store (TP; containers use the host's)",
        check=_shared,
        remedy="Mount a larger `/dev/shm`.",
        needs=("host.memory.shm_bytes", "host.memory.total_bytes"),
        applies=lambda of: of.real and of.engine.topology == "tp",
    ),
    Rule(
        id="system.iommu",
        severity=WARNING,
        title="The IOMMU is off, or lets GPUs through as they are",
        check=_iommu,
        remedy="Boot with `iommu=pt`.",
        needs=("host.kernel.iommu",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="system.clock",
        severity=WARNING,
        title="The clock is synchronized",
        check=_clock,
        remedy="Enable chrony or systemd-timesyncd.",
        needs=("host.clock.synchronized",),
        applies=lambda of: of.real and of.several,
    ),
)
TOGETHER = (
    Rule(
        id="system.clocks",
        severity=WARNING,
        title="The clocks of the hosts are not more than 2 s apart",
        check=_clocks,
        remedy="Have all hosts take the time from one source.",
        needs=("host.time", "looked"),
        scope=GROUP,
    ),
)
