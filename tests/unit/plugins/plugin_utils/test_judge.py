# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with hosts: every rule, and its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import (
    host_faults,
    host_warnings,
    image_faults,
    lacks,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import questions
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of, service
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import IMAGE, OTHER_IMAGE, World, bound, running

PLANS = {
    "tp": bound(nodes()),
    "dpep": bound(nodes(plan_topology="dpep")),
    "replicas": bound(nodes(2, plan_replicas=["a", "b"]), groups={"a": ["node0"], "b": ["node1"]}),
}
NODE1 = "node1 (10.0.0.11)"


def found(world: World) -> list[str]:
    return host_faults(world.plan, world.hosts)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_good_hosts_have_no_fault_be_they_bare_or_at_work(plan: Plan) -> None:
    assert found(World(plan)) == []
    world = running(plan)
    for node in plan.nodes:  # its own containers listen there
        listening = world.answers[node.name]["host"]["listening"]
        listening += [port for each in plan.services_on(node.name) for port in each.listens]
    assert found(world) == []


def test_a_host_that_was_not_looked_at_is_a_fault() -> None:
    world = World(PLANS["tp"])
    del world.answers["node1"]
    assert found(world) == [
        f"{NODE1} was not looked at: a deployment is one unit of all its nodes, so run it without --limit."
    ]


@pytest.mark.parametrize(
    ("shape", "consequence"),
    [
        ("tp", "Without it Ray would count 1 of 2 nodes and 8 of 16 GPUs."),
        ("dpep", "Ranks 8 to 15 are on it, and all other ranks would wait for it."),
        ("replicas", "Without it Ray would count 0 of 1 nodes and 0 of 8 GPUs."),
    ],
)
def test_an_unreachable_host_is_told_with_what_it_would_be_missed_for(shape: str, consequence: str) -> None:
    world = World(PLANS[shape])
    world.answers["node1"] = {"unreachable": "Something else."}
    assert found(world) == [
        (
            f"{NODE1} cannot be reached: Something else. {consequence} "
            "Bring the host up, or take it out of the inventory group."
        )
    ]
    world.answers["node1"] = {"unreachable": "Failed to connect to the host via ssh: Connection timed out."}
    [fault] = found(world)
    assert fault.startswith(
        f"{NODE1} cannot be reached: Connection timed out. {consequence} Nothing answers: see that "
    )
    assert fault.endswith("A host that is gone for good is to be taken out of the inventory group.")
    world.answers["node1"] = {"unreachable": "Missing sudo password"}
    assert found(world)[0].startswith(f"{NODE1} gave no answer: Missing sudo password. The login works, but sudo asks")


def test_a_single_rank_of_an_unreachable_host_is_told_as_one() -> None:
    world = World(bound(nodes(plan_topology="dpep", plan_gpus=1)))
    world.answers["node1"] = {"unreachable": "gone"}
    assert "Rank 1 is on it, and all other ranks" in found(world)[0]


def test_a_look_that_failed_is_told_as_it_is() -> None:
    world = World(PLANS["tp"])
    world.answers["node1"] = {"failed": "nobody knows why"}
    assert found(world) == [f"{NODE1} gave no answer: nobody knows why."]


def test_what_is_wrong_with_docker_is_told_with_the_remedy_that_observe_gives() -> None:
    world = World(PLANS["tp"])
    error = "Docker does not answer at unix:///var/run/docker.sock: start it (systemctl enable --now docker)."
    world.answers["node1"]["docker"] = {"error": error, "kind": "socket"}
    assert found(world) == [f"{NODE1}: {error}"]


@pytest.mark.parametrize(("api", "old"), [("1.39", True), ("1.9", True), ("1.40", False), ("1.51", False)])
def test_an_old_docker_is_refused(api: str, old: bool) -> None:
    world = World(PLANS["tp"])
    world.answers["node1"]["docker"]["api"] = api
    assert found(world) == ([f"{NODE1}: Docker is too old (API {api}): install 19.03 or newer."] if old else [])


