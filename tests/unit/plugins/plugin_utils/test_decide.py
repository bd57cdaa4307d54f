# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided: each row of decide.py's table, of docs/changes.md, and of the cases that went wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import before_up
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import (
    Decision,
    Step,
    decide,
    differences,
    left_listed,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import DEPLOYMENT, FORMATION
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning import supervision
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import Variables, nodes, service
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import (
    FIRST,
    IMAGE,
    KEYS,
    OTHER_IMAGE,
    TOKEN,
    World,
    bound,
    former,
    running,
)

GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"], "third": ["node4"]}
RAY, API, DP, PROXY, GATEWAY = (f"lmdeploy-{kind}" for kind in ("ray", "api", "dp", "proxy", "gateway"))
LEFT, RIGHT = "lmdeploy-left", "lmdeploy-right"
OLD_FORMATION = "20261101T000000-aaaa"


def tp(**more: Any) -> Plan:
    return bound(nodes(**more))


def dpep(**more: Any) -> Plan:
    return bound(nodes(plan_topology="dpep", plan_gpus=2, **more))


def replicas(count: int = 4, **more: Any) -> Plan:
    names = [name for name, members in GROUPS.items() if members[-1] <= f"node{count - 1}"]
    return bound(nodes(count, plan_replicas=names, **more), groups=GROUPS)


SHAPES: dict[str, Callable[..., Plan]] = {
    "tp": tp,
    "tp-proxy": lambda **more: tp(plan_proxy=True, **more),
    "dpep": dpep,
    "replicas": replicas,
    "gateway": lambda **more: replicas(plan_gateway=True, plan_gateway_keys=KEYS, **more),
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


def done(decision: Decision) -> list[tuple[str, str, str]]:
    return [(step.host, step.act, step.name) for step in decision.steps]


def why(decision: Decision) -> set[str]:
    return {step.reason for step in decision.steps if step.act in ("remove", "start")}


def of_rounds(decision: Decision) -> list[tuple[list[str], list[str]]]:
    """Of each round, what is waited for and what is warmed up."""
    return [(each.engines, each.warm) for each in decision.rounds]


def settled(world: World) -> None:
    """Nothing is to be done any more."""
    decision = world.decide("again")
    assert decision.faults == []
    assert decision.rounds == []


def replaced(*containers: tuple[str, str]) -> set[tuple[str, str, str]]:
    return {(host, act, name) for host, name in containers for act in ("remove", "start")}


# The table -----------------------------------------------------------------------------------------------------------


@every_shape
@pytest.mark.parametrize("state", ["alive", "busy"])
def test_what_runs_as_planned_and_has_tokens_is_left_alone(shape: str, state: str) -> None:
    world = running(SHAPES[shape]())
    world.states(state)
    decision = world.decide()
    assert (decision.rounds, decision.faults, decision.notes) == ([], [], [])
    assert set(decision.states) == {each.url for each in world.plan.endpoints}
    assert {each.state for each in decision.states.values()} == {state}


@every_shape
def test_on_bare_hosts_all_is_started_in_one_round_and_then_nothing_more(shape: str) -> None:
    world = World(SHAPES[shape]())
    decision = world.decide("F1")
    engines = [engine.name for engine in world.plan.engines]
    assert of_rounds(decision) == [(engines, engines)]
    started = [(step.host, step.name) for step in decision.steps if step.act == "start"]
    assert started == [(each.node, each.name) for each in world.plan.services]
    assert not [step for step in decision.steps if step.act == "remove"]
    assert {step.formation for step in decision.steps if step.act == "start" and step.engine} == {"F1"}
    world.carry_out(decision)
    settled(world)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda world, name: world.remove("node1", name), "{} on node1 does not exist"),
        (lambda world, name: world.stop("node1", name, 137), "{} on node1 has ended with exit code 137"),
        (
            lambda world, name: world.relabel("node1", name, "lmfleet.lmdeploy.identity", "0" * 12),
            "{} on node1 is to change: it was made by an earlier version of this collection",
        ),
    ],
)
@pytest.mark.parametrize(("shape", "name"), [("tp", RAY), ("dpep", DP)])
@pytest.mark.parametrize("state", ["alive", "unreachable"])
def test_a_lost_container_of_ray_or_of_ranks_forms_the_engine_anew(
    shape: str, name: str, state: str, damage: Callable[[World, str], None], reason: str
) -> None:
    world = running(SHAPES[shape]())
    world.states(state)
    damage(world, name)
    decision = world.decide("F1")
    assert why(decision) == {reason.format(name)}
    engine = [each for each in world.plan.services if each.engine]
    removed = {(s.node, s.name) for s in engine if s.name in world.answers[s.node]["containers"]}
    assert {(step.host, step.name) for step in decision.steps if step.act == "remove"} == removed
    assert [(step.host, step.name) for step in decision.steps if step.act == "start"] == [
        (s.node, s.name) for s in engine
    ]
    assert {step.formation for step in decision.steps if step.act == "start"} == {"F1"}
    assert of_rounds(decision) == [(["lmdeploy"], ["lmdeploy"])]
    world.carry_out(decision)
    settled(world)


def test_the_engine_ends_before_the_ray_that_it_runs_on() -> None:
    world = running(tp())
    world.stop("node1", RAY)
    order = [(step.host, step.name) for step in world.decide().steps if step.act == "remove"]
    assert order == [("node0", API), ("node1", RAY), ("node0", RAY)]


@pytest.mark.parametrize(("shape", "name"), [("tp", RAY), ("dpep", DP)])
@pytest.mark.parametrize("state", ["loading", "unreachable", "unknown", "dead"])
def test_a_container_that_was_started_again_forms_anew_an_engine_without_tokens(
    shape: str, name: str, state: str
) -> None:
    """An engine that starts again by itself is waited for: below."""
    world = running({"tp": tp, "dpep": dpep}[shape](plan_restarts=0))
    world.restart("node1", name)
    world.states(state)
    decision = world.decide()
    since = world.entry("node1", name)["started_at"][:19]
    assert all(
        f"{name} on node1 was started again at {since} UTC, and the engine that was formed with it has lost it"
        in reason
        for reason in why(decision)
    )
    assert len({(host, name) for host, __, name in done(decision) if name != PROXY}) == len(
        [each for each in world.plan.services if each.engine]
    )
    world.carry_out(decision)
    settled(world)


@pytest.mark.parametrize(("shape", "name"), [("tp", RAY), ("dpep", DP)])
@pytest.mark.parametrize("state", ["alive", "busy"])
def test_while_tokens_flow_a_restart_has_lost_nothing(shape: str, name: str, state: str) -> None:
    world = running(SHAPES[shape]())
    world.restart("node1", name)
    world.states(state)
    assert world.decide().steps == []


