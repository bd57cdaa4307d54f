# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs, as nvidia-smi tells them. Each command has an end, and what failed is named."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from . import commands, gpu_details, parallel, processes
from .files import number_of

FIELDS = ("index", "name", "mig.mode.current", "compute_mode", "memory.used", "memory.total")
GPU_LINE = re.compile(r"\s*(?:GPU|MIG) ")


def gpu_facts() -> dict[str, Any] | None:
    """What nvidia-smi tells of the GPUs, see RETURN of M(observe); None where it is not installed.

    ``listing`` is the text of ``nvidia-smi -L``, ``devices`` and ``details`` have a row for each GPU; ``error`` is one line, or
    empty. All questions are asked at once, and only what the first two fail with is an error.
    """
    path = commands.find("nvidia-smi")
    if path is None:
        return None
    questions = (
        ("-L",),
        ("--query-gpu=name,driver_version", "--format=csv,noheader"),
        (f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"),
        ("-q", "-x"),
        ("topo", "-m"),
        ("nvlink", "--status"),
    )
    answers = parallel.each(lambda options: commands.run([path, *options], answer=GPU_LINE), questions)
    (listing, failed), (query, failed_too), (table, __), (xml, __), (topology, __), (status, __) = (
        answers[options] for options in questions
    )
    names, driver = gpus(query)
    return {
        "listing": listing,
        "names": names,
        "driver": driver,
        "devices": devices(table),
        "cuda": gpu_details.cuda(xml),
        "details": details(xml, listing, status),
        "links": gpu_details.links(topology),
        "error": failed or failed_too,
    }


def details(xml: str, listing: str, status: str, root: Path = Path("/")) -> list[dict[str, Any]] | None:
    """A row for each GPU, with what only this host's kernel knows: its NUMA node, and in which container a process is."""
    found = gpu_details.details(xml, gpu_details.indices(listing))
    nvlinks = gpu_details.nvlinks(status)
    for gpu in found or []:
        gpu["numa"] = numa_node(root / "sys/bus/pci/devices" / (gpu["bus"] or "none"))
        gpu["nvlinks"], gpu["nvlinks_down"] = nvlinks.get(gpu["index"], (None, None))
        for process in gpu["processes"]:
            with contextlib.suppress(OSError):  # it has ended, or is in another process namespace
                process["container"] = processes.container_of(root / "proc" / str(process["pid"]))
    return found


def numa_node(device: Path) -> int | None:
    """The NUMA node of a device, out of its directory in /sys; None where the kernel does not know it."""
    node = number_of(device / "numa_node")
    return node if node is not None and node >= 0 else None


def gpus_work() -> bool | None:
    """Whether a GPU of this host works now, or nobody can tell; None where nvidia-smi is not installed."""
    path = commands.find("nvidia-smi")
    if path is None:
        return None
    said, failed = commands.run([path, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"])
    return bool(failed) or any_works(said)


def any_works(query: str) -> bool:
    """Whether one of the percentages, a line each, is not 0; what is no number (a MIG device's) may be any."""
    return any(line.strip() != "0" for line in query.splitlines()) or not query.strip()


def gpus(query: str) -> tuple[list[str], str | None]:
    """(the GPUs' names, the driver's version), from ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader``."""
    found = [[cell.strip() for cell in line.split(",")] for line in query.splitlines() if "," in line]
    return [cells[0] for cells in found], next((cells[-1] for cells in found), None)


def devices(query: str) -> list[dict[str, str]]:
    """The GPUs as ``nvidia-smi --query-gpu`` gives ``FIELDS`` of them; a line that is none of one is left out."""
    names = ("index", "name", "mig", "compute_mode", "used", "total")
    rows = [[cell.strip() for cell in line.split(",")] for line in query.splitlines()]
    return [dict(zip(names, cells)) for cells in rows if len(cells) == len(names)]
