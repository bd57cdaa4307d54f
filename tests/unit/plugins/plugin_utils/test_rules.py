# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule: it holds on good hosts, tells what is planted, and is unknown where nothing can be read."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.binding import refusals
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import host_faults, host_warnings
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import bound as bind
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, Plan, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.judging import Result, judged, waiver_faults
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.registry import RULES
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.types import ERROR, GROUP, HOST, WARNING, Rule
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import Variables, faults_of, inputs_of, nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import (
    OTHER_IMAGE,
    PROBED,
    World,
    bound,
    gpu_details,
    hca,
    running,
    with_gpus,
)

Answer = dict[str, Any]
PLANS = {
    "tp": bound(nodes()),
    "dpep": bound(nodes(plan_topology="dpep")),
    "native": bound(
        nodes(plan_topology="dpep", plan_launcher="native", plan_image="openmmlab/lmdeploy:v0.18.0-cu12.8")
    ),
    "unprivileged": bound(nodes(plan_privileged=False)),
    "options": bound(
        nodes(
            plan_topology="dpep",
            plan_api_server_options={"chat_template": "/data/t.json", "generation_config": "/data"},
            plan_extra_mounts=[{"source": "/srv", "target": "/data"}],
        )
    ),
    "registry": bound(nodes(plan_image="10.0.0.1:5000/lmdeploy:v0.18.0-cu12.8")),
}
NODE1 = "node1 (10.0.0.11): "
TEMPLATE, GENERATION = "/data/t.json", "/data/generation_config.json"


def put(path: str, value: Any) -> Callable[[Answer], None]:
    """Plant a value in a host's answer."""

    def plant(answer: Answer) -> None:
        *keys, last = path.split(".")
        place: Any = answer
        for key in keys:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value

    return plant


def gpu(**changed: Any) -> Callable[[Answer], None]:
    """Plant in what nvidia-smi tells of GPU 2."""
    return lambda answer: answer["host"]["gpus"]["details"].__setitem__(2, gpu_details(2, **changed))


def both(*plants: Callable[[Answer], None]) -> Callable[[Answer], None]:
    def plant(answer: Answer) -> None:
        for each in plants:
            each(answer)

    return plant


def row(**changed: str) -> Callable[[Answer], None]:
    return lambda answer: answer["host"]["gpus"]["devices"][2].update(changed)


def disk(path: str, **changed: Any) -> Callable[[Answer], None]:
    return lambda answer: answer["host"]["disks"][path].update(changed)


def port(device: int, **changed: Any) -> Callable[[Answer], None]:
    return lambda answer: answer["host"]["hcas"].__setitem__(device, hca(device, "10.1.0.2", **changed))


def no_v4_gid(answer: Answer) -> None:
    for each in answer["host"]["hcas"][1]["ports"][0]["gids"]:
        each["address"] = ""


def every_port(**changed: Any) -> Callable[[Answer], None]:
    return both(port(0, **changed), port(1, **changed))


