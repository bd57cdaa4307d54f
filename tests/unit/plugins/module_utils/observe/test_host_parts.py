# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the look at a host that are neither GPUs nor RDMA: real files of /proc, real sockets, and trees of them."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import (
    acs,
    clock,
    commands,
    daemon,
    disks,
    host,
    kernel,
    limits,
    memory,
    names,
    ports,
    processes,
    proxies,
    routes,
)
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpu_users import gpus_of
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.host import host_facts
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import host_faults, host_warnings
from ansible_collections.lmfleet.lmdeploy.tests.unit import seen
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container
from ansible_collections.lmfleet.lmdeploy.tests.unit.host_trees import pci, text, write
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes

# The kernel ------------------------------------------------------------------------------------------------------------


def test_xids_of_all_forms() -> None:
    found = kernel.xids(text("xids.txt"))
    assert [(each["bus"], each["xid"], each["count"]) for each in found] == [
        ("0000:9b:00.0", 94, 1),
        ("0000:18:00.0", 79, 1),
        ("0000:2a:00.0", 31, 2),
        ("0018:01:00.0", 145, 1),
        ("0000:b3:00.0", 79, 1),
    ]
    assert found[0]["text"] == "NVRM: Xid (PCI:0000:9b:00): 94, pid=1234, name=python3, Contained ECC error"
    assert "Ch 00000011" in found[2]["text"]  # the last one
    assert found[4]["text"].endswith("has fallen off the bus and is not responding to commands.")
    assert kernel.xids(text("h200/dmesg.txt")) == []


def test_errors_of_nvswitches() -> None:
    log = text("xids.txt") + text("sxids.txt")
    assert [tuple(each.values()) for each in kernel.sxids(log)] == [
        ("0000:c1:00.0", 12028, False, 1, "Link 32 egress non-posted PRIV error (First)"),
        ("0000:06:00.0", 20034, True, 2, "Link 49 LTSSM Fault Up"),
        ("0000:05:00.0", 20034, True, 1, "Link 63 LTSSM Fault Up"),
        ("0000:08:00.0", 22013, False, 1, "Link 60 Minion Link DLREQ interrupt"),
        ("0000:c3:00.0", 24007, True, 1, "Link 30 sourcetrack timeout error"),
    ]
    assert kernel.sxids(text("h200/dmesg.txt")) == []
    # They are no XIDs.
    assert kernel.xids(text("sxids.txt")) == []


# Access Control Services ------------------------------------------------------------------------------------------------


def config(kind: int, control: int | None, *, size: int = 4096, before: bool = True) -> bytes:
    """A bridge's configuration space: PCI Express behind another capability, ACS behind another extended one."""
    space = bytearray(4096)
    space[0x34] = 0x40
    space[0x40:0x44] = bytes([0x01, 0x60, 0, 0])  # power management
    space[0x60:0x64] = bytes([0x10, 0x00, kind << 4 | 2, 0])
    place = 0x148 if before else 0x100
    if before:
        space[0x100:0x104] = (0x0001 | 1 << 16 | (place if control is not None else 0) << 20).to_bytes(
            4, "little"
        )  # AER
    if control is not None:
        space[place : place + 4] = (0x000D | 1 << 16).to_bytes(4, "little")
        space[place + 6 : place + 8] = control.to_bytes(2, "little")
    return bytes(space[:size])


