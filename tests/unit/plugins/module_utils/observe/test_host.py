# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a host, with real commands that fail or hang."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import commands
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpus import any_works, devices, gpu_facts, gpus
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.host import host_facts
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.network import (
    down,
    global_ipv6,
    interfaces,
    link_speeds,
    local_bridges,
    networks,
    source_address,
)
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.ports import (
    listeners,
    listening_ports,
    read_tcp_tables,
)
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.rdma import rdma_facts


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


def test_the_source_address_is_one_of_this_host_or_empty() -> None:
    address = source_address()
    assert isinstance(address, str)
    if address:  # a host without a default route has none
        assert not ipaddress.IPv4Address(address).is_unspecified
        with socket.create_server((address, 0)):  # only an own address can be listened on
            pass


def test_gpus_and_their_driver_are_read_from_nvidia_smi() -> None:
    assert gpus("NVIDIA H100 80GB HBM3, 570.86.15\nNVIDIA H100 80GB HBM3, 570.86.15\n") == (
        ["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"],
        "570.86.15",
    )
    assert gpus("No devices were found\n") == ([], None)


@pytest.mark.parametrize(
    ("said", "work"),
    [("0\n0\n", False), ("0\n100\n", True), ("[N/A]\n", True), ("", True), ("No devices were found\n", True)],
)
def test_a_gpu_works_unless_all_of_them_say_that_they_do_not(said: str, work: bool) -> None:
    assert any_works(said) is work


def test_links_say_how_fast_they_are(tmp_path: Path) -> None:
    for name, speed in (("eth0", "100000"), ("down0", "-1"), ("odd0", "")):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "speed").write_text(speed)
    port = tmp_path / "infiniband" / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    assert link_speeds(tmp_path) == {"eth0": "100000 Mb/s", "mlx5_0/1": "400 Gb/sec (4X NDR)"}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory with commands, but for the shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(commands, "SYSTEM_PATH", "")
    return folder


def script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
    file.chmod(0o755)


def test_a_command_that_hangs_is_named_and_does_not_hold_the_look(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "COMMAND_SECONDS", 0.5)
    pids = tmp_path / "pids"
    # It has a child that has its output open, and so would hold a pipe.
    script(tools / "nvidia-smi", f"sleep 60 & echo $! >> {pids}\necho 'GPU 0: half'\nsleep 60")
    script(tools / "ip", "cat\nsleep 60")
    began = time.monotonic()
    found = host_facts()
    assert time.monotonic() - began < 55, "it was waited for"  # of the 60 s that they sleep
    error = "nvidia-smi -L timed out after 0.5 s"
    unknown = {"cuda": None, "details": None, "links": None}
    assert found["gpus"] == {"listing": "", "names": [], "driver": None, "devices": [], "error": error, **unknown}
    assert found["error"] == "ip -json -4 address timed out after 0.5 s"
    assert found["interfaces"] == {}
    for pid in pids.read_text().split():
        while "sleep" in _name(int(pid)):  # killed, and on its way out
            assert time.monotonic() - began < 55, "its child outlived it"
            time.sleep(0.05)