@pytest.mark.parametrize(("shape", "name"), [("tp", RAY), ("dpep", DP)])
def test_containers_of_two_formations_are_no_engine_unless_it_gives_tokens(shape: str, name: str) -> None:
    world = running(SHAPES[shape]())
    world.relabel("node1", name, FORMATION, OLD_FORMATION)
    assert world.decide().steps == []
    world.states("loading")
    decision = world.decide()
    [reason] = why(decision)
    assert (
        reason
        == f"its containers are of different formations (node0 {FIRST}, node1 {OLD_FORMATION}), as after an interrupted run"
    )
    world.carry_out(decision)
    settled(world)


@every_shape
@pytest.mark.parametrize("state", ["alive", "loading"])
def test_another_secret_forms_the_engine_anew(shape: str, state: str) -> None:
    world = running(SHAPES[shape]())
    world.states(state)
    decision = world.decide(given="x" * 32)
    path = "/var/lib/lmfleet/lmdeploy/secrets/ray_token"
    assert decision.steps
    assert all(f"was started before {path} changed" in reason for reason in why(decision))
    world.carry_out(decision)
    assert {answer["files"][path] for answer in world.answers.values()} == {steps.mark_of("x" * 32)}
    assert world.decide(given="x" * 32).rounds == []
    settled(world)


@every_shape
def test_a_host_that_lost_its_file_gets_the_same_secret_which_changes_nothing(shape: str) -> None:
    world = running(SHAPES[shape]())
    world.secret("node1", None)
    assert world.decide().rounds == []
    world.secret("node1", "another, which nobody has started anything with")
    assert world.decide().rounds == []


def test_a_dead_rank_forms_all_ranks_anew() -> None:
    world = running(dpep())
    url = world.plan.endpoints[3].url
    world.state(url, "dead", "engine error: HTTP 503")
    decision = world.decide()
    assert why(decision) == {f"{url} is dead though its container runs: engine error: HTTP 503"}
    assert {(h, a, n) for h, a, n in done(decision) if n == DP} == replaced(("node0", DP), ("node1", DP))
    assert ("node0", "list", PROXY) in done(decision)
    assert ("node0", "start", PROXY) not in done(decision)
    world.carry_out(decision)
    settled(world)


@pytest.mark.parametrize(
    ("damage", "reason", "acts"),
    [
        (lambda world: world.remove("node0", API), "it does not exist", ["start"]),
        (lambda world: world.stop("node0", API), "it has ended with exit code 1", ["remove", "start"]),
        (
            lambda world: world.relabel("node0", API, "lmfleet.lmdeploy.identity", "0" * 12),
            "it is to change: it was made by an earlier version of this collection",
            ["remove", "start"],
        ),
        (
            lambda world: world.states("dead"),
            "http://10.0.0.10:23333 is dead though its container runs: it is dead",
            ["remove", "start"],
        ),
    ],
)
def test_the_api_server_alone_is_started_over_ray_that_stays(
    damage: Callable[[World], None], reason: str, acts: list[str]
) -> None:
    world = running(tp())
    damage(world)
    decision = world.decide("F1")
    assert done(decision) == [("node0", act, API) for act in acts]
    assert why(decision) == {reason}
    assert decision.steps[-1].formation == FIRST, "it joins the formation of Ray"
    assert of_rounds(decision) == [(["lmdeploy"], ["lmdeploy"])]
    world.carry_out(decision)
    assert world.entry("node0", API)["labels"][FORMATION] == FIRST
    settled(world)


@pytest.mark.parametrize("state", ["loading", "unreachable", "unknown"])
@every_shape
def test_what_loads_or_says_nothing_yet_is_waited_for(shape: str, state: str) -> None:
    world = running(SHAPES[shape]())
    world.state(world.plan.endpoints[0].url, state)
    decision = world.decide()
    engine = world.plan.endpoints[0].engine
    assert decision.steps == []
    assert of_rounds(decision) == [([engine], [engine])]
    assert steps.told(decision)[0] == f"{engine}: wait, because it does not serve yet"
    world.carry_out(decision)
    settled(world)


@every_shape
@pytest.mark.parametrize(
    "forget",
    [
        lambda answer, engine: answer.update(record=None),
        lambda answer, engine: answer["record"]["engines"][engine].update(warmed=False),
    ],
)
def test_what_was_never_warmed_up_is_warmed_up(shape: str, forget: Callable[[dict[str, Any], str], None]) -> None:
    world = running(SHAPES[shape]())
    engine = world.plan.engines[-1]
    for name in engine.nodes:
        forget(world.answers[name], engine.name)
    decision = world.decide()
    assert of_rounds(decision) == [([], [engine.name])]
    assert decision.steps == []
    assert steps.told(decision) == [f"{engine.name}: warm up, because nobody has since it was started"]
    world.carry_out(decision)
    settled(world)


def test_an_api_server_that_was_started_again_is_warmed_up() -> None:
    world = running(tp())
    world.restart("node0", API)
    world.states("alive")
    assert of_rounds(world.decide()) == [([], ["lmdeploy"])]


# What changes what (docs/changes.md) ------------------------------------------------------------------------------------------


def changed(before: Plan, after: Plan) -> tuple[World, Decision]:
    world = running(before).follow(after)
    decision = world.decide("F1")
    assert decision.faults == []
    return world, decision


@every_shape
def test_nothing_changes_nothing(shape: str) -> None:
    __, decision = changed(SHAPES[shape](), SHAPES[shape]())
    assert decision.rounds == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"plan_api_server_options": {"max_batch_size": 64}}, "command with --max-batch-size 64"),
        ({"plan_ports": {"api": 23400}}, "command --server-port 23333 -> --server-port 23400"),
        ({"plan_served_model_name": "v3"}, "command --model-name deepseek-ai/DeepSeek-V3 -> --model-name v3"),
    ],
)
def test_an_option_of_the_api_server_replaces_it_alone_in_tp(more: dict[str, Any], words: str) -> None:
    world, decision = changed(tp(), tp(**more))
    assert done(decision) == [("node0", "remove", API), ("node0", "start", API)]
    assert why(decision) == {f"it is to change: {words}"}
    assert decision.notes == [
        "lmdeploy serves now, and answers nothing while it is started again; its last start took 60 s."
    ]
    world.carry_out(decision)
    settled(world)


def test_an_option_of_the_api_server_starts_all_ranks_anew() -> None:
    world, decision = changed(dpep(), dpep(plan_api_server_options={"max_prefill_token_num": 64}))
    assert {(h, a, n) for h, a, n in done(decision) if n != PROXY} == replaced(("node0", DP), ("node1", DP))
    [reason] = why(decision)
    assert (
        reason
        == f"{DP} on node0, node1 is to change: command --max-prefill-token-num 1000 -> --max-prefill-token-num 64"
    )
    world.carry_out(decision)
    settled(world)