def gpu(index: int, **changed: str) -> dict[str, str]:
    plain = {"name": "NVIDIA H100", "mig": "Disabled", "compute_mode": "Default", "used": "4", "total": "81559"}
    return {"index": str(index), **plain, **changed}


LISTING = "".join(f"GPU {index}: NVIDIA H100 (UUID: GPU-{index})\n" for index in range(8))
MIG = "  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n"


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (None, []),
        ({"listing": LISTING, "error": ""}, []),
        ({"listing": LISTING + "GPU 8: NVIDIA H100 (UUID: GPU-8)\n", "error": ""}, []),
        ({"listing": LISTING, "devices": [gpu(index) for index in range(8)], "error": ""}, []),
        (
            {"listing": "".join(LISTING.splitlines(keepends=True)[:7]), "error": ""},
            ["nvidia-smi -L lists 7 of the 8 GPUs that plan_gpus says: lower it"],
        ),
        # nvidia-smi's own words
        (
            {
                "listing": "",
                "error": "nvidia-smi -L ended with code 18: Failed to initialize NVML: Driver/library version mismatch",
            },
            [
                "Failed to initialize NVML: Driver/library version mismatch: the driver was updated while",
                "reboot the host",
            ],
        ),
        (
            {
                "listing": "",
                "error": "nvidia-smi -L ended with code 9: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA "
                "driver. Make sure that the latest NVIDIA driver is installed and running.",
            },
            ["couldn't communicate with the NVIDIA driver", "modprobe nvidia", "dkms status"],
        ),
        (
            {"listing": "", "error": "nvidia-smi -L ended with code 6: No devices were found"},
            ["No devices were found: the driver runs"],
        ),
        (
            {"listing": "No devices found.\n", "error": ""},
            ["nvidia-smi -L says: No devices found: the driver runs and sees no GPU"],
        ),
        (
            {"listing": "", "error": "nvidia-smi -L timed out after 15 s"},
            ["nvidia-smi -L timed out after 15 s: a sick GPU makes nvidia-smi hang", "dmesg | grep -i xid"],
        ),
        (
            {
                "listing": LISTING.replace(
                    "GPU 3: NVIDIA H100 (UUID: GPU-3)",
                    "Unable to determine the device handle for gpu 0000:5D:00.0: GPU is lost.",
                ),
                "error": "",
            },
            [
                "nvidia-smi -L says: Unable to determine the device handle for gpu 0000:5D:00.0",
                "a GPU does not answer any more",
            ],
        ),
        (
            {
                "listing": LISTING,
                "devices": [gpu(0), gpu(1, used="[GPU requires reset]"), gpu(2, name="ERR!")],
                "error": "",
            },
            ["nvidia-smi shows [GPU requires reset] for GPU 1, 2: a GPU does not answer any more"],
        ),
        ({"listing": "", "error": "nvidia-smi -L ended with code 1: odd"}, ["code 1: odd: mend the driver first"]),
        # MIG
        (
            {"listing": LISTING.replace("GPU 1:", f"{MIG}GPU 1:").replace("GPU 3:", f"{MIG}{MIG}GPU 3:"), "error": ""},
            ["MIG is on for GPU 0, 2, which gives containers parts of a GPU", "nvidia-smi -i 0,2 -mig 0"],
        ),
        (
            {"listing": LISTING, "devices": [gpu(0), gpu(5, mig="Enabled")], "error": ""},
            ["MIG is on for GPU 5", "nvidia-smi -i 5 -mig 0"],
        ),
        (
            {
                "listing": LISTING,
                "devices": [gpu(0, compute_mode="Prohibited"), gpu(1, compute_mode="Prohibited")],
                "error": "",
            },
            ["GPU 0, 1 are in compute mode Prohibited", "nvidia-smi -i 0,1 -c DEFAULT"],
        ),
    ],
)
def test_gpus_that_will_not_do_are_told_once_in_nvidia_smis_words(gpus: Any, words: list[str]) -> None:
    world = World(PLANS["tp"])
    world.answers["node1"]["host"]["gpus"] = gpus
    faults = found(world)
    assert len(faults) == (words != [])
    assert all(fault.startswith(f"{NODE1}: ") and word in fault for fault in faults for word in words)


