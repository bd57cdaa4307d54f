# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a decision means for tasks, what is asked of hosts, what Docker is told, and what is written down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import asked_of
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.files import digest
from ansible_collections.lmfleet.lmdeploy.plugins.modules.observe import SPEC
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.containers import docker_arguments, files_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Round
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import (
    Patience,
    lock_path,
    questions,
    record_path,
    with_patience,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.supervision import programs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import new_record
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of, service
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import (
    FIRST,
    IMAGE,
    PROBED,
    TOKEN,
    World,
    bound,
    inspected,
    running,
)

GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
TP = bound(nodes())
DPEP = bound(nodes(plan_topology="dpep", plan_gpus=2))
REPLICAS = bound(nodes(4, plan_replicas=["left", "right"]), groups=GROUPS)
PLANS = {
    "tp": TP,
    "dpep": DPEP,
    "replicas": REPLICAS,
    "rdma": bound(nodes(plan_privileged=False)),
    "mounts": bound(nodes(plan_extra_mounts=[{"source": "/a", "target": "/z"}, {"source": "/b", "target": "/y"}])),
}
PATH = "/var/lib/lmfleet/lmdeploy/secrets/ray_token"
GIVEN = "x" * 32
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


# Pulls ---------------------------------------------------------------------------------------------------------------


def test_what_has_to_be_pulled_and_who_is_asked() -> None:
    world = World(TP)
    assert steps.to_pull(TP, world.hosts) == {}
    assert steps.to_ask(TP, world.hosts, {}) == ""
    world.no_image("node1")
    pulls = steps.to_pull(TP, world.hosts)
    assert pulls == {"node1": "openmmlab/lmdeploy:v0.18.0-cu12.8 is not on it"}
    assert steps.to_ask(TP, world.hosts, pulls) == "node0", "what is pulled may be another"


@pytest.mark.parametrize(("current", "pulled"), [(True, False), (False, True), (None, True)])
def test_the_registry_s_image_is_pulled_where_it_is_another(current: bool | None, pulled: bool) -> None:
    world = World(TP)
    world.answers["node0"]["image"]["current"] = current
    reference = "openmmlab/lmdeploy:v0.18.0-cu12.8"
    why = {"node0": f"the registry has another image as {reference} by now, or gave no answer"}
    assert steps.to_pull(TP, world.hosts) == (why if pulled else {})


def test_the_image_goes_from_one_that_has_it_to_those_that_need_it() -> None:
    plan = plan_of(nodes(4, plan_topology="dpep"))

    def chain(needed: list[str], have: list[str]) -> list[str]:
        found = steps.image_chain(plan, needed, have)
        assert [each["address"] for each in found] == [plan.node(each["name"]).address for each in found]
        return [each["name"] for each in found]

    assert chain(["node1", "node2", "node3"], ["node0"]) == ["node0", "node1", "node2", "node3"]
    assert chain(["node0", "node1", "node2", "node3"], []) == ["node0", "node1", "node2", "node3"]  # the head brings it
    assert chain(["node0", "node2"], ["node1", "node3"]) == ["node1", "node0", "node2"]
    assert chain(["node2", "node3"], []) == ["node2", "node3"]  # of the others nothing is known
    assert len(chain([], ["node0"])) == 1


def test_an_image_that_nobody_asked_is_asked_and_one_kept_answer_is_enough() -> None:
    world = World(TP)
    for answer in world.answers.values():
        answer["image"]["answer"] = None
    assert steps.to_ask(TP, world.hosts, {}) == "node0"
    world.answers["node1"]["image"]["answer"] = PROBED
    assert steps.to_ask(TP, world.hosts, {}) == ""


# Tokens --------------------------------------------------------------------------------------------------------------


@every_plan
def test_hosts_that_have_one_token_need_none(plan: Plan) -> None:
    assert steps.tokens(plan, running(plan).hosts, "") == {}
    assert steps.tokens(plan, running(plan).hosts, TOKEN) == {}


@every_plan
def test_bare_hosts_of_an_engine_get_one_new_token(plan: Plan) -> None:
    needed = steps.tokens(plan, World(plan).hosts, "")
    assert {name: (need["from"], need["hosts"]) for name, need in needed.items()} == {
        engine.name: ("new", engine.nodes) for engine in plan.engines
    }
    contents = [need["content"] for need in needed.values()]
    assert len(set(contents)) == len(plan.engines)
    assert all(len(content) == steps.TOKEN_LENGTH and content.isalnum() for content in contents)


def test_a_host_that_has_none_or_another_gets_the_one_that_is_kept_the_heads_first() -> None:
    world = running(TP)
    for content in (None, "another"):
        world.secret("node1", content)
        assert steps.tokens(TP, world.hosts, "") == {
            "lmdeploy": {
                "from": "kept",
                "content": "",
                "holder": "node0",
                "hosts": ["node1"],
                "mark": steps.mark_of(TOKEN),
            }
        }


def test_a_head_that_lost_it_gets_it_from_another_host_and_nothing_is_started_for_it() -> None:
    world = running(TP)
    world.secret("node0", None)
    assert steps.tokens(TP, world.hosts, "") == {
        "lmdeploy": {"from": "kept", "content": "", "holder": "node1", "hosts": ["node0"], "mark": steps.mark_of(TOKEN)}
    }
    assert world.decide().steps == []


def test_a_given_token_goes_where_it_is_not() -> None:
    world = running(TP)
    world.secret("node1", GIVEN)
    assert steps.tokens(TP, world.hosts, GIVEN) == {
        "lmdeploy": {
            "from": "given",
            "content": GIVEN,
            "holder": "node0",
            "hosts": ["node0"],
            "mark": steps.mark_of(GIVEN),
        }
    }


def test_an_image_whose_ray_knows_no_tokens_needs_none() -> None:
    plan = plan_of(nodes())
    data = plan.to_json()
    for each in data["services"]:
        each["secrets"] = []
    without = Plan.from_json(data)
    assert steps.token_path(without, "node0") is None
    assert steps.tokens(without, World(without).hosts, GIVEN) == {}


def test_a_mark_is_what_observe_gives_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("größer", encoding="utf-8")
    assert steps.mark_of("größer") == digest(str(tmp_path / "token"))
    assert steps.mark_of("größer") == hashlib.sha256("größer".encode()).hexdigest()[:12]


def test_it_is_known_before_what_each_host_s_token_is_going_to_be() -> None:
    world = running(REPLICAS)
    for node in ("node1", "node2", "node3"):
        world.secret(node, None)
    needed = steps.tokens(REPLICAS, world.hosts, "")
    new = steps.mark_of(needed["lmdeploy-right"]["content"])
    brought = steps.as_brought(REPLICAS, world.hosts, needed)
    assert [brought[node].mark(PATH) for node in ("node0", "node1", "node2", "node3")] == [
        *(2 * [steps.mark_of(TOKEN)]),
        *(2 * [new]),
    ]


# Rounds and words ----------------------------------------------------------------------------------------------------


def test_a_round_as_roles_need_it() -> None:
    world = World(REPLICAS)
    [each] = world.decide("F").rounds
    assert steps.round_of(REPLICAS, each) == {
        "engines": ["lmdeploy-left", "lmdeploy-right"],
        "hosts": ["node0", "node1", "node2", "node3"],
        "services": ["api", "proxy", "ray"],
        "acts": ["list", "start"],
        "heals": True,
        "tp": True,
        "dpep": False,
        "warm": ["lmdeploy-left", "lmdeploy-right"],
        "known": [],
        "drain": [],
        "endpoints": [
            {"rank": rank, "node": node, "url": url, "container": "lmdeploy-api", "gpus": list(range(8))}
            for rank, node, url in ((0, "node0", "http://10.0.0.10:23333"), (1, "node2", "http://10.0.0.12:23333"))
        ],
    }


def test_a_round_that_warms_up_alone_waits_for_nobody() -> None:
    found = steps.round_of(DPEP, Round([], ["lmdeploy"], []))
    assert (found["engines"], found["hosts"], found["services"], found["tp"], found["dpep"]) == (
        [],
        [],
        [],
        False,
        False,
    )
    assert [each["rank"] for each in found["endpoints"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "length"), [({}, 0), ({"session_len": 4096}, 4096), ({"session-len": "8192"}, 8192)]
)
def test_the_longest_session_is_the_engines_own(options: dict[str, Any], length: int) -> None:
    assert steps.session_len(plan_of(nodes(plan_api_server_options=options))) == length


def test_a_decision_is_told_once_for_all_hosts_with_its_reason() -> None:
    world = running(DPEP)
    world.stop("node1", "lmdeploy-dp", 137)
    reason = "lmdeploy-dp on node1 has ended with exit code 137"
    assert steps.told(world.decide("F"), {"node0": "x is not on it"}) == [
        "node0: pull the image: x is not on it",
        f"node0, node1: replace lmdeploy-dp: {reason}",
        "node0: correct the list of lmdeploy-proxy: its ranks are started again",
        "lmdeploy is started again; its last start took 60 s.",
    ]


def test_a_start_and_a_removal_are_told_as_such() -> None:
    world = running(DPEP).follow(TP)
    lines = steps.told(world.decide("F"))
    assert lines == [
        "node0, node1: remove lmdeploy-dp: it is not of this plan any more",
        "node0: remove lmdeploy-proxy: it is not of this plan any more",
        "node0, node1: start lmdeploy-ray: lmdeploy-ray on node0, node1 does not exist",
        "node0: start lmdeploy-api: lmdeploy-ray on node0, node1 does not exist",
        "lmdeploy is started again; its last start took 60 s.",
        "Containers that this plan no longer has are removed, and what they serve stops.",
    ]


# What is asked of a host ---------------------------------------------------------------------------------------------


def test_everything_is_asked_of_a_host_at_once() -> None:
    asked = with_patience(questions(DPEP, DPEP.node("node0")), Patience(5.0, 7.0), ask_registry=True)
    mirrored = with_patience(asked, Patience(), ask_registry=True, mirror="m.example.com")["image"]
    assert mirrored["registry_reference"] == "m.example.com/openmmlab/lmdeploy:v0.18.0-cu12.8"
    assert asked == {
        "starts": {"lmdeploy-dp": "/var/lib/lmfleet/lmdeploy/starts/dp.jsonl"},
        "deployment": "lmdeploy",
        "names": ["lmdeploy-proxy", "lmdeploy-dp"],
        "image": {
            "reference": "openmmlab/lmdeploy:v0.18.0-cu12.8",
            "ask_registry": True,
            "state_dir": "/var/lib/lmfleet",
        },
        "host": True,
        "host_peers": ["10.0.0.11"],
        "host_disks": ["/root/.cache/huggingface", "/var/lib/lmfleet"],
        "gpu_users": True,
        "docker_settings": True,
        "files": [PATH],
        "paths": ["/root/.cache/huggingface"],
        "model": {
            "repo": "deepseek-ai/DeepSeek-V3",
            "hf_home": "/root/.cache/huggingface",
            "revision": "main",
            "hub": "/root/.cache/huggingface/hub",
            "mounts": mounts_on(DPEP, "node0"),
            "code": False,
        },
        "tokens": {
            "model": "deepseek-ai/DeepSeek-V3",
            "urls": {"http://10.0.0.10:23333": "lmdeploy-dp", "http://10.0.0.10:23343": "lmdeploy-dp"},
            "timeout_s": 5.0,
            "stall_s": 7.0,
            "public": "http://10.0.0.10:8000",
        },
        "record": "/var/lib/lmfleet/lmdeploy/record.json",
        "lock": "/var/lib/lmfleet/lmdeploy/lock.json",
        "proxy": "http://10.0.0.10:8000",
    }
    assert (record_path(DPEP, DPEP.node("node0")), lock_path(DPEP)) == (asked["record"], asked["lock"])


def test_only_the_proxy_s_host_is_asked_for_its_list_and_only_the_head_for_the_lock() -> None:
    asked = questions(DPEP, DPEP.node("node1"))
    assert not {"proxy", "lock"} & asked.keys()
    assert "public" not in asked["tokens"]
    assert list(asked["tokens"]["urls"]) == ["http://10.0.0.11:23353", "http://10.0.0.11:23363"]
    assert questions(TP, TP.node("node1"))["tokens"]["urls"] == {}
    mounts = [{"source": "/m", "target": "/m"}]
    local = bound(nodes(plan_model="/m/v3", plan_extra_mounts=mounts))
    asked = questions(local, local.node("node0"))
    seen = mounts_on(local, "node0")
    assert {"source": "/m", "target": "/m"} in seen
    hub = "/root/.cache/huggingface/hub"  # for code of other repositories
    assert asked["model"] == {"path": "/m/v3", "revision": "main", "mounts": seen, "hub": hub, "code": False}


def mounts_on(plan: Plan, node: str) -> list[dict[str, str]]:
    """Where a node's engine has its files, as a list for the look."""
    service = next(each for each in plan.services_on(node) if each.gpus)
    return [{"source": each.source, "target": each.target} for each in service.mounts]


@pytest.mark.parametrize(
    ("environment", "options", "hub"),
    [
        ({}, {}, "/root/.cache/huggingface/hub"),
        ({"HF_HOME": "/root/.cache/huggingface/team"}, {}, "/root/.cache/huggingface/team/hub"),
        ({"XDG_CACHE_HOME": "/models"}, {}, "/models/huggingface/hub"),
        ({"HF_HUB_CACHE": "/models/cache"}, {}, "/models/cache"),
        ({"HUGGINGFACE_HUB_CACHE": "/models/cache", "HF_HOME": "/models/x"}, {}, "/models/cache"),
        ({}, {"download_dir": "/models/cache"}, "/models/cache"),
    ],
)
def test_the_model_is_looked_for_where_the_engine_does(
    environment: dict[str, str], options: dict[str, str], hub: str
) -> None:
    mounts = [{"source": "/data", "target": "/models"}]
    plan = plan_of(nodes(plan_environment=environment, plan_api_server_options=options, plan_extra_mounts=mounts))
    assert questions(plan, plan.node("node1"))["model"]["hub"] == hub


@pytest.mark.parametrize(
    ("image", "options", "runs"),
    [
        ("cu12.8", {}, False),
        ("cu12.8", {"trust_remote_code": True}, True),
        ("openmmlab/lmdeploy:v0.10.1-cu12", {}, True),
        ("openmmlab/lmdeploy:v0.13.0-cu12", {}, False),
        ("registry.example/mine:1", {}, False),
    ],
)
def test_the_model_s_own_code_is_asked_for_where_the_engine_runs_it(
    image: str, options: dict[str, Any], runs: bool
) -> None:
    plan = plan_of(nodes(plan_image=image, plan_api_server_options=options))
    assert questions(plan, plan.node("node0"))["model"]["code"] is runs


@every_plan
def test_observe_takes_every_question(plan: Plan) -> None:
    for node in plan.nodes:
        asked = questions(plan, node)
        assert asked.keys() <= SPEC.keys()
        for key, value in asked.items():
            spec: Any = SPEC[key]
            assert spec["type"] != "dict" or "options" not in spec or value.keys() <= spec["options"].keys()


# What Docker is told -------------------------------------------------------------------------------------------------


@every_plan
def test_a_container_that_was_started_is_seen_as_it_was_asked_for(plan: Plan) -> None:
    """What docker_arguments asks for, what Docker would say of it, and what M(observe) makes of that, is ``Service.asked``."""
    for each in plan.services:
        arguments = docker_arguments(plan.name, each, "F")
        seen = {**asked_of(inspected(arguments)), "image": arguments["image"]}
        assert {**seen, "mounts": sorted(seen["mounts"])} == each.asked


@every_plan
def test_a_container_has_its_labels_and_no_argument_that_is_empty(plan: Plan) -> None:
    for each in plan.services:
        arguments = docker_arguments(plan.name, each, "F")
        wanted = {"deployment": plan.name, "service": each.service, "identity": each.identity, "formation": "F"}
        wanted |= {"engine": each.engine} if each.engine else {}
        assert arguments["labels"] == {f"lmfleet.lmdeploy.{key}": value for key, value in wanted.items()}
        assert (arguments["name"], arguments["state"]) == (each.name, "started")
        assert all(arguments[key] for key in ("pid_mode", "capabilities", "device_requests") if key in arguments)


def test_rdma_without_privilege_is_by_single_rights() -> None:
    plan = PLANS["rdma"]
    arguments = docker_arguments(plan.name, service(plan, "ray"), "F")
    assert (arguments["privileged"], arguments["capabilities"], arguments["ulimits"], arguments["devices"]) == (
        False,
        ["IPC_LOCK"],
        ["memlock:-1:-1"],
        ["/dev/infiniband:/dev/infiniband"],
    )
    assert "capabilities" not in docker_arguments(TP.name, service(TP, "ray"), "F")
    assert "capabilities" not in docker_arguments(DPEP.name, service(DPEP, "proxy"), "F")


def test_files_that_containers_need_are_brought_once() -> None:
    found = files_of(DPEP.services_on("node0"), {PATH: "secret"})
    assert found["files"] == {f"/var/lib/lmfleet/lmdeploy/programs/{path}": text for path, text in programs().items()}
    assert found["secrets"] == {PATH: "secret"}
    assert found["directories"] == [path for each in DPEP.services_on("node0") for path in each.directories]
    assert files_of(TP.services_on("node1"), {})["files"] == {}  # Ray alone
    found = files_of(TP.services_on("node0"), {})
    assert len(found["directories"]) == len(set(found["directories"]))
    assert "/var/lib/lmfleet/lmdeploy/ray" in found["directories"]
    assert files_of([], {}) == {"directories": [], "files": {}, "secrets": {}}


# The record ----------------------------------------------------------------------------------------------------------


def test_a_record_has_the_plan_and_the_host_s_part_in_its_engine() -> None:
    world = running(REPLICAS)
    record = world.answers["node2"]["record"]
    assert json.loads(json.dumps(record)) == record
    assert (record["format"], record["identity"]) == (1, REPLICAS.identity)
    assert record["listens"] == {service.name: service.listens for service in REPLICAS.services_on("node2")}
    assert "plan" not in record, "the plan is kept by the head alone"
    kept = world.answers["node0"]["record"]
    assert (Plan.from_json(kept["plan"]), kept["previous"]) == (REPLICAS, None)
    assert record["engines"] == {
        "lmdeploy-right": {
            "formation": FIRST,
            "began": "2026-11-24T22:25:00Z",
            "seconds": 60.0,
            "started": {name: world.hosts["node2"].containers[name].began for name in ("lmdeploy-ray", "lmdeploy-api")},
            "secrets": {PATH: steps.mark_of(TOKEN)},
            "warmed": True,
        }
    }


def again(world: World, host: str, each: Round, **tokens: Any) -> dict[str, Any]:
    started = {each.name: each.began for each in world.hosts[host].containers.values()}
    return new_record(world.plan, host, world.hosts[host], each, started, tokens, "2026-11-25T00:00:00Z", 7.04)


def test_a_round_without_a_host_s_engine_leaves_its_part_as_it_was() -> None:
    world = running(REPLICAS)
    before = world.answers["node0"]["record"]
    assert again(world, "node0", Round(["lmdeploy-right"], ["lmdeploy-right"], [])) == before


def test_a_warm_up_or_a_wait_alone_keeps_when_the_engine_began() -> None:
    world = running(TP)
    member = again(world, "node0", Round([], ["lmdeploy"], []))["engines"]["lmdeploy"]
    assert member == world.answers["node0"]["record"]["engines"]["lmdeploy"]
    waited = again(world, "node0", Round(["lmdeploy"], ["lmdeploy"], []))["engines"]["lmdeploy"]
    assert (waited["began"], waited["seconds"], waited["formation"]) == (member["began"], member["seconds"], FIRST)


def test_the_plan_before_is_kept_until_there_is_another() -> None:
    world = running(TP)
    same = again(world, "node0", Round([], [], []))
    assert same["previous"] is None
    after = world.follow(bound(nodes(plan_api_server_options={"max_batch_size": 7})))
    changed = again(after, "node0", Round([], [], []))
    assert Plan.from_json(changed["previous"]) == TP
    after.answers["node0"]["record"] = changed
    assert Plan.from_json(again(after, "node0", Round([], [], []))["previous"]) == TP


def test_the_mark_of_a_token_that_was_brought_is_recorded() -> None:
    world = running(TP)
    need = {"lmdeploy": {"from": "given", "content": GIVEN, "hosts": ["node0"], "mark": steps.mark_of(GIVEN)}}
    each = Round(["lmdeploy"], ["lmdeploy"], [])
    assert again(world, "node0", each, **need)["engines"]["lmdeploy"]["secrets"] == {PATH: steps.mark_of(GIVEN)}
    assert again(world, "node1", each, **need)["engines"]["lmdeploy"]["secrets"] == {PATH: steps.mark_of(TOKEN)}


@pytest.mark.parametrize("record", [None, {}, {"error": "broken"}, {"format": 99, "engines": {"lmdeploy": {"x": 1}}}])
def test_what_is_no_record_of_this_format_is_none(record: Any) -> None:
    host = Host("node0", {"record": record})
    assert host.record == {}
    assert host.member("lmdeploy") is None
    assert IMAGE not in host.record
