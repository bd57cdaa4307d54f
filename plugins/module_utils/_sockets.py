# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening for a moment on ports that nothing else holds, and trying to connect to those of other hosts.

A listener is a process of its own, which outlives the module that started it and ends by itself. It takes connections and
keeps them: the kernel alone would turn some away where many hosts come at once. Nothing is sent, and every connection ends
with a reset, so that no port is left in TIME_WAIT for what is started afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ._observe.ports import listening_ports, read_tcp_tables
from ._processes import leave_behind

ANY = 0  # a port of the kernel's choice
BACKLOG = 512
AT_ONCE = 512
HARD_END = struct.pack("ii", 1, 0)  # SO_LINGER: a reset in place of a farewell
OUTCOMES = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EAFNOSUPPORT: "unreachable",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.ETIMEDOUT: "timeout",
}


def more_files() -> None:
    """Let this process have as many sockets as it may: 1024 is a common soft limit."""
    __, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bound(address: str, ports: Iterable[int]) -> tuple[dict[int, socket.socket], dict[int, str]]:
    """(port -> its listening socket, port -> why there is none: ``held`` by another, or the system's words).

    The key is the port that was asked for, ``ANY`` for one of the kernel's choice.
    """
    found, refused = {}, {}
    for port in ports:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # What was just stopped may have left the port in TIME_WAIT, and a socket that listens is refused all the same.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            refused[port] = "held" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        else:
            found[port] = listener
    return found, refused


def hold(listeners: Sequence[socket.socket], seconds: float) -> None:
    """Take every connection, and keep it, until ``seconds`` are over."""
    deadline = time.monotonic() + seconds
    taken: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, __ in selector.select(left):
                with contextlib.suppress(OSError):
                    connection, __ = key.fileobj.accept()  # type: ignore[union-attr]
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HARD_END)
                    taken.append(connection)


def listen(address: str, ports: Sequence[int], others: Sequence[int], seconds: float) -> dict[str, Any]:
    """Begin to listen on ``ports``, and leave a process that does so for ``seconds`` at most; ``others`` are only looked at.

    ``{"listening": {port: port}, "held": [port], "errors": {port: text}, "process": {"pid", "started"}}``; the value in
    ``listening`` is the port itself, that of the kernel's choice under ``"0"``. JSON has no numbers as keys.
    """
    more_files()
    in_use = listening_ports(read_tcp_tables())
    listeners, refused = bound(address, ports)
    process = None
    if listeners:
        sockets = list(listeners.values())
        process = leave_behind(lambda: hold(sockets, seconds), [each.fileno() for each in sockets])
    result = {
        "listening": {str(port): each.getsockname()[1] for port, each in listeners.items()},
        "held": sorted({*(port for port, why in refused.items() if why == "held"), *(in_use & {*others})}),
        "errors": {str(port): why for port, why in refused.items() if why != "held"},
        "process": process,
    }
    for each in listeners.values():
        each.close()
    return result


# ---- the other side


def connect(targets: Sequence[tuple[str, int]], timeout_s: float) -> list[str]:
    """How a connection to each (address, port) ends: ``reached``, ``refused``, ``timeout``, ``unreachable``, ``forbidden``, or
    the system's words. Addresses are of IPv4 or IPv6. All are tried at once (``AT_ONCE`` of them), each for ``timeout_s``;
    nothing is sent.
    """
    more_files()
    outcomes: list[str] = []
    for first in range(0, len(targets), AT_ONCE):
        outcomes += _connect(targets[first : first + AT_ONCE], timeout_s)
    return outcomes


def _connect(targets: Sequence[tuple[str, int]], timeout_s: float) -> list[str]:
    outcomes = ["timeout"] * len(targets)
    open_ones: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    try:
        for number, target in enumerate(targets):
            try:
                probe = socket.socket(_family(target[0]), socket.SOCK_STREAM)
            except OSError as refused:  # a kernel without IPv6
                outcomes[number] = outcome(refused.errno or 0)
                continue
            probe.setblocking(False)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HARD_END)
            error = probe.connect_ex(target)
            if error in (0, errno.EINPROGRESS):
                open_ones[probe.fileno()] = number, probe
                poll.register(probe, select.POLLOUT)
            else:
                outcomes[number] = outcome(error)
                probe.close()
        deadline = time.monotonic() + timeout_s
        while open_ones and (left := deadline - time.monotonic()) > 0:
            for descriptor, __ in poll.poll(max(1, int(left * 1000))):
                number, probe = open_ones.pop(descriptor)
                poll.unregister(descriptor)
                outcomes[number] = outcome(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                probe.close()
    finally:
        for __, probe in open_ones.values():
            probe.close()
    return outcomes


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def sources(addresses: Iterable[str]) -> dict[str, str]:
    """Address -> this host's own one on the way there; those to which there is no way are left out.

    Nothing is sent: connecting a UDP socket only looks the route up.
    """
    found = {}
    for address in addresses:
        with contextlib.suppress(OSError), socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            found[address] = str(probe.getsockname()[0])
    return found


def outcome(error: int) -> str:
    """The word for an error number of connect()."""
    return "reached" if error == 0 else OUTCOMES.get(error, os.strerror(error))
