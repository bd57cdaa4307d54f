# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NVIDIA's tools say of each GPU and of the links between them: texts in, facts out.

The names in ``nvidia-smi -q -x`` change with the driver. Read are those of 410 to 580; what a driver does not say is None.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LISTED = re.compile(r"GPU (\d+): .*\(UUID: ([^)\s]+)\)")
ADDRESS = re.compile(r"([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-9a-f]))?", re.IGNORECASE)
REASON = re.compile(r"clocks_(?:event|throttle)_reason_(\w+)")  # throttle: older drivers
# The others (idle, power cap, clocks that somebody set) are how a healthy GPU works.
SLOWDOWNS = ("hw_thermal_slowdown", "hw_power_brake_slowdown", "hw_slowdown", "sw_thermal_slowdown")
NO_LINK = re.compile(r"inactive", re.IGNORECASE)
WORDS = {"yes": True, "enabled": True, "no": False, "disabled": False}
ENDS_OF_NAMES = ("CPU", "NUMA")  # what the columns after the devices' begin with
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def indices(listing: str) -> dict[str, int]:
    """UUID -> index, from ``nvidia-smi -L``."""
    return {match[2]: int(match[1]) for match in map(LISTED.match, listing.splitlines()) if match}


def bus_address(text: str) -> str:
    """A PCI address as the kernel writes it, as in 0000:18:00.0; empty where it is none.

    nvidia-smi writes eight digits of the domain and capitals, its driver leaves the function out.
    """
    match = ADDRESS.fullmatch(text.strip())
    return f"{int(match[1], 16):04x}:{match[2]}:{match[3]}.{match[4] or 0}".lower() if match else ""


def cuda(xml: str) -> str | None:
    """The highest version of CUDA that the driver has, from ``nvidia-smi -q -x``."""
    match = re.search(r"<cuda_version>\s*(\d+(?:\.\d+)*)\s*<", xml)
    return match[1] if match else None


def details(xml: str, known: dict[str, int]) -> list[dict[str, Any]] | None:
    """A row for each GPU in ``nvidia-smi -q -x``; None where there is no such text. ``known``: index by UUID.

    Of a text that was cut off, the GPUs before the cut. ``numa``, ``nvlinks_down`` and the processes' containers are
    not in it.
    """
    if "<nvidia_smi_log" not in xml:
        return None
    return [_gpu(each, place, known) for place, each in enumerate(_gpus(xml))]


def _gpus(xml: str) -> Iterator[Element]:
    # Only where there is an nvidia-smi.
    from xml.etree import ElementTree

    # The text is from this host's own nvidia-smi, and is read without its document type, which could define entities.
    reader: Any = ElementTree.XMLPullParser(["end"])
    reader.feed(xml[xml.index("<nvidia_smi_log") :])
    with contextlib.suppress(ElementTree.ParseError):  # cut off, or followed by a warning
        for __, element in reader.read_events():
            if element.tag == "gpu":
                yield element


def _gpu(gpu: Element, place: int, known: dict[str, int]) -> dict[str, Any]:
    def said(path: str) -> str | None:
        text = (gpu.findtext(path) or "").strip()
        return text or None

    uuid = said("uuid") or ""
    return {
        "index": known.get(uuid, place),
        "uuid": uuid,
        "name": said("product_name") or "",
        "bus": bus_address(gpu.get("id", "")) or bus_address(said("pci/pci_bus_id") or ""),
        "memory_total_mib": _number(said("fb_memory_usage/total")),
        "memory_used_mib": _number(said("fb_memory_usage/used")),
        # A GPU that cannot be divided says N/A, and is whole.
        "mig": False if said("mig_mode/current_mig") == "N/A" else _truth(said("mig_mode/current_mig")),
        "compute_mode": said("compute_mode"),
        "persistence": _truth(said("persistence_mode")),
        "ecc": _truth(said("ecc_mode/current_ecc")),
        "ecc_uncorrected": _uncorrected(gpu.find("ecc_errors/volatile")),
        "remap_pending": _truth(said("remapped_rows/remapped_row_pending") or said("retired_pages/pending_retirement")),
        "remap_failed": _truth(said("remapped_rows/remapped_row_failure")),
        "recovery": _recovery(said),
        "fabric": said("fabric/state"),
        "fabric_status": said("fabric/status"),
        "slowdown": _slowdowns(gpu),
        "processes": _processes(gpu),
    }