FOREIGN = {"present": True, "id": "f", "labels": {}, "image": "x", "status": "exited", "exit_code": 0, "started_at": ""}
USER = {"name": "other", "image": "vllm", "deployment": "", "gpus": "all"}
STATE, DOCKER = "/var/lib/lmfleet", "/var/lib/docker"
PROCESS = {"pid": 77, "name": "python3", "used_mib": 9000, "container": ""}
XID = {"bus": "0000:1a:00.0", "xid": 79, "count": 2, "text": "NVRM: Xid (PCI:0000:1a:00): 79"}
# Rule, plan, what is planted on node1, words of what is told. A rule may have several.
CASES: list[tuple[str, str, Callable[[Answer], None], list[str]]] = [
    ("host.answers", "tp", put("failed", "MemoryError"), ["gave no answer: MemoryError", "no memory left"]),
    (
        "docker.answers",
        "tp",
        put("docker", {"error": "Docker is away: start it.", "kind": "socket"}),
        ["Docker is away"],
    ),
    ("docker.version", "tp", put("docker.api", "1.39"), ["Docker is too old (API 1.39)"]),
    ("docker.userns", "tp", put("docker_settings.userns", True), ["userns-remap"]),
    ("docker.rootless", "tp", put("docker_settings.rootless", True), ["Docker runs rootless"]),
    ("docker.log-driver", "tp", put("docker_settings.log_driver", "none"), ["with the driver none", "json-file"]),
    ("docker.gpu-runtime", "tp", put("docker_settings.gpus", False), ["Docker has no GPU runtime", "nvidia-ctk"]),
    ("docker.storage-driver", "tp", put("docker_settings.storage_driver", "vfs"), ["driver vfs", "overlay2"]),
    ("docker.cgroup-reload", "unprivileged", put("docker_settings.cdi", False), ["daemon-reload", "plan_privileged"]),
    (
        "docker.memlock",
        "unprivileged",
        put("host.limits.memlock_bytes", 65536),
        ["65536 bytes", '"default-ulimits": {"memlock"'],
    ),
    ("docker.open-files", "tp", put("host.limits.nofile", 1024), ["may open 1024 files", "default-ulimits"]),
    ("gpu.driver", "tp", put("host.gpus.error", "nvidia-smi -L timed out after 15 s"), ["makes nvidia-smi hang"]),
    ("gpu.count", "tp", put("host.gpus.listing", "GPU 0: H100\n"), ["lists 1 of the 8 GPUs"]),
    ("gpu.lost", "tp", row(used="[GPU requires reset]"), ["[GPU requires reset] for GPU 2"]),
    ("gpu.mig", "tp", row(mig="Enabled"), ["MIG is on for GPU 2", "-mig 0"]),
    ("gpu.compute-mode", "tp", row(compute_mode="Prohibited"), ["compute mode Prohibited"]),
    ("gpu.mixed", "tp", row(name="NVIDIA H200"), ["of different kinds (NVIDIA H100 80GB HBM3, NVIDIA H200)"]),
    ("gpu.exclusive", "tp", row(compute_mode="Exclusive_Process"), ["in compute mode Exclusive_Process"]),
    ("gpu.memory-held", "tp", row(used="61000"), ["in use by something else (GPU 2: 61000 of 81559 MiB)"]),
    ("gpu.processes", "tp", gpu(processes=[PROCESS]), ["python3 (pid 77)", "GPU 2 (9000 MiB)"]),
    ("gpu.processes", "tp", both(row(used="61000"), gpu(processes=[PROCESS])), ["python3 (pid 77)"]),
    ("gpu.users", "tp", put("gpu_users", [USER]), ["the container other (vllm) was given GPUs as well (all)"]),
    (
        "gpu.users",
        "tp",
        put("gpu_users", [{**USER, "deployment": "v3", "gpus": [0, 1]}]),
        ["deployment v3", "GPU 0, 1"],
    ),
    ("gpu.ecc", "tp", gpu(ecc_uncorrected=3), ["GPU 2 had memory errors", "(3)"]),
    ("gpu.remap-pending", "tp", gpu(remap_pending=True), ["GPU 2 is to remap rows", "--gpu-reset -i 2"]),
    ("gpu.remap-failed", "tp", gpu(remap_failed=True), ["GPU 2 could not remap", "replaced"]),
    ("gpu.recovery", "tp", gpu(recovery="Reset"), ["GPU 2 needs recovery", "(Reset)"]),
    (
        "gpu.xid",
        "tp",
        put("host.kernel.xids", [XID]),
        ["XID 79 of GPU 2 (0000:1a:00.0)", "2 times", "fallen off the bus"],
    ),
    (
        "gpu.xid",
        "tp",
        put("host.kernel.xids", [{**XID, "bus": "0000:99:00.0", "count": 1}]),
        ["the GPU at 0000:99:00.0"],
    ),
    ("gpu.slowdown", "tp", gpu(slowdown=["hw_thermal_slowdown"]), ["GPU 2 is slowed down now (hw_thermal_slowdown)"]),
    ("gpu.persistence", "tp", gpu(persistence=False), ["persistence mode is off for GPU 2"]),
    ("gpu.driver-cuda", "tp", put("host.gpus.cuda", "12.4"), ["has CUDA 12.4, and the image CUDA 12.8"]),
    (
        "fabric.manager",
        "tp",
        both(put("host.fabric_manager.running", False), gpu(fabric="In Progress")),
        ["nvidia-fabricmanager does not run", "802"],
    ),
    (
        "fabric.version",
        "tp",
        put("host.fabric_manager.version", "565.57.01"),
        ["is 565.57.01 and the driver 570.148.08"],
    ),
    ("fabric.state", "tp", gpu(fabric="In Progress"), ["(GPU 2: in progress)", "802"]),
    ("fabric.status", "tp", gpu(fabric_status="NVML_ERROR_UNKNOWN"), ["(NVML_ERROR_UNKNOWN)"]),
    (
        "fabric.sxid",
        "tp",
        put(
            "host.kernel.sxids",
            [{"bus": "0000:06:00.0", "sxid": 20034, "fatal": True, "count": 3, "text": "Link 48 LTSSM"}],
        ),
        ["fatal SXid 20034 of the NVSwitch at 0000:06:00.0", "3 times", "(Link 48 LTSSM)"],
    ),
    ("nvlink.down", "tp", gpu(nvlinks_down=3), ["NVLinks are down (GPU 2: 3)"]),
    ("rdma.device", "dpep", both(put("host.rdma.devices", []), put("host.hcas", [])), ["no RDMA device"]),
    (
        "rdma.peermem",
        "dpep",
        both(put("host.rdma.modules", []), put("host.rdma.open", False)),
        ["nvidia_peermem is not"],
    ),
    ("rdma.ibgda", "dpep", put("host.rdma.parameters", {}), ["NVreg_EnableStreamMemOPs=1"]),
    (
        "rdma.mlx5",
        "dpep",
        both(put("host.hcas.0.driver", "bnxt_re"), put("host.hcas.1.driver", "bnxt_re")),
        ["mlx5_core (bnxt_re)"],
    ),
    ("rdma.rates", "tp", port(1, rate_gbps=100.0), ["100 Gbit/s: mlx5_1; 400 Gbit/s: mlx5_0", "NCCL_IB_HCA"]),
    ("rdma.layers", "tp", port(1, layer="InfiniBand"), ["Ethernet: mlx5_0; InfiniBand: mlx5_1"]),
    ("rdma.gid", "tp", no_v4_gid, ["mlx5_1 (ens1np0)", "RoCE v2 GID"]),
    (
        "rdma.distance",
        "tp",
        put("host.gpus.links.GPU2", {"mlx5_0": "SYS", "mlx5_1": "SYS", "GPU0": "NV18"}),
        ["GPU 2 reaches every active RDMA device only across"],
    ),
    (
        "rdma.distance",
        "tp",
        put("host.gpus.links.GPU3", {"mlx5_0": "NODE", "mlx5_1": "SYS", "GPU0": "NV18"}),
        ["GPU 3 reaches every active RDMA device only through another PCI root of the processor (NODE"],
    ),
    ("rdma.acs", "tp", put("host.acs", ["0000:18:00.0"]), ["a port of PCI switches", "has ACS on (0000:18:00.0)"]),
    (
        "rdma.shared",
        "dpep",
        put("host.gpus.links", {f"GPU{n}": {"mlx5_0": "PXB", "mlx5_1": "PXB"} for n in range(8)}),
        ["same one from NVSHMEM (GPU 0 and 1 and 2", "plan_topology: dpep"],
    ),
    (
        "rdma.shared",
        "native",
        put("host.gpus.links", {f"GPU{n}": {"mlx5_0": "PXB", "mlx5_1": "PXB"} for n in range(8)}),
        ["plan_launcher: torchrun"],
    ),
    (
        "net.cluster-address",
        "tp",
        put("host.interfaces", {"eth0": ["10.9.9.9"]}),
        ["no interface of this host has 10.0.0.11"],
    ),
    (
        "net.default-route",
        "native",
        put("host.source", "192.0.2.1"),
        ["takes the address of the default route, 192.0.2.1"],
    ),
    (
        "net.first-address",
        "tp",
        put("host.interfaces", {"eth0": ["10.0.0.9", "10.0.0.11"]}),
        ["not the first address of eth0"],
    ),
    (
        "net.route",
        "tp",
        put("host.routes", {"10.0.0.10": {"interface": "eth9"}}),
        ["node0 (10.0.0.10) leaves by eth9", "not by eth0"],
    ),
    (
        "net.own-name",
        "tp",
        put("host.names", {"hostname": "n1", "addresses": ["127.0.1.1"], "loopback": True}),
        ["127.0.1.1"],
    ),
    (
        "net.registry-proxy",
        "registry",
        put("host.proxies", {"HTTPS_PROXY": "http://p:1"}),
        ["http://p:1", "leave out 10.0.0.1"],
    ),
    (
        "docker.foreign-container",
        "tp",
        put("containers", {"lmdeploy-ray": FOREIGN}),
        ["a container lmdeploy-ray exists"],
    ),
    ("ports.in-use", "tp", put("host.listening", [6380]), ["port 6380 of lmdeploy-ray is in use"]),
    (
        "ports.ray-workers",
        "tp",
        put("host.listening", list(range(10002, 10980))),
        ["20 ports from 10002 to 10999 are free", "needs 32", "ray_worker_last"],
    ),
    (
        "ports.ephemeral",
        "tp",
        put("host.ephemeral", {"first": 10240, "last": 65535, "reserved": [[23333, 23333], [50000, 50010]]}),
        [
            "from 10240 to 65535",
            "10002-10999 of Ray's workers",
            "ip_local_reserved_ports=23333,50000-50010,10002-10999,",
        ],
    ),
    (
        "ports.ephemeral",
        "dpep",
        put("host.ephemeral", {"first": 1024, "last": 65535, "reserved": []}),
        ["23413,23423"],
    ),
    ("disk.read-only", "tp", disk(STATE, writable=False), [f"{STATE} (plan_state_dir) cannot be written"]),
    ("disk.space", "tp", disk(STATE, free_bytes=10**8), ["has 0.1 GiB free", "df -h"]),
    ("disk.inodes", "tp", disk(DOCKER, free_inodes=0), ["Docker's data) has 0 inodes left"]),
    ("disk.remote", "tp", disk(STATE, type="nfs4"), ["file system of the network (nfs4)"]),
    ("system.memory", "tp", put("host.memory.available_bytes", 10 * 2**30), ["10 GiB of memory are free", "8 ranks"]),
    ("system.shm", "tp", put("host.memory.shm_bytes", 64 * 2**20), ["/dev/shm) has 0.1 GiB"]),
    ("system.iommu", "tp", put("host.kernel.iommu", "DMA-FQ"), ["(DMA-FQ)", "iommu=pt"]),
    ("system.clock", "tp", put("host.clock.synchronized", False), ["the clock is not synchronized"]),
    ("same.gpu-kind", "tp", put("host.gpus.names", ["NVIDIA H200"] * 8), ["NVIDIA H200 on node1"]),
    (
        "same.driver",
        "tp",
        both(put("host.gpus.driver", "565.1"), put("host.fabric_manager.version", "565.1")),
        ["565.1 on node1"],
    ),
    ("same.docker", "tp", put("docker.version", "27.1.0"), ["27.1.0 on node1"]),
    ("same.kernel", "tp", put("host.kernel.release", "5.15.0"), ["5.15.0 on node1"]),
    (
        "rdma.port-down",
        "tp",
        port(1, state="DOWN", physical="Polling"),
        ["node1 (DOWN, Polling): the RDMA device mlx5_1 is not active, and it is on node0"],
    ),
    (
        "rdma.same-rate",
        "tp",
        every_port(rate_gbps=200.0),
        ["mlx5_1 has links", "200 Gbit/s on node1; 400 Gbit/s on node0"],
    ),
    ("rdma.same-layer", "tp", every_port(layer="InfiniBand"), ["Ethernet on node0; InfiniBand on node1"]),
    ("net.same-mtu", "tp", put("host.mtus", {"eth0": 1500}), ["1500 on node1 (eth0); 9000 on node0 (eth0)"]),
    ("system.clocks", "tp", put("host.time", 1010.0), ["The clock of node1 is at least 8 s ahead of that of node0"]),
    ("model.whole", "tp", put("model.faults", ["config.json is missing."]), ["is not whole on 1 of 2 hosts"]),
    ("model.same", "tp", put("model.digest", "2"), ["hold different files"]),
    ("model.path", "tp", put("model.reads", "/b"), ["is at /a in the containers of node0, and at /b on node1"]),
    (
        "model.options",
        "options",
        put("inside", {TEMPLATE: "it is not there", GENERATION: ""}),
        ["/data/t.json in the con"],
    ),
    (
        "model.generation",
        "options",
        put("inside", {TEMPLATE: "", GENERATION: "it is not there"}),
        ["generation_config is"],
    ),
    ("image.same", "tp", put("image.id", OTHER_IMAGE), ["hold different images"]),
]
# What cannot be planted on one host alone, or needs another plan; and what follows from a fault by itself.
ELSEWHERE = {"rdma.active", "disk.mounts", "image.lmdeploy", "plan.bound"}
FOLLOWS = {"gpu.lost": {"gpu.mixed"}, "net.cluster-address": set(), "rdma.mlx5": set(), "rdma.layers": {"rdma.same-layer"},
           "rdma.rates": {"rdma.same-rate"}, "rdma.device": set(), "rdma.port-down": {"rdma.distance"},
           "gpu.count": {"gpu.count"}}  # fmt: skip
