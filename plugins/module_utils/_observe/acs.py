# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access Control Services (ACS) of PCI switches, which send what one device writes to another up to the processor and back.

Read from the configuration space as PCI Express lays it out: of that, whoever is not root gets the first 64 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from .fabric import nvidia_devices
from .gpu_details import ADDRESS

DISPLAY = "0x03"  # the class of GPUs
CAPABILITIES, SHOWN, EXTENDED = 0x34, 0x40, 0x100  # where they begin; so much is shown to everybody
PCI_EXPRESS, DOWNSTREAM = 0x10, 6  # the capability, and its type of a switch's port that leads to devices
ACS, CONTROL = 0x0D, 6
# Redirection of requests and of completions between devices, and forwarding of all to the processor.
REDIRECTS = 0b11100


def redirecting(root: Path = Path("/")) -> list[str] | None:
    """The ports of PCI switches above NVIDIA's GPUs and RDMA devices that redirect, by address.

    None where there is no GPU, or nobody may read it.
    """
    gpus = list(nvidia_devices(DISPLAY, root))
    if not gpus:
        return None
    cards = [device / "device" for device in (root / "sys/class/infiniband").glob("*")]
    found, unread = [], False
    for bridge in sorted(_above([*gpus, *cards]), key=lambda path: path.name):
        try:
            config = (bridge / "config").read_bytes()
        except OSError:
            config = b""
        if len(config) <= SHOWN:
            unread = True
        elif is_downstream(config) and control(config) & REDIRECTS:
            found.append(bridge.name)
    return None if unread and not found else found


def _above(devices: Iterable[Path]) -> set[Path]:
    """The bridges between devices and the root of PCI."""
    found: set[Path] = set()
    for device in devices:
        for parent in device.resolve().parents:
            if not ADDRESS.fullmatch(parent.name):
                break
            found.add(parent)
    return found


def is_downstream(config: bytes) -> bool:
    """Whether it is a switch's port that leads to devices."""
    at, seen = _byte(config, CAPABILITIES), set()
    while at and at not in seen:
        seen.add(at)
        if _byte(config, at) == PCI_EXPRESS:
            return _byte(config, at + 2) >> 4 == DOWNSTREAM
        at = _byte(config, at + 1)
    return False


def control(config: bytes) -> int:
    """The control register of Access Control Services; 0 where a device has none."""
    at, seen = EXTENDED, set()
    while at >= EXTENDED and at not in seen and at + 8 <= len(config):
        seen.add(at)
        (head,) = struct.unpack_from("<I", config, at)
        if head & 0xFFFF == ACS:
            return int(struct.unpack_from("<H", config, at + CONTROL)[0])
        at = head >> 20
    return 0


def _byte(config: bytes, at: int) -> int:
    return config[at] if at < len(config) else 0
