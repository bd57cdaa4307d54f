# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a contract: there and back, what is refused, what its identities change with, and what it may be read for."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.rdma import hcas
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.containers import docker_arguments
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning import supervision, types
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import (
    PLAN_FORMAT,
    Mount,
    Plan,
    PlanFormatError,
    Secret,
    Service,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.host_trees import hca
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import Variables, nodes, plan_of, service
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import OTHER_IMAGE, bound

REPLICAS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
SHAPES: dict[str, Callable[[], Plan]] = {
    "tp": lambda: plan_of(nodes()),
    "bound": lambda: bound(nodes(plan_proxy=True, plan_extra_mounts=[{"source": "/a", "target": "/b"}])),
    "dpep": lambda: bound(nodes(plan_topology="dpep")),
    "native": lambda: plan_of(nodes(plan_topology="dpep", plan_launcher="native")),
    "replicas": lambda: bound(nodes(4, plan_replicas=["left", "right"]), groups=REPLICAS),
    "gateway": lambda: bound(
        nodes(
            plan_gateway=True, plan_gateway_keys={"chat": "c" * 32}, plan_gateway_key_limits={"chat": {"concurrent": 2}}
        )
    ),
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


# There and back ------------------------------------------------------------------------------------------------------


@every_shape
def test_a_plan_comes_back_as_it_was(shape: str) -> None:
    plan = SHAPES[shape]()
    data = json.loads(json.dumps(plan.to_json()))
    assert Plan.from_json(data) == plan
    assert Plan.from_json(data).to_json() == data
    assert Plan.from_json(data).identity == plan.identity == data["identity"]


def entry(data: dict[str, Any], place: str) -> Any:
    found: Any = data
    for part in place.split("."):
        found = found[int(part)] if part.isdigit() else found[part]
    return found


PLACES = {  # where a mapping of each type is in a plan's JSON -> how an error names it
    "engines.0": "engines[0]",
    "engines.0.image": "engines[0].image",
    "nodes.1": "nodes[1]",
    "ports": "ports",
    "services.2": "services[2]",
    "services.2.mounts.0": "services[2].mounts[0]",
    "services.2.secrets.0": "services[2].secrets[0]",
    "endpoints.0": "endpoints[0]",
    "proxy": "proxy",
}


def refused(data: Any) -> str:
    with pytest.raises(PlanFormatError) as raised:
        Plan.from_json(data)
    return str(raised.value)


@pytest.mark.parametrize("given", [PLAN_FORMAT - 2, PLAN_FORMAT + 1, None, str(PLAN_FORMAT)])
def test_another_format_is_refused(given: Any) -> None:
    data = SHAPES["bound"]().to_json()
    assert refused({**data, "format": given}) == f"a plan of format {given!r}, and this collection reads {PLAN_FORMAT}"
    without: list[Any] = [{}, [], None, "plan"]
    for nothing in without:
        assert "a plan of format None" in refused(nothing)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "gateway"])
def test_a_plan_that_was_recorded_before_there_were_gateways_comes_back(shape: str) -> None:
    """Containers that it made are as planned, so nothing that serves is started again; and roll-back has it."""
    plan = SHAPES[shape]()
    data = json.loads(json.dumps(plan.to_json()))
    before = {key: value for key, value in data.items() if key != "gateway"}
    before["format"] = 5
    before["ports"] = {key: port for key, port in data["ports"].items() if not key.startswith("gateway")}
    before["services"] = [{key: value for key, value in each.items() if key != "user"} for each in data["services"]]
    assert Plan.from_json(before) == plan
    assert Plan.from_json(before).identity == data["identity"]