BY_ID = {rule.id: rule for rule in RULES}


def good(plan: Plan) -> World:
    world = with_gpus(World(plan))
    for answer in world.answers.values():
        answer["model"]["reads"] = "/a"
        if plan is PLANS["options"]:
            answer["inside"] = {TEMPLATE: "", GENERATION: ""}
        if "docker_settings" in answer:
            answer["docker_settings"]["cdi"] = True
    return world


def results(world: World) -> list[Result]:
    return judged(world.plan, world.hosts)


def bad(found: list[Result]) -> dict[str, list[Result]]:
    told: dict[str, list[Result]] = {}
    for each in found:
        if each.state in (ERROR, WARNING):
            told.setdefault(each.rule, []).append(each)
    return told


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_on_good_hosts_every_rule_holds_or_is_not_needed(plan: Plan) -> None:
    found = results(good(plan))
    assert {each.state for each in found} <= {"ok", "not needed"}, [each for each in found if each.state == "unknown"]
    assert {each.rule for each in found} == set(BY_ID)


@pytest.mark.parametrize(
    ("rule", "shape", "plant", "words"), CASES, ids=[f"{each[0]}-{n}" for n, each in enumerate(CASES)]
)
def test_what_is_planted_is_told_by_its_rule_alone(
    rule: str, shape: str, plant: Callable[[Answer], None], words: list[str]
) -> None:
    world = good(PLANS[shape])
    before = {(each.rule, each.host): each.state for each in results(world)}
    assert before[rule, "node1" if BY_ID[rule].scope == HOST else ""] == "ok"
    plant(world.answers["node1"])
    seen = copy.deepcopy(world.answers)
    told = bad(results(world))
    assert world.answers == seen  # judging is pure
    assert told.keys() - FOLLOWS.get(rule, set()) == {rule} - FOLLOWS.get(rule, set())
    assert rule in told
    for each in told[rule]:
        assert each.state == BY_ID[rule].severity
        assert each.host == ("node1" if BY_ID[rule].scope == HOST else "")
        assert all(
            sentence.startswith(NODE1) for sentence in each.told if BY_ID[rule].scope == HOST and rule != "host.answers"
        )
        assert each.hosts
    text = " ".join(sentence for each in told[rule] for sentence in each.told)
    assert all(word in text for word in words), text
    assert text.rstrip()[-1] in ".)" or rule == "model.whole", text


