# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports and api_servers, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import endpoints
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.endpoints import http_status, tcp_status
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The URL of a server that answers 200 with this body, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            pass

    with HTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
    return port


# ---- ports


def test_a_port_that_takes_connections_has_nothing_to_say() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert tcp_status(f"{LOOPBACK}:{server.getsockname()[1]}") == ""


def test_a_closed_port_says_so() -> None:
    assert tcp_status(f"{LOOPBACK}:{closed_port()}") == "Connection refused"


def test_a_port_that_does_not_answer_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PROBE_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        for __ in range(4):  # a full queue drops whoever comes next, as a firewall does
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        assert tcp_status(f"{LOOPBACK}:{server.getsockname()[1]}") == "timed out"


# ---- HTTP


def test_an_api_server_tells_its_health_and_models() -> None:
    with NullServer() as server:
        assert http_status(server.endpoints[0].url) == {"health": 200, "models": ["null"]}


def test_an_unhealthy_api_server_is_an_error_with_its_status() -> None:
    with NullServer(health="unhealthy") as server:
        url = server.endpoints[0].url
        assert http_status(url) == {"error": f"HTTP 503 from {url}/health"}


def test_nobody_there_is_an_error() -> None:
    assert "Connection refused" in http_status(f"http://{LOOPBACK}:{closed_port()}")["error"]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": [{}]}'])
def test_what_is_no_model_list_is_an_error(body: bytes) -> None:
    with answering(body) as url:
        assert http_status(url)["error"].startswith(f"no model list from {url}/v1/models: ")


def test_what_is_no_port_is_told() -> None:
    assert tcp_status("somewhere") == "somewhere is no address:port"