@pytest.mark.parametrize("shape", ["tp-proxy", "dpep", "replicas"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"plan_proxy_options": {"log_level": "INFO"}}, "command with --log-level INFO"),
        (
            {"plan_routing_strategy": "random"},
            "command --routing-strategy min_expected_latency -> --routing-strategy random",
        ),
    ],
)
def test_an_option_of_the_proxy_replaces_it_and_the_ranks_are_listed_again(
    shape: str, more: dict[str, Any], words: str
) -> None:
    world, decision = changed(SHAPES[shape](), SHAPES[shape](**more))
    assert done(decision) == [("node0", act, PROXY) for act in ("remove", "start", "list")]
    assert why(decision) == {f"it is to change: {words}"}
    assert of_rounds(decision) == [([], [])]
    world.carry_out(decision)
    assert list(world.answers["node0"]["proxy"]["nodes"]) == [each.url for each in world.plan.endpoints]
    settled(world)


@every_shape
@pytest.mark.parametrize(
    ("before", "more", "words"),
    [
        ({}, {"plan_environment": {"NCCL_DEBUG": "INFO"}}, "environment with NCCL_DEBUG=INFO"),
        (
            {"plan_environment": {"NCCL_DEBUG": "INFO"}},
            {"plan_environment": {"NCCL_DEBUG": "WARN"}},
            "environment NCCL_DEBUG=INFO -> NCCL_DEBUG=WARN",
        ),
        ({}, {"plan_extra_mounts": [{"source": "/data", "target": "/data"}]}, "mounts with /data:/data"),
        ({}, {"plan_interface": "bond0"}, "GLOO_SOCKET_IFNAME=eth0 -> GLOO_SOCKET_IFNAME=bond0"),
        ({}, {"plan_privileged": False}, "privileged True -> False"),
        ({}, {"first": "10.1.0.10"}, "10.1.0.10"),
    ],
)
def test_a_mount_a_variable_or_an_address_replaces_all_containers_of_engines(
    shape: str, before: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    world, decision = changed(SHAPES[shape](**before), SHAPES[shape](**more))
    engines = [(each.node, each.name) for each in world.plan.services if each.engine]
    assert {each for each in done(decision) if each[2] not in (PROXY, GATEWAY)} == replaced(*engines)
    assert all(words in reason for reason in why(decision)), why(decision)
    world.carry_out(decision)
    assert [each.url for each in world.plan.endpoints if world.plan.proxy] == (
        list(world.answers["node0"]["proxy"]["nodes"]) if world.plan.proxy else []
    )
    settled(world)


@every_shape
def test_another_image_replaces_all_containers(shape: str) -> None:
    world = running(SHAPES[shape]())
    plan = reimaged(SHAPES[shape]())
    for answer in world.answers.values():
        answer["image"]["id"] = OTHER_IMAGE
    world = world.follow(plan)
    decision = world.decide()
    assert {each for each in done(decision) if each[1] != "list"} == replaced(
        *((each.node, each.name) for each in plan.services if each.service != "gateway")
    )
    assert all(f"image {IMAGE[7:19]} -> {OTHER_IMAGE[7:19]}" in reason for reason in why(decision))
    world.carry_out(decision)
    settled(world)


def reimaged(plan: Plan) -> Plan:
    """The same plan over another image."""
    data = plan.to_json()
    for each in data["services"]:
        if each["service"] != "gateway":  # which has an image of its own
            each["image"] = OTHER_IMAGE
    for each in data["engines"]:
        each["image"]["id"] = OTHER_IMAGE
    return Plan.from_json(data)


def test_a_proxy_that_was_restarted_gets_its_list_back_and_nothing_else_happens() -> None:
    world = running(dpep())
    world.restart("node0", PROXY)
    decision = world.decide()
    urls = [each.url for each in world.plan.endpoints]
    assert [(step.act, step.reason) for step in decision.steps] == [
        ("list", f"it does not list {', '.join(urls)}, which serves")
    ]
    world.carry_out(decision)
    settled(world)


def test_a_proxy_that_lists_what_is_not_of_the_plan_is_put_right() -> None:
    world = running(replicas())
    world.register("http://10.0.0.99:23333")
    decision = world.decide()
    assert [(step.act, step.reason) for step in decision.steps] == [
        ("list", "it lists what is not of the plan: http://10.0.0.99:23333")
    ]
    assert steps.told(decision) == [f"node0: correct the list of {PROXY}: {decision.steps[0].reason}"]
    world.carry_out(decision)
    settled(world)


def test_a_rank_that_serves_nothing_yet_need_not_be_listed() -> None:
    world = running(replicas())
    url = world.plan.endpoints[1].url
    del world.answers["node0"]["proxy"]["nodes"][url]
    world.state(url, "loading")
    assert world.decide().steps == []


@pytest.mark.parametrize(
    ("damage", "reason", "acts"),
    [
        (lambda world: world.remove("node0", PROXY), "it does not exist", ["start"]),
        (lambda world: world.stop("node0", PROXY, 2), "it has ended with exit code 2", ["remove", "start"]),
    ],
)
def test_a_proxy_that_is_gone_is_started_and_told_its_ranks(
    damage: Callable[[World], None], reason: str, acts: list[str]
) -> None:
    world = running(dpep())
    damage(world)
    decision = world.decide()
    assert done(decision) == [("node0", act, PROXY) for act in (*acts, "list")]
    assert why(decision) == {reason}
    world.carry_out(decision)
    settled(world)


def test_an_engine_whose_turn_is_to_come_stays_listed_at_the_url_where_it_serves() -> None:
    world, decision = changed(replicas(), replicas(plan_ports={"api": 24000}))
    old = [url.replace("24000", "23333") for url in world.plan.proxy.ranks] if world.plan.proxy else []
    turns = [each.engines for each in decision.rounds if each.engines]
    assert all(len(turn) == 1 for turn in turns), "all at once would be an outage"
    listed = [*old, "http://10.99.0.1:23333"]
    left = [
        left_listed(world.plan, decision, n, {url: [world.plan.served_model_name] for url in listed})
        for n in range(len(decision.rounds))
    ]
    assert [len(each) for each in left] == [
        sum(len(each.engines) for each in decision.rounds[n + 1 :]) for n in range(len(decision.rounds))
    ]
    assert left[0] == old
    assert len(old) == 2


def test_a_proxy_that_cannot_be_read_yet_is_waited_for_and_told_its_ranks_and_not_replaced() -> None:
    world = running(dpep())
    world.answers["node0"]["proxy"] = {"error": "Connection refused"}
    decision = world.decide()
    assert [(step.act, step.reason) for step in decision.steps] == [
        ("list", "its list cannot be read yet (Connection refused)")
    ]


# Cases that went wrong -----------------------------------------------------------------------------------------------


@every_shape
def test_51_a_digest_that_one_host_has_and_another_has_not_changes_nothing(shape: str) -> None:
    world = running(SHAPES[shape]())
    world.answers["node0"]["image"]["digests"] = ["openmmlab/lmdeploy@sha256:" + "c" * 64]
    assert world.decide().rounds == []


@every_shape
def test_52_a_host_without_the_image_is_a_fault_and_nothing_is_taken_down(shape: str) -> None:
    world = running(SHAPES[shape]())
    world.stop("node1", world.plan.services_on("node1")[0].name)
    world.no_image("node1")
    decision = world.decide()
    assert decision.rounds == []
    assert decision.faults
    for fault in decision.faults:
        assert fault.startswith("node1: ")
        assert (
            f"the image {IMAGE} was not seen there: nothing was taken down. Run again, which brings the image" in fault
        )
    assert world.decide(image_brought=True).steps, "in check mode, what is to be pulled is as good as there"


@every_shape
def test_52_an_image_that_is_missing_is_no_matter_where_nothing_has_to_be_started(shape: str) -> None:
    world = running(SHAPES[shape]())
    world.no_image("node1")
    decision = world.decide()
    assert (decision.rounds, decision.faults) == ([], [])


@pytest.mark.parametrize(
    ("damage", "words", "todo"),
    [
        (lambda world: world.no_model("node1"), "the whole model", "playbooks/model.yml"),
        (
            lambda world: world.answers["node1"].update(docker={"error": "x"}),
            "a Docker engine that answers",
            "docker info",
        ),
        (
            lambda world: world.answers["node1"].update(unreachable="timed out"),
            "a Docker engine",
            "journalctl -u docker",
        ),
    ],
)
def test_whatever_a_start_lacks_is_a_fault_with_what_to_do(
    damage: Callable[[World], None], words: str, todo: str
) -> None:
    world = running(tp())
    world.stop("node0", RAY)
    damage(world)
    decision = world.decide()
    assert decision.rounds == []
    assert [
        fault
        for fault in decision.faults
        if fault.startswith("node1: lmdeploy-ray has to be started") and words in fault and todo in fault
    ]


def test_a_start_that_lacks_the_secret_is_a_fault_unless_it_is_brought() -> None:
    world = running(tp())
    world.stop("node0", RAY)
    world.secret("node1", None)
    path = steps.token_path(world.plan, "node1")
    assert path
    refused = decide(world.plan, world.hosts, "F1")
    assert refused.rounds == []
    assert f"the file {path} was not seen there: nothing was taken down. Run again, which brings" in refused.faults[0]
    world.carry_out(world.decide())
    settled(world)


def renamed(variables: Variables, names: dict[str, str]) -> Variables:
    return {names.get(name, name): values for name, values in variables.items()}


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_53_renaming_a_host_changes_no_container(topology: str) -> None:
    variables = nodes(4, plan_topology=topology, plan_gpus=2)
    world = running(bound(variables))
    after = bound(renamed(variables, {"node1": "gpu-b"}))
    moved = World(after)
    moved.answers = {"gpu-b" if name == "node1" else name: answer for name, answer in world.answers.items()}
    assert moved.decide().rounds == []


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_53_swapping_two_workers_in_the_inventory_changes_nothing(topology: str) -> None:
    variables = nodes(4, plan_topology=topology, plan_gpus=2)
    order = ["node0", "node3", "node1", "node2"]
    before, after = bound(variables), bound({name: variables[name] for name in order})
    assert before == after
    __, decision = changed(before, after)
    assert decision.rounds == []


def test_53_a_replica_more_or_less_leaves_the_others_alone() -> None:
    two, three = replicas(4), replicas(5)
    world, decision = changed(two, three)
    assert {(step.host, step.act, step.name) for step in decision.steps} == {
        *(("node4", "start", name) for name in (RAY, API)),
        ("node0", "list", PROXY),
    }
    assert of_rounds(decision) == [(["lmdeploy-third"], ["lmdeploy-third"])]
    world.carry_out(decision)
    settled(world)
    fewer = world.follow(two)
    decision = fewer.decide()
    assert [(step.host, step.act, step.reason) for step in decision.steps] == [
        ("node0", "list", "it lists what is not of the plan: http://10.0.0.14:23333")
    ]
    fewer.carry_out(decision)
    settled(fewer)


THREE = ("b10", "b2", "a1")  # as they sort, and as nobody would number them


def of_groups(names: Variables, *replicas: str, **more: Any) -> Plan:
    """One engine on each host of that name; its group is called as the host is, with g before it."""
    hosts = {name: {**each, "plan_replicas": [f"g{one}" for one in replicas], **more} for name, each in names.items()}
    return bound(
        {name: each for name, each in hosts.items() if name in replicas}, groups={f"g{one}": [one] for one in replicas}
    )


@pytest.mark.parametrize("new", THREE)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_scale_a_replica_more_or_less_changes_it_and_the_list_alone(new: str, place: int) -> None:
    """Whatever its name, its address and its place among the groups, as long as the head stays."""
    addresses = {name: f"10.0.0.{number}" for name, number in zip(THREE, (20, 9, 100))}
    names: Variables = {name: {"plan_cluster_address": addresses[name]} for name in sorted(THREE)}
    old = [name for name in THREE if name != new]
    every = [*old[:place], new, *old[place:]]
    two, three = (of_groups(names, *found, plan_head=old[0]) for found in (old, every))
    assert two.head == three.head == old[0]
    world, decision = changed(two, three)
    assert {(step.host, step.act, step.name) for step in decision.steps} == {
        *((new, "start", name) for name in (RAY, API)),
        (old[0], "list", PROXY),
    }
    assert [each.drain for each in decision.rounds] == [[]]
    world.carry_out(decision)
    settled(world)
    fewer = world.follow(two)
    [step] = fewer.decide().steps
    assert (step.act, step.reason) == ("list", f"it lists what is not of the plan: http://{addresses[new]}:23333")
    fewer.carry_out(fewer.decide())
    settled(fewer)


def test_scale_a_new_host_that_becomes_the_head_moves_the_proxy_and_it_is_said_how_not_to() -> None:
    names = {name: {"plan_cluster_address": f"10.0.0.{n}"} for n, name in enumerate(("a", "b", "c"), 10)}
    __, decision = changed(of_groups(names, "b", "c"), of_groups(names, "a", "b", "c"))
    assert decision.notes[-1] == (
        "The proxy moves from b to a, which is the head now, and for that lmdeploy-gb, lmdeploy-gc are started again. "
        "With plan_head: b it stays where it is."
    )
    world, decision = changed(of_groups(names, "b", "c"), of_groups(names, "a", "b", "c", plan_head="b"))
    assert {step.host for step in decision.steps if step.act != "list"} == {"a"}
    world.carry_out(decision)
    settled(world)


def test_what_only_may_serve_is_replaced_before_what_gives_tokens() -> None:
    """As after an upgrade that failed at the second engine: that one is to serve again before the first is taken down."""
    world = running(replicas()).follow(replicas(plan_api_server_options={"max_batch_size": 64}))
    world.states("loading", RIGHT)
    assert [each.engines for each in world.decide().rounds] == [[RIGHT], [LEFT]]


def test_53_a_comment_in_the_rank_program_changes_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dpep()
    for path, text in supervision.programs().items():
        place = tmp_path / "x" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("\n", "\r\n") + "# a comment\r\n", encoding="utf-8")
    monkeypatch.setattr(supervision, "COLLECTION", tmp_path / "x")
    __, decision = changed(before, dpep())
    assert decision.rounds == []