def test_no_active_port_at_all_is_told_where_expert_parallelism_needs_one() -> None:
    world = good(PLANS["dpep"])
    for answer in world.answers.values():
        every_port(state="DOWN", physical="Disabled")(answer)
    told = bad(results(world))
    assert set(told) == {"rdma.active"}
    assert "mlx5_0 DOWN, mlx5_1 DOWN" in told["rdma.active"][0].told[0]


def test_a_mount_that_is_missing_is_an_error() -> None:
    world = good(bound(nodes(plan_extra_mounts=[{"source": "/data", "target": "/data"}])))
    world.answers["node1"]["paths"] = {"/data": False}
    assert set(bad(results(world))) == {"disk.mounts"}


def test_an_image_without_lmdeploy_is_an_error() -> None:
    world = good(PLANS["tp"])
    for answer in world.answers.values():
        answer["image"]["answer"] = {"lmdeploy": None, "errors": ["x"], "cuda": "12.8"}
    assert set(bad(results(world))) == {"image.lmdeploy"}


def refused(world: World, variables: Variables) -> Result:
    inputs = inputs_of(variables)
    found = judged(world.plan, world.hosts, refused=lambda: refusals(inputs, world.hosts))
    assert {each.rule for each in found if each.state == ERROR} <= {"plan.bound", "image.lmdeploy", "image.same"}
    return next(each for each in found if each.rule == "plan.bound")