def _name(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return "" if state.rpartition(")")[2].split()[0] == "Z" else state.partition(")")[0]


def test_nvidia_smi_is_read_with_an_empty_stdin(tools: Path) -> None:
    script(
        tools / "nvidia-smi",
        "cat\n"
        'case "$1" in -q | topo | nvlink) exit 2;; -L) echo "GPU 0: NVIDIA H100 (UUID: 1)";; '
        '*mig*) echo "0, NVIDIA H100, Disabled, Default, 4, 81559";; '
        '*) echo "NVIDIA H100, 570.86";; esac',
    )
    assert gpu_facts() == {
        "listing": "GPU 0: NVIDIA H100 (UUID: 1)\n",
        "names": ["NVIDIA H100"],
        "driver": "570.86",
        "devices": [
            {
                "index": "0",
                "name": "NVIDIA H100",
                "mig": "Disabled",
                "compute_mode": "Default",
                "used": "4",
                "total": "81559",
            }
        ],
        "cuda": None,
        "details": None,
        "links": None,
        "error": "",
    }


def test_an_nvidia_smi_that_fails_says_why_in_one_line(tools: Path) -> None:
    script(
        tools / "nvidia-smi",
        "echo; echo 'Unable to determine the device handle for GPU 0000:1B:00.0: Unknown Error'; exit 6",
    )
    found = gpu_facts()
    assert found is not None
    assert found["error"] == (
        "nvidia-smi -L ended with code 6: Unable to determine the device handle for GPU 0000:1B:00.0: Unknown Error"
    )


def test_a_host_without_the_commands_says_so(tools: Path) -> None:
    script(tools / "ip", "exec /nowhere")
    assert host_facts()["error"].startswith("ip -json -4 address ended with code 127: ")
    (tools / "ip").write_text("no program")
    assert host_facts()["error"].startswith("ip -json -4 address cannot be run: ")
    (tools / "ip").unlink()
    found = host_facts()
    assert found["gpus"] is None
    assert "apt-get install iproute2" in found["error"]
    assert found["uid"] == os.getuid()
    assert abs(found["time"] - time.time()) < 60
    assert found["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_command_that_does_not_stop_printing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LARGEST", 1 << 16)
    assert commands.run(["yes"], 60) == ("", "yes did not stop printing (0 MiB)")
    assert commands.run(["sh", "-c", "yes >&2"], 60)[1].endswith("did not stop printing (0 MiB)")
    assert len(commands.run(["sh", "-c", "seq 10000"], 60)[0].splitlines()) == 10000


def test_what_a_command_has_started_does_not_hold_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    assert commands.run(["sh", "-c", f"sleep 60 & echo $! > {child}; echo all"], 30) == ("all\n", "")
    os.kill(int(child.read_text()), 9)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        # iproute2 of before 4.13, and busybox
        ('echo \'Option "-json" is unknown, try "ip -help".\' >&2; exit 255', 'Option "-json" is unknown'),
        (
            "echo \"ip: invalid option -- 'j'\" >&2; echo 'BusyBox v1.36.1 multi-call binary.' >&2; exit 1",
            "invalid option -- 'j'",
        ),
        ("echo '1: lo: <LOOPBACK,UP> mtu 65536'", "gave no JSON: '1: lo: <LOOPBACK,UP>"),
        ("echo '[{\"name\": 1}]'", "gave no JSON"),
    ],
    ids=["old iproute2", "busybox", "text", "other JSON"],
)
def test_an_ip_without_json_is_told_with_what_to_install(tools: Path, program: str, words: str) -> None:
    script(tools / "ip", program)
    found = host_facts()
    assert found["interfaces"] == {}
    assert words in found["error"]
    assert "iproute2 (4.13 or newer" in found["error"]


LOST = "Unable to determine the device handle for gpu 0000:1B:00.0: GPU is lost."
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (
            f"echo '{MISMATCH}'; echo 'NVML library version: 550.163'; exit 18",
            f"{MISMATCH} NVML library version: 550.163",
        ),
        (
            f"echo 'GPU 0: NVIDIA H100 (UUID: 1)'; echo '  MIG 1g.10gb Device  0: (UUID: 2)'; echo '{LOST}'; exit 15",
            LOST,
        ),
    ],
)
def test_of_an_nvidia_smi_that_fails_the_line_that_says_why_is_told(tools: Path, program: str, said: str) -> None:
    script(tools / "nvidia-smi", program)
    found = gpu_facts()
    assert found is not None
    assert found["error"].endswith(said)


def test_an_older_nvidia_smi_that_does_not_know_a_field_is_no_fault(tools: Path) -> None:
    script(
        tools / "nvidia-smi",
        'case "$1" in -L) echo "GPU 0: K80 (UUID: 1)";; *mig*) echo "Field mig is not valid"; exit 2;; *) echo "K80, 1";; esac',
    )
    found = gpu_facts()
    assert found is not None
    assert (found["error"], found["devices"], found["names"]) == ("", [], ["K80"])
    assert devices("0, H100, [N/A]\nnonsense\n") == []