PROMPT = "INFO: prompt='why is my address already in use? address already in use'"
UP = "INFO:     Application startup complete."


@pytest.mark.parametrize("state", ["busy", "unknown", "unreachable"])
def test_54_a_prompt_is_no_word_about_the_start(state: str) -> None:
    for shape, prefix in ((tp(), ""), (dpep(), "[rank 0] ")):
        world = running(shape)
        log = [f"{prefix}{line}" for line in ("loading", UP, PROMPT)]
        world.state(world.plan.endpoints[0].url, state, lines=before_up(log))
        assert world.decide().steps == []


def test_54_the_same_words_before_it_is_up_are_the_start_s_own() -> None:
    failed = (
        "ERROR:    [Errno 98] error while attempting to bind on address ('10.0.0.10', 23333): address already in use"
    )
    world = running(tp())
    world.state(world.plan.endpoints[0].url, "unreachable", lines=before_up(["loading", PROMPT, UP]))
    assert world.decide().steps == [], "what informs tells of others"
    world.state(world.plan.endpoints[0].url, "unreachable", lines=before_up(["loading", PROMPT, failed, UP]))
    [reason] = why(world.decide())
    assert reason.startswith("http://10.0.0.10:23333 is dead though its container runs: its log says ")
    assert "address already in use" in reason