def test_what_may_be_meant_is_a_warning() -> None:
    world = World(PLANS["tp"])

    def warned() -> list[str]:
        return host_warnings(world.plan, world.hosts)

    assert warned() == []
    world.answers["node1"]["host"]["gpus"] = {
        "listing": LISTING,
        "names": ["NVIDIA H100", "NVIDIA H200"],
        "devices": [gpu(0, compute_mode="Exclusive_Process"), gpu(1, used="61000"), gpu(2, name="NVIDIA H200")],
        "error": "",
    }
    kinds, exclusive, held = warned()
    assert kinds.startswith(f"{NODE1}: the GPUs are of different kinds (NVIDIA H100, NVIDIA H200)")
    assert exclusive.startswith(f"{NODE1}: GPU 0 is in compute mode Exclusive_Process, in which a second process")
    assert held.startswith(f"{NODE1}: GPU 1 is in use by something else (GPU 1: 61000 of 81559 MiB)")
    assert found(world) == []
    world.answers["node0"]["host"]["gpus"] = {"listing": LISTING, "names": ["NVIDIA H200"], "devices": [], "error": ""}
    assert warned()[-1].startswith("The hosts have GPUs of different kinds (NVIDIA H200 on node")
    busy = running(PLANS["tp"])  # its own engine holds them
    busy.answers["node1"]["host"]["gpus"] = {
        "listing": LISTING,
        "names": [],
        "devices": [gpu(1, used="61000")],
        "error": "",
    }
    assert host_warnings(busy.plan, busy.hosts) == []


GOOD_RDMA = {
    "modules": ["nvidia_peermem"],
    "parameters": {"EnableStreamMemOPs": "1", "RegistryDwords": "PeerMappingOverride=1;"},
    "open": False,
    "devices": ["mlx5_0"],
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"parameters": {}, "modules": ["nvidia_peermem", "gdrdrv"]}, []),
        ({"modules": [], "open": True}, []),
        ({"modules": ["nv_peer_mem"]}, []),
        ({"modules": []}, ["nvidia_peermem is not loaded"]),
        ({"parameters": {"EnableStreamMemOPs": "1", "RegistryDwords": ""}}, ["NVreg_EnableStreamMemOPs=1", "gdrdrv"]),
        (
            {"parameters": {"EnableStreamMemOPs": "0", "RegistryDwords": "PeerMappingOverride=1;"}},
            ["PeerMappingOverride=1"],
        ),
        ({"devices": []}, ["there is no RDMA device"]),
    ],
)
def test_what_deepep_needs_between_hosts_is_warned_of_where_it_is_planned(
    changed: dict[str, Any], words: list[str]
) -> None:
    world = World(PLANS["dpep"])
    for answer in world.answers.values():
        answer["host"]["rdma"] = dict(GOOD_RDMA)
    world.answers["node1"]["host"]["rdma"].update(changed)
    told = host_warnings(world.plan, world.hosts)
    assert len(told) == (words != [])
    assert all(each.startswith(f"{NODE1}: ") and word in each for each in told for word in words)
    assert found(world) == []
    for plan in (PLANS["tp"], bound(nodes(1, plan_topology="dpep"))):
        other = World(plan)
        for answer in other.answers.values():
            answer["host"]["rdma"] = {**GOOD_RDMA, **changed}
        assert host_warnings(plan, other.hosts) == []


