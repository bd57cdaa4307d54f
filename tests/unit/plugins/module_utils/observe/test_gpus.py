# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs out of what nvidia-smi of several generations says, real and in the documented formats (fixtures/host/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import commands, fabric
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpu_details import (
    bus_address,
    cuda,
    details,
    indices,
    links,
    nvlinks,
)
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpus import details as details_here
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpus import gpu_facts
from ansible_collections.lmfleet.lmdeploy.tests.unit.host_trees import FIXTURES, pci, text, write


def rows(name: str) -> list[dict[str, Any]]:
    found = details(text(name), {})
    assert found is not None
    return found


def test_two_h200_as_they_are() -> None:
    listing = text("h200/L.txt")
    first, second = details(text("h200/q.xml"), indices(listing)) or []
    assert first == {
        "index": 0,
        "uuid": "GPU-00000000-aaaa-bbbb-cccc-dddddddddddd",
        "name": "NVIDIA H200",
        "bus": "0000:00:06.0",
        "memory_total_mib": 143771,
        "memory_used_mib": 0,
        "mig": False,
        "compute_mode": "Default",
        "persistence": True,
        "ecc": True,
        "ecc_uncorrected": 0,
        "remap_pending": False,
        "remap_failed": False,
        "recovery": "None",
        "fabric": "Completed",
        "fabric_status": "Success",
        "slowdown": [],
        "processes": [],
    }
    assert (second["index"], second["bus"]) == (1, "0000:00:07.0")
    assert cuda(text("h200/q.xml")) == "13.0"
    assert nvlinks(text("h200/nvlink.txt")) == {0: (18, 0), 1: (18, 0)}
    assert links(text("h200/topo.txt")) == {"GPU0": {"GPU1": "NV18"}, "GPU1": {"GPU0": "NV18"}}


def test_a_divided_a100_of_driver_535() -> None:
    [gpu] = rows("a100_535_mig.xml")
    assert (gpu["mig"], gpu["memory_total_mib"], gpu["memory_used_mib"]) == (
        True,
        81920,
        50,
    )  # not those of a part of it
    assert gpu["ecc_uncorrected"] == 0
    assert (gpu["remap_pending"], gpu["remap_failed"]) == (None, None)
    assert (gpu["recovery"], gpu["fabric"], gpu["fabric_status"]) == ("None", "N/A", "N/A")
    assert gpu["slowdown"] == []  # the power cap is how it works
    assert gpu["processes"] == [{"pid": 4711, "name": "python3 <train>", "used_mib": None, "container": ""}]
    assert gpu["bus"] == "0000:c1:00.0"


def test_an_a100_of_driver_470_with_errors() -> None:
    [gpu] = rows("a100_470.xml")
    assert (gpu["ecc"], gpu["ecc_uncorrected"]) == (True, 3)
    assert (gpu["remap_pending"], gpu["remap_failed"]) == (True, False)
    assert gpu["slowdown"] == ["hw_thermal_slowdown", "hw_slowdown"]
    assert (gpu["recovery"], gpu["fabric"], gpu["fabric_status"]) == (None, None, None)  # it does not say
    assert gpu["compute_mode"] == "Exclusive_Process"
    assert gpu["processes"][0]["used_mib"] == 75429


def test_a_v100_of_driver_418() -> None:
    [gpu] = rows("v100_418.xml")
    assert (gpu["ecc_uncorrected"], gpu["remap_pending"], gpu["remap_failed"]) == (2, True, None)
    assert (gpu["mig"], gpu["recovery"], gpu["slowdown"]) == (None, None, [])
    assert cuda(text("v100_418.xml")) == "10.1"


def test_sick_h100s_say_so_and_nothing_is_made_up() -> None:
    first, second = rows("h100_565_sick.xml")
    assert (first["recovery"], first["fabric"], first["remap_failed"]) == ("Drain and Reset", "In Progress", True)
    assert first["slowdown"] == ["hw_power_brake_slowdown", "hw_slowdown", "sw_thermal_slowdown"]
    assert (first["memory_used_mib"], first["ecc"], first["ecc_uncorrected"]) == (None, False, None)
    assert first["processes"] == []
    assert second["recovery"] == "Reset"
    keys = (
        "mig",
        "persistence",
        "ecc",
        "memory_total_mib",
        "memory_used_mib",
        "remap_pending",
        "fabric",
        "compute_mode",
    )
    assert [second[key] for key in keys] == [None] * len(keys)


