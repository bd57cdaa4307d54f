# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans with expert parallelism: what each release's DeepEP gets, what it cannot do, and the page in docs.

With them, what else of sizes, options and interfaces was read in LMDeploy's sources.
"""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.deepep import buffer_bytes, gib
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_table
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import DeepEP, Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.releases import deepep_rules, release_table, releases
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT, Variables, faults_of, nodes, plan_of, service

PAGE = ROOT / "docs" / "deepep.md"
UNKNOWN = "registry.example/lmdeploy:mine"
OWN_MODEL: dict[str, Any] = {
    "plan_model": "/models/mine",
    "plan_extra_mounts": [{"source": "/models", "target": "/models"}],
}
FLOAT16 = {"architectures": ["Mine"], "hidden_size": 2048, "num_attention_heads": 32}
ALL = {"deep_ep": True, "deep_gemm": True, "dlblas": True}

FIXED: tuple[int, dict[str, str]] = (128, {})
BOTH = (512, {"DEEPEP_MAX_BATCH_SIZE": "512", "DEEPEP_MAX_TOKENS_PER_RANK": "512", "NVSHMEM_QP_DEPTH": "2048"})
TOKENS = (512, {"DEEPEP_MAX_TOKENS_PER_RANK": "512", "NVSHMEM_QP_DEPTH": "2048"})
FOLLOWS = (512, {"NVSHMEM_QP_DEPTH": "2048"})
EXPECTED: dict[str, tuple[int, dict[str, str]]] = {
    **dict.fromkeys(("0.8.0", "0.9.0"), FIXED),
    **dict.fromkeys(("0.9.1", "0.9.2", "0.9.2.post1", "0.10.0", "0.10.1", "0.10.2", "0.11.0"), BOTH),
    **dict.fromkeys(("0.11.1", "0.12.0", "0.12.1", "0.12.2", "0.12.3", "0.13.0", "0.14.0"), TOKENS),
    **dict.fromkeys(("0.15.0", "0.16.0", "0.17.0", "0.18.0"), FOLLOWS),
}


def of_release(release: str) -> str:
    return f"openmmlab/lmdeploy:v{release}-cu12"


def dpep(*gpus: int, **everywhere: Any) -> Variables:
    """DP+EP over nodes with so many GPUs; four with eight where none is given."""
    gpus = gpus or (8, 8, 8, 8)
    variables = nodes(len(gpus), plan_topology="dpep", **everywhere)
    for node, count in zip(variables.values(), gpus):
        node["plan_gpus"] = count
    return variables


def deepep_of(plan: Plan) -> DeepEP:
    found = plan.engines[0].deepep
    assert found is not None
    return found


def seen(release: str, model_config: dict[str, Any] | None = None) -> Observations:
    return Observations({"lmdeploy": release, "ray_token_auth": False, "modules": ALL}, model_config=model_config)


# Tokens a rank -------------------------------------------------------------------------------------------------------


def test_every_release_is_expected() -> None:
    assert list(EXPECTED) == releases()


@pytest.mark.parametrize("release", EXPECTED)
def test_each_release_gets_what_its_deepep_reads(release: str) -> None:
    plan = plan_of(dpep(plan_image=of_release(release)))
    batch, environment = EXPECTED[release]
    assert plan.engines[0].option("max-batch-size") == str(batch)
    assert deepep_of(plan) == DeepEP(batch, buffer_bytes(batch, 7168, 256), environment)
    for node in plan.nodes:
        got = service(plan, "dp", node.name).environment
        assert {name: value for name, value in got.items() if name.startswith(("DEEPEP", "NVSHMEM_QP"))} == environment
    fitting = plan_of(dpep(plan_image=of_release(release), plan_api_server_options={"max_batch_size": 128}))
    assert deepep_of(fitting).environment == {}
    assert fitting.engines[0].option("max-batch-size") == "128"


@pytest.mark.parametrize("release", ["0.8.0", "0.9.0"])
def test_more_than_the_code_has_room_for_is_refused_with_the_number(release: str) -> None:
    [fault] = faults_of(dpep(plan_image=of_release(release), plan_api_server_options={"max-batch-size": 129}))
    for word in (
        "max_batch_size 129",
        f"LMDeploy {release}",
        "room for 128 tokens a rank",
        "set max_batch_size to 128",
    ):
        assert word in fault
    [fault] = faults_of(dpep(plan_image=of_release(release), plan_api_server_options={"max_batch_size": None}))
    assert "max_batch_size 1024 (LMDeploy's own default" in fault
    warned = plan_of(dpep(plan_image=of_release(release))).warnings
    assert any("max_batch_size is 128, and not 512" in each for each in warned)
    plan = plan_of(dpep(plan_image=of_release(release), plan_api_server_options={"max_batch_size": 64}))
    assert (plan.warnings, deepep_of(plan).tokens_per_rank) == ([], 128)  # the buffer is made for 128 all the same


def test_the_image_settles_a_release_that_nobody_knew() -> None:
    variables = dpep(plan_image=UNKNOWN)
    plan = plan_of(variables)
    assert deepep_of(plan).environment == BOTH[1]
    assert any("DeepEP's cap" in note for note in plan.unverified)
    assert not any("DeepEP's cap" in note for note in plan_of(dpep()).unverified)
    for release, (batch, environment) in EXPECTED.items():
        asked = plan_of(variables, seen(release))
        assert (asked.engines[0].option("max-batch-size"), deepep_of(asked).environment) == (str(batch), environment)
    # What the tag says is not what is in the image.
    asked = plan_of(dpep(plan_image=of_release("0.18.0")), seen("0.12.1"))
    assert deepep_of(asked).environment == TOKENS[1]
    [fault] = faults_of(dpep(plan_image=UNKNOWN, plan_api_server_options={"max_batch_size": 256}), seen("0.8.0+cu128"))
    assert "set max_batch_size to 128" in fault


@pytest.mark.parametrize(
    ("release", "name", "value", "fits"),
    [
        ("0.9.2", "DEEPEP_MAX_BATCH_SIZE", 600, True),
        ("0.9.2", "DEEPEP_MAX_BATCH_SIZE", "511", False),
        ("0.9.2", "DEEPEP_MAX_TOKENS_PER_RANK", 128, False),
        ("0.14.0", "DEEPEP_MAX_TOKENS_PER_RANK", "1024", True),
        ("0.14.0", "DEEPEP_MAX_TOKENS_PER_RANK", "many", False),
        ("0.14.0", "DEEPEP_MAX_BATCH_SIZE", 1, True),  # nothing reads it there
        ("0.18.0", "NVSHMEM_QP_DEPTH", 1024, False),
        ("0.18.0", "NVSHMEM_QP_DEPTH", 4096, True),
    ],
)
def test_a_value_of_the_user_wins_or_is_refused(release: str, name: str, value: object, fits: bool) -> None:
    variables = dpep(plan_image=of_release(release))
    variables["node2"]["plan_environment"] = {name: value}
    if fits:
        plan = plan_of(variables)
        assert service(plan, "dp", "node2").environment[name] == str(value)
        if name in deepep_rules(release).variables:
            assert deepep_of(plan).tokens_per_rank == int(str(value))  # and so much memory
        return
    [fault] = faults_of(variables)
    assert fault.startswith(f"node2: plan_environment sets {name} to '{value}', and 512 tokens a rank need ")
    assert "take it out" in fault


@pytest.mark.parametrize(
    ("release", "options", "tokens"),
    [
        ("0.18.0", {"max_batch_size": 256, "speculative_num_draft_tokens": 3}, 1024),
        ("0.15.0", {"max_batch_size": 512}, 1024),  # one draft where nothing is said
        ("0.14.0", {"max_batch_size": 100, "speculative-num-draft-tokens": 4}, 500),
        ("0.18.0", {"speculative_num_draft_tokens": 3}, None),  # the default, 512
        ("0.18.0", {"max_batch_size": 257, "speculative_num_draft_tokens": 3}, None),
        ("0.18.0", {"max_batch_size": None}, None),
    ],
)
def test_speculative_decoding_sends_its_drafts_too(release: str, options: dict[str, Any], tokens: int | None) -> None:
    given = {"speculative_algorithm": "deepseek_mtp", **options}
    variables = dpep(plan_image=of_release(release), plan_api_server_options=given)
    if tokens:
        found = deepep_of(plan_of(variables))
        assert found.tokens_per_rank == tokens
        variable = "DEEPEP_MAX_TOKENS_PER_RANK"
        assert found.environment.get(variable) == (str(tokens) if release == "0.14.0" else None)
        return
    [fault] = faults_of(variables)
    drafts = options.get("speculative_num_draft_tokens", 1)
    for word in ("tokens a rank", "count to 1024", f"set max_batch_size to {1024 // (1 + drafts)} or less", "draft"):
        assert word in fault


@pytest.mark.parametrize("batch", [1025, 4096])
def test_more_than_the_kernels_count_is_refused(batch: int) -> None:
    [fault] = faults_of(dpep(plan_api_server_options={"max_batch_size": batch}))
    assert (
        f"max_batch_size {batch}, and DeepEP's low-latency kernels count to 1024: set max_batch_size to 1024" in fault
    )
    assert deepep_of(plan_of(dpep(plan_api_server_options={"max_batch_size": None}))).tokens_per_rank == 1024
    without = dpep(plan_ep=1, plan_tp=32, plan_dp=32, plan_api_server_options={"max_batch_size": batch}, **OWN_MODEL)
    assert plan_of(without).engines[0].deepep is None


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "hidden", "experts", "size"),
    [
        # What a C++ program with the sums of csrc/config.hpp (DeepEP 1.2.1) printed.
        (128, 7168, 256, 1908410496),
        (512, 7168, 256, 7633635456),
        (2048, 7168, 256, 30534535296),
        (128, 2048, 64, 136315520),
    ],
)
def test_the_buffer_is_what_deepep_says(tokens: int, hidden: int, experts: int, size: int) -> None:
    assert buffer_bytes(tokens, hidden, experts) == size


def test_a_large_buffer_is_warned_of_and_shown() -> None:
    plan = plan_of(dpep())
    [warning] = plan.warnings
    for word in ("7.1 GiB of every GPU", "7633635456 bytes", "512 tokens a rank", "lower max_batch_size"):
        assert word in warning
    assert (
        "deepep 512 tokens a rank take 7.1 GiB of every GPU (7633635456 bytes); NVSHMEM_QP_DEPTH=2048"
        in as_table(plan).splitlines()
    )
    assert plan.to_json()["engines"][0]["deepep"]["buffer_bytes"] == 7633635456
    assert plan_of(dpep(plan_api_server_options={"max_batch_size": 256})).warnings == []
    assert plan_of(nodes()).engines[0].deepep is None
    assert "deepep" not in as_table(plan_of(nodes()))


def test_the_size_comes_from_the_model_s_own_configuration() -> None:
    assert deepep_of(plan_of(dpep(**OWN_MODEL))).buffer_bytes is None
    assert "a buffer of unknown size" in as_table(plan_of(dpep(**OWN_MODEL)))
    config = {**FLOAT16, "num_experts": 64}
    assert deepep_of(plan_of(dpep(**OWN_MODEL), seen("0.18.0", config))).buffer_bytes == buffer_bytes(512, 2048, 64)
    eplb = dpep(plan_api_server_options={"enable_eplb": True})
    assert deepep_of(plan_of(eplb)).buffer_bytes == buffer_bytes(512, 7168, 256 + 32)


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpus", [(2,), (4,), (8,), (8,) * 2, (16,), (16, 8, 8), (8,) * 4, (8,) * 8, (8,) * 16])
def test_shapes_that_deepep_has(gpus: tuple[int, ...]) -> None:
    plan = plan_of(dpep(*gpus))
    assert plan.engines[0].ep == sum(gpus)
    assert not [each for each in plan.warnings if "NVLink" in each]


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ((8, 8, 8), ["plan_ep is 24 (all GPUs)", "16 or 32"]),
        ((8, 4), ["plan_ep is 12 (all GPUs)", "8 or 16"]),
        ((3,), ["plan_ep is 3 (all GPUs)", "2 or 4"]),
        ((8,) * 5, ["plan_ep is 40", "32 or 64"]),
        ((8,) * 18, ["plan_ep is 144", "256 experts of a layer do not divide by it", "set plan_ep to 128,"]),
        ((8,) * 32, ["plan_ep is 256", "kernels for", "set plan_ep to 128,"]),
    ],
)
def test_sizes_that_deepep_has_not_are_refused_with_the_nearest(gpus: tuple[int, ...], words: list[str]) -> None:
    fault = faults_of(dpep(*gpus))[0]
    for word in [*words, "plan_gpus", "plan_ep: 1 with plan_tp"]:
        assert word in fault


@pytest.mark.parametrize(
    ("gpus", "where"),
    [
        ((4,) * 4, "node0, node1, node2, node3"),
        ((8, 4, 4), "node1, node2"),
        ((12, 4), "node0, node1"),
        ((8, 4), "node1"),
    ],
)
def test_eight_consecutive_ranks_are_on_one_host(gpus: tuple[int, ...], where: str) -> None:
    faults = [fault for fault in faults_of(dpep(*gpus)) if "NVLink" in fault]
    assert {fault.partition(": ")[0] for fault in faults} <= {where, *where.split(", ")}
    assert all("8 consecutive ranks" in fault and "plan_gpus: 8" in fault for fault in faults)
    without = dpep(*gpus, plan_ep=1, plan_dp=sum(gpus), plan_tp=sum(gpus), **OWN_MODEL)
    assert len(plan_of(without).endpoints) == sum(gpus)


def test_up_to_eight_ranks_over_several_hosts_are_warned_of() -> None:
    [warning] = [each for each in plan_of(dpep(4, 4)).warnings if "NVLink" in each]
    assert "plan_ep 8 reaches over node0, node1" in warning


def test_experts_are_those_of_the_model_that_the_hosts_have() -> None:
    assert plan_of(dpep(**OWN_MODEL)).engines[0].ep == 32
    [fault] = faults_of(dpep(**OWN_MODEL), seen("0.18.0", {**FLOAT16, "num_local_experts": 8}))
    assert "plan_ep is 32 (all GPUs), and the 8 experts of a layer do not divide by it: set plan_ep to 8," in fault
    # Load balancing makes copies.
    options = {"plan_api_server_options": {"enable_eplb": True}}
    assert plan_of(dpep(*(8,) * 18, **options)).engines[0].ep == 144
    [fault] = faults_of(dpep(*(8,) * 8, **options))
    assert "enable_eplb makes 256 experts 288, which plan_ep 64 does not divide" in fault
    assert "set LMDEPLOY_EPLB_NUM_REDUNDANT_EXPERTS in plan_environment to 0 or 64" in fault
    more = {"plan_environment": {"LMDEPLOY_EPLB_NUM_REDUNDANT_EXPERTS": 64}}
    assert plan_of(dpep(*(8,) * 20, **options, **more)).engines[0].ep == 160
    [fault] = faults_of(dpep(*(8,) * 18, plan_image=of_release("0.10.0"), **options))
    assert "kernels for 2, 4, 8, 16, 32, 64, 128 ranks" in fault  # 144 came later


def test_dense_layers_are_split_over_the_gpus_of_a_rank() -> None:
    plan = plan_of(dpep(plan_dp=4, plan_ep=32, plan_tp=8))
    assert [endpoint.gpus for endpoint in plan.endpoints] == [list(range(8))] * 4
    assert " --tp 8 --dp 4 --ep 32 " in " ".join(service(plan, "dp", "node3").command)
    [fault] = faults_of(dpep(plan_dp=8, plan_ep=32, plan_tp=8))
    assert "set plan_tp to 1, or to 4, the GPUs of a rank. LMDeploy itself can" in fault
    assert "in LMDeploy 0.10.2 set plan_tp to 1" in faults_of(dpep(plan_tp=8, plan_image=of_release("0.10.2")))[0]


def test_tp_with_ep_over_ray() -> None:
    plan = plan_of(nodes(plan_ep=16, plan_image=of_release("0.12.0")))
    [engine] = plan.engines
    assert (engine.topology, engine.tp, engine.dp, engine.ep) == ("tp", 16, 1, 16)
    assert " --tp 16 --ep 16 " in " ".join(service(plan, "api").command)
    # Ray's workers, where DeepEP runs, inherit the raylet's environment.
    for each in plan.services:
        assert each.environment["DEEPEP_MAX_TOKENS_PER_RANK"] == "512"
        assert each.environment["NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME"].startswith("=")
    assert "with tp 16, ep 16 over 2 nodes" in as_table(plan)
    assert "--ep" not in service(plan_of(nodes(plan_dp=1, plan_ep=1)), "api").command
    missing = Observations({"lmdeploy": "0.18.0", "ray_token_auth": False, "modules": {}})
    [fault] = faults_of(nodes(plan_ep=16), missing)
    assert "needs deep_ep and deep_gemm" in fault


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"plan_ep": 8}, ["plan_ep is 8 and plan_tp 16 over 16 GPUs", "Set plan_ep to 16"]),
        ({"plan_ep": 8, "plan_tp": 8}, ["over 16 GPUs", "leave plan_ep out"]),
        ({"plan_ep": 16, "plan_image": of_release("0.10.2")}, ["LMDeploy 0.10.2", "plan_topology: dpep", "0.11.0 or later"]),
        ({"plan_ep": 16, "plan_dp": 2}, ["plan_dp is 2", "plan_topology: dpep"]),
    ],
)  # fmt: skip
def test_tp_with_another_ep_is_refused(variables: dict[str, Any], words: list[str]) -> None:
    [fault] = faults_of(nodes(**variables))
    for word in words:
        assert word in fault


@pytest.mark.parametrize("release", ["0.8.0", "0.18.0"])
def test_fp8_blocks_divide_by_tp(release: str) -> None:
    [fault] = faults_of(nodes(4, plan_image=of_release(release)))
    for word in ("plan_tp is 32 (the sum of plan_gpus)", "FP8 blocks", "set plan_tp to one of 1, 2, 4, 8, 16."):
        assert word in fault
    assert plan_of(nodes(4, plan_tp=16)).engines[0].tp == 16
    assert plan_of(nodes(4, **OWN_MODEL)).engines[0].tp == 32  # nobody knows yet
    assert plan_of(nodes(4, **OWN_MODEL), Observations(model_config=FLOAT16)).engines[0].tp == 32
    fp8 = {
        **FLOAT16,
        "moe_intermediate_size": 768,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    [fault] = faults_of(nodes(4, **OWN_MODEL), Observations(model_config=fp8))
    assert "the 6 FP8 blocks (moe_intermediate_size 768) of /models/mine: set plan_tp to one of 1, 2." in fault
    # With ep 1, dp and tp over 32 GPUs, tp is what splits the dense layers; with ep, a rank has them whole.
    assert "FP8 blocks" in faults_of(dpep(plan_ep=1, plan_tp=32, plan_dp=32))[0]
    assert plan_of(dpep()).engines[0].tp == 1
    [fault] = faults_of(nodes(4, plan_ep=32))
    assert "FP8 blocks" in fault


# Interfaces and ports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interfaces",
    [
        {"bond0": ["10.0.0.10"], "bond0.2973": ["192.0.2.1"]},
        {"bond0.2973": ["192.0.2.1"], "bond0": ["10.0.0.10"]},
        {"bond00": ["192.0.2.1"], "bond0": ["192.0.2.7", "10.0.0.10"], "bond01": []},
    ],
)
def test_an_interface_is_named_whole_where_a_library_takes_beginnings(interfaces: dict[str, list[str]]) -> None:
    asked = Observations(interfaces={"node0": interfaces, "node1": {"eth1": ["10.0.0.11"], "eth10": ["192.0.2.2"]}})
    for plan, kind, shared in (
        (plan_of(nodes(), asked), "ray", False),
        (plan_of(dpep(8, 8), asked), "dp", True),
    ):
        for node, own in (("node0", "bond0"), ("node1", "eth1")):
            environment = service(plan, kind, node).environment
            assert environment["NCCL_SOCKET_IFNAME"] == f"={own}"
            assert environment["GLOO_SOCKET_IFNAME"] == environment["TP_SOCKET_IFNAME"] == own
            assert environment.get("NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME") == (f"={own}" if shared else None)


def test_0_8_0_meets_at_a_port_that_it_finds() -> None:
    plan = plan_of(nodes(plan_image=of_release("0.8.0")))
    assert service(plan, "api").listens == [23333]
    assert "LMDeploy 0.8.0 takes a free port" in plan.warnings[0]
    for release in releases()[1:]:
        assert service(plan_of(nodes(plan_image=of_release(release))), "api").listens == [23333, 29500]


# Options that do nothing here ----------------------------------------------------------------------------------------

TURBOMIND = {
    "cp": 2,
    "communicator": "native",
    "dist_init_addr": "10.0.0.10:29500",
    "moe_a2a_backend": "deepep",
    "num_tokens_per_iter": 8,
    "max_prefill_iters": 2,
    "rope_scaling_factor": 2.0,
    "async": 0,
}
OF_NO_USE: dict[str, tuple[Any, str]] = {
    **{name: (value, "is an option of TurboMind") for name, value in TURBOMIND.items()},
    "ssl": (True, "every planned URL is http: take it out"),
    "role": ("Prefill", "DistServe"),
    "migration-backend": ("DLSlime", "DistServe"),
    "distributed_executor_backend": ("mp", "cannot be anything but ray"),
}


@pytest.mark.parametrize("release", releases())
@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_options_of_no_use_are_refused_by_each_release_that_takes_them(release: str, topology: str) -> None:
    table = release_table(release).api_server
    there = {key: value for key, (value, __) in OF_NO_USE.items() if key in table}
    assert {"communicator", "ssl"} <= there.keys()
    variables = nodes(plan_topology=topology, plan_image=of_release(release), plan_api_server_options=there)
    faults = faults_of(variables)
    assert len(faults) == len(there)
    for key, fault in zip(there, faults):
        assert fault.startswith(f"plan_api_server_options: {key} ")
        assert OF_NO_USE[key][1] in fault
        assert fault.endswith(("take it out.", "with TLS in front."))
    harmless = {"ssl": False, "role": "Hybrid", "distributed_executor_backend": "ray", "cp": None, "log_level": "INFO"}
    taken = {key: value for key, value in harmless.items() if key in table}
    assert plan_of(nodes(plan_topology=topology, plan_image=of_release(release), plan_api_server_options=taken))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"serving_strategy": "DistServe"}, "DistServe"),
        ({"migration_protocol": "NVLINK"}, "does nothing otherwise"),
        ({"dummy_prefill": True}, "does nothing otherwise"),
    ],
)
def test_options_of_the_proxy_for_a_split_engine_are_refused(options: dict[str, Any], words: str) -> None:
    [fault] = faults_of(nodes(plan_proxy=True, plan_proxy_options=options))
    assert words in fault
    assert fault.endswith("take it out.")
    assert plan_of(nodes(plan_proxy=True, plan_proxy_options={"serving-strategy": "Hybrid", "dummy_prefill": False}))


def test_options_that_depend_on_release_and_sizes() -> None:
    old: dict[str, Any] = {"plan_image": of_release("0.8.0"), "plan_api_server_options": {"model_format": "hf"}}
    assert "is an option of TurboMind" in faults_of(nodes(**old))[0]
    assert plan_of(nodes(plan_api_server_options={"model_format": "fp8"}))
    eplb: dict[str, Any] = {"plan_api_server_options": {"enable_eplb": True}}
    assert "balances the experts" in faults_of(nodes(**eplb))[0]
    assert "balances the experts" in faults_of(dpep(8, plan_ep=1, plan_tp=8, **eplb))[0]
    assert plan_of(nodes(plan_ep=16, **eplb))
    [fault] = faults_of(nodes(plan_image=UNKNOWN, plan_api_server_options={"ssl": True}))
    assert "ssl" in fault


# The page in docs ----------------------------------------------------------------------------------------------------


def table_of_releases() -> list[str]:
    """A row for releases in a row of which the plan sets the same."""
    rows: dict[str, list[str]] = {}
    for release in releases():
        plan = plan_of(dpep(plan_image=of_release(release)))
        needs = deepep_of(plan)
        own = [f"`{name}={value}`" for name, value in needs.environment.items() if name.startswith("DEEPEP")]
        others = [f"`{name}={value}`" for name, value in needs.environment.items() if not name.startswith("DEEPEP")]
        told = ", ".join(own) or ("nothing: 128 is in its code" if deepep_rules(release).cap else "`max_batch_size`")
        rest = f"| {plan.engines[0].option('max-batch-size')} | {told} | {', '.join(others)} |"
        rows.setdefault(rest, []).append(release)
    return [f"| {', '.join(names)} {rest}" for rest, names in rows.items()]


def table_of_sizes() -> list[str]:
    sizes = {tokens: buffer_bytes(tokens, 7168, 256) for tokens in (128, 256, 512, 1024)}
    return [f"| {tokens} | {size} | {gib(size)} |" for tokens, size in sizes.items()]


@pytest.mark.parametrize("table", [table_of_releases, table_of_sizes])
def test_the_page_in_docs_has_what_plans_say(table: Any) -> None:
    rows = "\n".join(table())
    assert rows in PAGE.read_text(encoding="utf-8"), f"write into docs/deepep.md:\n{rows}"