def test_56_one_busy_engine_does_not_keep_another_from_its_warm_up() -> None:
    world = running(replicas())
    world.states("busy", LEFT)
    world.states("dead", RIGHT)
    decision = world.decide()
    assert of_rounds(decision) == [([RIGHT], [RIGHT])]
    world.carry_out(decision)
    world.states("busy", LEFT)
    settled(world)


def test_a_busy_engine_is_not_warmed_up() -> None:
    world = running(replicas())
    for answer in world.answers.values():
        answer["record"] = None
    world.states("busy", LEFT)
    assert of_rounds(world.decide()) == [([], [RIGHT])]


@pytest.mark.parametrize("shape", ["tp", "dpep"])
def test_61_a_start_that_was_slow_is_waited_for_and_not_begun_again(shape: str) -> None:
    world = running(SHAPES[shape]())
    world.stop("node1", RAY if shape == "tp" else DP)
    first = world.decide("F1")
    world.carry_out_but_the_wait(first)
    for __ in range(3):
        again = world.decide("F2")
        assert again.steps == [], "what loads is not started again, however often one looks"
        assert of_rounds(again) == [(["lmdeploy"], ["lmdeploy"])]
    world.carry_out(again)
    settled(world)
    member = world.hosts["node0"].member("lmdeploy")
    assert member is not None
    assert member.formation == "F1"


@pytest.mark.parametrize("shape", ["tp", "dpep"])
def test_61_another_secret_is_brought_once_though_the_wait_was_too_short(shape: str) -> None:
    world = running(SHAPES[shape]())
    world.carry_out_but_the_wait(world.decide("F1", given="x" * 32))
    assert world.decide("F2", given="x" * 32).steps == []
    world.states("alive")
    world.register(*(each.url for each in world.plan.endpoints))
    assert world.decide("F2", given="x" * 32).steps == [], "it serves, and was not yet recorded"


@every_shape
def test_62_an_unchanged_deploy_asks_for_nothing_but_the_look(shape: str) -> None:
    world = running(SHAPES[shape]())
    decision = world.decide()
    assert [steps.round_of(world.plan, each) for each in decision.rounds] == []
    assert steps.told(decision) == []


@every_shape
def test_63_a_warm_up_that_was_interrupted_is_all_that_is_left_to_do(shape: str) -> None:
    world = World(SHAPES[shape]())
    world.carry_out_but_the_record(world.decide("F1"))
    engines = [engine.name for engine in world.plan.engines]
    decision = world.decide("F2")
    assert decision.steps == []
    assert of_rounds(decision) == [([], engines)]
    world.carry_out(decision)
    settled(world)


# The gateway ---------------------------------------------------------------------------------------------------------


def door(**more: Any) -> Plan:
    return replicas(plan_gateway=True, plan_gateway_keys=KEYS, **more)


def test_a_gateway_is_added_and_taken_away_without_an_engine_in_it() -> None:
    world = running(replicas())
    world = world.follow(door())
    decision = world.decide()
    # The proxy listens for the cluster alone from now on.
    assert set(done(decision)) == {*replaced(("node0", PROXY)), ("node0", "start", GATEWAY), ("node0", "list", PROXY)}
    assert [step.reason for step in decision.steps if step.name == GATEWAY] == ["it does not exist"]
    world.carry_out(decision)
    settled(world)
    away = world.follow(replicas()).decide()
    assert [step for step in away.steps if step.name == GATEWAY] == [
        Step("node0", "remove", GATEWAY, "leftover", None, "it is not of this plan any more")
    ]
    assert not [step for step in away.steps if step.engine]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda world: world.remove("node0", GATEWAY), "it does not exist"),
        (lambda world: world.stop("node0", GATEWAY, 137), "it has ended with exit code 137"),
    ],
)
def test_a_gateway_that_is_gone_is_started_alone(damage: Callable[[World], None], reason: str) -> None:
    world = running(door())
    damage(world)
    decision = world.decide()
    assert {each[2] for each in done(decision)} == {GATEWAY}
    assert why(decision) == {reason}
    world.carry_out(decision)
    settled(world)


def test_another_image_of_the_gateway_replaces_it_alone_and_says_so() -> None:
    world = running(door()).follow(door(plan_gateway_image="haproxy:3.0"))
    decision = world.decide()
    assert done(decision) == [("node0", "remove", GATEWAY), ("node0", "start", GATEWAY)]
    assert why(decision) == {"it is to change: the image is another one"}


def test_the_gateway_is_not_taken_down_where_its_new_image_is_missing() -> None:
    world = running(door()).follow(door(plan_gateway_image="haproxy:3.0"))
    world.answers["node0"]["image_ids"] = {"haproxy:3.0": False}
    assert steps.gateway_pull(world.plan, world.hosts) == {"node0": "haproxy:3.0"}
    decision = world.decide()
    assert decision.rounds == []
    (fault,) = decision.faults
    assert "the image haproxy:3.0 was not seen there: nothing was taken down" in fault


