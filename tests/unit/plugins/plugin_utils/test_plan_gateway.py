# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway in a plan: its variables, what is refused of them, and what it changes of the rest."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.containers import docker_arguments
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.exposure import exposures, public_ports
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.certificate import self_signed
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.render import as_shell, as_table
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import faults_of, nodes, plan_of, service

KEY = "planted-gateway-key-of-32-letters-and-more"
KEYS = {"chat": KEY, "batch": "another-gateway-key-of-32-letters-and-more"}
DOOR: dict[str, Any] = {"plan_gateway": True, "plan_gateway_keys": KEYS}


def pem(change: Callable[[str], str] = lambda text: text) -> str:
    return change(self_signed("test", "10.0.0.10"))


def keys_alone(text: str) -> str:
    return text[text.index("-----BEGIN PRIVATE KEY") :]


def certificate_alone(text: str) -> str:
    return text[: text.index("-----BEGIN PRIVATE KEY")]


def of_another(text: str) -> str:
    return certificate_alone(text) + keys_alone(self_signed("other", "10.0.0.10"))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"plan_gateway_keys": {}}, "plan_gateway is true, and plan_gateway_keys has no key"),
        ({"plan_gateway_keys": {"chat": "short"}}, "the key of 'chat' has 5 characters: give it 32 or more."),
        (
            {"plan_gateway_keys": {"chat": "x" * 31 + " y"}},
            "the key of 'chat' has a character that no header can carry",
        ),
        ({"plan_gateway_keys": {"chat": 10**40}}, "the key of 'chat' is no text: quote it."),
        ({"plan_gateway_keys": {"a": KEY, "b": KEY}}, "'a' and 'b' have the same key"),
        ({"plan_gateway_keys": {"the chat": KEY}}, "the name 'the chat' cannot stand in logs"),
        ({"plan_gateway_keys": ["a"]}, "plan_gateway_keys has to be a dict (its value is secret, so it is not shown)"),
        ({"plan_gateway": False}, "plan_gateway_keys is set, but there is no gateway: set plan_gateway: true"),
        (
            {"plan_gateway_key_limits": {"chta": {"concurrent": 1}}},
            "names 'chta', which is no key of plan_gateway_keys (did you mean chat?)",
        ),
        ({"plan_gateway_key_limits": {"chat": 3}}, "plan_gateway_key_limits.chat is 3: give requests_per_minute"),
        ({"plan_gateway_key_limits": {"chat": {"concurrent": -1}}}, "plan_gateway_key_limits.chat.concurrent is -1"),
        ({"plan_gateway_limits": {"a_minute": 3}}, "plan_gateway_limits has 'a_minute'"),
        ({"plan_gateway_options": {"queue_s": 0}}, "plan_gateway_options.queue_s is 0: give a whole number from 1"),
        (
            {"plan_ports": {"gateway": 8000}, "plan_proxy": True},
            "plan_ports.gateway and plan_ports.proxy are both 8000",
        ),
        ({"plan_gateway_certificate": "x"}, "plan_gateway_certificate has no certificate that can be read"),
        ({"plan_gateway_certificate": pem(keys_alone)}, "plan_gateway_certificate has no certificate that can be read"),
        ({"plan_gateway_certificate": pem(certificate_alone)}, "plan_gateway_certificate has no private key"),
        ({"plan_gateway_certificate": pem(of_another)}, "has another certificate first than that of its private key"),
        ({"plan_gateway_certificate": pem(), "plan_gateway_tls": False}, "but plan_gateway_tls is false"),
    ],
)
def test_what_is_wrong_is_told_with_the_variable_and_without_a_secret(variables: dict[str, Any], told: str) -> None:
    faults = faults_of(nodes(**{**DOOR, **variables}))
    assert told in " ".join(faults)
    assert KEY not in " ".join(faults)
    assert "-----" not in " ".join(faults)


def test_a_certificate_that_has_ended_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway import certificate

    monkeypatch.setattr(certificate, "DAYS", -1)
    ended = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    (fault,) = faults_of(nodes(**DOOR, plan_gateway_certificate=self_signed("test", "10.0.0.10")))
    assert fault.startswith(f"plan_gateway_certificate ended on {ended:%Y-%m-%d}")


def test_keys_that_differ_between_hosts_are_told_without_them() -> None:
    variables = nodes(**DOOR)
    variables["node1"] = {**variables["node1"], "plan_gateway_keys": {"chat": "y" * 32}}
    (fault,) = faults_of(variables)
    assert fault == "plan_gateway_keys is not the same on node0 and node1: set it once, for the group."


def test_it_is_the_door_and_the_rest_listens_for_the_cluster_alone() -> None:
    plan = plan_of(nodes(**DOOR, plan_proxy=True))
    assert plan.url == "https://10.0.0.10:8443"
    assert plan.proxy
    assert plan.proxy.url == "http://10.0.0.10:8000"
    for kind in ("proxy", "api"):
        command = service(plan, kind).command
        assert command[command.index("--server-name") + 1] == "10.0.0.10"
    assert public_ports(plan) == {"node0": [8443]}
    assert [each.what for each in exposures(plan, {}) if each.first in (8443, 8405)] == [
        "the gateway",
        "the gateway's metrics",
    ]
    alone = service(plan_of(nodes(**DOOR)), "api").command
    assert alone[alone.index("--server-name") + 1] == "10.0.0.10"
    assert plan_of(nodes(**DOOR, plan_gateway_tls=False)).url == "http://10.0.0.10:8443"


def test_it_changes_no_container_of_the_engines_that_listen_there_already() -> None:
    with_door, without = (plan_of(nodes(plan_topology="dpep", **more)) for more in (DOOR, {}))
    assert [each.identity for each in with_door.services if each.engine] == [
        each.identity for each in without.services if each.engine
    ]


def test_no_key_and_no_certificate_is_in_the_plan_or_in_what_is_shown_of_it() -> None:
    secret = pem()
    plan = plan_of(nodes(**DOOR, plan_gateway_certificate=secret))
    text = json.dumps(plan.to_json()) + as_table(plan) + as_shell(plan)
    text += json.dumps([docker_arguments(plan.name, each, "") for each in plan.services])
    assert not [each for each in (*KEYS.values(), secret.splitlines()[1]) if each in text]


def test_other_keys_are_no_other_container() -> None:
    """They are read again while it runs."""
    first = plan_of(nodes(**DOOR))
    others = {**DOOR, "plan_gateway_keys": {"chat": "z" * 32}, "plan_gateway_limits": {"concurrent": 3}}
    assert service(plan_of(nodes(**others)), "gateway").identity == service(first, "gateway").identity
    assert plan_of(nodes(**DOOR, plan_gateway_image="haproxy:3.0")).identity != first.identity


def test_it_runs_as_root_of_its_container_without_rights_over_the_host() -> None:
    arguments = docker_arguments("lmdeploy", service(plan_of(nodes(**DOOR)), "gateway"), "")
    assert (arguments["user"], arguments["privileged"], arguments.get("device_requests")) == ("root", False, None)
    assert all(
        "user" not in docker_arguments("lmdeploy", each, "") for each in plan_of(nodes(**DOOR)).services if each.engine
    )
