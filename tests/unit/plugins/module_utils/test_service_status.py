# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host says about its services, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _service_status
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._service_status import (
    http_status,
    new_lines,
    tcp_status,
    up_after,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

LOOPBACK = "127.0.0.1"


def stamp(moment: int) -> str:
    """A time stamp as Docker writes it: always nine digits, so that it sorts as text."""
    return f"2026-11-24T22:25:{moment // 10**9:02d}.{moment % 10**9:09d}Z"


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


# ---- log lines


def test_lines_after_the_cursor_are_new() -> None:
    raw = "".join(f"{stamp(moment)} line {moment}\n" for moment in (1, 2, 3))
    assert new_lines(raw, "") == (["line 1", "line 2", "line 3"], stamp(3))
    assert new_lines(raw, stamp(2)) == (["line 3"], stamp(3))
    assert new_lines(raw, stamp(3)) == ([], stamp(3))
    assert new_lines("", stamp(3)) == ([], stamp(3))


def test_a_container_is_up_when_the_last_of_its_servers_is() -> None:
    second, up = 10**9, "INFO:     Application startup complete."
    earlier_run, loading, first, last = (f"{stamp(n * second)} {line}\n" for n, line in enumerate((up, "...", up, up)))
    assert up_after(earlier_run + loading, stamp(second // 2)) is None
    assert up_after(earlier_run + loading + first + last, stamp(second // 2)) == 2.5


def test_a_progress_bar_is_its_last_state_and_a_line_may_be_empty() -> None:
    raw = f"{stamp(1)} 10%\r 50%\r 90%\r\n{stamp(2)} \n{stamp(3)} a b  c\n"
    assert new_lines(raw, "")[0] == [" 90%", "", "a b  c"]


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


@given(
    log=st.lists(st.tuples(st.integers(1, 59 * 10**9), words), max_size=20, unique_by=lambda entry: entry[0]).map(
        sorted
    ),
    looks=st.lists(st.integers(0, 20)).map(sorted),
)
def test_looking_many_times_at_a_growing_log_gives_each_line_once(log: list[tuple[int, str]], looks: list[int]) -> None:
    raw = [f"{stamp(moment)} {text}\n" for moment, text in log]
    seen: list[str] = []
    cursor = ""
    for length in [*looks, len(log)]:
        lines, cursor = new_lines("".join(raw[:length]), cursor)
        seen += lines
    assert seen == [text for __, text in log]


# ---- ports


def test_a_port_that_takes_connections_has_nothing_to_say() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert tcp_status(LOOPBACK, server.getsockname()[1]) == ""


def test_a_closed_port_says_so() -> None:
    assert tcp_status(LOOPBACK, closed_port()) == "Connection refused"


def test_a_port_that_does_not_answer_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_service_status, "PROBE_SECONDS", 0.3)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        for __ in range(4):  # a full queue drops whoever comes next, as a firewall does
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        assert tcp_status(LOOPBACK, server.getsockname()[1]) == "timed out"


# ---- HTTP


def test_an_api_server_tells_its_health_and_models() -> None:
    with NullServer() as server:
        assert http_status(server.endpoints[0].url) == {"health": 200, "models": ["null"]}


def test_an_unhealthy_api_server_is_an_error_with_its_status() -> None:
    with NullServer(health="unhealthy") as server:
        url = server.endpoints[0].url
        assert http_status(url) == {"error": f"HTTP 503 from {url}/health"}


def test_one_look_answers_what_it_was_asked_and_no_more() -> None:
    with NullServer() as server:
        url = server.endpoints[0].url
        target = url.removeprefix("http://")
        looked = _service_status.look(None, {"http": [url], "tcp": [target]})
    assert looked == {"containers": {}, "tcp": {target: ""}, "http": {url: {"health": 200, "models": ["null"]}}}


def test_nobody_there_is_an_error() -> None:
    assert "Connection refused" in http_status(f"http://{LOOPBACK}:{closed_port()}")["error"]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": [{}]}'])
def test_what_is_no_model_list_is_an_error(body: bytes) -> None:
    with answering(body) as url:
        assert http_status(url)["error"].startswith(f"no model list from {url}/v1/models: ")
