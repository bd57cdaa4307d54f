# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts, Docker and servers may say is read without a crash, whatever it is; logs and models have tests of their own."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import (
    clock,
    daemon,
    disks,
    fabric,
    formats,
    gpu_details,
    gpu_users,
    gpus,
    kernel,
    limits,
    memory,
    network,
    ports,
    proxies,
    rdma,
    routes,
)
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import asked_of, new_lines, up_after
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.endpoints import http_status
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import read_answer, read_metrics
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.proxy import proxy_status
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import ProxyError, ProxyList
from ansible_collections.lmfleet.lmdeploy.tests.unit.host_trees import text as fixture

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


# ---- what hosts with GPUs say

XMLS = [fixture(f"{name}.xml") for name in ("h200/q", "a100_535_mig", "a100_470", "v100_418", "h100_565_sick")]
JSONABLE = (type(None), bool, int, str, list)
TAGS = """
gpu uuid ecc_errors volatile double_bit total sram_uncorrectable processes process_info pid fb_memory_usage fabric state
clocks_event_reasons clocks_event_reason_hw_slowdown remapped_rows
"""
tags = st.sampled_from(TAGS.split())
elements = st.recursive(
    st.sampled_from(["N/A", "12 MiB", "Yes", "Active", "-1", "9" * 30, "1.5", "", "&amp;", "&", "\x00", "<", "\u0663"]),
    lambda inner: st.builds(lambda tag, inside: f"<{tag}>{''.join(inside)}</{tag}>", tags, st.lists(inner, max_size=3)),
    max_leaves=12,
)


def damaged(texts: list[str]) -> st.SearchStrategy[str]:
    """One of the real texts, cut, or with something else in its middle."""
    cuts = st.tuples(st.sampled_from(texts), st.floats(0, 1), st.floats(0, 1), st.text(max_size=6) | elements)

    def damage(cut: tuple[str, float, float, str]) -> str:
        whole, first, last, other = cut
        start, end = sorted((int(first * len(whole)), int(last * len(whole))))
        return whole[:start] + other + whole[end:]

    return cuts.map(damage)


def is_plain(value: object) -> bool:
    return bool(json.loads(json.dumps(value)) == value)


@fuzz
@given(damaged(XMLS) | elements.map(lambda inside: f"<nvidia_smi_log>{inside}</nvidia_smi_log>") | st.text(max_size=40))
@example("<nvidia_smi_log>" + "<gpu>" * 20_000)
def test_everything_of_nvidia_smi(xml: str) -> None:
    found = gpu_details.details(xml, {})
    assert found is None or all(isinstance(value, JSONABLE) for gpu in found for value in gpu.values())
    assert is_plain(found)
    gpu_details.cuda(xml)


@fuzz
@given(
    damaged([fixture("topo_hgx_h100.txt"), fixture("topo_v100.txt"), fixture("h200/topo.txt")])
    | mixed("GPU0", "GPU1", " X ", "NV18", "NIC0", "  NIC0: mlx5_0", "CPU Affinity"),
    damaged([fixture("h200/nvlink.txt")]) | mixed("GPU 0: x (UUID: 1)", "\t Link 0: ", "<inactive>", "26.562 GB/s"),
)
def test_topology_and_nvlinks(topology: str, status: str) -> None:
    found = gpu_details.links(topology)
    assert found is None or all(name.startswith("GPU") and isinstance(ways, dict) for name, ways in found.items())
    for up, down in gpu_details.nvlinks(status).values():
        assert up >= 0
        assert down is None or down >= 0
    gpu_details.indices(status)
    fabric.version(status)


@fuzz
@given(
    damaged([fixture("xids.txt"), fixture("sxids.txt"), fixture("h200/dmesg.txt")])
    | mixed(
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Fatal",
        "nvidia-nvswitch0: SXid (",
        "NVRM: Xid (PCI:0000:18:00): 79",
        "NVRM: Xid (",
        "NVRM: The NVIDIA GPU 0000:b3:00.0",
        "fallen off the bus",
    )
)
def test_the_kernels_log(log: str) -> None:
    for each in [*kernel.xids(log), *kernel.sxids(log)]:
        assert each["count"] > 0
        assert is_plain(each)


@fuzz
@given(
    damaged([fixture("h200/meminfo.txt"), fixture("h200/limits.txt")])
    | mixed("MemTotal:", " kB", "Max locked memory", "unlimited", "25 1 259:2 / / rw - ext4 /dev/x rw", "\\040", " - "),
    st.text(max_size=12),
)
def test_memory_limits_and_mounts(text: str, place: str) -> None:
    assert is_plain(memory.parse(text))
    assert is_plain(limits.parse(text))
    disks.on(place, disks.mounts(text))


@fuzz
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda body: routes.HEADER.pack(90, 24, 0, 1, 0) + body))
@example(routes.HEADER.pack(20, 2, 0, 1, 0))
def test_answers_of_the_kernel_on_routes(message: bytes) -> None:
    found = routes.parse(message)
    assert found is None or is_plain(found)


@fuzz
@given(mixed("HTTPS_PROXY=", "http://user:pw@proxy:3128", "export ", '"', "no_proxy=", "Leap status     : Normal", "@"))
def test_proxies_clocks_and_gids(text: str) -> None:
    for name, value in proxies.variables(text.splitlines()).items():
        assert name.lower().endswith("_proxy")
        assert "user:pw@" not in value
    clock.chrony_says(text)
    rdma.rate_gbps(text)
    rdma.mapped_address(text)
    gpu_details.bus_address(text)


@fuzz
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "CDISpecDirs": nothing | st.lists(st.text(max_size=5), max_size=2),
            "Runtimes": nothing | st.dictionaries(st.text(max_size=5), values, max_size=2),
            "HttpProxy": nothing | st.text(max_size=12),
            "ServerVersion": nothing | st.text(max_size=5),
        },
    ),
    attributes,
)
def test_what_docker_says_of_itself_and_of_gpus(said: dict[str, Any], attrs: dict[str, Any]) -> None:
    assert is_plain(daemon.described(said))
    given_gpus = gpu_users.gpus_of(attrs)
    assert given_gpus == "all" or isinstance(given_gpus, list)


# ---- files of models


@fuzz
@given(
    st.binary(max_size=80) | values.map(lambda value: json.dumps(value).encode()),
    st.sets(st.text(max_size=4), max_size=2),
)
@example(b"[" * 100_000, set())
@example(b"PK\x03\x04", set())
def test_files_of_models(data: bytes, tensors: set[str]) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)

        def again() -> Any:
            file.flush()
            file.seek(0)
            return file

        assert isinstance(formats.stand_in(again()), str)
        assert isinstance(formats.pytorch_fault(again()), str)
        assert isinstance(formats.safetensors_fault(again(), tensors), str)
        with contextlib.suppress(formats.DamagedError):
            assert isinstance(formats.json_object(again()), (dict, type(None)))


@fuzz
@given(st.dictionaries(st.text(max_size=4), values, max_size=3) | st.fixed_dictionaries({"weight_map": values}), values)
def test_indices_and_maps_of_models(index: dict[str, Any], auto_map: Any) -> None:
    with contextlib.suppress(formats.DamagedError):
        assert all(formats.shards_of(index))
    assert isinstance(formats.code_files(auto_map), dict)
    assert formats.some([str(each) for each in index]).isprintable()
