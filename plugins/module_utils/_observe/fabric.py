# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fabric of NVSwitches, which nvidia-fabricmanager sets up: without it CUDA fails on such a host with error 802."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import commands
from .files import text_of

NVIDIA = "0x10de"
BRIDGE = "0x0680"  # the class of an NVSwitch, up to the third generation
PROCESS = "nv-fabricmanage"  # as the kernel cuts it off
REGISTERED = ("Completed", "In Progress", "Not Started")


def fabric_manager(running: Mapping[str, Sequence[Path]] | None, root: Path = Path("/")) -> dict[str, Any]:
    """``switches``, whether this host has NVSwitches of its own; ``running`` and ``version`` of the fabric manager.

    ``running``: the processes by name, or None where nobody may see them. In a virtual machine the switches, and their
    manager, may be its host's.
    """
    path = commands.find("nv-fabricmanager")
    said = commands.run([path, "--version"])[0] if path else ""
    return {
        "switches": has_switches(root),
        "running": None if running is None else bool(running.get(PROCESS)),
        "version": version(said),
    }


def needed(switches: bool, gpus: Mapping[str, Any] | None) -> bool:
    """Whether GPUs of this host have to be registered with a fabric before CUDA works."""
    states = [each["fabric"] for each in (gpus or {}).get("details") or []]
    return switches or any(state in REGISTERED for state in states)


def has_switches(root: Path = Path("/")) -> bool:
    """Whether there is an NVSwitch, by its driver or on PCI."""
    if any((root / "proc/driver/nvidia-nvswitch/devices").glob("*")):
        return True
    return any(nvidia_devices(BRIDGE, root))


def nvidia_devices(kind: str, root: Path) -> Iterator[Path]:
    """NVIDIA's devices on PCI whose class begins with ``kind``, as directories of /sys."""
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if text_of(device / "vendor") == NVIDIA and (text_of(device / "class") or "").startswith(kind):
            yield device


def version(said: str) -> str | None:
    """Out of ``nv-fabricmanager --version``, as in ``Fabric Manager version is : 535.104.05``."""
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", said)
    return match[1] if match else None
