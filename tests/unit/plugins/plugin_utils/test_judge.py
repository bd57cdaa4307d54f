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
    image_faults,
    lacks,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import questions
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, service
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
    world.answers["node1"] = {"unreachable": "Connection timed out."}
    assert found(world) == [
        (
            f"{NODE1} cannot be reached: Connection timed out. {consequence} "
            "Bring the host up, or take it out of the inventory group."
        )
    ]


def test_a_single_rank_of_an_unreachable_host_is_told_as_one() -> None:
    world = World(bound(nodes(plan_topology="dpep", plan_gpus=1)))
    world.answers["node1"] = {"unreachable": "gone"}
    assert "Rank 1 is on it, and all other ranks" in found(world)[0]


def test_a_look_that_failed_is_told_as_it_is() -> None:
    world = World(PLANS["tp"])
    world.answers["node1"] = {"failed": "no Python there"}
    assert found(world) == [f"{NODE1}: no Python there"]


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


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (None, None),
        ({"listing": "GPU 0: H100\n" * 8, "error": ""}, None),
        (
            {"listing": "GPU 0: H100\n  MIG 1g.10gb\n" * 7, "error": ""},
            "lists 7 of the 8 GPUs that plan_gpus says: lower it",
        ),
        ({"listing": "", "error": "driver mismatch"}, "nvidia-smi: driver mismatch: mend the driver first"),
    ],
)
def test_missing_gpus_are_told(gpus: Any, words: str | None) -> None:
    world = World(PLANS["tp"])
    world.answers["node1"]["host"]["gpus"] = gpus
    faults = found(world)
    assert len(faults) == (words is not None)
    assert all(fault.startswith(f"{NODE1}: ") and (words or "") in fault for fault in faults)


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
            "Fetch them, and run again; files that are whole are not fetched twice:\n"
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
            "Fetch them, and run again; files that are whole are not fetched twice:\n"
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
    assert len(found(world)) == 5


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
    assert lacks(service(world.plan, "api"), world.hosts["node0"]) == missing


def test_what_is_brought_is_not_lacked_and_the_proxy_needs_neither_model_nor_secret() -> None:
    world = World(PLANS["dpep"])
    world.no_image("node0")
    world.no_model("node0")
    each = service(world.plan, "dp")
    assert lacks(each, world.hosts["node0"], image_brought=True) == [
        "the whole model",
        *(f"the file {secret.source}" for secret in each.secrets),
    ]
    assert lacks(service(world.plan, "proxy"), world.hosts["node0"]) == [f"the image {IMAGE}"]


def test_an_image_that_is_there_by_its_id_alone_will_do() -> None:
    world = World(PLANS["dpep"])
    world.answers["node0"]["image"]["id"] = OTHER_IMAGE
    world.answers["node0"]["image_ids"] = {IMAGE: False}
    assert lacks(service(world.plan, "proxy"), world.hosts["node0"]) == [f"the image {IMAGE}"]
    world.answers["node0"]["image_ids"] = {IMAGE: True}
    assert lacks(service(world.plan, "proxy"), world.hosts["node0"]) == []