# Docker's settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "api", "words"),
    [
        ({}, "1.51", []),
        ({"gpus": None}, "1.51", []),
        (
            {"gpus": False},
            "1.51",
            ['could not select device driver "" with capabilities: [[gpu]]', "nvidia-container-toolkit"],
        ),
        ({"userns": True}, "1.51", ["userns-remap", "/etc/docker/daemon.json"]),
        ({"rootless": True}, "1.51", ["rootless"]),
        ({"log_driver": "none"}, "1.51", ["with the driver none,", "/etc/docker/daemon.json", "json-file"]),
        ({"log_driver": "local"}, "1.40", []),
        ({"log_driver": "journald", "log_cache": False}, "1.40", []),
        ({"log_driver": "syslog"}, "1.41", []),
        ({"log_driver": "syslog"}, "1.40", ["with the driver syslog,", "/etc/docker/daemon.json"]),
        (
            {"log_driver": "fluentd", "log_cache": False},
            "1.51",
            ["the driver fluentd and cache-disabled,", "out of log-opts"],
        ),
    ],
)
def test_settings_of_docker_that_will_not_do_are_told(changed: dict[str, Any], api: str, words: list[str]) -> None:
    world = World(PLANS["tp"])
    world.answers["node1"]["docker"]["api"] = api
    world.answers["node1"]["docker_settings"].update(changed)
    faults = found(world)
    assert len(faults) == (words != [])
    assert all(fault.startswith(f"{NODE1}: Docker ") and word in fault for fault in faults for word in words)


# Addresses -----------------------------------------------------------------------------------------------------------

ADDRESS = "10.0.0.11"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (
            {"interfaces": {"lo": ["127.0.0.1"], "eth0": ["10.0.7.1"]}},
            ["no interface of this host has 10.0.0.11 (it has eth0 10.0.7.1"],
        ),
        (
            {"interfaces": {"lo": ["127.0.0.1", ADDRESS], "eth0": ["192.0.2.1"]}},
            ["on the loopback interface", "127.0.0.1", "plan_interface"],
        ),
        ({"interfaces": {"lo": ["127.0.0.1", ADDRESS], "eth0": [ADDRESS]}}, []),
        (
            {
                "interfaces": {"eth0": ["192.0.2.7", ADDRESS]},
                "networks": {"192.0.2.7": "192.0.2.0/24", ADDRESS: "10.0.0.0/24"},
            },
            ["is not the first address of eth0", "192.0.2.7, which is in another network"],
        ),
        # a second address of the same network, and a virtual one
        (
            {
                "interfaces": {"eth0": ["10.0.0.9", ADDRESS]},
                "networks": {"10.0.0.9": "10.0.0.0/24", ADDRESS: "10.0.0.0/24"},
            },
            [],
        ),
        (
            {
                "interfaces": {"eth0": ["10.0.0.9", ADDRESS]},
                "networks": {"10.0.0.9": "10.0.0.0/24", ADDRESS: f"{ADDRESS}/32"},
            },
            [],
        ),
        (
            {"interfaces": {"docker0": [ADDRESS]}, "bridges": ["docker0"]},
            ["on the bridge docker0, which only containers"],
        ),
        ({"interfaces": {"br0": [ADDRESS]}, "bridges": ["docker0"]}, []),
        (
            {"interfaces": {"eth1": [ADDRESS]}, "down": ["eth1"]},
            ["on the interface eth1, which is down", "ip link set eth1 up"],
        ),
    ],
)
def test_addresses_are_judged_by_what_each_library_makes_of_them(host: dict[str, Any], words: list[str]) -> None:
    world = World(plan_of(nodes()))  # not bound: no host said yet which interface it is
    world.answers["node1"]["host"].update(host)
    faults = found(world)
    assert len(faults) == (words != [])
    assert all(fault.startswith(f"{NODE1}: ") and word in fault for fault in faults for word in words)


