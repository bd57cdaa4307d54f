# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TCP ports in use, and who listens on them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import processes
from .files import text_of

LISTEN = "0A"
SOCKET_END = re.compile(r"[0-9A-F]+:([0-9A-F]{4})")  # as in /proc/net/tcp and /proc/net/tcp6


def listening_ports(tables: Iterable[str]) -> set[int]:
    """The ports in state LISTEN in the texts of /proc/net/tcp and /proc/net/tcp6."""
    return {port for __, port in _listening(tables)}


def listeners(tables: Iterable[str], proc: Path = Path("/proc")) -> dict[str, dict[str, Any]]:
    """Port (as text) -> ``{"pid", "command", "container"}`` of the process that listens on it, as far as the user may see it.

    ``container`` is the id of its container, or empty.
    """
    ports = dict(_listening(tables))
    found: dict[str, dict[str, Any]] = {}
    if not ports:
        return found
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            for entry in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    inode = str(entry.readlink()).partition("socket:[")[2].rstrip("]")
                    if inode in ports:
                        found.setdefault(str(ports[inode]), processes.who(process))
    return found


def _listening(tables: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Inode and port of what listens."""
    for row in (line.split() for table in tables for line in table.splitlines()[1:]):
        end = SOCKET_END.fullmatch(row[1]) if len(row) > 3 and row[3] == LISTEN else None
        if end:
            yield row[9] if len(row) > 9 else "", int(end[1], 16)


def ephemeral(root: Path = Path("/")) -> dict[str, Any] | None:
    """The ports that the kernel gives to connections that go out: ``{"first", "last", "reserved"}``.

    ``reserved`` are first and last ports of what it leaves out of them. None where it cannot be read.
    """
    folder = root / "proc/sys/net/ipv4"
    ends = re.fullmatch(r"(\d{1,5})\s+(\d{1,5})", text_of(folder / "ip_local_port_range") or "")
    if not ends:
        return None
    reserved = re.findall(r"(\d{1,5})(?:-(\d{1,5}))?", text_of(folder / "ip_local_reserved_ports") or "")
    return {
        "first": int(ends[1]),
        "last": int(ends[2]),
        "reserved": [[int(first), int(last or first)] for first, last in reserved],
    }


def read_tcp_tables() -> list[str]:
    """This host's socket tables."""
    return [path.read_text() for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
