# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running HAProxy tells at its socket, and what it is told there. Runs on its host: Python 3.9, standard library."""

from __future__ import annotations

import csv
import io
import socket
from collections.abc import Sequence
from typing import Any

BACKEND = "engines"
ANSWER_S = 5.0
LIMIT_BYTES = 4 << 20
# Bits of srv_admin_state: what somebody said, not what the checks found.
SET_ASIDE = 0x01 | 0x08  # maintenance, drain


class GatewayError(Exception):
    """The gateway does not answer, or refuses; the text says why."""


def state_of(path: str) -> dict[str, Any]:
    """``{"description", "waiting", "servers"}`` of the HAProxy at the socket ``path``. Raises ``GatewayError``.

    ``description`` is what it has read, ``waiting`` how many requests no server has yet. ``servers`` are by name ``{"up", "aside",
    "requests"}``: whether its checks find the endpoint well, whether it is kept from new requests, and how many it has.
    """
    info = dict(line.partition(": ")[::2] for line in _said(path, "show info").splitlines())
    told = _said(path, f"show servers state {BACKEND}").splitlines()
    heads = next((line[2:].split() for line in told if line.startswith("# ")), [])
    admin = {row["srv_name"]: row for row in (dict(zip(heads, line.split())) for line in told) if "srv_name" in row}
    stats = csv.DictReader(io.StringIO(_said(path, "show stat").removeprefix("# ")))
    servers, waiting = {}, 0
    for row in stats:
        name = row.get("svname") or ""
        if row.get("pxname") == BACKEND and name == "BACKEND":
            waiting = int(row["qcur"] or 0)
        elif row.get("pxname") == BACKEND and name in admin:
            servers[name] = {
                "up": (row["status"] or "").split()[:1] in (["UP"], ["DRAIN"], ["no"]),  # no check
                "aside": bool(int(admin[name]["srv_admin_state"]) & SET_ASIDE),
                "requests": int(row["scur"] or 0),
            }
    return {"description": info.get("description", ""), "waiting": waiting, "servers": servers}


def put_aside(path: str, names: Sequence[str], *, aside: bool) -> None:
    """Keep new requests from servers, or give them some again. Raises ``GatewayError``."""
    for name in names:
        said = _said(path, f"set server {BACKEND}/{name} state {'drain' if aside else 'ready'}").strip()
        if said:
            raise GatewayError(f"{name}: {said}")


def _said(path: str, command: str) -> str:
    found = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(path)
            connection.sendall(f"{command}\n".encode())
            while len(found) < LIMIT_BYTES:
                more = connection.recv(65536)
                if not more:
                    return found.decode("utf-8", "replace")
                found += more
    except OSError as error:
        raise GatewayError(f"{path}: {error.strerror or error}") from None
    raise GatewayError(f"{path}: more than {LIMIT_BYTES} bytes in answer to {command}")


def told(path: str) -> dict[str, Any]:
    """``state_of``, or ``{"error": why}``."""
    try:
        return state_of(path)
    except (GatewayError, KeyError, ValueError) as error:
        return {"error": str(error)}
