# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of ``plan_*`` variables as inventories have them: what passes as what it says, and what is refused, a fault each."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations, build_plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.environment import is_secret
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.inputs import read_inputs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_shell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, PlanError
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import (
    SPEC,
    Variables,
    faults_of,
    nodes,
    plan_of,
    plan_or_faults,
    service,
    typed,
)

NO_TEXT: list[tuple[Any, str]] = [
    (True, "'True'"),
    (False, "'False'"),
    (1.5, "'1.5'"),
    (float("nan"), "'nan'"),
    (None, "'None'"),
    ([1, 2], "'[1, 2]'"),
    ({"a": 1}, "{'a': 1}"),
    (datetime.date(2026, 1, 2), "'2026-01-02'"),
    (datetime.datetime(2026, 1, 2, 3, 4), "'2026-01-02 03:04:00'"),  # noqa: DTZ001 - YAML's have none
]


def two(**variables: Any) -> Variables:
    return nodes(2, **variables)


def one_fault(**variables: Any) -> str:
    faults = faults_of(two(**variables))
    assert len(faults) == 1, faults
    return faults[0]


@pytest.mark.parametrize(("value", "reaches"), NO_TEXT)
def test_what_is_no_text_is_refused_with_what_would_have_reached_the_engine(value: Any, reaches: str) -> None:
    fault = one_fault(plan_environment={"NCCL_IB_DISABLE": value})
    assert "plan_environment.NCCL_IB_DISABLE" in fault
    assert reaches in fault
    assert "quote it" in fault


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (-1, "-1"), (0, "0"), ("true", "true"), ("", ""), ("a\nb", "a\nb")]
)
def test_whole_numbers_and_text_pass(value: Any, text: str) -> None:
    plan = plan_of(nodes(plan_environment={"NCCL_IB_DISABLE": value}))
    assert service(plan, "ray").environment["NCCL_IB_DISABLE"] == text


@pytest.mark.parametrize(
    "variable", ["plan_name", "plan_served_model_name", "plan_model_revision", "plan_head", "plan_interface"]
)
@pytest.mark.parametrize("value", [True, 1.10, [1], {"a": 1}, datetime.date(2026, 1, 2)])
def test_a_name_that_yaml_read_as_something_else_is_refused(variable: str, value: Any) -> None:
    fault = one_fault(**{variable: value})
    assert fault.startswith(f"node0, node1: {variable} ")
    assert "quote it" in fault