def test_a_second_address_is_warned_of_and_one_that_a_person_chose_is_no_fault() -> None:
    world = World(plan_of(nodes(plan_interface="eth0")))
    other = {"10.0.7.1": "10.0.7.0/24", ADDRESS: "10.0.0.0/24"}
    world.answers["node1"]["host"].update(interfaces={"eth0": ["10.0.7.1", ADDRESS]}, networks=other)
    assert found(world) == []
    [warning] = host_warnings(world.plan, world.hosts)
    assert warning.startswith(
        f"{NODE1}: 10.0.0.11 is not the first address of eth0: Ray uses it, and Gloo and NCCL use 10.0.7.1"
    )
    world = World(plan_of(nodes(plan_interface="lo")))
    for answer in world.answers.values():
        answer["host"]["interfaces"] = {"lo": ["127.0.0.1", "10.0.0.10", ADDRESS]}
    assert (found(world), host_warnings(world.plan, world.hosts)) == ([], [])
    world = World(plan_of(nodes(plan_interface="eth9")))
    for answer in world.answers.values():
        answer["host"]["interfaces"] = {"eth0": answer["host"]["interfaces"]["eth9"]}
    assert "plan_interface 'eth9' does not exist (this host has eth0)" in "".join(found(world))
    world = World(plan_of(nodes(plan_interface="eth1")))
    for answer in world.answers.values():
        answer["host"]["interfaces"] = {"eth0": answer["host"]["interfaces"]["eth1"], "eth1": []}
    assert "plan_interface eth1 has no IPv4 address" in found(world)[0]


def test_one_node_alone_meets_nobody() -> None:
    world = World(plan_of(nodes(1)))
    world.answers["node0"]["host"].update(interfaces={"lo": ["127.0.0.1", "10.0.0.10"]}, down=["lo"])
    assert found(world) == []


def test_lmdeploys_own_launcher_is_refused_at_the_first_look_where_the_default_route_is_elsewhere() -> None:
    world = World(plan_of(nodes(plan_topology="dpep", plan_launcher="native")))
    world.answers["node1"]["host"]["source"] = "192.0.2.1"
    assert found(world)[0].startswith(
        f"{NODE1}: LMDeploy's own launcher takes the address of the default route, 192.0.2.1"
    )


@pytest.mark.parametrize("error", ["", "the command ip is missing"])
def test_a_host_without_an_address_is_told(error: str) -> None:
    world = World(PLANS["tp"])
    world.answers["node1"]["host"].update(interfaces={}, error=error)
    assert found(world) == [f"{NODE1}: {error or 'ip -json -4 address shows no interface with an IPv4 address.'}"]


def test_a_container_that_is_not_ours_is_named_and_its_port_not_told_twice() -> None:
    world = World(PLANS["tp"])
    world.stranger("node0", "lmdeploy-api")
    world.answers["node0"]["host"]["listening"] = [23333]
    assert found(world) == [
        (
            "node0 (10.0.0.10): a container lmdeploy-api exists that the deployment lmdeploy did not make; it was left alone: "
            "rename or remove it, or set plan_name to another name."
        )
    ]


def test_a_port_that_something_else_listens_on_is_named() -> None:
    world = running(PLANS["tp"])
    world.remove("node0", "lmdeploy-api")
    world.answers["node0"]["host"]["listening"] = [22, 6379, 23333]
    assert found(world) == [
        (
            "node0 (10.0.0.10): port 23333 of lmdeploy-api is in use on this host: stop what listens there "
            "(ss -ltnp 'sport = :23333'), or choose another with plan_ports."
        )
    ]


