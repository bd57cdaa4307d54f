# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of the user's that decide where the containers' requests and Ray's processes go."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.environment import is_direct
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import faults_of, nodes, plan_of, service

WEB = "http://proxy.example:3128"
BOTH = "10.0.0.10,10.0.0.11"
DPEP: dict[str, Any] = {"plan_topology": "dpep", "plan_gpus": 2}


# ---- NO_PROXY


@pytest.mark.parametrize(
    ("text", "direct"),
    [
        ("*", True),
        (" * ", True),
        ("10.0.0.11", True),
        ("corp.example, 10.0.0.11", True),
        ("10.0.0.0/8", True),
        ("10.0.0.11/32", True),
        ("10.0.0.10/31", True),
        ("10.0.0.12/30", False),
        ("0.0.0.0/0", False),  # requests takes no such network
        ("*,corp.example", False),
        ("10.0.0.*", False),
        ("10.0.0.", False),
        ("10.0.0.11:8000", False),
        ("10.0.0.10 10.0.0.11", False),
        ("10.0.0.10;10.0.0.11", False),
        ("node1", False),
        ("10.0.0.0/x,", False),
        ("", False),
    ],
)
def test_what_keeps_an_address_from_the_web_proxy_is_what_requests_takes(text: str, direct: bool) -> None:
    assert is_direct("10.0.0.11", text) is direct


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"http_proxy": WEB, "no_proxy": "corp.example"},
            ["sets no_proxy without 10.0.0.10, 10.0.0.11", "to http_proxy."],
        ),
        (
            {"HTTP_PROXY": WEB, "NO_PROXY": "10.0.0.10", "no_proxy": "10.0.0.10"},
            ["sets NO_PROXY and no_proxy without 10.0.0.11:", "to HTTP_PROXY.", f"no_proxy to '{BOTH}'"],
        ),
        ({"all_proxy": WEB, "no_proxy": "10.0.0.*"}, ["without 10.0.0.10, 10.0.0.11", f"'10.0.0.*,{BOTH}'"]),
    ],
)
def test_a_no_proxy_that_leaves_out_nodes_is_refused(given: dict[str, str], words: list[str]) -> None:
    (fault,) = faults_of(nodes(plan_environment=given))
    assert fault.startswith("node0, node1: plan_environment sets ")
    assert [word for word in words if word not in fault] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"no_proxy": "corp.example"}, ["without 10.0.0.10, 10.0.0.11", "a web proxy, where the image has one set"]),
        (
            {"HTTP_PROXY": WEB, "NO_PROXY": "corp.example"},
            ["sets NO_PROXY without 10.0.0.10", f"'corp.example,{BOTH}'"],
        ),
        ({"HTTP_PROXY": WEB, "NO_PROXY": f"corp,{BOTH}"}, ["NO_PROXY alone", "set no_proxy to the same text"]),
        ({"HTTP_PROXY": WEB}, []),
        ({"HTTP_PROXY": WEB, "NO_PROXY": "*", "no_proxy": "*"}, []),
        ({"HTTP_PROXY": WEB, "NO_PROXY": BOTH, "no_proxy": f"corp,{BOTH}"}, []),
        ({"https_proxy": WEB, "NO_PROXY": BOTH}, []),
    ],
)
def test_where_it_may_do_no_harm_it_is_a_warning(given: dict[str, str], words: list[str]) -> None:
    told = [warning for warning in plan_of(nodes(plan_environment=given)).warnings if "proxy" in warning.lower()]
    assert len(told) == bool(words)
    assert [word for word in words if word not in "".join(told)] == []


