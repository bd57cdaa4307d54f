# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories that cannot be deployed, each refused with one sentence that says what to set; and their like that can."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.environment import is_secret
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.releases import ImageError, resolve_image
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import faults_of, nodes, plan_of, plan_or_faults


def mount(target: str) -> list[dict[str, str]]:
    return [{"source": "/data", "target": target}]


REPLICAS = {"a": ["node0"], "b": ["node1"], "a-": ["node0"], "a_": ["node1"]}
REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    # addresses
    *(
        ({"plan_cluster_address": address}, [f"plan_cluster_address {address}", "give the cluster address"])
        for address in ("0.0.0.5", "127.0.1.1", "224.0.0.1", "240.0.0.5", "255.255.255.255")
    ),
    ({"plan_cluster_address": "10.0.0.10 "}, ["'10.0.0.10 '", "take the blank out"]),
    ({"plan_cluster_address": ["10.0.0.10"]}, ["is a list", "give one text"]),
    # interfaces, revisions, models, names
    *(({"plan_interface": name}, ["one interface"]) for name in ("ib0,ib1", "=ib0", "^lo", "eth0:1", "e" * 16, "a/b")),
    *(
        ({"plan_model_revision": revision}, ["a branch, a tag or a commit"])
        for revision in ("", "../x", "/main", "main/", "a b", "a:b", "x" * 201)
    ),
    ({"plan_model": "https://huggingface.co/a/b/tree/dev"}, ["set plan_model: a/b and plan_model_revision: dev."]),
    ({"plan_model": "https://user:pw@huggingface.co/a/b"}, ["'https://huggingface.co/a/b'", "set plan_model: a/b."]),
    ({"plan_model": "hf://a/b"}, ["set plan_model: a/b."]),
    ({"plan_model": "models--a--b-c"}, ["set plan_model: a/b-c."]),
    ({"plan_model": "a/b@v1"}, ["set plan_model: a/b and plan_model_revision: v1."]),
    ({"plan_model": "DeepSeek-V3.1"}, ["did you mean deepseek-ai/DeepSeek-V3.1?"]),
    ({"plan_model": "a/b\N{CYRILLIC SMALL LETTER IE}"}, ["neither a Hugging Face repository id"]),
    *(({"plan_model": model}, ["neither a Hugging Face repository id"]) for model in ("a/b--c", "a/b..c", "s3://a/b")),
    ({"plan_model": "/models/../etc", "plan_extra_mounts": mount("/models")}, ["no container would see"]),
    ({"plan_served_model_name": " x"}, ["take the blank out"]),
    ({"plan_served_model_name": "x" * 5000}, ["5000 characters", "shorten it"]),
    ({"plan_tensor_parallel": 8}, ["plan_tensor_parallel is not a variable of the plan: correct"]),
    ({"plan_gpus": datetime.date(2026, 1, 2)}, ["plan_gpus is 2026-01-02"]),
    # directories
    *(({key: "/"}, [key, "a directory of its own"]) for key in ("plan_hf_home", "plan_state_dir")),
    ({"plan_state_dir": "/dev/shm/x"}, ["plan_state_dir", "a directory of its own"]),
    *(
        ({"plan_extra_mounts": mount(target)}, ["would hide"])
        for target in ("/", "/usr/", "/etc", "/x/../lib", "/proc/x", "/usr/local")
    ),
    ({"plan_extra_mounts": mount("/root/.cache/huggingface/")}, ["by the plan itself", "set plan_hf_home"]),
    *(
        ({"plan_extra_mounts": mount(target)}, ["by the plan itself", "another target"])
        for target in ("/root/.cache", "/root/.nv", "/tmp/ray", "/run/lmfleet/secrets/ray_token")
    ),
    ({"plan_extra_mounts": mount("/m") + mount("/m/")}, ["/m is the target of two mounts"]),
    ({"plan_extra_mounts": ["/data:/models"]}, ["source: ..., target: ..."]),
    # ports
    ({"plan_ports": {"ray_worker_first": 20000, "ray_worker_last": 20007}}, ["8 ports are too few", "each of 8 GPUs"]),
    ({"plan_ports": {"ray_worker_first": 20000, "ray_worker_last": 20000}}, ["1 ports are too few"]),
    ({"plan_ports": {"ray_worker_first": 6000, "ray_worker_last": 7000}}, ["plan_ports.ray (6379)", "move the range"]),
    ({"plan_ports": {"ray_worker_last": 70000}}, ["plan_ports.ray_worker_last is 70000"]),
    # replicas
    ({"plan_replicas": ["a", "a", "b"]}, ["plan_replicas names 'a' twice"]),
    ({"plan_replicas": ["a", "c"]}, ["plan_replicas names 'c', which is no group"]),
    ({"plan_replicas": ["a-", "a_"]}, ["are both called lmdeploy-a-"]),
    # environment
    ({"plan_environment": {"NCCL_COMM_ID": "10.0.0.9:1"}}, ["plan_environment sets NCCL_COMM_ID", "plan_head"]),
    *(
        ({"plan_environment": {name: text}}, [f"plan_environment sets {name} to '{text}'", "set plan_interface"])
        for name, text in (
            ("GLOO_SOCKET_IFNAME", "^docker0,lo"),
            ("GLOO_SOCKET_IFNAME", "=ib0"),
            ("TP_SOCKET_IFNAME", "lo"),
            ("NCCL_SOCKET_IFNAME", "=lo"),
            ("NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME", "lo"),
        )
    ),
    *(({"plan_environment": {name: "AF_INET6"}}, [name, "IPv4"]) for name in ("NCCL_SOCKET_FAMILY",)),
    ({"plan_environment": {"NVIDIA_DRIVER_CAPABILITIES": "compute,video"}}, ["compute and utility"]),
    ({"plan_environment": {"PATH": "/x:$PATH"}}, ["write the whole value"]),
    ({"plan_environment": {"LD_LIBRARY_PATH": "${LD_LIBRARY_PATH}:/x"}}, ["write the whole value"]),
    ({"plan_environment": {"A": "x" * 140_000}}, ["140000 characters"]),
    ({"plan_environment": {"https_proxy": "http://u:p" + "@p:1"}}, ["looks like a secret", "out of the address"]),
    ({"plan_proxy": True, "plan_proxy_environment": {"AIOHTTP_TIMEOUT": "9" * 5000}}, ["as a whole number"]),
    # options
    *(
        ({"plan_api_server_options": {key: value}}, [key, "takes"])
        for key, value in (
            ("cache_max_entry_count", 1),
            ("cache-max-entry-count", "0"),
            ("cache_max_entry_count", "nan"),
            ("max_batch_size", -1),
            ("session_len", 0),
            ("cache_block_seq_len", 8),
            ("quant_policy", 3),
            ("speculative_num_draft_tokens", -3),
        )
    ),
    ({"plan_api_server_options": {"device": "ascend"}}, ["device", "NVIDIA"]),
    ({"plan_api_server_options": {"server_name": "127.0.0.1"}}, ["server_name", "10.0.0.10 or 0.0.0.0"]),
    ({"plan_api_server_options": {"TP": 8}}, ["did you mean tp?"]),
    ({"plan_api_server_options": {"hf_overrides": {"a": ["hf_" + "A1b2C3d4" * 4]}}}, ["hf_overrides", "like a secret"]),
    ({"plan_api_server_options": {"max_batch_size": "x" * 9999}}, ["takes a whole number"]),
    ({"plan_proxy": True, "plan_proxy_options": {"ssl": True}}, ["ssl makes the proxy speak HTTPS"]),
]
TAKEN: list[dict[str, Any]] = [
    {"plan_cluster_address": "169.254.1.2"},
    {"plan_cluster_address": "192.168.1.255"},  # in a /16 it is a host's
    {"plan_interface": "bond0.2973"},
    {"plan_interface": "enp1s0f0np0"},
    {"plan_model_revision": "refs/pr/3"},
    {"plan_model_revision": "feature/x+y@z"},
    {"plan_extra_mounts": mount("/root/.cache/huggingface/hub")},
    {"plan_extra_mounts": mount("/opt/own") + mount("/etc/own") + mount("/mnt")},
    {"plan_ports": {"ray_worker_first": 20000, "ray_worker_last": 20099}},
    {"plan_environment": {"HOME": "/root/"}},
    {"plan_environment": {"NCCL_SOCKET_IFNAME": "^docker0,lo", "GLOO_SOCKET_IFNAME": "eth0,eth1"}},
    {"plan_environment": {"NCCL_SOCKET_FAMILY": "AF_INET", "NVIDIA_DRIVER_CAPABILITIES": "all"}},
    {"plan_environment": {"LD_LIBRARY_PATH": "/x:/y", "NCCL_DEBUG_FILE": "/tmp/$x.%h", "A": "$HOME"}},
    {"plan_api_server_options": {"server_name": "0.0.0.0", "max_batch_size": 0, "quant_policy": "8"}},
    {"plan_api_server_options": {"server-name": "10.0.0.10", "cache_max_entry_count": 0.99, "device": "cuda"}},
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=lambda case: str(case)[:60])
def test_each_is_one_fault_that_says_what_to_set(given: dict[str, Any], words: list[str]) -> None:
    variables = nodes(2)
    if "plan_cluster_address" in given:
        variables["node0"].update(given)
    else:
        for node in variables.values():
            node.update(given)
    [fault] = faults_of(variables, groups=REPLICAS)
    assert len(fault) < 700
    for word in words:
        assert word in fault


