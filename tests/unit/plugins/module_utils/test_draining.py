# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How new requests are kept from a rank, and when it has none left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import (
    GONE,
    NO_METRICS,
    put_aside,
    requests_in,
    requests_of,
    set_aside,
)
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import Changes, ProxyList, changes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.module_utils.test_proxy_nodes import A, B, gone, proxy
from ansible_collections.lmfleet.lmdeploy.tests.unit.proxy import StandIn

__all__ = ["gone", "proxy"]  # fixtures
MODEL = "deepseek-ai/DeepSeek-V3"
# As LMDeploy 0.18.0 writes it; the second engine of one process has another label.
METRICS = """\
# HELP lmdeploy:num_requests_running Number of requests currently executing in the engine core.
# TYPE lmdeploy:num_requests_running gauge
lmdeploy:num_requests_running{engine="0",model_name="deepseek-ai/DeepSeek-V3"} 3.0
lmdeploy:num_requests_running{engine="1",model_name="deepseek-ai/DeepSeek-V3"} 1.0
# TYPE lmdeploy:num_requests_waiting gauge
lmdeploy:num_requests_waiting{engine="0",model_name="deepseek-ai/DeepSeek-V3"} 2.0
lmdeploy:num_requests_total{engine="0"} 977.0
lmdeploy:num_requests_running_created 1.7e+09
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (METRICS, 6),
        (METRICS.replace(" 3.0", " 0.0").replace(" 1.0", " 0").replace(" 2.0", " 0.0 1732500000000"), 0),
        ("lmdeploy:num_requests_waiting 2", 2),
        ("lmdeploy:num_requests_running{} 1e", None),
        ("vllm:num_requests_running 3", None),
        ("<html>", None),
        ("", None),
    ],
)
def test_requests_are_counted_by_the_scheduler_s_gauges(text: str, found: int | None) -> None:
    assert requests_in(text) == found


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *__: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        answers: dict[str, tuple[int, str]] = {"/with/metrics": (200, METRICS), "/empty/metrics": (200, "")}
        status, text = answers.get(self.path, (404, '{"detail": "Not Found"}'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_each_rank_says_how_many_it_has_or_why_nobody_knows(server: str, gone: str) -> None:
    assert requests_of([f"{server}/with", f"{server}/empty", f"{server}/none", gone]) == {
        f"{server}/with": {"requests": 6},
        f"{server}/empty": {"error": NO_METRICS},
        f"{server}/none": {"error": NO_METRICS},
        gone: {"error": GONE},
    }


def test_a_rank_that_is_put_aside_stays_on_the_list_where_nobody_finds_it(proxy: StandIn) -> None:
    """0.8.0 and 0.9.2 answer status 500 to the request whose rank was taken off the list before its answer came."""
    own: dict[str, Any] = {"models": [MODEL]}
    proxy.nodes.update({A: own, B: own})
    listed = ProxyList(proxy.url)
    assert put_aside(listed, [A, "http://10.0.0.99:1"], MODEL) == [A]
    assert listed.read() == {A: [set_aside(MODEL)], B: [MODEL]}
    assert MODEL not in proxy.nodes[A]["models"]


def test_what_was_put_aside_is_put_right_or_taken_off() -> None:
    listed, up = {A: [set_aside(MODEL)]}, {"health": 200, "models": [MODEL]}
    assert list(changes([A], listed, {A: up}, MODEL).add) == [A]
    assert changes([A], listed, {A: {"error": "[Errno 111] Connection refused"}}, MODEL) == Changes(
        {}, {A: "nothing listens there"}
    )
