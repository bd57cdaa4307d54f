# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of DP+EP, of the proxy, and of several TP engines behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_shell, as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Endpoint, Plan
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import (
    ROOT,
    Variables,
    faults_of,
    nodes,
    plan_of,
    service,
)

MODEL = "deepseek-ai/DeepSeek-V3"
OWN_MODEL: dict[str, Any] = {
    "plan_model": "/models/mine",
    "plan_extra_mounts": [{"source": "/models", "target": "/models"}],
}
DEEPSEEK = {"architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 128}
REPLICAS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}


def dpep(count: int = 2, **everywhere: Any) -> Variables:
    return nodes(count, plan_topology="dpep", **everywhere)


def of_release(release: str) -> str:
    return f"openmmlab/lmdeploy:v{release}-cu12"


def observed(release: str, *modules: str, **more: Any) -> dict[str, Any]:
    """What the probe says of an image with ``modules``."""
    found = {name: name in modules for name in ("deep_ep", "deep_gemm", "dlblas", "flash_mla")}
    return {"lmdeploy": release, "ray_token_auth": False, "modules": found, **more}


def value(command: list[str], option: str) -> str | None:
    """The one value of ``option``; None where it is not given."""
    assert command.count(option) <= 1
    return command[command.index(option) + 1] if option in command else None


def port(endpoint: Endpoint) -> int:
    return int(endpoint.url.rpartition(":")[2])


# Ranks ---------------------------------------------------------------------------------------------------------------


def test_four_nodes_of_eight_give_dp32_ep32_behind_the_proxy() -> None:
    plan = plan_of(dpep(4))
    [engine] = plan.engines
    assert (engine.tp, engine.dp, engine.ep, engine.gpus, plan.gpus) == (1, 32, 32, 32, 32)
    assert (plan.topology, engine.launcher, plan.head, engine.head) == ("dpep", "torchrun", "node0", "node0")
    assert [(s.service, s.node) for s in plan.services] == [("proxy", "node0"), *(("dp", f"node{n}") for n in range(4))]
    assert plan.proxy is not None
    assert (plan.proxy.node, plan.proxy.url, plan.url) == ("node0", "http://10.0.0.10:8000", "http://10.0.0.10:8000")
    assert plan.endpoints == [
        Endpoint(
            rank=rank,
            engine="lmdeploy",
            node=f"node{rank // 8}",
            url=f"http://10.0.0.{10 + rank // 8}:{23333 + 10 * rank}",
            gpus=[rank % 8],
            container="lmdeploy-dp",
        )
        for rank in range(32)
    ]


def test_every_container_listens_on_the_ports_of_its_ranks_and_the_head_on_the_rendezvous() -> None:
    plan = plan_of(dpep(2, plan_gpus=2))
    assert service(plan, "dp").listens == [23333, 23343, 29500, 29555]
    assert service(plan, "dp", "node1").listens == [23353, 23363]
    assert service(plan, "proxy").listens == [8000]


def test_torchrun_starts_the_rank_program_with_the_command_of_lmdeploy() -> None:
    command = service(plan_of(dpep(4)), "dp", "node1").command
    assert (
        command
        == (
            "python3 /opt/lmfleet --starts /var/lib/lmfleet/starts/dp.jsonl --restarts 3 "
            + "".join(f"--endpoint {8 + n}=http://10.0.0.11:{23413 + 10 * n} " for n in range(8))
            + "-- torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id lmdeploy "
            "--rdzv-endpoint 10.0.0.10:29500 --rdzv-conf is_host=0,read_timeout=20 --local-addr 10.0.0.11 --max-restarts 1000 "
            "/opt/lmfleet/rank.py --first-rank 8 --port 23333 --port-step 10 --gpus-per-rank 1 -- "
            f"serve api_server {MODEL} --backend pytorch --tp 1 --dp 32 --ep 32 --server-name 10.0.0.11 "
            f"--revision main --model-name {MODEL} --proxy-url http://10.0.0.10:8000 "
            "--cache-max-entry-count 0.7 --max-batch-size 512 --max-prefill-token-num 1000"
        ).split()
    )


def test_the_native_launcher_counts_ports_by_one_from_the_first_rank_of_the_node() -> None:
    plan = plan_of(dpep(4, plan_launcher="native"))
    assert (
        service(plan, "dp", "node2").command
        == (
            f"lmdeploy serve api_server {MODEL} --backend pytorch --tp 1 --dp 32 --ep 32 "
            "--nnodes 4 --node-rank 2 --server-port 23349 "
            f"--revision main --model-name {MODEL} --proxy-url http://10.0.0.10:8000 "
            "--cache-max-entry-count 0.7 --max-batch-size 512 --max-prefill-token-num 1000"
        ).split()
    )
    assert plan.engines[0].launcher == "native"
    assert [port(endpoint) for endpoint in plan.endpoints] == list(range(23333, 23365))
    assert not [m for s in plan.services for m in s.mounts if m.target == "/opt/lmfleet/rank.py"]