def test_nodes_of_other_engines_need_not_be_in_it_and_the_proxy_must() -> None:
    groups = {"a": ["node0"], "b": ["node1"]}
    variables = nodes(plan_tp=8, plan_gpus=8, plan_replicas=["a", "b"])
    variables["node1"]["plan_environment"] = {"http_proxy": WEB, "no_proxy": "10.0.0.11"}
    (fault,) = faults_of(variables, groups=groups)
    assert "node1: plan_environment sets no_proxy without 10.0.0.10:" in fault
    variables["node1"]["plan_environment"]["no_proxy"] = BOTH
    variables["node0"]["plan_environment"] = {"http_proxy": WEB, "no_proxy": "10.0.0.10"}
    assert plan_of(variables, groups=groups)


def test_the_proxy_reaches_all_ranks() -> None:
    given = {"HTTP_PROXY": WEB, "NO_PROXY": "10.0.0.10", "no_proxy": "10.0.0.10"}
    (fault,) = faults_of(nodes(**DPEP, plan_proxy_environment=given))
    assert fault.startswith("plan_proxy_environment sets NO_PROXY and no_proxy without 10.0.0.11:")
    assert (
        service(plan_of(nodes(**DPEP, plan_proxy_environment={"HTTP_PROXY": WEB})), "proxy").environment["no_proxy"]
        == "*"
    )


# ---- Ray


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("RAY_ADDRESS", "10.9.9.9:6379", "plan_ports.ray"),
        ("RAY_REDIS_ADDRESS", "10.9.9.9:6379", "keep its state in that Redis"),
        ("RAY_CLIENT_MODE", "1", "no client from outside"),
        ("RAY_TMPDIR", "/scratch", "plan_state_dir"),
        ("RAY_USE_RANDOM_PORTS", "1", "plan_ports"),
        ("RAY_OVERRIDE_RESOURCES", '{"GPU": 4}', "set plan_gpus"),
        ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1", "set plan_gpus"),
        ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "0", "set plan_gpus"),  # 2.46 takes it for yes
        ("LMDEPLOY_RAY_EXTERNAL_PG_BUNDLES", "0,1", "set plan_gpus"),
        ("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "00", "Ray sets it itself"),
        ("RAY_FAKE_CLUSTER", "1", "Ray sets it itself"),
        ("RAY_RUNTIME_ENV", '{"env_vars": {}}', "the plan would not show it"),
        ("RAY_START_HOOK", "a.b", "the plan would not show it"),
        ("RAY_AUTH_MODE", "disabled", "ray_token_value"),
        ("RAY_AUTH_TOKEN_PATH", "/data/x", "ray_token_value"),
        ("RAY_ENABLE_K8S_TOKEN_AUTH", "1", "ray_token_value"),
        ("RAY_TLS_SERVER_CERT", "/certs/a.pem", "no mount brings that file"),
        ("MOONCAKE_CONFIG_PATH", "/certs/m.json", "no mount brings that file"),
    ],
)
@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_variables_that_contradict_the_plan_are_refused_with_the_reason(
    name: str, text: str, words: str, topology: str
) -> None:
    (fault,) = faults_of(nodes(plan_topology=topology, plan_gpus=2, plan_environment={name: text}))
    assert f"plan_environment sets {name}" in fault
    assert words in fault


@pytest.mark.parametrize(
    "given",
    [
        # How long Ray waits, what it logs and when it ends workers for memory is the user's own.
        {"RAY_CGRAPH_get_timeout": 300, "RAY_memory_monitor_refresh_ms": 0, "RAY_memory_usage_threshold": "0.98"},
        # Of no effect on workers that have a GPU; it silences a warning.
        {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": 0},
        {"RAY_DEDUP_LOGS": 0, "RAY_BACKEND_LOG_LEVEL": "debug", "RAY_NAMESPACE": "x"},
        {"RAY_USE_TLS": 1, "RAY_TLS_CA_CERT": "/certs/ca.pem"},
    ],
)
def test_what_is_the_users_own_reaches_ray(given: dict[str, Any]) -> None:
    mounts = [{"source": "/srv/certs", "target": "/certs"}]
    environment = service(plan_of(nodes(plan_environment=given, plan_extra_mounts=mounts)), "ray").environment
    assert {name: environment[name] for name in given} == {name: str(value) for name, value in given.items()}