def test_a_commit_of_digits_alone_is_text() -> None:
    assert "--revision 1234567 " in " ".join(service(plan_of(nodes(plan_model_revision=1234567)), "api").command)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("plan_gpus", 123456789012, "at most 64"),
        ("plan_gpus", True, "whole number"),
        ("plan_gpus", "0x8", "whole number"),
        ("plan_gpus", 8.5, "whole number"),
        ("plan_gpus", None, "has no value"),
        ("plan_image", None, "has no value"),
        pytest.param("plan_tp", 16**5000, "more than 18 digits", id="endless"),
        pytest.param("plan_environment", {"A": [16**5000]}, "is a list", id="endless, in a list"),
        ("plan_ports", [8000], "takes a mapping"),
        ("plan_ports", "8000", "takes a mapping"),
        ("plan_ports", {"api": [1]}, "plan_ports.api"),
        ("plan_ports", {8000: "api"}, "plan_ports has 8000"),
        ("plan_proxy", "maybe", "true or false"),
        ("plan_proxy", [True], "true or false"),
        ("plan_extra_mounts", {"source": "/a", "target": "/b"}, "takes a list"),
        ("plan_extra_mounts", ["/a:/b"], "plan_extra_mounts[0]"),
        ("plan_extra_mounts", [{"source": "/a\n", "target": "/b"}], "line break"),
        ("plan_extra_mounts", [{"source": "/a:x", "target": "/b"}], "':'"),
        ("plan_replicas", [["a"]], "plan_replicas[0]"),
        ("plan_topology", "ep", "one of tp, dpep"),
        ("plan_environment", ["A=1"], "takes a mapping"),
        ("plan_environment", {True: "1"}, "the key True"),
        ("plan_environment", {1: "1"}, "the key 1"),
        ("plan_environment", {"A": "\x1b[2J"}, "nobody can see"),
        ("plan_state_dir", "/var/lib/lmfleet\nrm -rf /", "line break"),
        ("plan_state_dir", "/var/lib/lmfleet\N{NO-BREAK SPACE}", "nobody can see"),
        ("plan_hf_home", "/data\n", "line break"),
        ("plan_served_model_name", "--api-keys=x", "for an option"),
        ("plan_model_revision", "--trust-remote-code", "for an option"),
        ("plan_api_server_options", "max_batch_size", "takes a mapping"),
        ("plan_api_server_options", {"adapters": ["--api-keys", "x"]}, "another option"),
        ("plan_api_server_options", {"allow_origins": ["*", "-x"]}, "another option"),
        ("plan_api_server_options", {"allow_origins": [None]}, "in its list"),
        ("plan_api_server_options", {"allow_origins": [True]}, "'True'"),
        ("plan_api_server_options", {"log_level": False}, "'False'"),
        ("plan_api_server_options", {"dtype": 1.5}, "'1.5'"),
        ("plan_api_server_options", {"max_batch_size": datetime.date(2026, 1, 2)}, "neither text nor a number"),
        ("plan_api_server_options", {"hf_overrides": {"a": datetime.date(2026, 1, 2)}}, "neither text nor a number"),
        ("plan_api_server_options", {"hf_overrides": {1: 1, "a": 1}}, "neither text nor a number"),
        ("plan_api_server_options", {"cache_max_entry_count": float("nan")}, "neither text nor a number"),
        ("plan_api_server_options", {"enable_prefix_caching": "maybe"}, "takes true or false"),
        ("plan_api_server_options", {3: 1}, "the key 3"),
        ("plan_api_server_options", {"tp\x1b[2J": 1}, "'tp\\x1b[2J'"),
    ],
)
def test_a_value_of_another_kind_is_one_fault(variable: str, value: Any, words: str) -> None:
    fault = one_fault(**{variable: value})
    assert variable in fault
    assert words in fault


def test_every_entry_that_is_wrong_is_a_fault_of_its_own() -> None:
    variables = nodes(
        plan_ports={"api": "x", "proxy": [1], "apu": 1},
        plan_environment={"A": True, "B": 1.5, 3: "x", "OK": 1},
        plan_api_server_options={"log_level": True, "adapters": ["-x"]},
    )
    faults = faults_of(variables)
    for word in (
        "plan_ports.api",
        "plan_ports.proxy",
        "'apu'",
        "plan_environment.A",
        "plan_environment.B",
        "the key 3",
    ):
        assert sum(word in fault for fault in faults) == 1
    assert len(faults) == 8


@pytest.mark.parametrize("variable", ["plan_environment", "plan_ports", "plan_interface", "plan_replicas", "plan_head"])
def test_an_empty_line_is_the_default_where_that_is_empty(variable: str) -> None:
    assert plan_of(two(**{variable: None})) == plan_of(nodes())


TRUE = [True, "true", "True", "yes", "on", "1", "y", "t", 1]
FALSE = [False, "false", "no", "off", "0", "n", 0]


@pytest.mark.parametrize("flag", TRUE)
def test_a_flag_may_be_text_as_everywhere_in_ansible(flag: Any) -> None:
    plan = plan_of(nodes(plan_proxy=flag, plan_api_server_options={"enable-prefix-caching": flag}))
    assert plan.proxy
    assert service(plan, "api").command[-1] == "--enable-prefix-caching"


@pytest.mark.parametrize("flag", FALSE)
def test_a_flag_that_is_off_may_be_text_too(flag: Any) -> None:
    variables: dict[str, Any] = {
        "plan_proxy_options": {"disable_cache_status": flag},
        "plan_api_server_options": {"enable_prefix_caching": flag},
    }
    plan = plan_of(nodes(plan_proxy=True, **variables))
    assert "--disable-cache-status" not in service(plan, "proxy").command
    assert "--enable-prefix-caching" not in service(plan, "api").command
    assert not service(plan_of(nodes(plan_privileged=flag)), "api").privileged