def test_the_rank_program_answers_where_the_plan_says() -> None:
    plan = plan_of(dpep(2, plan_gpus=4, plan_dp=4, plan_ep=8))
    command = service(plan, "dp", "node1").command
    arguments = command[command.index("/opt/lmfleet/rank.py") + 1 :]
    [endpoint] = [each for each in plan.endpoints if each.rank == 3]
    said = subprocess.run(
        [sys.executable, ROOT / "programs/rank.py", *arguments],
        check=False,  # there is no LMDeploy here, so the rank says where it starts, and ends
        env={"PATH": os.defpath, "RANK": "3", "LOCAL_RANK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout
    assert f"starts at {endpoint.url.removeprefix('http://')} on GPU {','.join(map(str, endpoint.gpus))} of " in said


def test_the_rank_program_is_mounted_read_only_under_one_name_whatever_its_content() -> None:
    [mount] = [m for m in service(plan_of(dpep()), "dp", "node1").mounts if m.target == "/opt/lmfleet"]
    assert mount.source == "/var/lib/lmfleet/lmdeploy/programs"
    assert mount.read_only


def test_every_rank_is_told_the_masters_and_no_ray() -> None:
    plan = plan_of(dpep(2, plan_ports={"torch": 29600, "dp_master": 29700}, plan_interface="bond0"))
    for node in ("node0", "node1"):
        environment = service(plan, "dp", node).environment
        assert environment["LMDEPLOY_DP_MASTER_ADDR"] == "10.0.0.10"
        assert environment["LMDEPLOY_DP_MASTER_PORT"] == "29700"
        assert {environment[f"{name}_SOCKET_IFNAME"] for name in ("GLOO", "TP")} == {"bond0"}
        assert {environment[name] for name in ("NCCL_SOCKET_IFNAME", "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME")} == {"=bond0"}
        assert "10.0.0.11" in environment["NO_PROXY"].split(",")
        assert "RAY_ADDRESS" not in environment
        assert value(service(plan, "dp", node).command, "--rdzv-endpoint") == "10.0.0.10:29600"


def test_docker_starts_again_only_what_did_not_give_up_and_no_ranks_that_could_not_meet() -> None:
    plan = plan_of(dpep())
    assert {s.restart_policy for s in plan.services if s.service == "dp"} == {"on-failure"}
    for alone in (plan_of(dpep(plan_restarts=0)), plan_of(dpep(plan_launcher="native"))):
        assert {(s.restart_policy, s.starts) for s in alone.services if s.service == "dp"} == {("no", None)}
    assert service(plan, "proxy").restart_policy == "unless-stopped"
    assert {s.engine for s in plan.services if s.service == "dp"} == {"lmdeploy"}
    assert service(plan, "proxy").engine is None


def test_the_proxy_gets_no_gpu_and_reaches_the_ranks_without_a_web_proxy() -> None:
    proxy = service(plan_of(dpep()), "proxy")
    assert (proxy.gpus, proxy.privileged, proxy.mounts) == (False, False, [])
    assert proxy.environment["NO_PROXY"] == proxy.environment["no_proxy"] == "*"


def test_the_head_can_be_chosen_and_has_rank_zero_the_masters_and_the_proxy() -> None:
    plan = plan_of(dpep(4, plan_head="node2"))
    assert [(n.name, n.rank) for n in plan.nodes] == [("node2", 0), ("node0", 1), ("node1", 2), ("node3", 3)]
    assert (plan.head, plan.url) == ("node2", "http://10.0.0.12:8000")
    assert [e.node for e in plan.endpoints[::8]] == ["node2", "node0", "node1", "node3"]
    assert service(plan, "dp", "node0").environment["LMDEPLOY_DP_MASTER_ADDR"] == "10.0.0.12"
    assert value(service(plan, "dp", "node1").command, "--rdzv-endpoint") == "10.0.0.12:29500"
    assert value(service(plan, "dp", "node2").command, "--rdzv-conf") == "is_host=1,read_timeout=20"
    assert value(service(plan, "dp", "node1").command, "--first-rank") == "16"
    typed_by_hand = service(plan, "dp", "node1").as_earlier
    assert typed_by_hand
    assert value(typed_by_hand.command, "--master-addr") == "10.0.0.12"
    assert value(typed_by_hand.command, "--node-rank") == "2"


@pytest.mark.parametrize(
    ("release", "sizes", "gpus", "of_ranks"),
    [
        ("0.18.0", {"plan_dp": 2, "plan_tp": 2, "plan_ep": 1}, [1, 1], [[0], [0]]),  # two GPUs, not four
        ("0.18.0", {"plan_dp": 2, "plan_tp": 4, "plan_ep": 1}, [4], [[0, 1], [2, 3]]),
        ("0.18.0", {"plan_dp": 4, "plan_ep": 8}, [4, 4], [[0, 1], [2, 3], [0, 1], [2, 3]]),
        ("0.18.0", {}, [1, 3], [[0], [0], [1], [2]]),
        ("0.11.0", {"plan_dp": 2, "plan_tp": 4, "plan_ep": 1}, [4], [[0, 1], [2, 3]]),
        ("0.10.2", {"plan_dp": 2, "plan_tp": 4, "plan_ep": 1}, [2], [[0], [1]]),  # the world is dp
        ("0.10.0", {"plan_ep": 2}, [2, 2], [[0], [1], [0], [1]]),
        ("0.8.0", {"plan_ep": 1}, [2, 2], [[0], [1], [0], [1]]),
    ],
)
def test_the_world_is_counted_as_the_release_counts_it(
    release: str, sizes: dict[str, int], gpus: list[int], of_ranks: list[list[int]]
) -> None:
    variables = dpep(len(gpus), plan_image=of_release(release), **sizes)
    for node, count in zip(variables.values(), gpus):
        node["plan_gpus"] = count
    plan = plan_of(variables)
    assert [endpoint.gpus for endpoint in plan.endpoints] == of_ranks
    command = service(plan, "dp").command
    assert value(command, "--gpus-per-rank") == str(len(of_ranks[0]))
    assert value(command, "--nproc-per-node") == str(gpus[0] // len(of_ranks[0]))
    assert [port(endpoint) for endpoint in plan.endpoints] == [23333 + 10 * rank for rank in range(len(of_ranks))]


@pytest.mark.parametrize(
    ("release", "sizes"),
    [
        ("0.10.2", {"plan_dp": 2, "plan_tp": 4, "plan_ep": 1}),  # 0.11 takes 4 GPUs for it, this release 2
        ("0.11.0", {"plan_dp": 4, "plan_ep": 2}),  # 0.10 takes 4 GPUs for it, this release 2
        ("0.18.0", {"plan_dp": 4, "plan_ep": 1}),
    ],
)
def test_a_world_that_another_release_would_count_is_refused(release: str, sizes: dict[str, int]) -> None:
    faults = faults_of(dpep(1, plan_gpus=4, plan_image=of_release(release), **sizes))
    assert any("is a world of" in fault and "plan_ep" in fault for fault in faults), faults


def test_a_rank_has_all_its_gpus_on_one_node() -> None:
    variables = dpep(2, plan_dp=2, plan_ep=4)
    variables["node0"]["plan_gpus"], variables["node1"]["plan_gpus"] = 3, 1
    faults = faults_of(variables)
    assert [fault.partition(",")[0] for fault in faults] == ["node0: plan_gpus is 3", "node1: plan_gpus is 1"]
    assert all("make plan_gpus a multiple of 2" in fault for fault in faults)


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "option", "default"),
    [
        ("cache_max_entry_count", "--cache-max-entry-count", "0.7"),
        ("max_prefill_token_num", "--max-prefill-token-num", "1000"),
        ("max_batch_size", "--max-batch-size", "512"),
    ],
)
def test_the_options_of_the_guide_give_way_in_either_spelling(key: str, option: str, default: str) -> None:
    def given_as(options: dict[str, Any]) -> str | None:
        return value(service(plan_of(dpep(plan_api_server_options=options)), "dp").command, option)

    assert given_as({}) == default
    assert given_as({"log_level": "INFO"}) == default
    own = 0.5 if key == "cache_max_entry_count" else 1
    assert given_as({key: own}) == given_as({key.replace("_", "-"): own}) == given_as({option: own}) == str(own)
    assert given_as({key: None}) is None  # LMDeploy's own, which is 1024 at most


def test_the_options_of_the_guide_are_not_for_tp() -> None:
    command = service(plan_of(nodes(plan_proxy=True)), "api").command
    assert value(command, "--max-batch-size") is None
    assert value(command, "--cache-max-entry-count") is None


@pytest.mark.parametrize(("release", "option"), [("0.8.0", "--strategy"), ("0.9.0", "--routing-strategy")])
def test_the_proxy_is_told_how_to_choose_a_rank(release: str, option: str) -> None:
    plan = plan_of(dpep(plan_image=of_release(release), plan_routing_strategy="random"))
    assert (
        service(plan, "proxy").command
        == (
            f"lmdeploy serve proxy --server-name 0.0.0.0 --server-port 8000 {option} random --disable-cache-status"
        ).split()
    )


def test_the_image_says_the_name_of_an_option_that_its_tag_does_not() -> None:
    variables = dpep(plan_image="registry.example/lmdeploy:mine")
    assert value(service(plan_of(variables), "proxy").command, "--routing-strategy") == "min_expected_latency"
    image = observed("0.8.1", "deep_ep", "deep_gemm", proxy_options=["--strategy", "--disable-cache-status"])
    assert value(service(plan_of(variables, Observations(image)), "proxy").command, "--strategy") is not None


@pytest.mark.parametrize("key", ["disable_cache_status", "disable-cache-status", "--disable-cache-status"])
def test_the_proxy_keeps_no_cache_of_its_ranks_unless_it_is_told_to(key: str) -> None:
    assert "--disable-cache-status" in service(plan_of(dpep()), "proxy").command
    assert "--disable-cache-status" in service(plan_of(dpep(plan_proxy_options={key: True})), "proxy").command
    assert "--disable-cache-status" not in service(plan_of(dpep(plan_proxy_options={key: False})), "proxy").command


def test_an_option_of_the_proxy_changes_the_proxy_alone() -> None:
    before, after = plan_of(dpep()), plan_of(dpep(plan_proxy_options={"log_level": "INFO"}))
    changed = [s.name for s, t in zip(before.services, after.services) if s.identity != t.identity]
    assert changed == ["lmdeploy-proxy"]
    assert value(service(after, "proxy").command, "--log-level") == "INFO"


@pytest.mark.parametrize("topology", ["tp", "dpep"])
@pytest.mark.parametrize(
    ("release", "model", "config", "template"),
    [
        ("0.8.0", OWN_MODEL, DEEPSEEK, "deepseek-v3"),
        ("0.9.2.post1", OWN_MODEL, DEEPSEEK, "deepseek-v3"),
        ("0.10.0", OWN_MODEL, DEEPSEEK, None),
        ("0.8.0", {"plan_model": MODEL}, DEEPSEEK, None),  # its path says it
        ("0.8.0", {"plan_model": "deepseek-ai/DeepSeek-R1"}, DEEPSEEK, None),
        ("0.8.0", OWN_MODEL, {**DEEPSEEK, "architectures": ["Qwen3ForCausalLM"]}, None),
        ("0.8.0", OWN_MODEL, {"num_attention_heads": 128}, None),
        ("0.8.0", OWN_MODEL, None, None),  # nobody has looked yet
    ],
)
def test_the_chat_template_is_named_where_the_release_would_take_none(
    topology: str, release: str, model: dict[str, Any], config: dict[str, Any] | None, template: str | None
) -> None:
    plan = plan_of(
        nodes(plan_topology=topology, plan_image=of_release(release), **model), Observations(None, None, {}, {}, config)
    )
    assert value(service(plan, "api" if topology == "tp" else "dp").command, "--chat-template") == template


@pytest.mark.parametrize("key", ["chat_template", "chat-template"])
def test_the_chat_template_of_the_user_wins(key: str) -> None:
    variables = dpep(plan_image=of_release("0.8.0"), plan_api_server_options={key: "llama3"}, **OWN_MODEL)
    command = service(plan_of(variables, Observations(model_config=DEEPSEEK)), "dp").command
    assert value(command, "--chat-template") == "llama3"


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"plan_dp": 1}, ["plan_dp is 1", "plan_topology: tp"]),
        ({"plan_dp": -1}, ["plan_dp is -1", "0 for all GPUs of the plan"]),
        ({"plan_ep": -2}, ["plan_ep is -2", "0 for plan_dp"]),
        ({"plan_dp": "all"}, ["plan_dp", "int"]),
        ({"plan_dp": 8}, ["dp 8, ep 8 is a world of 8 GPUs (ep)", "16 (node0 8, node1 8)", "set plan_dp and plan_ep"]),
        ({"plan_ep": 1, "plan_tp": 8, "plan_dp": 2}, ["world of 8 GPUs (tp, as ep is 1)", "have 16", "plan_gpus"]),
        ({"plan_dp": 3, "plan_ep": 16}, ["world of 16 GPUs (ep)", "3 ranks", "plan_ep", "a multiple of plan_dp"]),
        ({"plan_tp": 2}, ["plan_tp is 2 and plan_ep is 16", "set plan_tp to 1"]),
        (
            {"plan_image": of_release("0.10.2"), "plan_dp": 8},
            ["world of 8 GPUs (dp, in LMDeploy 0.10.2)", "have 16", "plan_dp"],
        ),
        ({"plan_image": of_release("0.8.0"), "plan_ep": 3}, ["plan_ep 3 does not divide plan_dp 16", "0.8.0"]),
        ({"plan_ports": {"api": 65500}}, ["plan_ports.api 65500", "16 ranks", "port 65650", "65535"]),
        ({"plan_launcher": "native", "plan_ports": {"api": 65521}}, ["plan_ports.api 65521", "port 65536"]),
        ({"plan_ports": {"torch": 23343}}, ["plan_ports.torch (23343) is the port of rank 1", "plan_ports.api"]),
        ({"plan_ports": {"dp_master": 23483}}, ["plan_ports.dp_master (23483) is the port of rank 15"]),
        ({"plan_ports": {"proxy": 23353}}, ["plan_ports.proxy (23353) is the port of rank 2"]),
        ({"plan_launcher": "native", "plan_ports": {"proxy": 23340}}, ["plan_ports.proxy (23340)", "rank 7"]),
        ({"plan_launcher": "mpirun"}, ["plan_launcher", "mpirun"]),
        (
            {"plan_launcher": "native", "plan_image": of_release("0.14.0")},
            ["plan_launcher is native", "0.14.0", "random ports", "plan_launcher: torchrun", "cu12.8"],
        ),
        ({"plan_launcher": "native", "plan_image": "cu12-hopper"}, ["0.9.2", "random ports", "latest-cu12-hopper"]),
        ({"plan_environment": {"RAY_ADDRESS": "auto"}}, ["node0, node1: plan_environment sets RAY_ADDRESS", "take it out"]),
        ({"plan_replicas": ["all_nodes"]}, ["plan_replicas is for TP", "leave it empty"]),
        ({"plan_routing_strategy": "least"}, ["plan_routing_strategy", "least"]),
        ({"plan_proxy_options": {"disable_cache_statu": True}}, ["plan_proxy_options", "did you mean disable-cache-status?"]),
        ({"plan_proxy_options": {"server_port": 1}}, ["plan_proxy_options", "server_port", "plan_ports.proxy"]),
        ({"plan_proxy_options": {"server-name": "::"}}, ["plan_proxy_options", "server-name", "all addresses"]),
        ({"plan_proxy_options": {"strategy": "random"}}, ["plan_proxy_options", "strategy", "plan_routing_strategy"]),
        ({"plan_proxy_options": {"routing_strategy": "random"}}, ["routing_strategy", "plan_routing_strategy"]),
        ({"plan_proxy_options": {"api_keys": ["sk-1"]}}, ["plan_proxy_options", "api_keys", "command line"]),
        ({"plan_topology": "tp", "plan_dp": 2}, ["plan_dp", "plan_topology: dpep"]),
        (
            {"plan_topology": "tp", "plan_proxy_options": {"log_level": "INFO"}},
            ["plan_proxy_options", "no proxy", "plan_proxy: true"],
        ),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_variable(variables: dict[str, Any], words: list[str]) -> None:
    faults = faults_of(
        {name: {**node, **variables} for name, node in dpep().items()}, groups={"all_nodes": list(dpep())}
    )
    assert len(faults) == 1, faults
    for word in words:
        assert word in faults[0]
    assert "sk-1" not in faults[0]


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("backend", "nothing"),
        ("tp", "plan_tp"),
        ("dp", "plan_dp"),
        ("--ep", "plan_ep"),
        ("dp_rank", "nothing"),
        ("nnodes", "nothing"),
        ("node-rank", "nothing"),
        ("server_name", "plan_cluster_address"),
        ("server_port", "plan_ports.api"),
        ("proxy_url", "plan_proxy"),
        ("model_name", "plan_served_model_name"),
        ("revision", "plan_model_revision"),
    ],
)
def test_options_that_the_plan_computes_are_refused(key: str, instead: str) -> None:
    [fault] = faults_of(dpep(plan_api_server_options={key: 1}))
    assert fault.startswith(f"plan_api_server_options: {key} is computed by the plan; set {instead}")


