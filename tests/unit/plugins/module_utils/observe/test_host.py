# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight reads from a host, and what it says about it."""

from __future__ import annotations

import ipaddress
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._preflight import (
    container_faults,
    docker_faults,
    gpu_faults,
    gpus,
    interfaces,
    leftover_faults,
    link_speeds,
    listening_ports,
    port_faults,
    read_tcp_tables,
    source_address,
)

API = {"name": "lmdeploy-api", "listens": [23333]}
RAY = {"name": "lmdeploy-ray", "listens": [6379, 8265]}


def test_interfaces_and_their_addresses_are_read_from_ip() -> None:
    # ip leaves an empty object for an interface that has no address of the family asked for.
    links: list[dict[str, Any]] = [
        {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1"}]},
        {},
        {"ifname": "bond0@eth0", "addr_info": [{"local": "10.0.0.10"}, {"local": "10.0.1.10"}, {"family": "inet"}]},
        {"ifname": "down0"},
    ]
    assert interfaces(json.dumps(links)) == {"lo": ["127.0.0.1"], "bond0": ["10.0.0.10", "10.0.1.10"], "down0": []}
    assert interfaces("") == {}


def test_a_port_counts_while_something_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            seen = listening_ports(read_tcp_tables())
            assert port in seen
            assert client.getsockname()[1] not in seen
    assert port not in listening_ports(read_tcp_tables())


def test_ipv6_sockets_count_too() -> None:
    title = "  sl  local_address                         remote_address                        st"
    listens = f"   0: {'0' * 32}:5B25 {'0' * 32}:0000 0A 00000000:00000000"
    connected = f"   1: {'0' * 32}:5B26 {'0' * 32}:A1B2 01 00000000:00000000"
    assert listening_ports([f"{title}\n{listens}\n{connected}\n", title]) == {0x5B25}


@pytest.mark.parametrize(("version", "fit"), [("1.39", False), ("1.40", True), ("1.9", False), ("1.100", True)])
def test_docker_has_to_know_device_requests(version: str, fit: bool) -> None:
    faults = docker_faults(version)
    assert bool(faults) is not fit
    assert all(version in fault for fault in faults)


def test_containers_that_are_not_ours_are_faults() -> None:
    label = "lmfleet.lmdeploy.deployment"
    containers = {"lmdeploy-ray": {label: "lmdeploy"}, "lmdeploy-api": {label: "other"}, "lmdeploy-x": {}}
    faults = container_faults(containers, "lmdeploy")
    assert [fault.split()[2] for fault in faults] == ["lmdeploy-api", "lmdeploy-x"]
    assert all("left alone" in fault for fault in faults)


def test_containers_that_the_plan_no_longer_has_are_faults() -> None:
    label = "lmfleet.lmdeploy.deployment"
    containers = {
        "lmdeploy-ray": {label: "lmdeploy"},
        "lmdeploy-dp": {label: "lmdeploy"},
        "other-ray": {label: "other"},
        "postgres": {},
    }
    [fault] = leftover_faults(containers, "lmdeploy", {"lmdeploy-dp", "lmdeploy-proxy"})
    assert fault.startswith("the container lmdeploy-ray is of the deployment lmdeploy, but not of this plan")
    assert "playbooks/teardown.yml" in fault
    assert leftover_faults(containers, "lmdeploy", {"lmdeploy-dp", "lmdeploy-ray"}) == []


def test_the_source_address_is_one_of_this_host_or_empty() -> None:
    address = source_address()
    assert isinstance(address, str)
    if address:  # a host without a default route has none
        assert not ipaddress.IPv4Address(address).is_unspecified
        with socket.create_server((address, 0)):  # only an own address can be listened on
            pass


def test_ports_in_use_are_faults_unless_the_service_itself_has_them() -> None:
    [fault] = port_faults([API, RAY], {"lmdeploy-ray"}, {22, 6379, 23333})
    assert fault.startswith("port 23333 of lmdeploy-api is in use")
    both = port_faults([API, RAY], set(), {8265, 23333})
    assert [fault.split()[1] for fault in both] == ["23333", "8265"]
    assert port_faults([API, RAY], set(), {22}) == []


def test_missing_gpus_are_counted_as_nvidia_smi_lists_them() -> None:
    listing = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA H100 (UUID: 2)\n"
    assert gpu_faults(2, listing) == []
    assert "nvidia-smi -L lists 2 of the 8 GPUs" in gpu_faults(8, listing)[0]
    assert (
        "lists 0 of the 1 GPUs"
        in gpu_faults(1, "NVIDIA-SMI has failed because it couldn't communicate with the driver.")[0]
    )


def test_gpus_and_their_driver_are_read_from_nvidia_smi() -> None:
    assert gpus("NVIDIA H100 80GB HBM3, 570.86.15\nNVIDIA H100 80GB HBM3, 570.86.15\n") == (
        ["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"],
        "570.86.15",
    )
    assert gpus("No devices were found\n") == ([], None)


def test_links_say_how_fast_they_are(tmp_path: Path) -> None:
    for name, speed in (("eth0", "100000"), ("down0", "-1"), ("odd0", "")):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "speed").write_text(speed)
    port = tmp_path / "infiniband" / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    assert link_speeds(tmp_path) == {"eth0": "100000 Mb/s", "mlx5_0/1": "400 Gb/sec (4X NDR)"}
