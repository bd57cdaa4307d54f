# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what it computes, and that it refuses every faulty inventory with every fault."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.inputs import REVISION
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_shell, as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import PlanError, Ports
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import (
    faults_of,
    nodes,
    plan_of,
    plan_or_faults,
    service,
    typed,
)


def test_two_nodes_of_eight_give_tp16() -> None:
    plan = plan_of(nodes())
    assert (plan.engines[0].tp, plan.gpus, plan.head, plan.url) == (16, 16, "node0", "http://10.0.0.10:23333")
    assert [(s.service, s.node) for s in plan.services] == [("ray", "node0"), ("ray", "node1"), ("api", "node0")]
    command = " ".join(service(plan, "api").command)
    assert " -- lmdeploy serve api_server deepseek-ai/DeepSeek-V3 --backend pytorch --tp 16 " in command
    assert service(plan, "ray").command[:6] == ["ray", "start", "--block", "--head", "--port", "6379"]
    assert "--address 10.0.0.10:6379 --node-ip-address 10.0.0.11" in " ".join(service(plan, "ray", "node1").command)


def test_the_head_can_be_chosen_and_is_rank_zero() -> None:
    plan = plan_of(nodes(3, plan_head="node2", plan_tp=16))
    assert [(n.name, n.rank) for n in plan.nodes] == [("node2", 0), ("node0", 1), ("node1", 2)]
    assert plan.endpoints[0].url == "http://10.0.0.12:23333"
    assert service(plan, "api", "node2").environment["RAY_ADDRESS"] == "10.0.0.12:6379"


def test_cluster_address_and_not_ansible_host_is_what_ray_gets() -> None:
    variables = nodes()
    variables["node0"]["plan_cluster_address"] = "172.16.0.5"
    assert "10.0.0.10" not in json.dumps(plan_of(variables).to_json())


def test_unverified_says_what_is_not_known_yet_and_observations_settle_it() -> None:
    seen = Observations(
        image={"lmdeploy": "0.18.0", "ray_token_auth": False, "api_server_options": []},
        image_id="sha256:" + "a" * 64,
        interfaces={"node0": {"bond0": ["10.0.0.10"]}, "node1": {"eth1": ["10.0.0.11"], "lo": ["127.0.0.1"]}},
        model_config={"num_attention_heads": 128},
    )
    assert len(plan_of(nodes()).unverified) == 5
    plan = plan_of(nodes(), seen)
    assert plan.unverified == []
    assert service(plan, "ray", "node1").environment["NCCL_SOCKET_IFNAME"] == "=eth1"
    assert service(plan, "ray").environment["GLOO_SOCKET_IFNAME"] == "bond0"
    assert service(plan, "api").image == plan.engines[0].image.run == seen.image_id
    assert {each.image for each in plan_of(nodes()).services} == {plan.engines[0].image.reference}
    assert "RAY_AUTH_MODE" not in service(plan, "ray").environment
    assert not service(plan, "ray").secrets


def test_the_environment_of_one_node_stays_on_it_and_wins() -> None:
    variables = nodes()
    variables["node1"]["plan_environment"] = {"NCCL_IB_HCA": "mlx5_0", "NCCL_SOCKET_IFNAME": "ib0", "NCCL_DEBUG": 1}
    plan = plan_of(variables)
    environment = service(plan, "ray", "node1").environment
    assert (environment["NCCL_IB_HCA"], environment["NCCL_SOCKET_IFNAME"], environment["NCCL_DEBUG"]) == (
        "mlx5_0",
        "ib0",
        "1",
    )
    assert "NCCL_IB_HCA" not in service(plan, "ray").environment


def test_options_reach_the_command_in_one_order() -> None:
    def tail(options: dict[str, Any]) -> list[str]:
        return service(plan_of(nodes(plan_api_server_options=options)), "api").command[-5:]

    options = {"max-batch-size": 128, "cache_max_entry_count": 0.7, "enable_prefix_caching": True}
    assert tail(options) == ["--cache-max-entry-count", "0.7", "--enable-prefix-caching", "--max-batch-size", "128"]
    assert tail(dict(reversed(options.items()))) == tail(options)