def test_ports_of_switches_that_redirect_are_named(tmp_path: Path) -> None:
    pci_root = tmp_path / "sys/devices/pci0000:00"

    def device(path: str, content: bytes = b"", kind: str = "") -> Path:
        made = pci_root / path
        made.mkdir(parents=True, exist_ok=True)
        if content:
            (made / "config").write_bytes(content)
        if kind:
            write(made / "vendor", "0x10de\n")
            write(made / "class", f"{kind}\n")
            link = tmp_path / "sys/bus/pci/devices" / made.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(made)
        return made

    assert acs.redirecting(tmp_path) is None  # there is no GPU
    root, switch = "0000:00:01.0", "0000:00:01.0/0000:10:00.0"
    device(root, config(4, 0x1D))  # what goes through a root port goes to the processor anyway
    device(switch, config(5, None))
    device(f"{switch}/0000:11:00.0", config(6, 0x1D))
    device(f"{switch}/0000:11:00.0/0000:12:00.0", kind="0x030200")
    device(f"{switch}/0000:11:01.0", config(6, 0x1C, before=False))
    card = device(f"{switch}/0000:11:01.0/0000:13:00.0")
    device(f"{switch}/0000:11:02.0", config(6, 0x01))  # checks who sends, and redirects nothing
    device(f"{switch}/0000:11:02.0/0000:14:00.0", kind="0x030200")
    device(f"{switch}/0000:11:03.0", config(6, 0x1D))  # leads to a disk
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    (tmp_path / "sys/class/infiniband/mlx5_0/device").symlink_to(card)
    assert acs.redirecting(tmp_path) == ["0000:11:00.0", "0000:11:01.0"]
    for name in ("0000:11:00.0", "0000:11:01.0"):
        device(f"{switch}/{name}", config(6, 0x00))
    assert acs.redirecting(tmp_path) == []
    device(f"{switch}/0000:11:02.0", config(6, 0x1D, size=256))  # plain PCI has no more
    assert acs.redirecting(tmp_path) == []
    device(f"{switch}/0000:11:02.0", config(6, 0x1D, size=64))  # not as root
    assert acs.redirecting(tmp_path) is None


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.binary(max_size=5000), st.integers(0, 255))
def test_any_configuration_space(content: bytes, kind: int) -> None:
    for each in (content, config(kind & 15, kind) + content, bytes([kind]) * 4096):
        acs.is_downstream(each)
        assert 0 <= acs.control(each) < 1 << 16


def test_ports_of_connections_that_go_out(tmp_path: Path) -> None:
    folder = tmp_path / "proc/sys/net/ipv4"
    assert ports.ephemeral(tmp_path) is None
    write(folder / "ip_local_port_range", "32768\t60999\n")
    write(folder / "ip_local_reserved_ports", "\n")
    assert ports.ephemeral(tmp_path) == {"first": 32768, "last": 60999, "reserved": []}
    write(folder / "ip_local_reserved_ports", "8080,9148-9150\n")
    assert ports.ephemeral(tmp_path) == {"first": 32768, "last": 60999, "reserved": [[8080, 8080], [9148, 9150]]}
    write(folder / "ip_local_port_range", "?\n")
    assert ports.ephemeral(tmp_path) is None
    found = ports.ephemeral()
    assert found is not None
    assert 0 < found["first"] < found["last"] < 1 << 16


def test_xids_are_unknown_without_a_driver_or_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.kernel_facts(tmp_path)["xids"] is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    monkeypatch.setattr(kernel, "kernel_log", lambda: None)
    assert kernel.kernel_facts(tmp_path)["xids"] is None
    monkeypatch.setattr(kernel, "kernel_log", lambda: "")
    assert kernel.kernel_facts(tmp_path)["xids"] == []


def test_the_log_is_read_as_dmesg_reads_it() -> None:
    path = commands.find("dmesg")
    said = commands.run([path])[0] if path else ""
    log = kernel.kernel_log()
    if not said:
        assert not log  # a kernel that shows it to nobody, or a user who may not see it
        return
    assert log
    last = said.splitlines()[-1].partition("] ")[2]
    assert last in log or log.count("\n") > 100  # others may have written since