def test_who_holds_a_port_is_named_and_an_own_old_container_is_not_told_of() -> None:
    world = running(PLANS["tp"])
    world.answers["node0"]["record"] = None
    world.relabel("node0", "lmdeploy-api", "lmfleet.lmdeploy.identity", "of an old plan")
    host = world.answers["node0"]["host"]
    host["listening"] = [8265, 29500]  # 8265 is Ray's in the plan, and the old api_server's
    world.remove("node0", "lmdeploy-ray")
    host["listeners"] = {
        "8265": {"pid": 7, "command": "lmdeploy", "container": world.entry("node0", "lmdeploy-api")["id"]}
    }
    assert found(world) == []
    host["listening"] = [6379, 6380, 8265]
    host["listeners"] = {str(port): {"pid": 8, "command": "redis-server", "container": ""} for port in (6379, 6380)}
    assert found(world) == [
        (
            "node0 (10.0.0.10): ports 6379, 6380 of lmdeploy-ray are in use on this host by redis-server (pid 8): stop what "
            "listens there (ss -ltnp 'sport = :6379 or sport = :6380'), or choose others with plan_ports."
        ),
        (
            "node0 (10.0.0.10): port 8265 of lmdeploy-ray is in use on this host: stop what listens there "
            "(ss -ltnp 'sport = :8265'), or choose another with plan_ports."
        ),
    ]


def test_a_foreign_container_that_is_told_is_not_told_again_as_a_listener() -> None:
    world = World(PLANS["tp"])
    world.stranger("node0", "lmdeploy-ray")
    host = world.answers["node0"]["host"]
    host["listening"] = [23333]
    host["listeners"] = {
        "23333": {"pid": 9, "command": "python", "container": world.entry("node0", "lmdeploy-ray")["id"]}
    }
    assert len(found(world)) == 1
    assert "a container lmdeploy-ray exists" in found(world)[0]


def test_a_container_that_was_stopped_holds_no_port() -> None:
    world = running(PLANS["tp"])
    world.stop("node0", "lmdeploy-api")
    world.answers["node0"]["host"]["listening"] = [23333]
    assert "port 23333 of lmdeploy-api is in use" in found(world)[0]


def test_ports_of_the_plan_that_was_carried_out_are_its_containers_own() -> None:
    world = running(bound(nodes(plan_ports={"api": 23400}))).follow(bound(nodes(plan_ports={"ray_dashboard": 23400})))
    world.remove("node0", "lmdeploy-ray")
    world.answers["node0"]["host"]["listening"] = [23400]
    assert found(world) == []
    world.answers["node0"]["record"] = None
    assert "port 23400 of lmdeploy-ray is in use" in found(world)[0]


def test_a_mount_whose_source_is_missing_is_told_before_anything_is_taken_down() -> None:
    mounts = [{"source": "/data/models", "target": "/models"}]
    world = World(bound(nodes(plan_extra_mounts=mounts)))
    asked = questions(world.plan, world.plan.node("node1"))["paths"]
    assert asked == ["/data/models", "/root/.cache/huggingface"]
    world.answers["node1"]["paths"] = {"/data/models": False, "/root/.cache/huggingface": False}
    assert found(world) == [
        (
            "node1 (10.0.0.11): /data/models does not exist on this host, and containers mount it: make it, or correct "
            "plan_extra_mounts."
        )
    ]


def test_of_containers_that_nothing_is_known_of_no_port_is_told() -> None:
    world = running(PLANS["dpep"]).follow(PLANS["tp"])
    world.answers["node0"]["host"]["listening"] = [23333]
    for answer in world.answers.values():
        answer["record"] = None
    assert found(world) == []


def test_a_model_that_is_not_whole_is_told_once_with_what_to_type() -> None:
    world = World(bound(nodes(plan_hf_home="/data/hugging face")))
    world.no_model("node1")
    assert found(world) == [
        (
            "deepseek-ai/DeepSeek-V3 is not whole on 1 of 2 hosts:\n"
            "  node1: config.json is missing.\n"
            "Have it brought by playbooks/model.yml -e model_strategy=fanout, from a host that has it. "
            "Or fetch it by hand; files that are whole are not fetched twice:\n"
            "  node1: HF_HOME='/data/hugging face' hf download deepseek-ai/DeepSeek-V3 --revision main"
        )
    ]