def test_one_option_changes_the_identity_of_the_api_alone() -> None:
    before, after = plan_of(nodes()), plan_of(nodes(plan_api_server_options={"max_batch_size": 128}))
    changed = {s.name for s, t in zip(before.services, after.services) if s.identity != t.identity}
    assert changed == {"lmdeploy-api"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"plan_gpuz": 8}, ["plan_gpuz", "did you mean plan_gpus?"]),
        ({"plan_gpus": 0}, ["plan_gpus is 0", "node0, node1"]),
        ({"plan_gpus": "many"}, ["plan_gpus", "int"]),
        ({"plan_tp": 32}, ["plan_tp is 32", "16 GPUs", "node0 8, node1 8"]),
        ({"plan_tp": 12}, ["plan_tp is 12", "128 attention heads", "1, 2, 4, 8, 16"]),
        ({"plan_gpus": 6}, ["plan_tp is 12 (the sum of plan_gpus)"]),
        ({"plan_tp": -1}, ["plan_tp is -1"]),
        ({"plan_cluster_address": "10.0.0.1"}, ["node1", "10.0.0.1", "node0 as well"]),
        ({"plan_cluster_address": "gpu-host"}, ["'gpu-host' is not an IP address", "ansible_host"]),
        ({"plan_cluster_address": "127.0.0.1"}, ["cannot be reached"]),
        ({"plan_cluster_address": "fd00::1"}, ["IPv6"]),
        ({"plan_hf_home": "models"}, ["plan_hf_home 'models' is not an absolute path"]),
        ({"plan_state_dir": "state"}, ["plan_state_dir 'state'"]),
        ({"plan_extra_mounts": [{"source": "data", "target": "/data"}]}, ["plan_extra_mounts", "source 'data'"]),
        ({"plan_extra_mounts": [{"source": "/data", "target": "data"}]}, ["plan_extra_mounts", "target 'data'"]),
        ({"plan_extra_mounts": [{"source": "/data"}]}, ["plan_extra_mounts", "target"]),
        ({"plan_ports": {"api": 70000}}, ["plan_ports.api is 70000", "1..65535"]),
        ({"plan_ports": {"api": 0}}, ["plan_ports.api is 0"]),
        ({"plan_ports": {"api": 6379}}, ["plan_ports.ray and plan_ports.api are both 6379"]),
        ({"plan_ports": {"api": 10100}}, ["plan_ports.api (10100)", "10002..10999"]),
        ({"plan_ports": {"ray_worker_first": 20000}}, ["ray_worker_first (20000) is above"]),
        ({"plan_ports": {"apu": 1}}, ["apu"]),
        ({"plan_image": "cu21"}, ["plan_image", "cu21", "cu12"]),
        ({"plan_image": "Registry/X:1 y"}, ["plan_image"]),
        ({"plan_name": "My Model"}, ["plan_name 'My Model'"]),
        ({"plan_head": "node9"}, ["plan_head 'node9'", "node0, node1"]),
        ({"plan_topology": "pp"}, ["plan_topology"]),
        ({"plan_model": "DeepSeek"}, ["plan_model 'DeepSeek'", "owner/name"]),
        ({"plan_model": "/models/v3"}, ["plan_model '/models/v3'", "plan_extra_mounts"]),
        (
            {"plan_model": "/data/ld/v3/", "plan_extra_mounts": [{"source": "/data/ld/", "target": "/models"}]},
            ["plan_model '/data/ld/v3/'", "so set plan_model: /models/v3."],
        ),
        ({"plan_api_server_options": {"cache_max_entry_counts": 1}}, ["did you mean cache-max-entry-count?"]),
        ({"plan_api_server_options": {"tp": 8}}, ["tp is computed by the plan", "plan_tp"]),
        ({"plan_api_server_options": {"max_batch_size": "big"}}, ["max_batch_size", "whole number"]),
        ({"plan_api_server_options": {"api_keys": ["sk-1"]}}, ["api_keys", "command line"]),
        ({"plan_environment": {"HF_TOKEN": "hf_abc"}}, ["HF_TOKEN", "secret", "HF_TOKEN_PATH"]),
        ({"plan_environment": {"A B": 1}}, ["'A B'"]),
    ],
)
def test_each_fault_is_named_with_its_variable(variables: dict[str, Any], words: list[str]) -> None:
    faults = faults_of({name: {**node, **variables} for name, node in nodes().items()})
    assert len(faults) == 1, faults
    for word in words:
        assert word in faults[0]
    assert "hf_abc" not in faults[0]


def test_all_faults_of_all_kinds_come_in_one_message() -> None:
    variables = nodes(plan_gpuz=8, plan_tp=0.5, plan_image="Bad", plan_hf_home="x", plan_ports={"api": 0})
    variables["node1"]["plan_cluster_address"] = "10.0.0.10"
    variables["node1"]["plan_model"] = "deepseek-ai/DeepSeek-R1"
    with pytest.raises(PlanError) as refused:
        plan_of(variables)
    message = str(refused.value)
    assert message.startswith("The plan was refused before any host was touched: 7 faults.")
    for word in ("plan_gpuz", "plan_tp", "plan_image", "plan_hf_home", "plan_ports.api", "10.0.0.10", "plan_model"):
        assert word in message