def test_control_groups_iommu_and_numa_balancing(tmp_path: Path) -> None:
    assert (kernel.cgroups(tmp_path), kernel.iommu(tmp_path)) == (None, None)
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    assert kernel.cgroups(tmp_path) == 1
    write(tmp_path / "sys/fs/cgroup/cgroup.controllers", "cpu\n")
    assert kernel.cgroups(tmp_path) == 2
    first, second = (pci(tmp_path, f"0000:{bus}:00.0") for bus in ("18", "2a"))
    pci(tmp_path, "0000:00:1f.0", vendor="0x8086", kind="0x060100")
    assert kernel.iommu(tmp_path) == "off"
    write(first / "iommu_group/type", "identity\n")
    write(second / "iommu_group/type", "identity\n")
    assert kernel.iommu(tmp_path) == "identity"
    write(second / "iommu_group/type", "DMA-FQ\n")
    assert kernel.iommu(tmp_path) == "DMA-FQ"
    write(second / "iommu_group/type", "unmanaged\n")
    assert kernel.iommu(tmp_path) == "unmanaged"
    for content, on in (("0\n", False), ("1\n", True), ("2\n", True)):
        write(tmp_path / "proc/sys/kernel/numa_balancing", content)
        assert kernel.kernel_facts(tmp_path)["numa_balancing"] is on


# Limits, memory, file systems ------------------------------------------------------------------------------------------


def test_limits_are_those_of_containerd_and_then_of_dockerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "default_limits", dict)
    engine, other = tmp_path / "7", tmp_path / "9"
    write(engine / "limits", text("h200/limits.txt"))
    write(
        other / "limits",
        text("h200/limits.txt").replace("unlimited            unlimited            bytes", "8388608 8388608 bytes"),
    )
    assert limits.limits({"containerd": [engine], "dockerd": [other]}) == {"memlock_bytes": -1, "nofile": 20000}
    assert limits.limits({"containerd": [], "dockerd": [other]}) == {"memlock_bytes": 8388608, "nofile": 20000}
    assert limits.limits({"containerd": [], "dockerd": []}) == {"memlock_bytes": None, "nofile": None}
    assert limits.limits(None) == {"memlock_bytes": None, "nofile": None}
    monkeypatch.setattr(daemon, "default_limits", lambda: {"memlock": -1, "core": 0})
    assert limits.limits({"dockerd": [other]}) == {"memlock_bytes": -1, "nofile": 20000}


def test_limits_of_this_process_are_what_python_says() -> None:
    import resource

    found = limits.parse(Path("/proc/self/limits").read_text())
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found["nofile"] == soft
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    assert found["memlock_bytes"] == (-1 if memlock == resource.RLIM_INFINITY else memlock)


def test_memory() -> None:
    assert memory.parse(text("h200/meminfo.txt")) == {
        "total_bytes": 263998500 << 10,
        "available_bytes": 263376312 << 10,
        "hugepages": 0,
        "hugepage_bytes": 2 << 20,
    }
    assert set(memory.parse("").values()) == {None}
    here = memory.memory_facts()
    assert here["total_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


MOUNTED = """\
25 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
31 25 0:50 / /data/hf rw,relatime - nfs4 storage:/export/hf rw,vers=4.2,hard
32 25 9:0 / /data rw,relatime shared:3 - xfs /dev/md0 rw,attr2
33 25 0:60 / /mnt/a\\040b ro - overlay overlay rw,lowerdir=/x
34 25 253:0 / /data rw - ext4 /dev/mapper/over rw
broken - line
"""


@pytest.mark.parametrize(
    ("place", "on"),
    [
        ("/", ("/dev/nvme0n1p2", "ext4")),
        ("/data/hf/hub", ("storage:/export/hf", "nfs4")),
        ("/data/hfx", ("/dev/mapper/over", "ext4")),  # of two mounts at one place, the later one
        ("/mnt/a b", ("overlay", "overlay")),
    ],
)
def test_the_file_system_under_a_path(place: str, on: tuple[str, str]) -> None:
    assert disks.on(place, disks.mounts(MOUNTED)) == on


def test_a_disk_is_looked_at_before_its_directory_is_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    path = str(tmp_path / "link/to/be/made")
    found = disks.disks([path])[path]
    assert found is not None
    usage = os.statvfs(tmp_path)
    assert found["total_bytes"] == usage.f_blocks * usage.f_frsize
    assert (found["writable"], bool(found["type"]), bool(found["device"])) == (True, True, True)
    sysfs = disks.disks(["/proc/sys"])["/proc/sys"]
    assert sysfs is not None
    assert sysfs["free_inodes"] is None
    assert disks.on("/x", []) == (None, None)


def test_a_file_system_that_hangs_is_unknown_and_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes = threading.Event()
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: goes.wait(60) and "" if "lost" in path else real(path))
    began = time.monotonic()
    found = disks.disks([str(tmp_path), "/lost"], 0.5)
    assert time.monotonic() - began < 30
    assert found["/lost"] is None
    assert found[str(tmp_path)]
    goes.set()


