# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of a machine that stands for several hosts: aliases of its loopback interface, and a default route.

LMDeploy and Ray ask the kernel which address a packet to the internet would have, so there has to be a route; nothing is
sent. By ioctl, for a bare image has no `ip`. As root.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct

SIOCADDRT, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8916, 0x891C
RTF_UP = 1
ALIAS = "10.99.77.{}"


def own_address() -> str | None:
    """The address of the default route, or None where there is no such route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("8.8.8.8", 53))
        except OSError:
            return None
        return str(asked.getsockname()[0])


def addresses(count: int) -> list[str]:
    """So many addresses of this machine, the first that of its default route; made where it has none."""
    own = own_address()
    if own is None:
        _add_alias(0)
        _add_default_route()
        own = own_address() or ALIAS.format(1)
    for number in range(1, count):
        _add_alias(number)
    return [own, *(ALIAS.format(number + 1) for number in range(1, count))]


def _sockaddr(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _add_alias(number: int) -> None:
    name, address = f"lo:{number + 1}".encode(), ALIAS.format(number + 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s8x", name, _sockaddr(address)))
        fcntl.ioctl(any_socket, SIOCSIFNETMASK, struct.pack("16s16s8x", name, _sockaddr("255.255.255.255")))


def _add_default_route() -> None:
    device = ctypes.create_string_buffer(b"lo")
    nowhere = _sockaddr("0.0.0.0")
    # struct rtentry: padding, destination, gateway, mask, flags, paddings, metric, device, mtu, window, irtt.
    entry = struct.pack(
        "@L16s16s16sHhLPhPLLH",
        *(0, nowhere, nowhere, nowhere, RTF_UP, 0, 0, 0, 0, ctypes.addressof(device), 0, 0, 0),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCADDRT, entry)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