@pytest.mark.parametrize("ports", [{"proxy": 23340}, {"torch": 23493}, {"api": 65385}])
def test_ports_between_and_beside_those_of_the_ranks_are_free(ports: dict[str, int]) -> None:
    assert len(plan_of(dpep(plan_ports=ports)).endpoints) == 16


def test_native_wants_as_many_gpus_on_every_node() -> None:
    variables = dpep(plan_launcher="native", plan_ep=1, plan_tp=12, **OWN_MODEL)
    variables["node1"]["plan_gpus"] = 4
    [fault] = faults_of(variables)
    for word in ("plan_launcher is native", "node0 8, node1 4", "torchrun", "the same plan_gpus"):
        assert word in fault
    for node in variables.values():
        node["plan_launcher"] = "torchrun"
    assert len(plan_of(variables).endpoints) == 12


@pytest.mark.parametrize(("wanted", "planned"), [("dpep", "tp"), ("tp", "dpep")])
def test_a_playbook_refuses_the_other_topology(wanted: str, planned: str) -> None:
    [fault] = faults_of(nodes(plan_topology=planned), topology=wanted)
    playbook = {"tp": "deploy_tp16.yml", "dpep": "deploy_dpep.yml"}[planned]
    assert (ROOT / playbook).exists()
    for word in (
        f"plan_topology is {planned}",
        f"this playbook deploys {wanted}",
        f"plan_topology: {wanted}",
        playbook,
    ):
        assert word in fault
    assert plan_of(nodes(plan_topology=wanted), topology=wanted).topology == wanted