@pytest.mark.parametrize("given", TAKEN, ids=lambda case: str(case)[:60])
def test_what_is_like_them_and_right_passes(given: dict[str, Any]) -> None:
    variables = nodes(2)
    for node in variables.values() if "plan_cluster_address" not in given else [variables["node0"]]:
        node.update(given)
    assert plan_or_faults(variables)[1] == []


def test_one_host_alone_may_use_its_loopback() -> None:
    assert plan_or_faults(nodes(1, plan_environment={"NCCL_SOCKET_IFNAME": "lo"}))[1] == []


def test_a_value_that_differs_on_one_host_is_one_fault() -> None:
    for odd in ("node0", "node7"):
        variables = nodes(16, plan_tp=16)
        variables[odd]["plan_ports"] = {"api": 1000}
        [fault] = faults_of(variables)
        assert f"{{'api': 1000}} on {odd}" in fault
        assert "and 11 more" in fault
        assert "None" not in fault


def test_the_names_of_many_hosts_are_cut() -> None:
    [fault] = faults_of(nodes(40, plan_tp=16, plan_state_dir="x"))
    assert fault.startswith("node0, node1, node2, node3, and 36 more: plan_state_dir")


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("OpenMMLab/lmdeploy:v0.18.0", "upper-case"),  # which Docker takes for the host of a registry
        ("registry.example.com/Team/lmdeploy", "upper-case"),
        ("a/b@sha256:" + "a" * 63, "64 hexadecimal digits"),
        ("a/b@md5:" + "a" * 32, "64 hexadecimal digits"),
        ("sha256:" + "a" * 64, "the id of an image"),
        ("registry:99999/a", "1..65535"),
        ("a/" + "b-" * 9000, "not an image reference"),
    ],
)
def test_what_docker_cannot_pull_is_no_image(reference: str, why: str) -> None:
    with pytest.raises(ImageError, match=why) as refused:
        resolve_image(reference)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("tag", "release"),
    [
        ("12.4.1-v0.9.2", "0.9.2"),
        ("cuda12.8.1-py3.10.12-0.17.0", "0.17.0"),
        ("2026.01.02", None),
        ("v0.19.0", "0.19.0"),
        ("v0.9.2.post1-cu12", "0.9.2.post1"),
    ],
)
def test_the_release_in_a_tag_is_lmdeploy_s(tag: str, release: str | None) -> None:
    assert resolve_image(f"Registry.example.com:5000/team/lmdeploy:{tag}").release == release


