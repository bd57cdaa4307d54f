# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's own name resolves to: Gloo and others tell the other nodes the address that they find behind it."""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any

from . import parallel

SECONDS = 3.0  # as long as a name server that does not answer may take


def name_facts(seconds: float = SECONDS) -> dict[str, Any]:
    """``{"hostname", "addresses", "loopback"}``; the latter two are None where the resolver does not answer in time.

    ``loopback``: one of the addresses is one that means this host on every host, such as 127.0.1.1.
    """
    name = socket.gethostname()
    found: list[str] | None
    try:
        found = parallel.by(time.monotonic() + seconds, parallel.start(resolved, name))
    except parallel.Late:
        found = None
    return {"hostname": name, "addresses": found, "loopback": None if found is None else any(map(is_loopback, found))}


def resolved(name: str) -> list[str]:
    """The addresses of a name, by this host's resolver, in its order; empty where it knows none."""
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # gaierror is an OSError
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def is_loopback(address: str) -> bool:
    """Whether an address never leaves its host."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