# Variables, what the image said of itself beside its release, and words of what binding refuses.
UNFIT: list[tuple[Variables, dict[str, Any], list[str]]] = [
    (
        nodes(plan_api_server_options={"speculative_algorithm": "deepseek_mtp"}, plan_image="local/engine:v0.18.0"),
        {"lmdeploy": "0.10.2"},
        ["plan_api_server_options: ", "speculative_algorithm", "0.10.2"],
    ),
    (
        nodes(plan_api_server_options={"log_level": "INFO"}),
        {"api_server_options": ["--model-name", "--revision"]},
        ["the api_server in the image (LMDeploy 0.18.0) does not know --log-level"],
    ),
    (nodes(plan_topology="dpep"), {"modules": {"deep_ep": False, "deep_gemm": True}}, ["needs deep_ep"]),
    (
        nodes(plan_proxy=True, plan_topology="dpep", plan_proxy_options={"log_level": "INFO"}),
        {"proxy_options": ["--routing-strategy", "--disable-cache-status"]},
        ["plan_proxy_options: the proxy in the image", "--log-level"],
    ),
]


@pytest.mark.parametrize(("variables", "says", "words"), UNFIT, ids=range(len(UNFIT)))
def test_what_binding_the_plan_would_refuse_is_an_error_of_all_hosts(
    variables: Variables, says: dict[str, Any], words: list[str]
) -> None:
    world = good(plan_of(variables))
    world.answers["node1"]["image"]["answer"] = None  # one host keeps the image's answer
    assert refused(world, variables).state == "ok"
    world.answers["node0"]["image"]["answer"] = {**PROBED, **says}
    found = refused(world, variables)
    assert (found.state, found.host, found.hosts) == (ERROR, "", ("node0", "node1"))
    text = " ".join(found.told)
    assert all(word in text for word in words), text
    assert len(found.told) == 1
    # It is just what a deployment would end with.
    with pytest.raises(PlanError) as refusal:
        bind(inputs_of(variables), world.hosts, Faults())
    assert refusal.value.faults == list(found.told)