def test_a_model_at_a_path_is_to_be_copied() -> None:
    mounts = [{"source": "/models", "target": "/models"}]
    world = World(bound(nodes(plan_model="/models/v3", plan_extra_mounts=mounts)))
    for name in world.answers:
        world.no_model(name)
    [fault] = found(world)
    assert fault.startswith("/models/v3 is not whole on 2 of 2 hosts:\n  node0, node1: config.json is missing.\n")
    assert fault.endswith("Copy the missing files there on each of these hosts, and run again.")


def test_a_mount_whose_source_is_missing_is_told_once_be_it_the_model_s() -> None:
    mounts = [{"source": "/data/ld", "target": "/models"}, {"source": "/data/more", "target": "/more"}]
    world = World(bound(nodes(plan_model="/models/v3", plan_extra_mounts=mounts)))
    world.answers["node1"]["paths"] = {"/data/ld": False, "/data/more": False}
    world.answers["node1"]["model"]["faults"] = [
        "/models/v3 of the containers is /data/ld/v3 on this host, and that is not."
    ]
    faults = found(world)
    assert len(faults) == 2
    assert "/data/more does not exist" in faults[0]
    assert "node1: /models/v3 of the containers is /data/ld/v3" in faults[1]


def test_a_model_that_is_there_under_another_name_is_not_fetched() -> None:
    world = World(bound(nodes(3, plan_tp=16)))
    for name, home in (("node0", "/data"), ("node1", "/data"), ("node2", "")):
        world.no_model(name)
        if home:
            world.answers[name]["model"]["settings"] = [f"plan_hf_home: {home}", "plan_hf_home: /other"]
    assert found(world) == [
        (
            "deepseek-ai/DeepSeek-V3 is not whole on 3 of 3 hosts:\n"
            "  node0, node1, node2: config.json is missing.\n"
            "Do not fetch it again: it is on these hosts already. Set this, and run again:\n"
            "  node0, node1: plan_hf_home: /data\n"
            "Have it brought by playbooks/model.yml -e model_source=hub. "
            "Or fetch it by hand; files that are whole are not fetched twice:\n"
            "  node2: HF_HOME=/root/.cache/huggingface hf download deepseek-ai/DeepSeek-V3 --revision main"
        )
    ]


def test_a_download_goes_where_the_engine_looks() -> None:
    world = World(bound(nodes()))
    world.no_model("node1")
    world.answers["node1"]["model"].update(hub="/mnt/disk2/models", damaged=["/mnt/disk2/models/a b"])
    assert found(world)[0].endswith(
        "  node1: rm '/mnt/disk2/models/a b' && HF_HUB_CACHE=/mnt/disk2/models hf download deepseek-ai/DeepSeek-V3 --revision main"
    )


def test_two_models_are_told_apart() -> None:
    world = World(bound(nodes(3, plan_tp=16)))
    for name, commit in (("node0", "abc"), ("node1", None), ("node2", "abc")):
        world.answers[name]["model"].update(commit=commit, digest=str(commit), files={"a": 1}, total_bytes=7)
    assert found(world) == [
        (
            "The hosts hold different files of deepseek-ai/DeepSeek-V3, and one engine cannot serve two models:\n"
            "  node0, node2: commit abc, 1 files, 7 bytes\n"
            "  node1: commit unknown, 1 files, 7 bytes\n"
            "Set plan_model_revision to one commit, or copy the model from one host to the others."
        )
    ]


def test_all_faults_of_all_hosts_come_at_once() -> None:
    world = World(PLANS["tp"])
    world.answers["node0"]["docker"] = {"error": "x", "kind": "socket"}
    world.answers["node0"]["host"]["interfaces"] = {}
    world.answers["node1"]["host"]["listening"] = [6380, 6381]
    world.no_model("node1")
    assert len(found(world)) == 4  # both ports are of one listener


# The image -----------------------------------------------------------------------------------------------------------


def of_image(world: World) -> list[str]:
    return image_faults(world.plan, "lmdeploy:x", world.hosts)


