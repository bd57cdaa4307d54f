# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy's own variables reach its container, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import faults_of, nodes, plan_of, service

HEART_BEAT = "LMDEPLOY_CONTROLLER_HEART_BEAT_EXPIRATION"
DPEP: dict[str, Any] = {"plan_topology": "dpep", "plan_gpus": 2}


def test_36_they_are_in_the_proxys_container_alone() -> None:
    before, after = (
        plan_of(nodes(**DPEP, plan_proxy_environment=given))
        for given in ({}, {HEART_BEAT: 30, "UVICORN_LOG_LEVEL": "error"})
    )
    changed = [
        (one.name, one.node) for one, other in zip(before.services, after.services) if one.identity != other.identity
    ]
    assert changed == [("lmdeploy-proxy", "node0")]
    assert service(after, "proxy").environment == {
        "NO_PROXY": "*",
        "no_proxy": "*",
        HEART_BEAT: "30",
        "UVICORN_LOG_LEVEL": "error",
    }


def test_36_without_any_the_proxy_is_the_one_it_was() -> None:
    left_out, empty = plan_of(nodes(**DPEP)), plan_of(nodes(**DPEP, plan_proxy_environment={}))
    assert service(left_out, "proxy").identity == service(empty, "proxy").identity == "496f5c3e8279"
    assert service(left_out, "proxy").environment == {"NO_PROXY": "*", "no_proxy": "*"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({HEART_BEAT: "soon"}, [f"plan_proxy_environment has {HEART_BEAT} 'soon'", "whole number"]),
        ({HEART_BEAT: 0}, ["0", "whole number of 1 or more"]),
        ({"AIOHTTP_TIMEOUT": "1.5"}, ["AIOHTTP_TIMEOUT '1.5'"]),
        ({"HF_TOKEN": "x"}, ["plan_proxy_environment has HF_TOKEN", "looks like a secret"]),
        ({"A-B": "x"}, ["plan_proxy_environment has 'A-B'", "no name of an environment variable"]),
    ],
)
def test_36_what_the_proxy_could_not_read_is_refused(given: dict[str, Any], words: list[str]) -> None:
    (fault,) = faults_of(nodes(**DPEP, plan_proxy_environment=given))
    assert [word for word in words if word not in fault] == []


def test_without_a_proxy_it_is_a_fault() -> None:
    (fault,) = faults_of(nodes(plan_proxy_environment={"AIOHTTP_TIMEOUT": 600}))
    assert "plan_proxy_environment is set, but there is no proxy: set plan_proxy: true" in fault