def test_an_empty_group_is_a_fault() -> None:
    assert "has no hosts" in faults_of({})[0]


def test_deployment_variables_must_agree() -> None:
    variables = nodes()
    variables["node1"]["plan_image"] = "cu12"
    assert "plan_image is 'cu12.8' on node0 and 'cu12' on node1" in faults_of(variables)[0]


def test_what_the_hosts_say_is_refused_where_the_plan_does_not_fit() -> None:
    seen = Observations(
        image={"lmdeploy": "0.9.2", "ray_token_auth": False, "api_server_options": ["--tp"]},
        interfaces={"node0": {"eth0": ["192.0.2.1"]}, "node1": {"eth0": ["10.0.0.11"]}},
        model_config={"num_attention_heads": 20},
    )
    faults = faults_of(nodes(plan_api_server_options={"max_batch_size": 8}), seen)
    assert len(faults) == 3
    assert "no interface of this host has 10.0.0.10 (it has eth0 192.0.2.1)" in faults[0]
    assert "does not know --max-batch-size" in faults[1]
    assert "20 attention heads" in faults[2]


def test_a_moving_tag_and_idle_gpus_are_warned_of() -> None:
    warnings = plan_of(nodes(plan_image="cu12-hopper", plan_tp=8)).warnings
    assert "moving tag" in warnings[0]
    assert "leaves 8 of 16 GPUs idle" in warnings[1]


def test_shell_commands_and_table_show_every_service_and_no_secret() -> None:
    plan = plan_of(nodes())
    shell, table = as_shell(plan), as_table(plan)
    assert shell.count("docker run --detach") == len(plan.services)
    assert "RAY_AUTH_TOKEN=" not in shell
    for each in plan.services:
        assert each.name in table
    assert "--volume /root/.cache/huggingface:/root/.cache/huggingface" in shell


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t#'\"$()\\`;&|"))
lines = texts.filter(lambda text: text.isprintable() and text == text.strip())
words = lines.filter(lambda text: not text.startswith("-"))
# Without what hides a container's own directories, or is one that the plan mounts.
paths = lines.filter(lambda text: ":" not in text and "/" not in text).map(lambda text: f"/of/{text}{len(text)}x")
variables_of_programs = texts.filter(
    lambda text: all(each.isprintable() or each in "\n\t" for each in text) and "$A" not in text
)


@given(
    topology=st.sampled_from(["tp", "dpep"]),
    served=words,
    environment=st.dictionaries(st.sampled_from(["A", "NCCL_DEBUG", "no_proxy"]), variables_of_programs),
    mounts=st.lists(
        st.fixed_dictionaries({"source": paths, "target": paths, "read_only": st.booleans()}),
        max_size=3,
        unique_by=lambda mount: str(mount["target"]),
    ),
    privileged=st.booleans(),
)
def test_the_shell_commands_say_what_the_plan_says(
    topology: str, served: str, environment: dict[str, str], mounts: list[dict[str, Any]], privileged: bool
) -> None:
    plan = plan_of(
        nodes(
            plan_topology=topology,
            plan_served_model_name=served,
            plan_environment=environment,
            plan_extra_mounts=mounts,
            plan_privileged=privileged,
        )
    )
    commands = typed(as_shell(plan), plan)
    assert len(commands) == len(plan.services)
    for planned, (directories, run) in zip(plan.services, commands):
        each = planned.as_earlier or planned  # nothing starts by itself what was typed
        assert directories == each.directories
        assert run.detach
        assert (run.name, run.image, run.command) == (each.name, each.image, each.command)
        assert (run.network, run.ipc, run.pid) == ("host", "host", each.pid_mode)
        assert (run.privileged, run.restart) == (each.privileged, each.restart_policy)
        assert run.gpus == ("all" if each.gpus else None)
        assert run.device == (["/dev/infiniband"] if each.gpus and not each.privileged else [])
        assert dict(entry.split("=", 1) for entry in run.env) == each.environment
        assert len(run.env) == len(each.environment)
        wanted = [(mount.source, mount.target, mount.read_only) for mount in each.mounts]
        wanted += [(secret.source, secret.target, True) for secret in each.secrets]
        volumes = [(*volume.split(":"), "") for volume in run.volume]
        assert [(source, target, mode == "ro") for source, target, mode, *__ in volumes] == wanted