@pytest.mark.parametrize(("place", "named"), PLACES.items())
def test_a_key_too_many_or_missing_is_refused_with_its_place(place: str, named: str) -> None:
    data = SHAPES["bound"]().to_json()
    more = copy.deepcopy(data)
    entry(more, place)["colour"] = "red"
    assert refused(more) == f"no plan of format {PLAN_FORMAT}: {named}: colour is not known"
    for key in entry(data, place):
        less = copy.deepcopy(data)
        del entry(less, place)[key]
        if key == "identity":  # for its readers; computed, so never read back
            assert Plan.from_json(less) == Plan.from_json(data)
        else:
            assert refused(less) == f"no plan of format {PLAN_FORMAT}: {named}: {key} is missing"


def test_a_key_of_the_plan_itself_is_refused_too() -> None:
    data = SHAPES["bound"]().to_json()
    assert refused({**data, "colour": 1}).endswith("Plan: colour is not known")
    for key in data.keys() - types.DERIVED - {"format"}:
        less = {name: value for name, value in data.items() if name != key}
        assert f"{key} is missing" in refused(less)


@pytest.mark.parametrize(
    ("place", "key", "value", "named"),
    [
        ("services.2", "command", "lmdeploy", "services[2].command is no list"),
        ("services.2", "command", [1], "services[2].command[0] is 1, not of type str"),
        ("services.2", "environment", {"A": 1}, "services[2].environment.A is 1, not of type str"),
        ("services.2", "environment", [], "services[2].environment is no mapping"),
        ("services.2", "privileged", 1, "services[2].privileged is 1, not of type bool"),
        ("services.2", "listens", [True], "services[2].listens[0] is True, not of type int"),
        ("services.2", "mounts", ["/a:/b"], "services[2].mounts[0] is no mapping"),
        ("nodes.1", "rank", "1", "nodes[1].rank is '1', not of type int"),
        ("nodes.1", "interface", 7, "nodes[1].interface is 7, not of type str"),
        ("ports", "api", 23333.0, "ports.api is 23333.0, not of type int"),
        ("engines.0", "image", None, "engines[0].image is no mapping"),
        ("proxy", "ranks", None, "proxy.ranks is no list"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(place: str, key: str, value: Any, named: str) -> None:
    data = SHAPES["bound"]().to_json()
    entry(data, place)[key] = value
    assert refused(data) == f"no plan of format {PLAN_FORMAT}: {named}"


@pytest.mark.parametrize("services", [None, 7, ["api"], {"a": 1}, [None]])
def test_services_that_are_no_list_of_mappings_are_refused(services: Any) -> None:
    assert refused({**SHAPES["bound"]().to_json(), "services": services}).startswith("no plan of format")


# What readers may rely on --------------------------------------------------------------------------------------------

KEYS = {
    "DeepEP": "tokens_per_rank buffer_bytes environment",
    "Endpoint": "rank engine node url gpus container",
    "Engine": "name topology launcher head nodes gpus tp dp ep image arguments deepep",
    "Image": "reference id release moving",
    "Mount": "source target read_only",
    "Node": "name engine rank address gpus interface hf_home state_dir rdma",
    "Plan": "format bound name model served_model_name model_revision head engines nodes ports services endpoints proxy "
    "gateway url "
    "ray_token_auth unverified warnings gpus identity",
    "Ports": "api proxy gateway gateway_metrics torch dp_master ray ray_node_manager ray_object_manager ray_runtime_env_agent "
    "ray_metrics ray_dashboard ray_dashboard_agent ray_dashboard_agent_grpc ray_worker_first ray_worker_last",
    "Proxy": "node url ranks",
    "Rdma": "devices left_out gid_index environment nearest",
    "Secret": "name source target",
    "Earlier": "command mounts restart_policy",
    "Service": "service node name engine image command environment mounts restart_policy pid_mode privileged gpus listens "
    "secrets directories derived starts earlier user identity",
    "Gateway": "node url tls limit limits by_beginning connections queue queue_s silence_s body_mb endpoint_requests",
    "KeyLimit": "requests_per_minute concurrent",
}


def test_the_keys_of_a_plan_are_those_of_its_format(tmp_path: Path) -> None:
    """Where this fails, a reader of the JSON would notice: raise PLAN_FORMAT, and write the keys of the new format down."""
    assert PLAN_FORMAT == 6
    data = SHAPES["bound"]().to_json()
    places = {"Plan": data, **{place: entry(data, place) for place in PLACES}}
    names = ["Plan", "Engine", "Image", "Node", "Ports", "Service", "Mount", "Secret", "Endpoint", "Proxy"]
    found = {name: " ".join(keys) for name, keys in zip(names, places.values())}
    hca(tmp_path, "mlx5_0", "0000:18:00.0", [])
    with_card = plan_of(nodes(), Observations(hcas={"node0": hcas(tmp_path)}))
    found["Rdma"] = " ".join(with_card.to_json()["nodes"][0]["rdma"])
    found["DeepEP"] = " ".join(SHAPES["dpep"]().to_json()["engines"][0]["deepep"])
    found["Earlier"] = " ".join(next(each["earlier"] for each in data["services"] if each["earlier"]))
    gateway = SHAPES["gateway"]().to_json()["gateway"]
    found["Gateway"], found["KeyLimit"] = " ".join(gateway), " ".join(gateway["limits"]["chat"])
    assert found == KEYS
    declared = {
        name
        for name, each in vars(types).items()
        if dataclasses.is_dataclass(each) and each.__module__ == types.__name__
    }
    assert declared == KEYS.keys()


# Identity ------------------------------------------------------------------------------------------------------------


def identities(plan: Plan) -> list[str]:
    return [each.identity for each in plan.services]


@every_shape
def test_a_field_more_changes_no_identity(shape: str) -> None:
    plan = SHAPES[shape]()
    newer = dataclasses.make_dataclass("Service", [("colour", str, "red")], bases=(Service,), frozen=True)
    for each in plan.services:
        fields = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
        assert newer(**fields).identity == each.identity
    with_fields = dataclasses.make_dataclass("Mount", [("propagation", str, "private")], bases=(Mount,), frozen=True)
    for each in plan.services:
        mounts = [with_fields(mount.source, mount.target, mount.read_only) for mount in each.mounts]
        assert dataclasses.replace(each, mounts=mounts).identity == each.identity


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_names_and_the_order_of_hosts_change_no_identity(topology: str) -> None:
    variables = nodes(4, plan_topology=topology, plan_tp=16 if topology == "tp" else 1)
    plan = bound(variables)
    order = ["node0", "node2", "node3", "node1"]
    assert identities(bound({name: variables[name] for name in order})) == identities(plan)
    renamed: Variables = {f"gpu-{9 - n}.example": values for n, values in enumerate(variables.values())}
    assert identities(bound(renamed)) == identities(plan)
    assert bound(renamed).identity != plan.identity  # but the plan's, which says where things run


def test_nodes_after_the_head_are_ordered_by_their_address_as_a_number() -> None:
    variables = nodes(3, plan_tp=16)
    variables["node1"]["plan_cluster_address"] = "10.0.0.100"
    variables["node2"]["plan_cluster_address"] = "10.0.0.20"
    plan = plan_of(variables)
    assert [node.name for node in plan.nodes] == ["node0", "node2", "node1"]
    assert plan_of({name: variables[name] for name in ("node0", "node2", "node1")}) == plan


def test_another_engine_s_nodes_change_no_identity() -> None:
    groups = {**REPLICAS, "third": ["node4"]}
    two = bound(nodes(4, plan_replicas=["left", "right"]), groups=groups)
    three = bound(nodes(5, plan_replicas=["left", "right", "third"]), groups=groups)
    assert identities(three)[: len(two.services)] == identities(two)


def test_only_what_a_container_talks_to_is_reached_without_a_web_proxy() -> None:
    plan = SHAPES["replicas"]()
    for node, own in (("node0", "10.0.0.10,10.0.0.11"), ("node2", "10.0.0.10,10.0.0.12,10.0.0.13")):
        environment = service(plan, "ray", node).environment
        assert environment["NO_PROXY"] == environment["no_proxy"] == f"localhost,127.0.0.1,{own}"
    variables = nodes(2, first="10.0.0.99")  # as numbers: 10.0.0.99 before 10.0.0.100
    assert service(plan_of(variables), "api").environment["NO_PROXY"] == "localhost,127.0.0.1,10.0.0.99,10.0.0.100"
    assert service(plan, "proxy").environment == {"NO_PROXY": "*", "no_proxy": "*"}


def test_the_bytes_of_the_programs_change_no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SHAPES["dpep"]()
    monkeypatch.setattr(supervision, "COLLECTION", tmp_path)  # where there is not even one
    assert SHAPES["dpep"]() == plan


@pytest.mark.parametrize(
    "other",
    [
        {"listens": [1]},
        {"directories": ["/x"]},
        {"node": "x"},
        {"engine": "x"},
        {"service": "x"},
        {"name": "x"},
        {"pid_mode": ""},
    ],
)
def test_what_docker_is_not_asked_for_changes_no_identity(other: dict[str, Any]) -> None:
    each = dataclasses.replace(service(SHAPES["tp"](), "api"), pid_mode=None)
    assert dataclasses.replace(each, **other).identity == each.identity


def test_the_order_of_mounts_and_of_variables_changes_no_identity() -> None:
    each = service(SHAPES["tp"](), "api")
    turned = dataclasses.replace(
        each, mounts=each.mounts[::-1], environment=dict(reversed(list(each.environment.items())))
    )
    assert turned.identity == each.identity


ASKED: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]] = {
    "image": ({"image": OTHER_IMAGE}, lambda made: made["image"]),
    "command": ({"command": ["sleep"]}, lambda made: made["command"]),
    "environment": ({"environment": {"A": "1"}}, lambda made: made["env"]),
    "mounts": ({"mounts": [Mount("/a", "/b", read_only=True)]}, lambda made: made["mounts"]),
    "pid_mode": ({"pid_mode": None}, lambda made: made.get("pid_mode")),
    "privileged": ({"privileged": False}, lambda made: made["privileged"]),
    "restart_policy": ({"restart_policy": "always"}, lambda made: made["restart_policy"]),
    "gpus": ({"gpus": False}, lambda made: made.get("device_requests")),
    "rdma": ({"privileged": False}, lambda made: made.get("capabilities")),
}


@pytest.mark.parametrize("key", ASKED)
def test_everything_that_docker_is_asked_for_changes_the_identity_and_reaches_docker(key: str) -> None:
    change, made = ASKED[key]
    before = service(SHAPES["tp"](), "api")
    after = dataclasses.replace(before, **change)
    assert before.asked[key] != after.asked[key]
    assert before.identity != after.identity
    assert made(docker_arguments("x", before, "F")) != made(docker_arguments("x", after, "F"))


def test_what_every_container_has_alike_is_in_the_identity_too(monkeypatch: pytest.MonkeyPatch) -> None:
    each = service(SHAPES["tp"](), "api")
    assert each.asked.keys() == ASKED.keys() | {"network_mode", "ipc_mode"}
    asked, identity = each.asked, each.identity
    for key in ("network_mode", "ipc_mode"):
        assert asked[key] == docker_arguments("x", each, "F")[key] == "host"
        monkeypatch.setattr(Service, "asked", {**asked, key: "private"})
        assert each.identity != identity
        monkeypatch.undo()


def test_a_secret_is_a_mount_that_is_read_only() -> None:
    each = service(SHAPES["tp"](), "api")
    more = dataclasses.replace(each, secrets=[*each.secrets, Secret("key", "/k", "/run/k")])
    assert ["/k", "/run/k", True] in more.asked["mounts"]
    assert more.identity != each.identity