# Names and routes ------------------------------------------------------------------------------------------------------


def test_a_name_and_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names.resolved("127.0.1.1") == ["127.0.1.1"]
    assert names.resolved("no-such-host.invalid") == []
    assert names.resolved("x" * 300) == []
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.1.1")
    assert names.name_facts() == {"hostname": "127.0.1.1", "addresses": ["127.0.1.1"], "loopback": True}
    monkeypatch.setattr(socket, "gethostname", lambda: "10.0.0.10")
    assert names.name_facts()["loopback"] is False
    assert [names.is_loopback(each) for each in ("::1", "fe80::1%eth0", "x")] == [True, False, False]


def test_a_resolver_that_does_not_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    goes = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *__, **___: goes.wait(60) and [])
    found = names.name_facts(0.2)
    goes.set()
    assert (found["addresses"], found["loopback"]) == (None, None)


def test_the_way_to_another_host_is_the_kernels() -> None:
    found = routes.routes(["127.0.0.1", "::1", "not an address", "127.0.0.1"])
    assert found["127.0.0.1"] == {"interface": "lo", "source": "127.0.0.1", "gateway": ""}
    assert found["not an address"] is None
    assert len(found) == 3
    path = commands.find("ip")
    target = "192.0.2.77"
    if path:
        said, failed = commands.run([path, "-json", "route", "get", target])
        told = routes.routes([target])[target]
        assert told is not None
        if failed:
            assert told == {"interface": "", "source": "", "gateway": ""}
        else:
            route = json.loads(said)[0]
            assert told == {"interface": route["dev"], "source": route["prefsrc"], "gateway": route.get("gateway", "")}


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES])
def test_no_route_is_a_fact_and_other_errors_are_not(number: int) -> None:
    header = routes.HEADER.pack(36, routes.FAILED, 0, 1, 0)
    assert routes.parse(header + struct.pack("=i", -number)) == {"index": 0, "source": "", "gateway": ""}
    assert routes.parse(header + struct.pack("=i", -errno.EPERM)) is None
    assert routes.parse(header) is None


# Clock, proxies, processes ---------------------------------------------------------------------------------------------