def test_a_flag_may_be_text_where_no_table_says_so() -> None:
    options = {
        "plan_image": "registry.example.com/team/lmdeploy:ours",
        "plan_api_server_options": {"enable_prefix_caching": "true"},
    }
    assert service(plan_of(two(**options)), "api").command[-1] == "--enable-prefix-caching"


def test_lists_and_mappings_may_be_text() -> None:
    groups = {"a": ["node0"], "b": ["node1"]}
    for given_list in ("a,b", "a, b", '["a", "b"]', ["a", "b"]):
        assert len(plan_of(nodes(plan_replicas=given_list), groups=groups).engines) == 2
    for mapping in ('{"api": 9000}', "api=9000", {"api": "9000"}):
        assert plan_of(nodes(plan_ports=mapping)).ports.api == 9000


def test_negative_numbers_in_a_list_are_no_options() -> None:
    variables = nodes(plan_api_server_options={"cudagraph_capture_batch_sizes": [-1, "-2", 4]})
    assert service(plan_of(variables), "api").command[-3:] == ["-1", "-2", "4"]


# Environment -----------------------------------------------------------------------------------------------------------

CONTRADICTIONS = [
    ("CUDA_VISIBLE_DEVICES", "4,5,6,7", "plan_gpus"),
    ("NVIDIA_VISIBLE_DEVICES", "0", "plan_gpus"),
    ("ROCR_VISIBLE_DEVICES", "0", "plan_gpus"),
    ("RANK", 0, "plan_dp"),
    ("WORLD_SIZE", 16, "plan_tp"),
    ("LOCAL_RANK", "0", "plan_tp"),
    ("MASTER_ADDR", "10.0.0.9", "plan_head"),
    ("MASTER_PORT", 29500, "plan_ports.torch"),
    ("LMDEPLOY_DIST_MASTER_ADDR", "10.0.0.9", "plan_head"),
    ("LMDEPLOY_DIST_MASTER_PORT", 1, "plan_ports.torch"),
    ("LMDEPLOY_DP_MASTER_ADDR", "10.0.0.9", "plan_head"),
    ("LMDEPLOY_DP_MASTER_PORT", 1, "plan_ports.dp_master"),
    ("LMDEPLOY_EXECUTOR_BACKEND", "mp", "plan_topology"),
    ("RAY_ADDRESS", "auto", "plan_ports.ray"),
    ("RAY_AUTH_MODE", "disabled", "ray_token_value"),
    ("PET_NNODES", 2, "plan_launcher"),
    ("TORCHELASTIC_RUN_ID", "x", "plan_launcher"),
    ("HF_HOME", "/data/hf", "plan_hf_home"),
    ("HUGGINGFACE_HUB_CACHE", "/data", "plan_hf_home"),
    ("TRANSFORMERS_CACHE", "/data", "plan_hf_home"),
    ("XDG_CACHE_HOME", "/data", "plan_hf_home"),
    ("HF_HUB_OFFLINE", 0, "nothing is downloaded"),
    ("HOME", "/home/user", "caches"),
]


@pytest.mark.parametrize("topology", ["tp", "dpep"])
@pytest.mark.parametrize(("name", "value", "word"), CONTRADICTIONS)
def test_a_variable_that_says_otherwise_than_the_plan_is_refused(
    topology: str, name: str, value: Any, word: str
) -> None:
    fault = one_fault(plan_topology=topology, plan_environment={name: value})
    assert f"plan_environment sets {name}" in fault
    assert word in fault
    assert "take it out" in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_HOME", "/root/.cache/huggingface/"),
        ("HF_HUB_CACHE", "/root/.cache/huggingface/hub"),
        ("HF_HOME", "/root/.cache/huggingface/team"),
        ("HF_HUB_OFFLINE", 1),
        ("HF_HUB_OFFLINE", "true"),
        ("NVIDIA_VISIBLE_DEVICES", "all"),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),
        ("HF_MODULES_CACHE", "/tmp/modules"),
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        ("NCCL_SOCKET_IFNAME", "ib0"),
        ("LMDEPLOY_SKIP_WARMUP", 1),
        ("RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION", "0.05"),
        ("NO_PROXY", "localhost"),
    ],
)
def test_what_agrees_with_the_plan_or_is_no_business_of_it_passes(name: str, value: Any) -> None:
    plan = plan_of(nodes(plan_environment={name: value}))
    assert service(plan, "api").environment[name] == str(value)