# What was observed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "modules", "missing"),
    [
        ("0.18.0", ["deep_ep"], "deep_gemm"),
        ("0.18.0", ["deep_gemm", "dlblas"], "deep_ep"),
        ("0.15.0", ["dlblas"], "deep_ep and deep_gemm"),
        ("0.14.0", ["deep_ep", "deep_gemm"], "dlblas"),
        ("0.9.1", [], "deep_ep and dlblas"),
        ("0.8.0", ["dlblas"], "deep_ep and deep_gemm"),
    ],
)
def test_an_image_without_what_ep_needs_is_refused(release: str, modules: list[str], missing: str) -> None:
    variables = dpep(plan_image="registry.example/lmdeploy:mine")
    [fault] = faults_of(variables, Observations(observed(release, *modules)))
    assert f"LMDeploy {release} needs {missing}, which registry.example/lmdeploy:mine does not have" in fault
    for word in ("plan_ep is 16", "plan_image", "cu12.8", "cu12-hopper"):
        assert word in fault


@pytest.mark.parametrize(
    ("release", "modules"),
    [
        ("0.18.0", ["deep_ep", "deep_gemm"]),
        ("0.15.0", ["deep_ep", "deep_gemm"]),
        ("0.14.0", ["deep_ep", "dlblas"]),
        ("0.9.2.post1", ["deep_ep", "dlblas"]),
        ("0.9.0", ["deep_ep", "deep_gemm"]),
        ("0.8.0", ["deep_ep", "deep_gemm"]),
    ],
)
def test_an_image_with_what_ep_needs_is_taken(release: str, modules: list[str]) -> None:
    seen = Observations(
        image=observed(release, *modules),
        interfaces={"node0": {"eth0": ["10.0.0.10"]}, "node1": {"eth0": ["10.0.0.11"]}},
        model_config=DEEPSEEK,
    )
    plan = plan_of(dpep(plan_image="registry.example/lmdeploy:mine"), seen)
    assert plan.engines[0].image.release == release
    assert plan.unverified == []


