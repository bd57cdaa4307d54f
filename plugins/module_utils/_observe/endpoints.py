# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports and api_servers, as this host reaches them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from typing import Any

from .._http import NoAnswer, exchange
from . import parallel

PROBE_SECONDS = 3.0


def tcp_status(target: str) -> str:
    """An empty string when ``address:port`` takes a connection, else why not."""
    host, __, port = target.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_SECONDS):
            return ""
    except ValueError:
        return f"{target} is no address:port"
    except OSError as error:
        return "timed out" if isinstance(error, socket.timeout) else str(error.strerror or error)


def http_status(url: str) -> dict[str, Any]:
    """``{"health": status, "models": [names]}`` of an api_server, or ``{"error": ...}`` while it does not answer."""
    try:
        for path in ("/health", "/v1/models"):
            reply = exchange(f"{url}{path}", deadline_s=PROBE_SECONDS)
            if reply.status != 200:
                return {"error": f"HTTP {reply.status} from {url}{path}"}
    except NoAnswer as error:
        return {"error": str(error)}
    try:
        return {"health": 200, "models": [str(entry["id"]) for entry in json.loads(reply.body)["data"]]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return {"error": f"no model list from {url}/v1/models: {error}"}


def http_statuses(urls: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``http_status`` of each URL, all asked at once."""
    return parallel.each(http_status, urls)
