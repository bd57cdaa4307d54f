# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts, Docker and servers may say is read without a crash, whatever it is; logs and models have tests of their own."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import gpus, network, ports
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import asked_of, new_lines, up_after
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.endpoints import http_status
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import read_answer, read_metrics
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.proxy import proxy_status
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import ProxyError, ProxyList

fuzz = settings(max_examples=150, derandomize=True, deadline=None)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def mixed(*words: str) -> st.SearchStrategy[str]:
    """Texts of these words, numbers, separators, and anything."""
    part = st.sampled_from([*words, "\n", ", ", " ", ":", "\t", "N/A", "[N/A]", "ERR!"]) | st.text(max_size=5)
    return st.lists(part | st.integers(-5, 99999).map(str), max_size=24).map("".join)


@fuzz
@given(
    mixed("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)", "NVIDIA H200", "Enabled", "Default", "570.86.15", "MIG 1g.10gb")
)
def test_nvidia_smi(text: str) -> None:
    names, driver = gpus.gpus(text)
    assert all(isinstance(name, str) for name in names)
    assert driver is None or isinstance(driver, str)
    assert all(len(row) == 6 for row in gpus.devices(text))
    assert gpus.any_works(text) in (True, False)


addresses = st.fixed_dictionaries(
    {}, optional={"local": st.sampled_from(["10.0.0.1", "127.0.0.1"]), "prefixlen": st.integers(0, 32), "scope": values}
)
links = st.fixed_dictionaries(
    {"ifname": st.sampled_from(["eth0", "bond0.2973@bond0", "lo", "ib0"])},
    optional={
        "addr_info": st.lists(addresses, max_size=3),
        "operstate": values,
        "flags": st.lists(st.text(max_size=9)),
    },
)


@fuzz
@given(st.lists(links | st.just({}), max_size=4, unique_by=lambda link: str(link.get("ifname"))).map(json.dumps))
def test_ip(text: str) -> None:
    found = network.interfaces(text)
    assert all("@" not in name for name in found)
    assert set(network.networks(text)) == {address for each in found.values() for address in each}
    assert set(network.down(text)) <= set(found)


@fuzz
@given(st.lists(mixed("0100007F:1F90", "00000000:5B25", "0A", "01", " sl  local_address"), max_size=3))
@example(["sl\n 0: 0100007F:5B25 00000000:0000 0A 0 0 0 0 0 77"])
@example(["sl\n 0: broken 00000000:0000 0A 0 0 0 0 0 77"])
def test_tables_of_tcp(tables: list[str]) -> None:
    assert all(port >= 0 for port in ports.listening_ports(tables))
    assert isinstance(ports.listeners(tables, Path("/nowhere")), dict)


nothing = st.none()
attributes = st.fixed_dictionaries(
    {
        "Config": st.fixed_dictionaries(
            {},
            optional={"Env": nothing | st.lists(st.text(max_size=9)), "Cmd": nothing | st.lists(st.text(max_size=5))},
        ),
        "HostConfig": st.fixed_dictionaries(
            {},
            optional={
                "RestartPolicy": nothing | st.just({"Name": "on-failure", "MaximumRetryCount": 3}) | st.just({}),
                "DeviceRequests": nothing | st.lists(st.just({"Capabilities": [["gpu"]]}) | st.just({})),
                "CapAdd": nothing | st.lists(st.sampled_from(["CAP_IPC_LOCK", "IPC_LOCK", ""])),
                "Devices": nothing | st.lists(st.just({"PathOnHost": "/dev/infiniband/uverbs0"}) | st.just({})),
                "Privileged": st.booleans(),
            },
        ),
    },
    optional={"Mounts": nothing | st.lists(st.fixed_dictionaries({"Destination": st.text(max_size=5)}))},
)


@fuzz
@given(attributes)
def test_docker(attrs: dict[str, Any]) -> None:
    asked = asked_of(attrs)
    assert json.loads(json.dumps(asked)) == asked


@fuzz
@given(mixed("2026-11-26T10:15:02.123456789Z ", "INFO:     Uvicorn running on", "lmfleet: "), st.text(max_size=12))
def test_logs_of_docker(raw: str, cursor: str) -> None:
    raw, cursor = (
        raw.replace("#", ""),
        cursor.replace("#", ""),
    )  # in no stamp of Docker's, and which of several ends a cursor
    lines, after = new_lines(raw, cursor, "2026-11-26T10:15:01.000000000Z")
    assert len(lines) <= raw.count("\n") + 1
    assert isinstance(after, str)
    again, __ = new_lines(raw, after, "2026-11-26T10:15:01.000000000Z")
    assert not after or again == []
    up_after(raw, "2026-11-26T10:15:01.000000000Z")


@fuzz
@given(mixed("lmdeploy:prompt_tokens_total", '{model="x",}', "lmdeploy:num_requests_running", "1e3", "NaN", "# HELP "))
def test_metrics(text: str) -> None:
    read_metrics(text)


@fuzz
@given(st.integers(100, 599), values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
@example(200, b"[" * 100_000)
def test_answers(status: int, body: bytes) -> None:
    assert isinstance(read_answer(status, body).detail, str)


class _Server(ThreadingHTTPServer):
    body = b""
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *__: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    """One that answers everything with its ``body``."""
    with _Server(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


lists = st.dictionaries(
    st.sampled_from(["http://10.0.0.1:23333", "x"]),
    st.fixed_dictionaries({}, optional={"models": values}) | values,
    max_size=2,
)


@fuzz
@given(body=lists.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30))
@example(body=b"[" * 100_000)
def test_the_proxys_list_and_a_servers_models(server: _Server, body: bytes) -> None:
    server.body = body
    url = f"http://127.0.0.1:{server.server_port}"
    assert proxy_status(url).keys() in ({"nodes"}, {"error"})
    assert http_status(url).keys() in ({"health", "models"}, {"error"})
    with contextlib.suppress(ProxyError):
        assert isinstance(ProxyList(url).read(), dict)