def test_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock.kernel_says() in (True, False, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(commands, "SYSTEM_PATH", "")
    monkeypatch.setattr(clock, "TIMESYNCD", tmp_path / "synchronized")
    for kernel_says in (True, None):
        monkeypatch.setattr(clock, "kernel_says", lambda said=kernel_says: said)
        assert clock.clock_facts() == {"synchronized": kernel_says}
    monkeypatch.setattr(clock, "kernel_says", lambda: False)
    assert clock.clock_facts() == {"synchronized": False}
    tool = tmp_path / "chronyc"
    for leap, synchronized in (("Not synchronised", False), ("Normal", True), ("Insert second", True)):
        tool.write_text(f"#!/bin/sh\necho 'Reference ID    : 00000000 ()\nLeap status     : {leap}'\n")
        tool.chmod(0o755)
        assert clock.clock_facts() == {"synchronized": synchronized}
    tool.unlink()
    clock.TIMESYNCD.touch()
    assert clock.clock_facts() == {"synchronized": True}


def test_proxies_come_without_their_passwords(tmp_path: Path) -> None:
    write(
        tmp_path / "etc/environment",
        'PATH=/usr/bin\nhttp_proxy=http://fleet:p@s/s@proxy:3128/\nexport HTTPS_PROXY="fleet:secret@proxy:3128"\n'
        "# no_proxy=x\nno_proxy='localhost,10.0.0.0/8'\n",
    )
    found = proxies.proxies({"dockerd": []}, tmp_path)
    assert found == {
        "http_proxy": "http://proxy:3128/",
        "HTTPS_PROXY": "proxy:3128",
        "no_proxy": "localhost,10.0.0.0/8",
    }
    write(tmp_path / "7/environ", "HOME=/\0no_proxy=localhost\0ALL_PROXY=socks5://u:p@proxy:1080\0")
    found = proxies.proxies({"dockerd": [tmp_path / "7"]}, tmp_path)
    assert (found["no_proxy"], found["ALL_PROXY"]) == ("localhost", "socks5://proxy:1080")
    assert proxies.proxies(None, tmp_path / "none") == {}


def test_processes_are_found_by_name_in_the_own_namespace(tmp_path: Path) -> None:
    assert processes.named(["x"], tmp_path) is None  # others' are hidden
    for pid, name, namespace in ((1, "init", 1), (70, "containerd", 1), (9, "containerd", 1), (80, "containerd", 2)):
        write(tmp_path / str(pid) / "comm", f"{name}\n")
        (tmp_path / str(pid) / "ns").mkdir()
        (tmp_path / str(pid) / "ns/pid").symlink_to(f"pid:[{namespace}]")
    (tmp_path / "self").symlink_to(tmp_path / "1")
    found = processes.named(["containerd", "dockerd"], tmp_path)
    assert found == {"containerd": [tmp_path / "9", tmp_path / "70"], "dockerd": []}


# Who uses the GPUs -----------------------------------------------------------------------------------------------------

ALL = {"DeviceRequests": [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}]}


@pytest.mark.parametrize(
    ("configured", "environment", "gpus"),
    [
        (ALL, [], "all"),
        ({"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}]}, [], ["0", "1"]),
        (
            {"DeviceRequests": [{"Count": 0, "DeviceIDs": ["0", "GPU-1"], "Capabilities": [["gpu", "compute"]]}]},
            [],
            ["0", "GPU-1"],
        ),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=3", "vendor.com/net=1"]}]}, [], ["3"]),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}, [], "all"),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=0,1"], ["0", "1"]),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=void"], []),
        ({"Runtime": "nvidia"}, [], []),
        ({"Runtime": "runc"}, ["NVIDIA_VISIBLE_DEVICES=all"], []),  # every image of CUDA sets it
        ({"Devices": [{"PathOnHost": "/dev/nvidia1"}, {"PathOnHost": "/dev/nvidiactl"}]}, [], ["1"]),
        ({"DeviceRequests": None, "Devices": None, "Privileged": True}, [], []),
    ],
)
def test_what_gives_a_container_gpus(configured: dict[str, Any], environment: list[str], gpus: Any) -> None:
    assert gpus_of({"HostConfig": configured, "Config": {"Env": environment}}) == gpus
    assert gpus_of({}) == []