def test_one_image_everywhere_is_no_fault_whatever_its_digests() -> None:
    world = World(PLANS["tp"])
    assert of_image(world) == []
    world.answers["node1"]["image"]["digests"] = ["lmdeploy@sha256:1"]
    assert of_image(world) == []


def test_different_images_under_one_name_are_told_by_host() -> None:
    world = World(PLANS["tp"])
    world.answers["node1"]["image"]["id"] = OTHER_IMAGE
    assert of_image(world) == [
        (
            "The nodes hold different images under lmdeploy:x, and Ray and LMDeploy need one and the same everywhere:\n"
            f"  node0: {IMAGE}\n  node1: {OTHER_IMAGE}\n"
            "Remedy: run with -e image_pull=always, or set plan_image to a digest."
        )
    ]


@pytest.mark.parametrize(
    ("errors", "words"), [(["no lmdeploy", "killed"], "no lmdeploy; killed"), ([], "it said nothing")]
)
def test_an_image_that_is_no_lmdeploy_is_refused(errors: list[str], words: str) -> None:
    world = World(PLANS["tp"])
    for answer in world.answers.values():
        answer["image"]["answer"] = {"lmdeploy": None, "errors": errors}
    assert of_image(world) == [
        f"lmdeploy:x could not say which LMDeploy it holds: {words}. Set plan_image to an image of LMDeploy."
    ]


# What a start needs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        (lambda world: None, []),
        (lambda world: world.no_image("node0"), [f"the image {IMAGE}"]),
        (lambda world: world.no_model("node0"), ["the whole model"]),
        (lambda world: world.answers["node0"].pop("model"), ["the whole model"]),
        (lambda world: world.secret("node0", None), ["the file /var/lib/lmfleet/lmdeploy/secrets/ray_token"]),
        (lambda world: world.answers["node0"].update(failed="x"), ["a Docker engine that answers"]),
        (lambda world: world.answers["node0"].update(unreachable="x"), ["a Docker engine that answers"]),
        (lambda world: world.answers["node0"].update(docker={"error": "x"}), ["a Docker engine that answers"]),
    ],
)
def test_what_a_start_lacks_is_named(damage: Callable[[World], Any], missing: list[str]) -> None:
    world = running(PLANS["tp"])
    damage(world)
    lacking = lacks(service(world.plan, "api"), world.hosts["node0"])
    assert list(lacking) == missing
    assert all(todo.endswith(".") for todo in lacking.values())


def test_what_is_brought_is_not_lacked_and_the_proxy_needs_neither_model_nor_secret() -> None:
    world = World(PLANS["dpep"])
    world.no_image("node0")
    world.no_model("node0")
    each = service(world.plan, "dp")
    assert list(lacks(each, world.hosts["node0"], image_brought=True)) == [
        "the whole model",
        *(f"the file {secret.source}" for secret in each.secrets),
    ]
    assert list(lacks(service(world.plan, "proxy"), world.hosts["node0"])) == [f"the image {IMAGE}"]


def test_an_image_that_is_there_by_its_id_alone_will_do() -> None:
    world = World(PLANS["dpep"])
    world.answers["node0"]["image"]["id"] = OTHER_IMAGE
    world.answers["node0"]["image_ids"] = {IMAGE: False}
    assert list(lacks(service(world.plan, "proxy"), world.hosts["node0"])) == [f"the image {IMAGE}"]
    world.answers["node0"]["image_ids"] = {IMAGE: True}
    assert lacks(service(world.plan, "proxy"), world.hosts["node0"]) == {}


@pytest.mark.parametrize("name", ["tp", "dpep"])
def test_workers_of_tp_are_given_the_heads_path_of_the_model(name: str) -> None:
    world = World(PLANS[name])
    for node, answer in world.answers.items():
        answer["model"]["reads"] = f"/data/{node}/hub"
    told = "is at /data/node0/hub in the containers of node0, and at /data/node1/hub on node1"
    assert [told in fault for fault in found(world)] == ([True] if name == "tp" else [])