def test_what_binding_refuses_is_told_beside_all_else_and_not_twice() -> None:
    variables = nodes(plan_topology="dpep", plan_launcher="native", plan_image="openmmlab/lmdeploy:v0.18.0-cu12.8")
    world = good(plan_of(variables))
    put("host.source", "192.0.2.1")(world.answers["node1"])
    put("host.interfaces", {"eth0": ["10.9.9.9"]})(world.answers["node0"])
    for answer in world.answers.values():
        answer["image"]["answer"] = {**PROBED, "modules": {}}
    inputs = inputs_of(variables)
    found = bad(judged(world.plan, world.hosts, refused=lambda: refusals(inputs, world.hosts)))
    assert set(found) == {"plan.bound", "net.cluster-address", "net.default-route"}
    [told] = found["plan.bound"][0].told
    assert "needs deep_ep and deep_gemm" in told
    # All that binding refuses is told by one of them.
    with pytest.raises(PlanError) as refusal:
        bind(inputs, world.hosts, Faults())
    everything = "\n".join(sentence for results in found.values() for each in results for sentence in each.told)
    assert len(refusal.value.faults) == 3
    for fault in refusal.value.faults:
        name, __, said = fault.partition(": ")
        assert everything.count(said if name.startswith("node") else fault) == 1


def test_of_an_image_that_did_not_say_what_it_is_binding_is_unknown_but_the_model_is_judged() -> None:
    variables = nodes(plan_topology="dpep")
    for plant, why in (
        (put("image.answer", None), "not asked yet"),
        (put("image.answer", {"lmdeploy": None, "errors": ["x"]}), "could not say"),
        (put("image.id", OTHER_IMAGE), "hold different images"),
    ):
        world = good(plan_of(variables))
        for answer in list(world.answers.values())[: 1 if why == "hold different images" else 2]:
            plant(answer)
        found = refused(world, variables)
        assert (found.state, found.told) == ("unknown", ())
        assert why in found.why
        world.answers["node0"]["model"]["config"] = {"n_routed_experts": 100, "num_attention_heads": 128}
        found = refused(world, variables)
        assert found.state == ERROR
        assert "100" in found.told[0]
        assert why in found.why


def test_every_rule_has_a_case_an_id_a_subject_and_words() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert {each[0] for each in CASES} | ELSEWHERE == set(ids)
    for rule in RULES:
        assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9-]+", rule.id)
        assert rule.severity in (ERROR, WARNING)
        assert rule.scope in (HOST, GROUP)
        assert rule.title
        assert rule.remedy.endswith(".")


# Unknown -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.needs], ids=lambda rule: rule.id)
def test_without_what_it_needs_a_rule_is_unknown_and_never_ok(rule: Rule) -> None:
    shape = next((case[1] for case in CASES if case[0] == rule.id), "dpep" if rule.id == "rdma.active" else "tp")
    for need in rule.needs:
        world = good(PLANS[shape])
        put(need, None)(world.answers["node1"])
        found = [each for each in results(world) if each.rule == rule.id and each.host in ("node1", "")]
        assert [each.state for each in found] == ["unknown"], (need, found)
        assert found[0].why
        assert not found[0].told