@pytest.mark.parametrize(
    "more",
    [
        {"plan_gateway_limits": {"concurrent": 3}},
        {"plan_gateway_key_limits": {"chat": {"requests_per_minute": 3}}},
        {"plan_gateway_options": {"queue": 3}},
    ],
)
def test_what_the_gateway_reads_is_changed_without_a_restart(more: dict[str, Any]) -> None:
    world = running(door()).follow(door(**more))
    decision = world.decide()
    assert done(decision) == [("node0", "reload", GATEWAY)]
    why_told = "its keys, limits, endpoints, options or certificate differ from what it has read"
    assert steps.told(decision) == [f"node0: reload, without a restart, {GATEWAY}: {why_told}"]
    world.carry_out(decision)
    settled(world)


def test_keys_are_revoked_without_a_restart() -> None:
    world = running(door())
    assert world.door
    world.door = dataclasses.replace(world.door, keys={"chat": "n" * 40})
    decision = world.decide()
    assert done(decision) == [("node0", "reload", GATEWAY)]
    assert set(world._of_gateway) == {"/var/lib/lmfleet/lmdeploy/gateway/files/keys.map"}
    world.carry_out(decision)
    settled(world)


def test_of_a_plan_that_is_brought_back_keys_and_certificate_stay() -> None:
    world = running(door())
    world.door = None
    settled(world)


def test_a_certificate_is_made_once_and_a_given_one_takes_its_place() -> None:
    world = running(door())
    settled(world)  # not made again
    assert world.door
    world.door = dataclasses.replace(world.door, certificate="given")
    assert done(world.decide()) == [("node0", "reload", GATEWAY)]
    assert world._of_gateway == {"/var/lib/lmfleet/lmdeploy/gateway/files/certificate.pem": "given"}


def test_a_gateway_that_does_not_say_what_it_has_read_reads_again() -> None:
    world = running(door())
    world.answers["node0"]["gateway"] = {"error": "[Errno 2] No such file or directory"}
    assert [(step.act, step.reason) for step in world.decide().steps] == [
        ("reload", "it does not say what it has read ([Errno 2] No such file or directory)")
    ]


def test_what_an_interrupted_run_has_put_aside_gets_requests_again_once_it_serves() -> None:
    world = running(door())
    world.answers["node0"]["gateway"]["servers"]["rank1"]["aside"] = True
    url = world.plan.endpoints[1].url
    decision = world.decide()
    assert [(step.act, step.reason) for step in decision.steps] == [
        ("open", f"it sends nothing to {url}, which serves")
    ]
    world.carry_out(decision)
    settled(world)
    world.answers["node0"]["gateway"]["servers"]["rank1"]["aside"] = True
    world.state(url, "loading")
    assert "open" not in {step.act for step in world.decide().steps}


def test_a_replica_more_is_told_to_the_gateway_and_changes_no_other_engine() -> None:
    world = running(door()).follow(replicas(5, plan_gateway=True, plan_gateway_keys=KEYS))
    decision = world.decide()
    assert {step.engine for step in decision.steps if step.engine} == {"lmdeploy-third"}
    assert ("node0", "reload", GATEWAY) in done(decision)
    assert ("node0", "start", GATEWAY) not in done(decision)
    world.carry_out(decision)
    settled(world)


# Adoption, leftovers, others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "gateway"])  # which that version had not
def test_containers_of_the_former_version_are_taken_over(shape: str) -> None:
    world = former(running(SHAPES[shape]()))
    decision = world.decide()
    assert decision.steps == []
    engines = [engine.name for engine in world.plan.engines]
    assert of_rounds(decision) == [([], engines)]  # nobody knows whether it was warmed up
    world.carry_out(decision)
    settled(world)


def before_the_interface_was_named_whole(world: World) -> World:
    """As the version before made them: NCCL's interface as the beginning of a name, nothing for DeepEP."""
    for answer in world.answers.values():
        for found in answer["containers"].values():
            environment = found["asked"]["environment"]
            for name in [name for name in environment if name.startswith(("NVSHMEM_", "DEEPEP_"))]:
                del environment[name]
            if "NCCL_SOCKET_IFNAME" in environment:
                environment["NCCL_SOCKET_IFNAME"] = environment["NCCL_SOCKET_IFNAME"].lstrip("=")
                found["labels"]["lmfleet.lmdeploy.identity"] = "0123456789ab"
    return world


@every_shape
def test_what_a_newer_version_sets_by_itself_stops_nothing_that_serves(shape: str) -> None:
    world = before_the_interface_was_named_whole(running(SHAPES[shape]()))
    decision = world.decide()
    assert decision.rounds == []
    assert all("at its next start" in note and "NCCL_SOCKET_IFNAME==eth0" in note for note in decision.notes)
    assert len(decision.notes) == len(world.plan.engines)
    world.stop("node0", RAY if shape != "dpep" else DP)
    world.carry_out(world.decide())
    settled(world)
    assert world.decide().notes == [] or shape in ("replicas", "gateway")


def test_what_the_user_sets_of_the_same_is_a_change() -> None:
    world = before_the_interface_was_named_whole(running(tp()))
    decision = world.follow(tp(plan_environment={"NVSHMEM_QP_DEPTH": "4096"})).decide()
    assert any("with NVSHMEM_QP_DEPTH=4096" in reason for reason in why(decision))
    world = before_the_interface_was_named_whole(running(tp()))
    decision = world.follow(tp(plan_interface="eth7")).decide()
    assert any("NCCL_SOCKET_IFNAME" in reason for reason in why(decision))


@pytest.mark.parametrize(("shape", "name"), [("tp", RAY), ("dpep", DP)])
def test_one_taken_over_that_is_started_again_is_seen_to_be(shape: str, name: str) -> None:
    world = former(running(SHAPES[shape]()))
    world.carry_out(world.decide())
    world.restart("node1", name)
    world.states("loading")
    assert all("was started again at" in reason for reason in why(world.decide()))


def test_an_api_server_over_a_ray_of_the_former_version_stays_seen_to_be_whole() -> None:
    world = former(running(tp(plan_restarts=0)))
    world.carry_out(world.decide())
    world.stop("node0", API)
    decision = world.decide("F1")
    assert done(decision) == [("node0", "remove", API), ("node0", "start", API)]
    world.carry_out(decision)
    settled(world)
    world.restart("node1", RAY)
    world.states("loading")
    assert "was started again at" in next(iter(why(world.decide())))


def test_what_differs_in_more_than_that_is_not_taken_over() -> None:
    world = former(running(tp()))
    world.entry("node0", API)["asked"]["command"].append("--max-batch-size=1")
    decision = world.decide()
    assert done(decision) == [("node0", "remove", API), ("node0", "start", API)]