def test_without_ep_the_image_needs_nothing_more() -> None:
    variables = dpep(plan_dp=2, plan_tp=16, plan_ep=1)
    assert plan_of(variables, Observations(observed("0.18.0"))).engines[0].ep == 1
    assert not [note for note in plan_of(variables).unverified if "DeepEP" in note]
    assert [note for note in plan_of(dpep()).unverified if "DeepEP" in note]


def test_the_native_launcher_is_refused_where_the_default_route_has_another_address() -> None:
    seen = Observations(
        image=observed("0.18.0", "deep_ep", "deep_gemm"),
        interfaces={"node0": {"eth0": ["192.0.2.1"], "ib0": ["10.0.0.10"]}, "node1": {"eth0": ["10.0.0.11"]}},
        sources={"node0": "192.0.2.1", "node1": "10.0.0.11"},
    )
    [fault] = faults_of(dpep(plan_launcher="native"), seen)
    assert fault.startswith("node0: ")
    for word in (
        "default route, 192.0.2.1",
        "plan_cluster_address 10.0.0.10",
        "plan_launcher: torchrun",
        "dev ib0 src 10.0.0.10",
    ):
        assert word in fault
    assert plan_of(dpep(), seen).engines[0].launcher == "torchrun"


def test_the_native_launcher_is_refused_where_there_is_no_default_route() -> None:
    seen = Observations(image=observed("0.18.0", "deep_ep", "deep_gemm"), sources={"node0": "", "node1": "10.0.0.11"})
    [fault] = faults_of(dpep(plan_launcher="native"), seen)
    for word in ("node0", "default route", "plan_launcher: torchrun"):
        assert word in fault
    assert plan_of(dpep(), seen).engines[0].launcher == "torchrun"