def test_addresses_come_with_their_networks_and_carriers() -> None:
    said = json.dumps(
        [
            {"ifname": "lo", "operstate": "UNKNOWN", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
            {},
            {
                "ifname": "eth0",
                "operstate": "UP",
                "addr_info": [{"local": "10.0.0.9", "prefixlen": 24}, {"local": "10.0.0.10", "prefixlen": 32}],
            },
            {"ifname": "eth1@if2", "operstate": "DOWN", "addr_info": []},
            {"ifname": "eth2", "flags": ["NO-CARRIER", "UP"]},
        ]
    )
    assert networks(said) == {"127.0.0.1": "127.0.0.0/8", "10.0.0.9": "10.0.0.0/24", "10.0.0.10": "10.0.0.10/32"}
    assert down(said) == ["eth1", "eth2"]


def test_a_bridge_without_a_way_out_is_told_from_one_with(tmp_path: Path) -> None:
    for bridge, ports in (("docker0", ["veth1"]), ("br0", ["eth0"]), ("br1", ["veth2", "eth0.7"]), ("empty", [])):
        (tmp_path / bridge / "bridge").mkdir(parents=True)
        for port in ports:
            (tmp_path / bridge / "brif" / port).mkdir(parents=True)
            (tmp_path / port).mkdir(exist_ok=True)
            (tmp_path / port / "uevent").write_text(f"INTERFACE={port}\n")
    (tmp_path / "eth0" / "device").mkdir()
    (tmp_path / "eth0.7" / "uevent").write_text("DEVTYPE=vlan\nINTERFACE=eth0.7\n")
    assert local_bridges(tmp_path) == ["docker0", "empty"]


def test_who_listens_is_told_with_its_container(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert listeners(read_tcp_tables())[port]["pid"] == os.getpid()
    assert port not in listeners(read_tcp_tables())
    title = "  sl  local_address rem_address st"
    table = f"{title}\n   0: 00000000:5B25 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1\n"
    (tmp_path / "7" / "fd").mkdir(parents=True)
    (tmp_path / "7" / "fd" / "3").symlink_to("socket:[4711]")
    (tmp_path / "7" / "comm").write_text("raylet\n")
    (tmp_path / "7" / "cgroup").write_text(f"0::/docker/{'a' * 64}/system.slice/docker-{'b' * 64}.scope\n")
    assert listeners([table], tmp_path) == {"23333": {"pid": 7, "command": "raylet", "container": "b" * 64}}


def test_what_rdma_needs_is_read_from_the_driver(tmp_path: Path) -> None:
    assert rdma_facts(tmp_path) is None
    driver = tmp_path / "proc/driver/nvidia"
    driver.mkdir(parents=True)
    (driver / "params").write_text('EnableStreamMemOPs: 1\nRegistryDwords: "PeerMappingOverride=1;"\nRmMsg: ""\n')
    (driver / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01\n")
    (tmp_path / "sys/module/gdrdrv").mkdir(parents=True)
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    assert rdma_facts(tmp_path) == {
        "modules": ["gdrdrv"],
        "parameters": {"EnableStreamMemOPs": "1", "RegistryDwords": "PeerMappingOverride=1;", "RmMsg": ""},
        "open": False,
        "devices": ["mlx5_0"],
    }


def test_addresses_of_ipv6_are_read_from_the_kernel_but_not_those_of_the_link() -> None:
    table = (
        "00000000000000000000000000000001 01 80 10 80       lo\n"
        "fe800000000000000042acfffe110002 02 40 20 80     eth0\n"
        "20010db8000000000000000000000010 02 40 00 80     eth0\n"
        "half a line\n"
    )
    assert global_ipv6(table) == {"eth0": ["2001:db8::10"]}
    assert global_ipv6("") == {}