@pytest.mark.parametrize(
    ("required", "recommended", "recovery"),
    [("Yes", "No", "Reset"), ("No", "Yes", "Drain and Reset"), ("No", "No", "None"), ("N/A", "N/A", None)],
)
def test_what_an_older_driver_recommends(required: str, recommended: str, recovery: str | None) -> None:
    xml = text("a100_535_mig.xml")
    xml = xml.replace("<reset_required>No", f"<reset_required>{required}")
    [gpu] = details(xml.replace("recommended>No<", f"recommended>{recommended}<"), {}) or []
    assert gpu["recovery"] == recovery


def test_a_recovery_that_a_gpu_does_not_know_is_unknown() -> None:
    xml = text("h200/q.xml").replace("<gpu_recovery_action>None<", "<gpu_recovery_action>N/A<")
    assert [gpu["recovery"] for gpu in details(xml, {}) or []] == [None, None]


def test_of_a_text_that_is_cut_off_or_followed_by_a_warning_the_whole_gpus_are_read() -> None:
    xml = text("h200/q.xml")
    warning = "WARNING: infoROM is corrupted at gpu 0000:00:06.0\n"
    assert len(details(xml + warning, {}) or []) == 2
    assert len(details(warning + xml, {}) or []) == 2
    assert len(details(xml[: xml.index("</gpu>") + 40], {}) or []) == 1
    assert details(xml[:200], {}) == []
    assert details("", {}) is None
    assert details("Unable to determine the device handle for GPU 0000:1B:00.0: Unknown Error\n", {}) is None


def test_indices_are_those_of_the_listing_where_a_gpu_is_missing() -> None:
    xml = text("h200/q.xml")
    uuid = "GPU-00000001-aaaa-bbbb-cccc-dddddddddddd"
    [gpu] = details(xml.replace(xml[xml.index("<gpu ") : xml.index("</gpu>") + 6], ""), {uuid: 1}) or []
    assert (gpu["uuid"], gpu["index"]) == (uuid, 1)


def test_entities_are_not_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><nvidia_smi_log><gpu id="1"><uuid>&a;</uuid></gpu></nvidia_smi_log>'
    assert details(bomb, {}) == []


@pytest.mark.parametrize(
    ("said", "bus"),
    [
        ("00000000:18:00.0", "0000:18:00.0"),
        ("0000:9B:00", "0000:9b:00.0"),
        ("00010000:3D:00.0", "10000:3d:00.0"),  # behind Intel's VMD
        ("N/A", ""),
        ("", ""),
    ],
)
def test_addresses_on_pci(said: str, bus: str) -> None:
    assert bus_address(said) == bus


def test_network_cards_have_their_names_by_the_legend() -> None:
    found = links(text("topo_hgx_h100.txt"))
    assert found is not None
    assert list(found) == [f"GPU{index}" for index in range(8)]
    assert (found["GPU0"]["GPU7"], found["GPU0"]["mlx5_0"], found["GPU0"]["mlx5_bond_0"]) == ("NV18", "PIX", "NODE")
    assert (found["GPU7"]["mlx5_8"], found["GPU7"]["mlx5_bond_0"]) == ("PIX", "SYS")
    assert len(found["GPU3"]) == 7 + 9
    old = links(text("topo_v100.txt"))
    assert old == {
        "GPU0": {"GPU1": "NV2", "mlx5_0": "PIX", "mlx5_1": "SYS"},
        "GPU1": {"GPU0": "NV2", "mlx5_0": "PHB", "mlx5_1": "NODE"},
    }
    assert links(" \tGPU0\tCPU Affinity\nGPU0\t X \t0-31\n") == {"GPU0": {}}
    assert links("Topology is not supported\n") is None