def _recovery(said: Any) -> str | None:
    """What the driver says has to be done; what older ones say in other words is told in those of ``gpu_recovery_action``."""
    action = said("gpu_recovery_action")
    if action:
        return None if action == "N/A" else str(action)
    reset, drain = (
        _truth(said(f"gpu_reset_status/{name}")) for name in ("reset_required", "drain_and_reset_recommended")
    )
    if reset or drain:
        return "Reset" if reset else "Drain and Reset"
    return None if reset is None else "None"


def _uncorrected(volatile: Element | None) -> int | None:
    """The errors since the driver was loaded that could not be corrected, by any of the names that there have been."""
    if volatile is None:
        return None
    counts = [_number(each.text) for each in volatile if "uncorrectable" in each.tag]  # Turing and newer
    if not counts:
        counts = [_number(volatile.findtext("double_bit/total"))]  # Volta and older
    read = [count for count in counts if count is not None]
    return sum(read) if read else None


def _slowdowns(gpu: Element) -> list[str]:
    active = [
        match[1]
        for group in ("clocks_event_reasons", "clocks_throttle_reasons")
        for each in gpu.findall(f"{group}/*")
        for match in [REASON.fullmatch(each.tag)]
        if match and (each.text or "").strip() == "Active"
    ]
    return [name for name in SLOWDOWNS if name in active]


def _processes(gpu: Element) -> list[dict[str, Any]]:
    found = []
    for each in gpu.findall("processes/process_info"):
        pid = _number(each.findtext("pid"))
        if pid is not None:
            name = (each.findtext("process_name") or "").strip()
            found.append({"pid": pid, "name": name, "used_mib": _number(each.findtext("used_memory")), "container": ""})
    return found


def _number(text: str | None) -> int | None:
    """As in ``143771 MiB``; None for ``N/A``, ``[Insufficient Permissions]`` and the like."""
    match = re.match(r"\s*([0-9]{1,18})\b", text or "")
    return int(match[1]) if match else None


def _truth(text: str | None) -> bool | None:
    return WORDS.get((text or "").lower())


def nvlinks(status: str) -> dict[int, tuple[int, int | None]]:
    """Index -> (its NVLinks that are up, those that are down), from ``nvidia-smi nvlink --status``.

    Down is None where nvidia-smi only says that all are: a GPU whose links lead nowhere says the same.
    """
    found: dict[int, tuple[int, int | None]] = {}
    index = None
    for line in status.splitlines():
        listed = LISTED.match(line)
        if listed:
            index = int(listed[1])
            found[index] = (0, None if index not in found else found[index][1])
        elif index is not None and re.match(r"\s*Link \d+:", line):
            up, down = found[index]
            lost = bool(NO_LINK.search(line))
            found[index] = (up + (not lost), (down or 0) + lost)
    return found


def links(topology: str) -> dict[str, dict[str, str]] | None:
    """GPU -> device -> the way between them (NV18, PIX, PXB, PHB, NODE, SYS), from ``nvidia-smi topo -m``.

    Network cards have their devices' names, such as mlx5_0, where nvidia-smi says them (newer drivers in a legend).
    None where there is no such table.
    """
    rows = [line.split() for line in COLOUR.sub("", topology).splitlines()]
    title = next((row for row in rows if row and row[0] == "GPU0" and (len(row) < 2 or row[1] != "X")), None)
    if title is None:
        return None
    ends = next((place for place, cell in enumerate(title) if cell in ENDS_OF_NAMES), len(title))
    legend = {row[0].rstrip(":"): row[1] for row in rows if len(row) == 2 and re.fullmatch(r"NIC\d+:", row[0])}
    devices = [legend.get(cell, cell) for cell in title[:ends]]
    return {
        row[0]: {name: cell for name, cell in zip(devices, row[1:]) if cell != "X"}
        for row in rows
        if row and row is not title and row[0] in devices and row[0].startswith("GPU")
    }
