# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to other hosts, as the kernel would go it: asked of the kernel itself, as ip route get does."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

GET, ANSWER, FAILED = 26, 24, 2  # RTM_GETROUTE, RTM_NEWROUTE, NLMSG_ERROR
REQUEST = 1
DESTINATION, INTERFACE, GATEWAY, SOURCE = 1, 4, 5, 7  # RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC
HEADER, ROUTE, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBBBBBI"), struct.Struct("=HH")
NO_ROUTE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES))
SECONDS = 2.0


def routes(addresses: Iterable[str]) -> dict[str, dict[str, str] | None]:
    """Address -> ``{"interface", "source", "gateway"}``, empty texts where there is no route; None where nobody can tell.

    ``gateway`` is empty too where the address is on the interface's own network.
    """
    found: dict[str, dict[str, str] | None] = {}
    for number, address in enumerate(dict.fromkeys(addresses), 1):
        found[address] = None
        with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: a kernel without netlink
            found[address] = _ask(address, number)
    return found


def _ask(address: str, number: int) -> dict[str, str] | None:
    """Raises OSError, and ValueError where the address is none."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(SECONDS)
        kernel.send(question(address, number))
        answer = parse(kernel.recv(1 << 16))
    if answer is None:
        return None
    index = answer.pop("index")
    return {**answer, "interface": socket.if_indextoname(index) if index else ""}


def question(address: str, number: int) -> bytes:
    """RTM_GETROUTE for an IPv4 or IPv6 address; see rtnetlink(7). Raises ValueError where it is none."""
    target = ipaddress.ip_address(address)
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    route = ROUTE.pack(family, target.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    attribute = ATTRIBUTE.pack(ATTRIBUTE.size + len(target.packed), DESTINATION) + target.packed
    return HEADER.pack(HEADER.size + len(route) + len(attribute), GET, REQUEST, number, 0) + route + attribute


def parse(message: bytes) -> dict[str, Any] | None:
    """``{"index" (of the interface, 0 where there is no route), "source", "gateway"}`` out of the kernel's answer."""
    nowhere = {"index": 0, "source": "", "gateway": ""}
    if len(message) < HEADER.size:
        return None
    kind = HEADER.unpack_from(message)[1]
    body = message[HEADER.size :]
    if kind == FAILED:
        return nowhere if len(body) >= 4 and -struct.unpack_from("=i", body)[0] in NO_ROUTE else None
    if kind != ANSWER or len(body) < ROUTE.size:
        return None
    found = dict(_attributes(body[ROUTE.size :]))
    index = found.get(INTERFACE, b"")
    return {
        "index": struct.unpack("=I", index)[0] if len(index) == 4 else 0,
        "source": _address(found.get(SOURCE, b"")),
        "gateway": _address(found.get(GATEWAY, b"")),
    }


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, place)
        if length < ATTRIBUTE.size:
            return
        yield kind, data[place + ATTRIBUTE.size : place + length]
        place += (length + 3) & ~3


def _address(data: bytes) -> str:
    return str(ipaddress.ip_address(data)) if len(data) in (4, 16) else ""
