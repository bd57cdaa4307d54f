# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host itself: addresses, ports in use, GPUs, links, clock. Each command has an end, and what failed is named."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import commands, parallel

LISTEN = "0A"
NO_IP = "the command ip is missing, which tells the interface of an address: apt-get install iproute2."


def host_facts() -> dict[str, Any]:
    """All of them; ``error`` says what could not be found out, except of the GPUs, which have their own.

    ``time`` is in seconds since 1970, ``uptime`` since the boot; ``boot_id`` is another after each boot; ``uid`` is who looks.
    """
    addresses, graphics = parallel.start(_interfaces), parallel.start(gpu_facts)
    found, error = addresses.result()
    return {
        "interfaces": found,
        "source": source_address(),
        "listening": sorted(listening_ports(read_tcp_tables())),
        "gpus": graphics.result(),
        "links": link_speeds(),
        "boot_id": _boot_id(),
        "time": time.time(),
        "uptime": time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
        "uid": os.getuid(),
        "error": error,
    }


def _interfaces() -> tuple[dict[str, list[str]], str]:
    path = commands.find("ip")
    if path is None:
        return {}, NO_IP
    output, error = commands.run([path, "-json", "-4", "address"])
    try:
        return ({}, error) if error else (interfaces(output), "")
    except (ValueError, KeyError, TypeError):
        return {}, f"ip -json -4 address gave no JSON: {output[:200]!r}"


def interfaces(ip_json: str) -> dict[str, list[str]]:
    """Interface -> its IPv4 addresses, from the output of ``ip -json -4 address``."""
    return {
        link["ifname"].partition("@")[0]: [entry["local"] for entry in link.get("addr_info", []) if "local" in entry]
        for link in json.loads(ip_json or "[]")
        if link
    }


def gpu_facts() -> dict[str, Any] | None:
    """``{"listing", "names", "driver", "error"}`` as nvidia-smi tells them; None where it is not installed.

    ``listing`` is the text of ``nvidia-smi -L``; ``error`` is one line, or empty.
    """
    path = commands.find("nvidia-smi")
    if path is None:
        return None
    questions = (("-L",), ("--query-gpu=name,driver_version", "--format=csv,noheader"))
    answers = parallel.each(lambda options: commands.run([path, *options]), questions)
    (listing, failed), (query, failed_too) = (answers[options] for options in questions)
    names, driver = gpus(query)
    return {"listing": listing, "names": names, "driver": driver, "error": failed or failed_too}


def gpus(query: str) -> tuple[list[str], str | None]:
    """(the GPUs' names, the driver's version), from ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader``."""
    found = [[cell.strip() for cell in line.split(",")] for line in query.splitlines() if "," in line]
    return [cells[0] for cells in found], next((cells[-1] for cells in found), None)


def listening_ports(tables: Iterable[str]) -> set[int]:
    """The ports in state LISTEN in the texts of /proc/net/tcp and /proc/net/tcp6."""
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTEN}


def read_tcp_tables() -> list[str]:
    """This host's socket tables."""
    return [path.read_text() for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]


def source_address() -> str:
    """This host's own address on its default route, as LMDeploy and Ray find theirs; empty where there is no route.

    Nothing is sent: connecting a UDP socket only looks the route up.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def link_speeds(root: Path = Path("/sys/class")) -> dict[str, str]:
    """How fast the host's links say that they are: Ethernet interfaces that are up, and InfiniBand ports."""
    found = {}
    for file in sorted(root.glob("net/*/speed")):
        with contextlib.suppress(OSError, ValueError):  # an interface that is down, or has no speed
            megabits = int(file.read_text())
            if megabits > 0:
                found[file.parent.name] = f"{megabits} Mb/s"
    for file in sorted(root.glob("infiniband/*/ports/*/rate")):
        with contextlib.suppress(OSError):
            found[f"{file.parts[-4]}/{file.parent.name}"] = file.read_text().strip()
    return found


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
