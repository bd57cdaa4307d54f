# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host itself: all that is looked at, side by side, each part by the module of its name."""

from __future__ import annotations

import concurrent.futures
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from . import (
    acs,
    clock,
    disks,
    fabric,
    gpus,
    kernel,
    limits,
    memory,
    names,
    network,
    parallel,
    ports,
    processes,
    proxies,
    rdma,
    routes,
)
from .files import text_of

# For each part: longer than its commands may take, so that only what hangs outside all time-outs is unknown for that.
SECONDS = 20.0
PROCESSES = ("containerd", "dockerd", fabric.PROCESS)


def host_facts(
    peers: Sequence[str] = (), paths: Sequence[str] = (), docker_root: Callable[[], str | None] = lambda: None
) -> dict[str, Any]:
    """All of them; ``error`` says what could not be found out, except of the GPUs, which have their own.

    ``peers`` are the addresses to which routes are asked, ``paths`` those whose file systems are; ``docker_root`` waits for
    Docker's directory, or has none. ``time`` is in seconds since 1970, ``uptime`` since the boot; ``boot_id`` is another
    after each boot; ``uid`` is who looks. A part that cannot be read is None.
    """
    ends = time.monotonic() + SECONDS
    addresses, graphics = parallel.start(network.read_addresses), parallel.start(gpus.gpu_facts)
    running = parallel.start(processes.named, PROCESSES)
    parts: dict[str, Callable[[], Any]] = {
        "rdma": rdma.rdma_facts,
        "hcas": rdma.hcas,
        "fabric_manager": lambda: fabric.fabric_manager(running.result()),
        "interfaces6": lambda: network.global_ipv6(text_of(network.IPV6_TABLE) or ""),
        "mtus": network.mtus,
        "parents": network.parents,
        "routes": lambda: routes.routes(peers),
        "names": names.name_facts,
        "kernel": kernel.kernel_facts,
        "limits": lambda: limits.limits(running.result()),
        "memory": memory.memory_facts,
        "disks": lambda: _disks(paths, docker_root),
        "clock": clock.clock_facts,
        "acs": acs.redirecting,
        "ephemeral": ports.ephemeral,
        "proxies": lambda: proxies.proxies(running.result()),
    }
    started = {name: parallel.start(call) for name, call in parts.items()}
    found, error = addresses.result()
    tables = ports.read_tcp_tables()
    answer = {
        "interfaces": network.interfaces(found),
        "networks": network.networks(found),
        "down": network.down(found),
        "bridges": network.local_bridges(),
        "source": network.source_address(),
        "listening": sorted(ports.listening_ports(tables)),
        "listeners": ports.listeners(tables),
        "links": network.link_speeds(),
        "boot_id": _boot_id(),
        "time": time.time(),
        "uptime": time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)),
        "uid": os.getuid(),
        "error": error,
        "gpus": graphics.result(),
        **{name: _by(ends, future) for name, future in started.items()},
    }
    manager = answer["fabric_manager"]
    if manager is not None:
        manager["needed"] = fabric.needed(manager["switches"], answer["gpus"])
    return answer


def _disks(paths: Sequence[str], docker_root: Callable[[], str | None]) -> dict[str, Any]:
    found = parallel.start(disks.disks, paths)
    root = docker_root()
    return {**(disks.disks([root]) if root else {}), **found.result()}


def _by(ends: float, future: concurrent.futures.Future[Any]) -> Any:
    try:
        return parallel.by(ends, future)
    except Exception:  # noqa: BLE001  (a kernel that nobody has seen before must not stop a deployment: it is unknown)
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