def test_nvlinks_that_are_down() -> None:
    listed = "GPU 3: Tesla V100-SXM2-32GB (UUID: GPU-3)\n"
    rows = "".join(f"\t Link {link}: {'<inactive>' if link in (3, 5) else '25.781 GB/s'}\n" for link in range(6))
    assert nvlinks(listed + rows) == {3: (4, 2)}
    # A card without a bridge says the same as one whose fabric is not up.
    said = "NVML: Unable to retrieve NVLink information as all links are inActive\n"
    assert nvlinks(listed + said) == {3: (0, None)}
    assert nvlinks(said) == {}


def test_what_only_the_kernel_knows_is_added(tmp_path: Path) -> None:
    pci(tmp_path, "0000:94:00.0", 3)
    container = "c" * 64
    write(tmp_path / "proc/31337/cgroup", f"0::/system.slice/docker-{container}.scope\n")
    xml, uuid = text("a100_470.xml"), "GPU-a1000000-0000-0000-0000-000000000002"
    listing = f"GPU 4: NVIDIA A100-SXM4-80GB (UUID: {uuid})\n"
    [gpu] = details_here(xml, listing, f"{listing}\t Link 0: 25 GB/s\n\t Link 1: <inactive>\n", tmp_path) or []
    assert (gpu["index"], gpu["numa"], gpu["nvlinks"], gpu["nvlinks_down"]) == (4, 3, 1, 1)
    assert gpu["processes"][0]["container"] == container
    write(tmp_path / "sys/devices/pci0000:00/0000:94:00.0/numa_node", "-1\n")
    [gpu] = details_here(xml, "", "", tmp_path) or []
    assert (gpu["index"], gpu["numa"], gpu["nvlinks"], gpu["nvlinks_down"]) == (0, None, None, None)


def test_all_of_it_comes_from_one_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = FIXTURES / "h200"
    tool = tmp_path / "nvidia-smi"
    answers = {"-L": "L.txt", "-q": "q.xml", "topo": "topo.txt", "nvlink": "nvlink.txt"}
    cases = " ".join(f"{option}) cat {here}/{file};;" for option, file in answers.items())
    tool.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\ncase "$1" in {cases} *) echo "NVIDIA H200, 580.159.04";; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(commands, "SYSTEM_PATH", "")
    found = gpu_facts()
    assert found is not None
    assert (found["error"], found["driver"], found["cuda"]) == ("", "580.159.04", "13.0")
    assert [gpu["nvlinks_down"] for gpu in found["details"]] == [0, 0]
    assert found["links"]["GPU0"] == {"GPU1": "NV18"}


# The fabric ------------------------------------------------------------------------------------------------------------


def test_switches_are_found_by_their_driver_or_on_pci(tmp_path: Path) -> None:
    pci(tmp_path, "0000:00:06.0")
    assert fabric.has_switches(tmp_path) is False
    pci(tmp_path, "0000:c1:00.0", kind="0x068000")
    assert fabric.has_switches(tmp_path) is True
    write(tmp_path / "driver/proc/driver/nvidia-nvswitch/devices/0000:c1:00.0", "")
    assert fabric.has_switches(tmp_path / "driver") is True


def test_the_fabric_manager_and_who_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(commands, "SYSTEM_PATH", "")
    assert fabric.fabric_manager({fabric.PROCESS: []}, tmp_path) == {
        "switches": False,
        "running": False,
        "version": None,
    }
    tool = tmp_path / "nv-fabricmanager"
    tool.write_text("#!/bin/sh\necho 'Fabric Manager version is : 535.104.05'\n")
    tool.chmod(0o755)
    found = fabric.fabric_manager({fabric.PROCESS: [tmp_path]}, tmp_path)
    assert (found["running"], found["version"]) == (True, "535.104.05")
    assert fabric.fabric_manager(None, tmp_path)["running"] is None
    assert fabric.needed(False, {"details": rows("h200/q.xml")}) is True
    assert fabric.needed(False, {"details": rows("h100_565_sick.xml")}) is True
    assert fabric.needed(False, {"details": rows("a100_470.xml")}) is False
    assert fabric.needed(False, {"details": rows("a100_535_mig.xml")}) is False  # N/A
    assert fabric.needed(False, {"details": None}) is False
    assert fabric.needed(True, None) is True