@pytest.mark.usefixtures("sdk_leaks")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_running_containers_with_gpus_are_told_whoever_made_them(dockerd: Dockerd) -> None:
    dockerd.containers = {
        "trainer": {**container("trainer"), "HostConfig": ALL},
        "lmdeploy-dp": {**container("lmdeploy-dp"), "HostConfig": ALL},
        "ended": {**container("ended", Status="exited"), "HostConfig": ALL},
        "postgres": container("postgres"),
    }
    dockerd.containers["trainer"]["Config"]["Image"] = "pytorch:2.8"
    dockerd.containers["lmdeploy-dp"]["Config"]["Labels"] = {"lmfleet.lmdeploy.deployment": "lmdeploy"}
    assert look(None, {"gpu_users": True})["gpu_users"] == [
        {"name": "lmdeploy-dp", "image": "", "deployment": "lmdeploy", "gpus": "all"},
        {"name": "trainer", "image": "pytorch:2.8", "deployment": "", "gpus": "all"},
    ]


@pytest.mark.usefixtures("sdk_leaks")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dockers_own_directory_is_one_of_the_disks(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.info["DockerRootDir"] = str(tmp_path)
    asked = {"host": True, "host_disks": ["/"], "docker_settings": True}
    assert look(None, asked)["host"]["disks"].keys() == {"/", str(tmp_path)}
    dockerd.fails["/info"] = "layer does not exist"
    assert look(None, asked)["host"]["disks"].keys() == {"/"}


# All of it -------------------------------------------------------------------------------------------------------------

PARTS = {
    *("hcas", "fabric_manager", "mtus", "parents", "routes", "names", "kernel", "limits", "memory", "disks", "clock"),
    "proxies",
}


def test_this_host_has_every_part_and_it_is_json() -> None:
    found = host_facts(["127.0.0.1"], ["/"])
    assert json.loads(json.dumps(found)) == found
    assert [name for name in PARTS if found[name] is None] == []
    assert found["fabric_manager"].keys() == {"switches", "needed", "running", "version"}
    assert found["mtus"]["lo"] >= 1500
    assert found["kernel"]["release"] == os.uname().release
    assert found["routes"]["127.0.0.1"]["interface"] == "lo"


def test_a_part_that_fails_or_hangs_is_unknown_and_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    goes = threading.Event()
    monkeypatch.setattr(host, "SECONDS", 0.5)
    monkeypatch.setattr(memory, "memory_facts", lambda: 1 // 0)
    monkeypatch.setattr(clock, "clock_facts", lambda: goes.wait(60))
    monkeypatch.setattr(processes, "named", lambda __: 1 // 0)
    found = host_facts()
    goes.set()
    assert {name for name in PARTS if found[name] is None} == {"memory", "clock", "fabric_manager", "limits", "proxies"}


def test_a_healthy_host_of_the_tests_has_what_a_real_one_has() -> None:
    made, real = seen.h200_host(), host_facts(["127.0.0.1"], ["/"])
    assert made.keys() == real.keys()
    for name in ("fabric_manager", "names", "kernel", "limits", "memory", "clock"):
        assert made[name].keys() == real[name].keys(), name
    assert next(iter(made["disks"].values())).keys() == real["disks"]["/"].keys()
    assert next(iter(made["routes"].values())).keys() == real["routes"]["127.0.0.1"].keys()
    assert len(made["gpus"]["details"]) == len(made["hcas"]) == 8
    assert {gpu["numa"] for gpu in made["gpus"]["details"]} == {0, 1}
    assert made["kernel"]["xids"] == []
    assert made["kernel"]["iommu"] == "identity"
    assert made["hcas"][0]["bond"] == "bond0"
    assert json.loads(json.dumps(made)) == made
    made["gpus"]["details"].clear()
    assert len(seen.h200_host()["gpus"]["details"]) == 8  # a test may break its own
    assert len(seen.h200_host(count=2)["gpus"]["details"]) == 2


def test_hosts_with_gpus_are_good_ones() -> None:
    plan = seen.bound(nodes())
    hosts = seen.on_gpus(seen.World(plan)).hosts
    assert (host_faults(plan, hosts), host_warnings(plan, hosts)) == ([], [])
    assert hosts["node0"].network["routes"] == {
        "10.0.0.11": {"interface": "eth0", "source": "10.0.0.10", "gateway": ""}
    }
