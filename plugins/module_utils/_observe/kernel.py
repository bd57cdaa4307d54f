# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel: its release and control groups, errors of GPUs in its log (XID), what it does to memory and devices."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

from .fabric import nvidia_devices
from .files import text_of
from .gpu_details import bus_address

XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d{1,4}),?[ \t]*([^\n]*)")
# A driver that cannot start a GPU says so in three lines and without a number; it is what XID 79 says of one that ran.
# As nvswitch_os_print of the open kernel modules writes it; the lines of details that follow say neither word.
SXID = re.compile(
    r"nvidia-nvswitch\d{1,3}: SXid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d{1,6}), (Fatal|Non-fatal)\b,?[ \t]*([^\n]*)"
)
LOST = re.compile(r"NVRM: The NVIDIA GPU ([0-9a-fA-F:.]+)\b.{0,400}?fallen off the bus[^\n]*", re.DOTALL)
FALLEN_OFF = 79
LONGEST = 400  # characters of a line
READ_ALL, SIZE = 3, 10  # actions of syslog(2)
DISPLAY = "0x03"  # the class of GPUs: VGA and 3D controllers


def kernel_facts(root: Path = Path("/")) -> dict[str, Any]:
    """See ``kernel`` in RETURN of M(observe).

    ``xids`` and ``sxids`` are None where there is no driver of NVIDIA, or no right to read the log.
    """
    log = kernel_log() if (root / "proc/driver/nvidia").exists() else None
    balancing = text_of(root / "proc/sys/kernel/numa_balancing")
    return {
        "release": os.uname().release,
        "cgroups": cgroups(root),
        "xids": None if log is None else xids(log),
        "sxids": None if log is None else sxids(log),
        "iommu": iommu(root),
        "numa_balancing": None if balancing is None else balancing != "0",
    }


def kernel_log() -> str | None:
    """The kernel's messages since the boot, as far back as it keeps them; None where this user may not read them.

    By the system call that dmesg makes, in one piece.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        size = libc.klogctl(SIZE, None, 0)
        if size <= 0:
            return None
        buffer = ctypes.create_string_buffer(size)
        length = libc.klogctl(READ_ALL, buffer, size)
    except AttributeError:  # a C library without it
        return None
    return buffer.raw[:length].decode("utf-8", "replace") if length >= 0 else None


def xids(log: str) -> list[dict[str, Any]]:
    """``{"bus", "xid", "count", "text"}`` of each kind of error of each GPU, in the order of the first ones."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for match in XID.finditer(log):
        bus, xid = bus_address(match[1]) or match[1].lower(), int(match[2])
        entry = found.setdefault((bus, xid), {"bus": bus, "xid": xid, "count": 0, "text": ""})
        entry["count"] += 1
        entry["text"] = match[0].strip()[:LONGEST]
    for match in LOST.finditer(log):
        bus = bus_address(match[1]) or match[1].lower()
        text = " ".join(re.sub(r"\s*NVRM:\s*", " ", match[0]).split())
        found.setdefault((bus, FALLEN_OFF), {"bus": bus, "xid": FALLEN_OFF, "count": 1, "text": text[:LONGEST]})
    return list(found.values())


def sxids(log: str) -> list[dict[str, Any]]:
    """``{"bus", "sxid", "fatal", "count", "text"}`` of each kind of error of each NVSwitch; ``text`` is the last one."""
    found: dict[tuple[str, int, bool], dict[str, Any]] = {}
    for match in SXID.finditer(log):
        bus, sxid, fatal = bus_address(match[1]) or match[1].lower(), int(match[2]), match[3] == "Fatal"
        entry = found.setdefault((bus, sxid, fatal), {"bus": bus, "sxid": sxid, "fatal": fatal, "count": 0, "text": ""})
        entry["count"] += 1
        entry["text"] = match[4].strip()[:LONGEST]
    return list(found.values())


def cgroups(root: Path = Path("/")) -> int | None:
    """The version of the control groups that containers get; None where none are mounted."""
    groups = root / "sys/fs/cgroup"
    if (groups / "cgroup.controllers").exists():
        return 2
    return 1 if any((groups / name).is_dir() for name in ("memory", "cpu", "cpuset", "devices")) else None


def iommu(root: Path = Path("/")) -> str | None:
    """What the IOMMU does to the GPUs: V(off), V(identity) (addresses pass as they are), V(DMA) or another type of the kernel's.

    None where no GPU of NVIDIA's is on PCI, or the kernel does not say.
    """
    devices = list(nvidia_devices(DISPLAY, root))
    if not devices:
        return None
    groups = [device / "iommu_group" for device in devices if (device / "iommu_group").exists()]
    if not groups:
        return "off"
    types = {text_of(group / "type") for group in groups} - {None}
    return next(iter(sorted(each for each in types if each and each != "identity")), "identity" if types else None)