def test_the_release_in_the_image_counts_and_not_that_of_its_tag() -> None:
    seen = Observations(observed("0.14.0", "deep_ep", "dlblas"))
    [fault] = faults_of(dpep(plan_launcher="native", plan_image=of_release("0.18.0")), seen)
    assert "LMDeploy 0.14.0" in fault


def test_an_option_that_the_proxy_in_the_image_does_not_know_is_refused() -> None:
    image = observed("0.18.0", "deep_ep", "deep_gemm", proxy_options=["--routing-strategy", "--disable-cache-status"])
    [fault] = faults_of(dpep(plan_proxy_options={"log_level": "INFO"}), Observations(image))
    assert fault.startswith("plan_proxy_options: ")
    assert "--log-level" in fault


# Replicas ------------------------------------------------------------------------------------------------------------


def replicas(**everywhere: Any) -> Plan:
    return plan_of(nodes(4, plan_replicas=["left", "right"], **everywhere), groups=REPLICAS)


def test_two_groups_give_two_engines_behind_one_proxy() -> None:
    plan = replicas()
    assert [(e.head, e.nodes, e.tp) for e in plan.engines] == [
        ("node0", ["node0", "node1"], 16),
        ("node2", ["node2", "node3"], 16),
    ]
    assert [(e.rank, e.node, e.url) for e in plan.endpoints] == [
        (0, "node0", "http://10.0.0.10:23333"),
        (1, "node2", "http://10.0.0.12:23333"),
    ]
    assert (plan.url, [e.launcher for e in plan.engines]) == ("http://10.0.0.10:8000", [None, None])
    assert [(s.service, s.node) for s in plan.services] == [
        ("proxy", "node0"),
        *(("ray", "node0"), ("ray", "node1"), ("api", "node0")),
        *(("ray", "node2"), ("ray", "node3"), ("api", "node2")),
    ]
    for node, address in (("node0", "10.0.0.10"), ("node2", "10.0.0.12")):
        api = service(plan, "api", node)
        assert value(api.command, "--server-name") == address  # 0.0.0.0 is what the proxy would be told
        assert value(api.command, "--proxy-url") == plan.url
        assert api.environment["RAY_ADDRESS"] == f"{address}:6379"
        assert api.environment["LMDEPLOY_DIST_MASTER_ADDR"] == address
    assert value(service(plan, "ray", "node3").command, "--address") == "10.0.0.12:6379"
    assert [s.engine for s in plan.services] == [None, *["lmdeploy-left"] * 3, *["lmdeploy-right"] * 3]