@pytest.mark.parametrize(("before", "after"), [(tp, dpep), (dpep, tp)])
def test_leftovers_of_another_topology_go_first(before: Callable[..., Plan], after: Callable[..., Plan]) -> None:
    old = before()
    world, decision = changed(old, after())
    planned = {(each.node, each.name) for each in world.plan.services}
    left = [(each.node, each.name) for each in old.services if (each.node, each.name) not in planned]
    [first] = decision.rounds
    assert {(step.host, step.name) for step in first.steps[: len(left)]} == set(left)
    for step in first.steps[: len(left)]:
        assert (step.act, step.service, step.reason) == ("remove", "leftover", "it is not of this plan any more")
    world.carry_out(decision)
    settled(world)


def test_another_deployment_s_containers_are_never_touched() -> None:
    world = running(tp())
    world.stranger("node0", "other-api", **{DEPLOYMENT.replace(".", "_"): "other"})
    world.stranger("node1", "postgres")
    world.stop("node1", RAY)
    assert {name for __, __, name in done(world.decide())} == {RAY, API}


def test_a_host_that_is_not_of_the_plan_is_never_touched() -> None:
    world = running(replicas(5)).follow(replicas(4))
    gone = running(replicas(5)).answers["node4"]
    world.answers["node4"] = gone
    assert not [step for step in world.decide().steps if step.host == "node4"]


def test_engines_that_serve_are_replaced_one_after_another_and_those_that_do_not_first() -> None:
    world = running(replicas(5)).follow(replicas(5, plan_api_server_options={"max_batch_size": 64}))
    world.states("dead", RIGHT)
    decision = world.decide()
    assert [each.engines for each in decision.rounds] == [[RIGHT], [LEFT], ["lmdeploy-third"]]
    rest = "and answers nothing while it is started again; its last start took 60 s, and the other engines serve meanwhile."
    assert decision.notes == [
        f"{LEFT} serves now, {rest}",
        f"{RIGHT} is started again; its last start took 60 s.",
        f"lmdeploy-third serves now, {rest}",
    ]
    assert "round 1 of 3:" in steps.told(decision)
    for each in decision.rounds:
        assert [step.name for step in each.steps if step.act == "list"] == [PROXY]
    world.carry_out(decision)
    settled(world)


def test_engines_that_serve_at_the_url_that_they_are_to_leave_are_replaced_one_after_another() -> None:
    world = running(replicas()).follow(replicas(plan_ports={"api": 23400}))
    decision = world.decide()
    assert [each.engines for each in decision.rounds if each.engines] == [[LEFT], [RIGHT]]
    world.carry_out(decision)
    settled(world)


@pytest.mark.parametrize("state", ["alive", "busy"])
def test_an_engine_that_becomes_two_is_gone_with_its_first_container_so_both_start_at_once(state: str) -> None:
    world = running(bound(nodes(4, plan_gpus=4)))
    world.states(state)
    decision = world.follow(replicas(plan_gpus=4)).decide()
    assert of_rounds(decision) == [([LEFT, RIGHT], [LEFT, RIGHT])]
    assert not any("serve meanwhile" in note for note in decision.notes)


def test_a_rank_is_not_dead_of_what_another_one_s_log_says() -> None:
    world = running(dpep())
    lines = ["[rank 0] loading", "[rank 1] ERROR: address already in use"]
    for each in world.plan.endpoints[:2]:
        world.state(each.url, "unreachable", lines=lines)
    [reason] = why(world.decide())
    assert reason.count("is dead though its container runs") == 1
    assert reason.startswith(world.plan.endpoints[1].url)


def test_a_start_that_was_lost_is_made_again() -> None:
    world = World(tp())
    world.carry_out_but_the_wait(world.decide("F1"))
    world.stop("node0", API, 1)
    decision = world.decide("F2")
    assert done(decision) == [("node0", "remove", API), ("node0", "start", API)]
    assert why(decision) == {"it has ended with exit code 1"}
    assert decision.steps[-1].formation == "F1"
    world.carry_out(decision)
    settled(world)


def test_differences_are_told_without_the_secrets_that_a_container_was_made_with() -> None:
    """What is refused today was not refused by every version, and a diff goes to terminals and logs."""
    new = {"command": ["serve", "--tp", "2"], "environment": {"NCCL_DEBUG": "INFO"}}
    old = {
        "command": ["serve", "--api-keys", "planted-key", "--tp", "2"],
        "environment": {"HF_TOKEN": "planted-token", "NCCL_DEBUG": "WARN"},
    }
    told = " ".join(differences(old, new))
    assert "planted" not in told
    assert "HF_TOKEN=***" in told
    assert "NCCL_DEBUG=WARN" in told


def test_differences_are_told_in_words() -> None:
    asked = service(tp(), "api").asked
    assert differences(asked, asked) == ["it was made by an earlier version of this collection"]
    assert differences(asked, {**asked, "pid_mode": ""}) == ["pid mode host -> "]
    assert differences(asked, {**asked, "command": asked["command"][:-2]}) == [
        f"command without {' '.join(asked['command'][-2:])}"
    ]
    assert differences({**asked, "mounts": asked["mounts"][1:]}, asked) == [
        f"mounts with {asked['mounts'][0][0]}:{asked['mounts'][0][1]}"
    ]
    assert differences({**asked, "mounts": asked["mounts"][::-1]}, {**asked, "gpus": False}) == ["gpus True -> False"]


# Any plan, any damage ------------------------------------------------------------------------------------------------

STATES = ["alive", "busy", "loading", "dead", "unreachable", "unknown"]
PLANS = [
    tp(),
    bound(nodes(1)),
    bound(nodes(3, plan_tp=16)),
    SHAPES["tp-proxy"](),
    dpep(),
    bound(nodes(4, plan_topology="dpep", plan_gpus=1)),
    replicas(4),
    replicas(5),
]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[World, set[tuple[str, str]], set[str]]:
    """A world after some things have happened to it; its containers that are not as planned, and hosts that lack something."""
    world = running(draw(st.sampled_from(PLANS)))
    wrong: set[tuple[str, str]] = set()
    poor: set[str] = set()
    names = [node.name for node in world.plan.nodes]
    for kind in draw(st.lists(st.sampled_from(["stop", "remove", "restart", "other", "label"]), max_size=4)):
        each = draw(st.sampled_from(world.plan.services))
        where = each.node, each.name
        if where in wrong:
            continue
        if kind == "restart":
            world.restart(*where)
        else:
            wrong.add(where)
            if kind == "other":
                world.relabel(*where, "lmfleet.lmdeploy.identity", "0" * 12)
            elif kind == "label":
                world.relabel(*where, FORMATION, OLD_FORMATION)
                wrong.discard(where)
            else:
                getattr(world, kind)(*where)
    for endpoint in world.plan.endpoints:
        if world.runs(endpoint.node, endpoint.container):
            world.state(endpoint.url, draw(st.sampled_from(STATES)))
    for kind in draw(
        st.lists(st.sampled_from(["image", "model", "secret", "record", "stranger", "leftover", "list"]), max_size=3)
    ):
        node = draw(st.sampled_from(names))
        if kind == "image":
            world.no_image(node)
            poor.add(node)
        elif kind == "model":
            world.no_model(node)
            poor.add(node)
        elif kind == "secret":
            world.secret(node, None if draw(st.booleans()) or node != world.plan.engine_on(node).head else TOKEN)
        elif kind == "record":
            world.answers[node]["record"] = None
        elif kind == "stranger":
            world.stranger(node, "somebody-s", **draw(st.sampled_from([{}, {DEPLOYMENT.replace(".", "_"): "other"}])))
        elif kind == "leftover":
            world.stranger(node, "lmdeploy-old", **{DEPLOYMENT.replace(".", "_"): "lmdeploy"})
        elif world.plan.proxy and world.runs(world.plan.proxy.node, PROXY):
            world.register("http://10.0.0.99:23333")
    return world, wrong, poor