@pytest.mark.parametrize("shape", PLANS)
def test_of_hosts_that_tell_nothing_nothing_is_ok_and_nothing_breaks(shape: str) -> None:
    plan = PLANS[shape]
    answers: tuple[Answer, ...] = (
        {},
        {"host": None, "docker": None},
        {"host": {}, "docker": {}, "docker_settings": {}},
        {"host": {"gpus": {}}},
    )
    for answer in answers:
        hosts = {node.name: Host(node.name, answer) for node in plan.nodes}
        found = judged(plan, hosts)
        assert [each.rule for each in found if each.state == "ok" and each.rule != "host.answers"] == []
        assert {each.rule for each in found if each.state == "error"} <= {"net.cluster-address"}
        assert not any("could not be judged" in each.why for each in found), [e for e in found if "judged" in e.why]


def test_a_rule_that_breaks_is_unknown_with_what_it_said() -> None:
    def broken(__: object) -> list[str]:
        raise KeyError("nowhere")

    world = good(PLANS["tp"])
    rules = [
        Rule(id="x.y", severity=ERROR, title="x", check=broken, remedy="x.", scope=scope) for scope in (HOST, GROUP)
    ]
    found = judged(world.plan, world.hosts, None, rules)
    assert [each.state for each in found] == ["unknown"] * 3
    assert all("KeyError: 'nowhere'" in each.why for each in found)


def test_what_one_gpu_does_not_tell_hides_nothing_of_the_others() -> None:
    world = good(PLANS["tp"])
    details = world.answers["node1"]["host"]["gpus"]["details"]
    details[1] = gpu_details(1, ecc_uncorrected=None)
    [result] = [each for each in results(world) if (each.rule, each.host) == ("gpu.ecc", "node1")]
    assert (result.state, result.why) == ("unknown", "nvidia-smi does not tell ecc_uncorrected of GPU 1")
    details[2] = gpu_details(2, ecc_uncorrected=1)
    [result] = [each for each in results(world) if (each.rule, each.host) == ("gpu.ecc", "node1")]
    assert (result.state, result.why) == ("warning", "nvidia-smi does not tell ecc_uncorrected of GPU 1")


def test_a_host_without_an_answer_is_one_error_and_all_else_is_unknown() -> None:
    world = good(PLANS["tp"])
    world.answers["node1"] = {"unreachable": "gone"}
    found = results(world)
    assert [each.rule for each in found if each.state == "error"] == ["host.answers"]
    assert {each.state for each in found if each.host == "node1" and each.rule != "host.answers"} == {"unknown"}
    group = [each for each in found if each.host == "" and each.state != "not needed"]
    assert all(each.state == "unknown" and "no answer (node1)" in each.why for each in group)


# What is no fault ----------------------------------------------------------------------------------------------------


def test_hosts_without_gpus_as_of_a_sandbox_have_neither_errors_nor_warnings() -> None:
    for plan in PLANS.values():
        world = good(plan)
        for answer in world.answers.values():
            answer["docker_settings"].update(storage_driver="vfs", cdi=None)
            answer["host"].update(
                gpus=None,
                rdma=None,
                hcas=[],
                fabric_manager={"needed": False, "running": None, "version": None},
                limits={"memlock_bytes": 65536, "nofile": 1024},
                memory={"total_bytes": 2**33, "available_bytes": 2**30, "shm_bytes": 2**26},
                clock={"synchronized": False},
                names={"hostname": "x", "addresses": ["127.0.1.1"], "loopback": True},
            )
        assert bad(results(world)) == {}


@pytest.mark.parametrize(
    "plant",
    [
        # A virtual machine whose GPUs are in the fabric has the manager elsewhere.
        put("host.fabric_manager.running", False),
        put("host.kernel.xids", [{**XID, "xid": 31}, {**XID, "xid": 13}]),
        put("gpu_users", [{**USER, "name": "dcgm-exporter"}]),
        put("gpu_users", [{**USER, "deployment": "lmdeploy"}]),
        gpu(processes=[{**PROCESS, "used_mib": 20}]),
        gpu(recovery="N/A", fabric="N/A", fabric_status="N/A"),
        put("host.gpus.cuda", "13.0"),
        disk("/root/.cache/huggingface", writable=False, type="nfs4", free_bytes=10**6),
        disk(STATE, type="btrfs", free_inodes=0),
        disk(STATE, type="btrfs", free_inodes=None),
        both(put("host.uid", 1000), disk(STATE, writable=False)),
        put("host.kernel.sxids", [{"bus": "0000:06:00.0", "sxid": 22013, "fatal": False, "count": 9, "text": ""}]),
        put(
            "host.ephemeral",
            {"first": 1024, "last": 65535, "reserved": [[1024, 12000], [23333, 23333], [29500, 29500]]},
        ),
        put("host.listening", list(range(10002, 10900))),
        put("host.time", 1002.0),
        put("host.proxies", {"https_proxy": "http://p:1"}),
    ],
)
def test_what_only_looks_like_a_fault_is_none(plant: Callable[[Answer], None]) -> None:
    world = good(PLANS["tp"])
    plant(world.answers["node1"])
    assert bad(results(world)) == {}