def test_one_engine_may_have_the_proxy_too() -> None:
    plan = plan_of(nodes(plan_proxy=True))
    assert plan.url == "http://10.0.0.10:8000"
    assert value(service(plan, "api").command, "--server-name") == "10.0.0.10"
    assert value(service(plan_of(nodes()), "api").command, "--server-name") == "0.0.0.0"
    assert plan_of(nodes()).proxy is None
    [fault] = faults_of(nodes(plan_proxy=True, plan_api_server_options={"server_name": "0.0.0.0"}))
    assert "plan_cluster_address" in fault


def test_the_head_can_be_chosen_among_replicas() -> None:
    plan = replicas(plan_head="node3")
    assert plan.head == "node3"
    assert plan.url == "http://10.0.0.13:8000"
    assert service(plan, "proxy", "node3").listens == [8000]
    assert ("node3", ["node3", "node2"]) in [(e.head, e.nodes) for e in plan.engines]


@pytest.mark.parametrize(
    ("names", "groups", "words"),
    [
        (
            ["left", "right"],
            {**REPLICAS, "right": ["node1", "node2", "node3"]},
            ["node1", "two groups", "left", "right"],
        ),
        (["left"], REPLICAS, ["node2, node3", "in no group of plan_replicas"]),
        (["left", "rigt"], REPLICAS, ["'rigt'", "did you mean right?"]),
        (["left", "right", "spare"], {**REPLICAS, "spare": ["node9"]}, ["spare", "no node of the plan"]),
    ],
)
def test_groups_that_do_not_part_the_nodes_are_faults(
    names: list[str], groups: dict[str, list[str]], words: list[str]
) -> None:
    faults = faults_of(nodes(4, plan_replicas=names), groups=groups)
    [fault] = [fault for fault in faults if words[0] in fault and words[-1] in fault]
    assert all(word in fault for word in ["plan_replicas", *words])


def test_tp_is_checked_for_each_replica() -> None:
    variables = nodes(4, plan_replicas=["left", "right"], plan_tp=16)
    variables["node3"]["plan_gpus"] = 4
    [fault] = faults_of(variables, groups=REPLICAS)
    for word in ("plan_tp is 16", "right", "12 GPUs", "node2 8, node3 4"):
        assert word in fault


# For people ----------------------------------------------------------------------------------------------------------


