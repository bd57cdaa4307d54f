# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that misbehave, over real sockets: an exchange with each of them ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Callable

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._http import NoAnswer, exchange
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import endpoints, proxy
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = b'{"data": []}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that answers each request so, and then ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def one(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                answer(client)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def dripping(content: bytes, times: int = 1000) -> Callable[[socket.socket], None]:
    def drip(client: socket.socket) -> None:
        for byte in content * times:
            client.sendall(bytes([byte]))
            time.sleep(0.05)

    return drip


def endless(client: socket.socket) -> None:
    client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")


@pytest.mark.parametrize(
    "content",
    [b"H", HEAD + b"X: " + b"x" * 100_000, HEAD + b"\r\n" + b"x" * 100_000, HEAD + b"Content-Length: 99999\r\n\r\n" + WHOLE],
    ids=["status", "header", "body", "body of known length"],
)  # fmt: skip
def test_a_server_that_drips_is_given_up_at_the_deadline(content: bytes) -> None:
    with serving(dripping(content)) as url, pytest.raises(NoAnswer, match=r"^timed out after 0\.4 s$"):
        exchange(url, deadline_s=0.4)


def test_a_server_that_says_nothing_is_given_up_at_the_deadline() -> None:
    with serving(lambda _: time.sleep(60)) as url, pytest.raises(NoAnswer, match="timed out"):
        exchange(url, b"{}", deadline_s=0.2)


def test_an_endless_body_is_given_up_at_the_limit() -> None:
    with serving(endless) as url:
        began = time.monotonic()
        with pytest.raises(NoAnswer, match="longer than 1000000 bytes"):
            exchange(url, deadline_s=60, limit_bytes=1_000_000)
        assert time.monotonic() - began < 30


def test_an_answer_that_breaks_off_is_none() -> None:
    with serving(lambda client: client.sendall(WHOLE[:-3])) as url, pytest.raises(NoAnswer, match="broke off 3 bytes"):
        exchange(url, deadline_s=10)
    with serving(lambda _: None) as url, pytest.raises(NoAnswer, match="closed connection without response"):
        exchange(url, deadline_s=10)
    with serving(lambda client: client.sendall(b"SSH-2.0-x\r\n")) as url, pytest.raises(NoAnswer):
        exchange(url, deadline_s=10)


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://127.0.0.1/", "http://127.0.0.1:port/", "http://"])
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(NoAnswer):
        exchange(url, deadline_s=1)


def test_a_whole_answer_of_any_status_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(lambda client: client.sendall(WHOLE)) as url:
        assert exchange(f"{url}/v1/models?x=1", deadline_s=10).body == BODY
    with NullServer(1) as server:
        assert exchange(f"{server.endpoints[0].url}/nowhere", deadline_s=10).status == 404
        assert exchange(f"{server.endpoints[0].url}/v1/completions", b'{"max_tokens": 1}', deadline_s=10).status == 200
        assert server.endpoints[0].bodies == [{"max_tokens": 1}]


@pytest.mark.parametrize("answer", [dripping(HEAD + b"\r\n" + b" "), endless])
def test_a_look_at_such_a_server_ends(answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (endpoints, proxy):
        monkeypatch.setattr(module, "PROBE_SECONDS", 0.5)
    with serving(answer) as url:
        began = time.monotonic()
        assert endpoints.http_status(url)["error"]
        assert proxy.proxy_status(url)["error"]
        assert time.monotonic() - began < 10