# In pieces, so that nobody who looks for lost secrets finds any here.
SECRETS = [
    ("HF_TOKEN", "x1"),
    ("PGPASSWORD", "x1"),
    ("PGPASSWORD", "1234"),
    ("MYSQL_PWD", "x1"),
    ("DB_PASS", "x1"),
    ("SECRET_KEY", "x1"),
    ("DJANGO_SECRET_KEY", "x1"),
    ("AWS_SECRET_ACCESS_KEY", "ab/cd+ef"),
    ("AWS_SESSION_TOKEN", "x1"),
    ("GITHUB_PAT", "x1"),
    ("WANDB_API_KEY", "x1"),
    ("OPENAI_APIKEY", "x1"),
    ("SSH_PASSPHRASE", "x1"),
    ("HUGGING_FACE_HUB_TOKEN", "x1"),
    ("API_TOKEN_2", "x1"),
    ("REDISCLI_AUTH", "x1"),
    ("FERNET_KEY", "abcdefgh12345678="),
    ("MY_CREDENTIALS", "user:x1"),
    ("DATABASE_URL", "postgres://user" + ":x1@db/x"),
    ("https_proxy", "http://user" + ":x1@proxy:3128"),
    ("SENTRY_DSN", "https://0123@sentry.example.com/1"),
    ("CONNECTION", "host=db;Password=x1"),
    ("ANYTHING", "hf_" + "A1b2C3d4" * 4),
    ("ANYTHING", "ghp_" + "A1b2C3d4" * 4),
    ("ANYTHING", "-----BEGIN RSA " + "PRIVATE KEY-----\nx"),
]
NO_SECRETS = [
    ("TOKENIZERS_PARALLELISM", "false"),
    ("VLLM_MAX_TOKENS", "4096"),
    ("HF_TOKEN_PATH", "/run/secrets/hf"),
    ("RAY_TOKEN_FILE", "/run/x"),
    ("SSL_KEYFILE", "/etc/ssl/key.pem"),
    ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
    ("HF_TOKEN", ""),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/gcp/key.json"),
    ("NCCL_IB_PKEY", "0"),
    ("NCCL_DEBUG", "INFO"),
    ("EOS_TOKEN", "</s>"),
    ("PWD", "/root"),
    ("OLDPWD", "/root/work"),
    ("ENABLE_AUTH", "true"),
    ("SSH_AUTH_SOCK", "/tmp/agent"),
    ("PYTHONHASHSEED", "0"),
    ("http_proxy", "http://proxy.example.com:3128"),
    ("GIT_URL", "ssh://git@example.com/x"),
    ("CACHE_KEY", "v2"),
    ("NCCL_IB_HCA", "mlx5_0:1,mlx5_1:1"),
    ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_a_secret_is_refused_and_not_repeated(name: str, value: str) -> None:
    assert is_secret(name, value)
    fault = one_fault(plan_environment={name: value})
    assert f"plan_environment has {name}, which looks like a secret" in fault
    assert value not in fault


@pytest.mark.parametrize(("name", "value"), NO_SECRETS)
def test_what_only_sounds_like_a_secret_passes(name: str, value: str) -> None:
    assert not is_secret(name, value)
    assert service(plan_of(nodes(plan_environment={name: value})), "api").environment[name] == value


# Variables that could not be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["tp", "dpep"])
@pytest.mark.parametrize("variable", sorted(SPEC))
def test_a_variable_that_could_not_be_read_makes_no_other_fault(variable: str, topology: str) -> None:
    # Each of these is right, and would be wrong beside the default of another.
    groups = {"a": ["node0", "node1"], "b": ["node2", "node3"]}
    variables = nodes(
        4,
        plan_topology=topology,
        plan_gpus=8 if topology == "dpep" else 4,
        plan_image="openmmlab/lmdeploy:v0.17.1-cu12.8",
        **({"plan_replicas": ["a", "b"], "plan_tp": 8} if topology == "tp" else {"plan_dp": 32, "plan_ep": 32}),
        plan_proxy_options={"disable_cache_status": True},
    )
    plan_of(variables, groups=groups)
    for node in variables.values():
        node.pop(variable, None)
    faults = Faults()
    inputs = read_inputs(SPEC, variables, faults, groups=groups, unread={node: [variable] for node in variables})
    build_plan(inputs, Observations(), faults)
    assert faults.listed() == []


# Fuzzing ------------------------------------------------------------------------------------------------------------------

WORDS = ["/a", "10.0.0.10", "tp", "dpep", "cu12", "-x", "--", "{", "[", "a=b", "true", "fd00::1", "\n", "\x1b", "8"]
KEYS = ["api", "source", "target", "HF_TOKEN", "tp", "adapters"]
numbers = st.booleans() | st.integers() | st.integers(-(10**30), 10**30) | st.floats()
scalars = st.none() | numbers | st.dates() | st.binary(max_size=4) | st.text(max_size=8) | st.sampled_from(WORDS)
keys = st.text(max_size=6) | st.integers() | st.booleans() | st.sampled_from(KEYS)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


@settings(max_examples=400, derandomize=True)
@given(
    everywhere=st.dictionaries(st.sampled_from(sorted(SPEC)), anything, max_size=4),
    one=st.dictionaries(st.sampled_from(sorted(SPEC)), anything, max_size=2),
)
def test_whatever_an_inventory_holds_comes_out_as_a_plan_or_as_faults(
    everywhere: dict[str, Any], one: dict[str, Any]
) -> None:
    variables = nodes(
        3, plan_gpus=4, plan_tp=4, **{k: v for k, v in everywhere.items() if k not in ("plan_gpus", "plan_tp")}
    )
    for name, value in everywhere.items():
        for node in variables.values():
            node[name] = value
    variables["node1"].update(one)
    plan, faults = plan_or_faults(variables)
    if plan is None:
        assert faults
        assert all(fault.isprintable() for fault in faults)
        assert len(faults) == len(set(faults))
    else:
        assert len(typed(as_shell(plan), plan)) == len(plan.services)


OPTIONS = ["adapters", "max_batch_size", "hf_overrides", "enable_prefix_caching", "log_level", "disable_cache_status"]


@settings(max_examples=200, derandomize=True)
@given(
    value=anything,
    key=st.sampled_from([*OPTIONS, "anything"]),
    variable=st.sampled_from(["plan_api_server_options", "plan_proxy_options"]),
    image=st.sampled_from(["cu12.8", "example.com/lmdeploy:ours"]),
)
def test_whatever_an_option_is_it_stays_one_option(value: Any, key: str, variable: str, image: str) -> None:
    plan, faults = plan_or_faults(two(plan_proxy=True, plan_image=image, **{variable: {key: value}}))
    if plan is None:
        assert len(faults) >= 1
        return
    kind = "api" if variable == "plan_api_server_options" else "proxy"
    defaults = service(plan_of(nodes(plan_proxy=True, plan_image=image)), kind).command
    added = [word.partition("=")[0] for word in service(plan, kind).command if word.startswith("--")]
    assert {*added} - {*defaults} <= {f"--{key.replace('_', '-')}"}


def test_the_words_of_a_refusal_stay_with_their_host() -> None:
    with pytest.raises(PlanError) as refused:
        plan_of({"node0\nrm -rf /": {"plan_cluster_address": "10.0.0.10"}})
    [fault] = refused.value.faults
    assert "cannot be a node" in fault
    assert "\n" not in fault