def test_table_shows_ranks_with_their_node_gpu_and_url() -> None:
    table = as_table(plan_of(dpep(4)))
    assert "dp 32, ep 32, tp 1 (torchrun) over 4 nodes and 32 GPUs" in table
    rows = [line.split() for line in table.splitlines()]
    assert rows.count(["RANK", "NODE", "GPU", "URL"]) == 1
    assert ["9", "node1", "1", "http://10.0.0.11:23423"] in rows
    assert ["url", "http://10.0.0.10:8000"] in rows
    assert table.count("http://10.0.0.") == 33


def test_shell_says_where_the_rank_program_goes_and_what_to_start_together() -> None:
    plan = plan_of(dpep())
    shell = as_shell(plan)
    source = "/var/lib/lmfleet/lmdeploy/programs/rank.py"
    assert f"# First, on every node: programs/rank.py of this collection as {source}\n" in shell
    assert f"--volume {source}:/opt/lmfleet/rank.py:ro" in shell
    assert "start the containers of all nodes" in shell
    assert shell.count("docker run --detach") == 3
    assert "rank.py" not in as_shell(plan_of(dpep(plan_launcher="native")))


def test_replicas_are_shown_with_what_they_have_in_common() -> None:
    table = as_table(replicas())
    assert "2 replicas of tp 16 over 4 nodes and 32 GPUs" in table
    assert ["1", "node2", "0", "1", "2", "3", "4", "5", "6", "7", "http://10.0.0.12:23333"] in [
        line.split() for line in table.splitlines()
    ]
    assert as_shell(replicas()).count("docker run --detach") == 7


@pytest.mark.parametrize("plan", [plan_of(dpep()), replicas()], ids=["dpep", "replicas"])
def test_no_secret_is_shown(plan: Plan) -> None:
    for shown in (as_table(plan), as_shell(plan)):
        assert "RAY_AUTH_TOKEN=" not in shown
    assert all(bool(s.secrets) == (s.service != "proxy") for s in plan.services)


# Any plan ------------------------------------------------------------------------------------------------------------


@given(
    ranks=st.lists(st.integers(1, 8), min_size=1, max_size=6).filter(lambda ranks: sum(ranks) > 1),
    launcher=st.sampled_from(["torchrun", "native"]),
    per_rank=st.sampled_from([1, 2]),
    first=st.integers(20000, 25000),
    head=st.integers(0, 5),
)
def test_any_plan_has_every_rank_once(ranks: list[int], launcher: str, per_rank: int, first: int, head: int) -> None:
    if launcher == "native":
        ranks = [max(ranks[0], 2)] * len(ranks)
    count, dp = len(ranks), sum(ranks)
    variables = dpep(
        count,
        plan_dp=dp,
        plan_ep=1,  # DeepEP has kernels for few sizes
        plan_tp=dp * per_rank,
        **OWN_MODEL,
        plan_launcher=launcher,
        plan_ports={"api": first},
        plan_head=f"node{head % count}",
    )
    for given_node, of_node in zip(variables.values(), ranks):
        given_node["plan_gpus"] = of_node * per_rank
    plan = plan_of(variables)

    assert [e.rank for e in plan.endpoints] == list(range(dp))
    assert plan.endpoints[0].node == plan.nodes[0].name == plan.head
    assert len({e.url for e in plan.endpoints}) == dp
    seen = 0
    for node in plan.nodes:
        own = [e for e in plan.endpoints if e.node == node.name]
        assert [e.rank for e in own] == list(range(seen, seen + len(own)))
        seen += len(own)
        assert [gpu for e in own for gpu in e.gpus] == list(range(node.gpus))
        assert {len(e.gpus) for e in own} == {per_rank}
        container = service(plan, "dp", node.name)
        assert {e.container for e in own} == {container.name}
        assert {port(e) for e in own} <= set(container.listens)
        assert all(e.url.startswith(f"http://{node.address}:") for e in own)
        ports = [listened for s in plan.services if s.node == node.name for listened in s.listens]
        assert len(ports) == len(set(ports))
        if launcher == "native":
            assert value(container.command, "--node-rank") == str(node.rank)
        else:
            assert value(container.command, "--first-rank") == str(own[0].rank)
    assert seen == dp

    otherwise = {name: dict(reversed(given_node.items())) for name, given_node in variables.items()}
    assert plan_of(otherwise).to_json() == plan.to_json()


def test_counters_are_switched_on_where_a_release_has_them_off() -> None:
    for image, expected in (("cu12-hopper", True), ("cu12.8", False), ("lmdeploy:v0.8.0", False)):
        assert ("--enable-metrics" in service(plan_of(dpep(plan_image=image)), "dp").command) is expected
