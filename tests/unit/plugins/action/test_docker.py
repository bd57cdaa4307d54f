# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker, a registry or a container says in a failure reaches a person with what to do, and as nothing but text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.action import docker
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT, nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import on_hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World

HEAD = "Error pulling image openmmlab/lmdeploy:v1 - 500 Server Error for http+docker://localhost/v1.45/images/create: "


def said(module: str, answer: dict[str, Any]) -> dict[str, Any]:
    asked: list[dict[str, Any]] = []

    def execute(__: str, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append(arguments)
        return answer

    arguments = {"module": module, "arguments": {"name": "x"}}
    result = on_hosts(World(plan_of(nodes())), docker, arguments, execute)["node0"]
    assert asked[0] == {"name": "x"}
    return result


def test_a_containers_output_does_not_reach_the_terminal_as_it_is() -> None:
    output = "Traceback\x1b]0;owned\x07\x1b]52;c;cm0gLXJm\x07 (most recent call last)\x1b[2J"
    result = said("docker_container", {"failed": True, "msg": output, "container": {"Output": output}})
    assert "\x1b" not in str(result)
    assert result["msg"].startswith("Traceback (most recent call last): ")


def test_what_went_well_is_handed_on() -> None:
    assert said("docker_image_info", {"changed": False, "images": [{"Id": "sha256:0"}]}) == {
        "changed": False,
        "images": [{"Id": "sha256:0"}],
    }


@pytest.mark.parametrize(
    ("module", "text", "word"),
    [
        (
            "docker_image_pull",
            'Head "https://10.0.0.3:5000/v2/x/manifests/v1": no basic auth credentials',
            "image_registry_username",
        ),
        (
            "docker_image_pull",
            "pull access denied for x, repository does not exist or may require 'docker login': denied",
            "plan_image",
        ),
        (
            "docker_image_pull",
            "manifest for openmmlab/lmdeploy:v1 not found: manifest unknown: manifest unknown",
            "correct plan_image",
        ),
        ("docker_image_pull", "toomanyrequests: You have reached your unauthenticated pull rate limit.", "log in"),
        (
            "docker_image_pull",
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
            "mirror",
        ),
        (
            "docker_image_pull",
            'Get "https://r:5000/v2/": http: server gave HTTP response to HTTPS client',
            "insecure-registries",
        ),
        (
            "docker_image_pull",
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "certs.d",
        ),
        ("docker_image_pull", "no matching manifest for linux/arm64/v8 in the manifest list entries", "uname -m"),
        (
            "docker_image_pull",
            "failed to register layer: write /opt/py3/lib/x.so: no space left on device",
            "DockerRootDir",
        ),
        ("docker_image_load", "archive/tar: invalid tar header", "image_archive"),
        (
            "docker_login",
            "Logging into r for user u failed - 401: incorrect username or password: unauthorized",
            "image_registry_password",
        ),
        (
            "docker_container",
            'Error starting container: could not select device driver "" with capabilities: [[gpu]]',
            "nvidia-ctk",
        ),
    ],
)
def test_each_failure_says_what_to_do(module: str, text: str, word: str) -> None:
    message = said(module, {"failed": True, "msg": HEAD + text})["msg"]
    assert message.startswith(HEAD + text.rstrip("."))
    assert word in message[len(HEAD + text) :]


def test_only_a_registry_that_was_not_reached_is_asked_again() -> None:
    away = 'Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout'
    assert said("docker_image_pull", {"failed": True, "msg": HEAD + away})["transient"] is True
    unknown = "manifest for openmmlab/lmdeploy:v1 not found: manifest unknown"
    assert said("docker_image_pull", {"failed": True, "msg": HEAD + unknown})["transient"] is False


def test_roles_and_playbooks_speak_to_docker_through_it() -> None:
    # The sandbox's own role speaks to the engine of the person who tests.
    files = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml")]
    direct = {
        str(file.relative_to(ROOT))
        for file in files
        if re.search(r"^\s*(?:- )?community\.docker\.", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {file for file in direct if not file.startswith("roles/sandbox/")} == set()