def test_a_release_that_is_older_than_all_tables_is_warned_of() -> None:
    assert "0.7.3 is older than 0.8.0" in plan_of(nodes(plan_image="a/lmdeploy:v0.7.3")).warnings[0]
    assert "older" not in " ".join(plan_of(nodes(plan_image="a/lmdeploy:v0.8.0")).warnings)


@pytest.mark.parametrize(
    ("sizes", "nearest"),
    [
        ({"plan_dp": 32, "plan_ep": 32}, "plan_tp: 1, plan_dp: 16, plan_ep: 16"),
        ({"plan_dp": 3, "plan_ep": 1}, "plan_tp: 16, plan_dp: 4, plan_ep: 1"),
        ({"plan_tp": 2, "plan_dp": 16, "plan_ep": 16}, "plan_tp: 1, plan_dp: 16, plan_ep: 16"),
        ({"plan_dp": 5}, "plan_tp: 1, plan_dp: 4, plan_ep: 16"),
        ({"plan_dp": 16, "plan_ep": 32, "plan_image": "a/b:v0.9.2"}, "plan_tp: 1, plan_dp: 16, plan_ep: 16"),
    ],
)
def test_the_nearest_sizes_are_told_and_can_be_had(sizes: dict[str, Any], nearest: str) -> None:
    fault = faults_of(nodes(2, plan_topology="dpep", **sizes))[-1]
    assert fault.endswith(f" The nearest that 16 GPUs can have is {nearest}.")
    told = {key: int(size) for key, __, size in (pair.partition(": ") for pair in nearest.split(", "))}
    plan_of(nodes(2, plan_topology="dpep", **{**sizes, **told}))


def test_tp_with_experts_over_gpus_that_do_not_divide_the_model_says_what_can_be_had() -> None:
    [fault] = faults_of(nodes(4, plan_ep=32))
    assert "set plan_topology: dpep, or leave plan_ep out" in fault


@pytest.mark.parametrize("copies", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "-32", "x", "33"])
def test_copies_of_experts_are_a_number_that_fits(copies: str) -> None:
    name = "LMDEPLOY_EPLB_NUM_REDUNDANT_EXPERTS"
    options = {"enable_eplb": True}
    variables = nodes(4, plan_topology="dpep", plan_api_server_options=options, plan_environment={name: copies})
    [fault] = faults_of(variables)
    assert name in fault
    assert "0 or 32" in fault if copies == "33" else "give a whole number" in fault


@pytest.mark.parametrize(
    "text", ["x" * 130_000, "a+" * 65_000, "a://" * 32_000, "eyJ-" * 32_000, "-----BEGIN " * 11_000]
)
def test_looking_for_secrets_takes_no_time(text: str) -> None:
    before = time.process_time()
    assert not is_secret("A", text)
    assert time.process_time() - before < 20  # minutes, where it is quadratic