@given(damaged())
@settings(max_examples=300, derandomize=True)
def test_what_runs_as_planned_and_serves_never_gets_a_step(case: tuple[World, set[tuple[str, str]], set[str]]) -> None:
    world, wrong, __ = case
    decision = world.decide()
    changed_tokens = {name for name, need in world._tokens.items() if need["from"] == "new"}
    for engine in world.plan.engines:
        whole = not any((s.node, s.name) in wrong for s in world.plan.services_of(engine.name))
        serves = all(decision.states[e.url].state in ("alive", "busy") for e in world.plan.endpoints_of(engine.name))
        if whole and serves and engine.name not in changed_tokens:
            assert not [step for step in decision.steps if step.engine == engine.name]
            assert not [each for each in decision.rounds if engine.name in each.engines]


@given(damaged())
@settings(max_examples=300, derandomize=True)
def test_nothing_is_removed_unless_what_takes_its_place_can_start(
    case: tuple[World, set[tuple[str, str]], set[str]],
) -> None:
    world, __, poor = case
    decision = world.decide()
    engines = {step.host for step in decision.steps if step.act == "start"}
    assert not engines & poor
    assert not (decision.faults and decision.rounds)
    if decision.faults:
        assert poor
        assert any(fault.startswith(f"{node}: ") for node in poor for fault in decision.faults)


@given(damaged())
@settings(max_examples=300, derandomize=True)
def test_only_what_is_labelled_with_the_deployment_s_name_is_touched(
    case: tuple[World, set[tuple[str, str]], set[str]],
) -> None:
    world = case[0]
    names = {node.name for node in world.plan.nodes}
    world.answers["elsewhere"] = running(tp()).answers["node0"]
    for step in world.decide().steps:
        assert step.host in names
        if step.act == "remove":
            assert world.entry(step.host, step.name)["labels"][DEPLOYMENT] == "lmdeploy"
        else:
            assert step.name in {each.name for each in world.plan.services_on(step.host)}


@given(damaged())
@settings(max_examples=400, derandomize=True)
def test_once_it_is_carried_out_there_is_nothing_more_to_do(
    case: tuple[World, set[tuple[str, str]], set[str]],
) -> None:
    world = case[0]
    decision = world.decide("F1")
    if decision.faults:
        return
    world.carry_out(decision)
    again = world.decide("F2")
    assert again.steps == []
    assert [each for each in again.rounds if each.engines] == []
    # A busy engine is warmed up when it is not busy any more.
    assert again.rounds == []


@given(damaged())
@settings(max_examples=300, derandomize=True)
def test_engines_that_serve_are_never_replaced_together(
    case: tuple[World, set[tuple[str, str]], set[str]],
) -> None:
    world = case[0]
    decision = world.decide()
    for each in decision.rounds:
        touched = {step.engine for step in each.steps if step.act == "remove" and step.service != "leftover"} - {None}
        serving = {
            name
            for name in touched
            if all(decision.states[e.url].state in ("alive", "busy") for e in world.plan.endpoints_of(str(name)))
        }
        assert len(serving) < 2
        assert not serving or touched == serving


# Engines that start again by themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [tp, dpep])
def test_an_engine_that_serves_unsupervised_is_left_alone_and_told_of(shape: Any) -> None:
    __, decision = changed(shape(plan_restarts=0), shape())
    assert decision.rounds == []
    assert decision.notes == ["lmdeploy serves as it is, and starts again by itself only once a deploy has started it."]
    __, decision = changed(shape(), shape())
    assert (decision.rounds, decision.notes) == ([], [])


@pytest.mark.parametrize("shape", [tp, dpep])
def test_no_supervision_any_more_is_a_change_like_another(shape: Any) -> None:
    __, decision = changed(shape(), shape(plan_restarts=0))
    assert all("it is to change" in each or "is to change" in each for each in why(decision) if "ranks" not in each)
    assert decision.rounds


HEALS = [(tp, "node0", API), (dpep, "node1", DP)]


@pytest.mark.parametrize(("shape", "node", "name"), HEALS)
def test_an_engine_that_was_started_again_and_serves_is_warmed_up_and_left_alone(
    shape: Any, node: str, name: str
) -> None:
    world = running(shape())
    world.note(node, name, "end", "rank 3 ended with signal SIGKILL")
    world.note(node, name, "start", "rank 3 ended with signal SIGKILL")
    decision = world.decide()
    assert (decision.steps, of_rounds(decision)) == ([], [([], ["lmdeploy"])])
    world.carry_out(decision)
    settled(world)


@pytest.mark.parametrize(("shape", "node", "name"), HEALS)
@pytest.mark.parametrize("state", ["loading", "unreachable"])
def test_an_engine_that_starts_again_is_waited_for(shape: Any, node: str, name: str, state: str) -> None:
    world = running(shape())
    for each in world.plan.services:
        if each.node == node:
            world.restart(node, each.name)  # a reboot
    world.note(node, name, "start", "the container was started again")
    world.states(state)
    decision = world.decide()
    assert [step for step in decision.steps if step.act != "list"] == []
    assert of_rounds(decision) == [(["lmdeploy"], ["lmdeploy"])]


@pytest.mark.parametrize(("shape", "node", "name"), HEALS)
def test_an_engine_that_gave_up_is_started_by_a_deploy(shape: Any, node: str, name: str) -> None:
    world = running(shape())
    world.note(node, name, "gave up", "3 starts in a row gave no token")
    world.stop(node, name, code=0)
    world.states("unreachable")
    decision = world.decide()
    assert all("gave up: 3 starts in a row gave no token" in each for each in why(decision) if "ranks" not in each)
    started = {(step.host, step.name) for step in decision.steps if step.act == "start"}
    assert started == ({("node0", API)} if name == API else {("node0", DP), ("node1", DP)})
    world.carry_out(decision)
    settled(world)