@given(
    host=words.filter(lambda text: text and "/" not in text),
    state=paths,
    cache=paths,
    model=words.filter(lambda text: "/" not in text),
    template=variables_of_programs.filter(
        lambda text: text != "\n" and ".." not in text
    ),  # which shlex has for a line that goes on
    revision=words.filter(REVISION.fullmatch),
    topology=st.sampled_from(["tp", "dpep"]),
)
def test_nothing_leaves_the_quotes_or_the_comments_of_the_shell_commands(
    host: str, state: str, cache: str, model: str, template: str, revision: str, topology: str
) -> None:
    variables = nodes(
        plan_topology=topology,
        plan_state_dir=state,
        plan_hf_home=cache,
        plan_model=f"/models/{model}",
        plan_model_revision=revision,
        plan_extra_mounts=[{"source": "/data", "target": "/models"}],
        plan_api_server_options={"chat_template": f"/models/{template}"},
    )
    plan = plan_of({host: variables["node0"], "node1": variables["node1"]})
    shell = as_shell(plan)
    commands = typed(shell, plan)
    by_hand = [each.as_earlier or each for each in plan.services]
    assert [(run.name, run.command) for __, run in commands] == [(each.name, each.command) for each in by_hand]
    assert [directories for directories, __ in commands] == [each.directories for each in by_hand]
    # A shell that has no comments at its prompt reads their words; they hold nothing that it would carry out.
    for line in shell.split("\n"):
        if line.startswith("# "):
            lexer = shlex.shlex(line, posix=False, punctuation_chars="$`;&|<>()\\")
            lexer.commenters = ""
            assert not [word for word in lexer if word[0] in "$`;&|<>()\\"], line


@given(
    gpus=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=6),
    base=st.integers(1024, 9000),
    head=st.integers(0, 5),
)
def test_any_plan_that_is_accepted_holds_together(gpus: list[int], base: int, head: int) -> None:
    total = sum(gpus)
    tp = min(1 << (total.bit_length() - 1), 16)  # more than that, V3's FP8 blocks do not divide by
    variables = nodes(len(gpus), plan_tp=tp, plan_ports={"api": base + 10000}, plan_head=f"node{head % len(gpus)}")
    for given_node, count in zip(variables.values(), gpus):
        given_node["plan_gpus"] = count
    plan, faults = plan_or_faults(variables)
    if plan is None:
        assert faults
        assert all("plan_ports" in fault for fault in faults)  # the only thing drawn that can be wrong
        return
    data = plan.to_json()
    assert json.loads(json.dumps(data)) == data
    assert [node.rank for node in plan.nodes] == list(range(len(gpus)))
    assert plan.nodes[0].name == plan.head
    assert sum(s.service == "ray" for s in plan.services) == len(gpus)
    for node in plan.nodes:
        ports = [port for s in plan.services if s.node == node.name for port in s.listens]
        assert len(ports) == len(set(ports))
    declared = [s.command[s.command.index("--num-gpus") + 1] for s in plan.services if s.service == "ray"]
    assert sum(map(int, declared)) == total == plan.gpus >= plan.engines[0].tp
    assert plan_of(variables) == plan


@given(key=st.sampled_from([field.name for field in dataclasses.fields(Ports)]), port=st.integers(-5, 70000))
def test_ports_outside_the_range_never_pass(key: str, port: int) -> None:
    topology = "dpep" if key == "dp_master" else "tp"  # a port that a topology has no use for is not looked at
    door: dict[str, Any] = (
        {"plan_gateway": True, "plan_gateway_keys": {"chat": "c" * 32}} if key.startswith("gateway") else {}
    )
    plan, faults = plan_or_faults(nodes(plan_topology=topology, plan_ports={key: port}, **door))
    if plan is None:
        assert any(f"plan_ports.{key}" in fault for fault in faults) or "worker ports" in faults[0]
    else:
        assert 1 <= getattr(plan.ports, key) <= 65535


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_compiled_kernels_are_written_to_directories_that_are_kept(topology: str) -> None:
    plan = plan_of(nodes(2, plan_topology=topology))
    engines = [each for each in plan.services if each.service != "proxy"]
    assert {engine.service for engine in engines} == ({"ray", "api"} if topology == "tp" else {"dp"})
    for engine in engines:
        kept = [f"{mount.target}/" for mount in engine.mounts if mount.source in engine.directories]
        for variable in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            assert any(engine.environment[variable].startswith(directory) for directory in kept)