def test_a_proxy_that_leaves_the_registry_out_is_right() -> None:
    for left_out in ("10.0.0.0/8", "localhost, 10.0.0.1", "*"):
        world = good(PLANS["registry"])
        world.answers["node1"]["host"]["proxies"] = {"https_proxy": "http://p:1", "NO_PROXY": left_out}
        assert bad(results(world)) == {}


def test_devices_that_a_person_chose_are_not_told_of() -> None:
    world = good(bound(nodes(plan_environment={"NCCL_IB_HCA": "mlx5_0"})))
    port(1, rate_gbps=100.0)(world.answers["node1"])
    port(1, rate_gbps=100.0)(world.answers["node0"])
    assert bad(results(world)) == {}


def test_the_memory_that_the_own_engine_holds_is_its_own() -> None:
    world = good(PLANS["tp"])
    running_world = running(PLANS["tp"])
    for name, answer in world.answers.items():
        answer["containers"] = running_world.answers[name]["containers"]
        mine = next(iter(answer["containers"].values()))["id"]
        details = answer["host"]["gpus"]["details"]
        details[2] = gpu_details(2, processes=[{**PROCESS, "container": mine}])
        answer["host"]["gpus"]["devices"][2]["used"] = "70000"
        answer["host"]["memory"]["available_bytes"] = 2**30
    assert bad(results(world)) == {}


def test_an_engine_that_serves_is_not_kept_by_what_would_only_keep_it_from_starting() -> None:
    world = good(PLANS["tp"])
    world.answers["node1"]["host"]["fabric_manager"]["running"] = False
    gpu(fabric="In Progress")(world.answers["node1"])
    assert set(bad(results(world))) == {"fabric.manager"}
    world.states("busy")
    assert bad(results(world)) == {}


# Waivers -------------------------------------------------------------------------------------------------------------


def test_a_waived_error_is_told_with_its_reason_and_stops_nothing() -> None:
    world = good(PLANS["tp"])
    put("docker_settings.log_driver", "none")(world.answers["node1"])
    waivers = {"node1": {"docker.log-driver": "we read them elsewhere."}}
    assert len(host_faults(world.plan, world.hosts)) == 1
    assert host_faults(world.plan, world.hosts, waivers) == []
    [told] = host_warnings(world.plan, world.hosts, waivers)
    assert told.startswith(f"{NODE1}Docker logs with the driver none")
    assert told.endswith("(Waived by plan_waive.docker.log-driver: we read them elsewhere.)")
    assert len(host_faults(world.plan, world.hosts, {"node0": waivers["node1"]})) == 1  # of another host
    [result] = [each for each in judged(world.plan, world.hosts, waivers) if each.state == "waived"]
    assert (result.rule, result.host, result.why) == ("docker.log-driver", "node1", "we read them elsewhere.")


def test_a_rule_of_all_hosts_is_waived_where_one_of_them_waives_it() -> None:
    world = good(PLANS["tp"])
    put("model.digest", "2")(world.answers["node1"])
    assert host_faults(world.plan, world.hosts, {"node0": {"model.same": "known"}}) == []


def test_a_waiver_of_what_was_not_found_changes_nothing() -> None:
    world = good(PLANS["tp"])
    found = judged(world.plan, world.hosts, {"node1": {rule.id: "x" for rule in RULES}})
    assert {each.state for each in found} <= {"ok", "not needed"}


def test_waivers_are_refused_with_the_plan_all_at_once() -> None:
    faults = faults_of(
        nodes(plan_waive={"gpu.cuont": "x", "gpu.count": " ", "host.answers": "x", "gpu.mig": True}, plan_tp=-1)
    )
    text = "\n".join(faults)
    assert "plan_waive has 'gpu.cuont', which is no rule (did you mean gpu.count?)" in text
    assert "plan_waive.gpu.count has no reason" in text
    assert "plan_waive.gpu.mig has no reason" in text
    assert "plan_waive has host.answers, which cannot be waived" in text
    assert "plan_tp is -1" in text
    variables = nodes()
    variables["node1"]["plan_waive"] = {"gpu.count": "one is away"}
    assert plan_of(variables).services == plan_of(nodes()).services  # no container knows of it
    assert list(waiver_faults({"gpu.count": "one is away"})) == []
