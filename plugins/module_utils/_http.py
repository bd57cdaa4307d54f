# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange with an end: whatever the other side does, it is over after a set time, and holds a set size.

urllib's time-out is for each wait alone: a server that drips a byte a second holds it for ever, and an endless body
fills the memory. Runs on the hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import dataclasses
import http.client
import io
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, Callable

LIMIT_BYTES = 8 << 20  # far more than any answer that is asked for here


class NoAnswer(Exception):
    """There is no whole HTTP answer; the text says why."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP answer of any status, read to its end."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")


def exchange(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    deadline_s: float,
    limit_bytes: int = LIMIT_BYTES,
    verified: bool = True,
) -> Reply:
    """GET ``url``, or POST ``body`` to it, in ``deadline_s`` seconds from here to the last byte.

    No redirect is followed, and no web proxy of the environment is used: these are addresses of the cluster. With ``verified``
    false the certificate of an https URL is taken as it is: a host that asks itself knows who answers. Raises ``NoAnswer``.
    (Looking a name up has the resolver's own limits; a plan has addresses.)
    """
    ends = time.monotonic() + deadline_s
    try:
        parts = urllib.parse.urlsplit(url)
        connection = _connections(verified)[parts.scheme](parts.hostname or "", parts.port, timeout=deadline_s)
    except (KeyError, ValueError, http.client.InvalidURL):
        raise NoAnswer(f"{url} is no http or https URL") from None
    method = "GET" if body is None else "POST"
    try:
        connection.connect()
        connection.sock.settimeout(_left(ends))
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        # Not getresponse(): its reads wait for the time-out again each time.
        response = http.client.HTTPResponse(_Socket(connection.sock, ends), method=method)  # type: ignore[arg-type]
        response.begin()
        content = response.read(limit_bytes + 1)
    except socket.timeout:
        raise NoAnswer(f"timed out after {deadline_s:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    finally:
        connection.close()
    if len(content) > limit_bytes:
        raise NoAnswer(f"the answer is longer than {limit_bytes} bytes")
    if response.length:
        raise NoAnswer(f"the answer broke off {response.length} bytes before its end")
    return Reply(response.status, content)


def _connections(verified: bool) -> dict[str, Callable[..., http.client.HTTPConnection]]:
    def https(*where: Any, **more: Any) -> http.client.HTTPConnection:
        context = ssl.create_default_context()
        if not verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(*where, context=context, **more)

    return {"http": http.client.HTTPConnection, "https": https}


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


class _Socket:
    """What HTTPResponse asks of a socket."""

    def __init__(self, connected: Any, ends: float) -> None:
        self._connected, self._ends = connected, ends

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self._connected, self._ends))


class _Reads(io.RawIOBase):
    """A socket's bytes, each wait no longer than what is left of the whole."""

    def __init__(self, connected: Any, ends: float) -> None:
        self._connected, self._ends = connected, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connected.settimeout(_left(self._ends))
        return int(self._connected.recv_into(buffer))
