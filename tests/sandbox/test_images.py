# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where images come from, other than the open registry that every other test uses."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from sandbox.hosts import PRIVATE_REGISTRY, REGISTRY_PASSWORD, Sandbox

# What every deployment begins with, the image on all hosts: no engine has to start to show that it is there.
PREPARE = "playbooks/prepare.yml"
ENGINE = "localhost:5077/lmdeploy-test-engine:0.18.0"


def images(sandbox: Sandbox, node: int) -> str:
    return sandbox.on(node, "docker", "images", "--format", "{{.Repository}}:{{.Tag}}")


@pytest.mark.slow
def test_an_archive_takes_the_place_of_a_registry(sandbox: Sandbox, tmp_path: Path) -> None:
    image, archive = "lmfleet/carried-by-hand:0.18.0", str(tmp_path / "engine.tar")
    sandbox.outer("tag", ENGINE, image)
    sandbox.outer("save", "--output", archive, image)
    sandbox.outer("rmi", image)
    sandbox.deploy(plan_image=image, image_archive=archive).succeeded()
    before = sandbox.containers()
    assert set(sandbox.deploy(plan_image=image, image_archive=archive).succeeded().changed.values()) == {0}
    assert sandbox.containers() == before
    for node in (0, 1):
        assert image in images(sandbox, node)
        assert sandbox.on(node, "ls", "/var/lib/lmfleet/archives") == ""


@pytest.mark.slow
def test_the_image_may_be_in_any_of_several_archives(sandbox: Sandbox, tmp_path: Path) -> None:
    names = ["lmfleet/carried-beside:1", "lmfleet/carried-among-others:0.18.0"]
    archives = [str(tmp_path / f"{number}.tar") for number in range(2)]
    (tmp_path / "small").write_text("an image of one file")
    with tarfile.open(tmp_path / "small.tar", "w") as tar:
        tar.add(tmp_path / "small", "small")
    sandbox.outer("import", str(tmp_path / "small.tar"), names[0])
    sandbox.outer("tag", ENGINE, names[1])
    for name, archive in zip(names, archives, strict=True):
        sandbox.outer("save", "--output", archive, name, limit_s=600)
        sandbox.outer("rmi", name)
    refused = sandbox.playbook(PREPARE, plan_image=names[1], image_archive=archives[:1])
    refused.failed_with("No archive of image_archive", names[1])
    sandbox.playbook(PREPARE, plan_image=names[1], image_archive=archives).succeeded()
    for node in (0, 1):
        assert set(names) <= set(images(sandbox, node).split())
        assert sandbox.on(node, "ls", "/var/lib/lmfleet/archives") == ""


@pytest.mark.slow
def test_a_mirror_brings_the_image_under_its_own_name(sandbox: Sandbox) -> None:
    image = "registry.example.com/lmdeploy-test-engine:0.18.0"
    run = sandbox.playbook(PREPARE, plan_image=image, image_mirror="10.77.0.2:5000").succeeded()
    assert image in images(sandbox, 0)
    assert image in images(sandbox, 1)
    assert "/var/lib/lmfleet/pulls" not in run.output
    assert sandbox.on(0, "ls", "/var/lib/lmfleet/pulls") == ""
    # image_pull: always asks the mirror, not the registry, which does not exist.
    again = sandbox.playbook(PREPARE, plan_image=image, image_mirror="10.77.0.2:5000").succeeded()
    assert set(again.changed.values()) == {0}


SHARED = "10.77.0.2:5000/lmdeploy-test-engine:0.18.0"


@pytest.mark.slow
def test_the_image_is_pulled_once_and_goes_from_host_to_host(sandbox: Sandbox) -> None:
    """Its registry does not exist: the second host can have it from the first one alone."""
    image = "registry.example.com/shared-between-hosts:0.18.0"
    sandbox.on(0, "docker", "pull", SHARED)
    sandbox.on(0, "docker", "tag", SHARED, image)
    wanted = sandbox.on(0, "docker", "images", "--no-trunc", "--quiet", image)
    # What is there under any name is not sent again: node 1 has to lack the image itself.
    names = sandbox.on(
        1, "sh", "-c", f"docker images --no-trunc --format '{{{{.ID}}}}' | grep -F {wanted.strip()} || true"
    )
    if names.strip():
        sandbox.on(
            1, "sh", "-c", "docker rm --force $(docker ps --all --quiet) 2>/dev/null; docker image prune --all --force"
        )
    share = {"plan_image": image, "image_share": True, "image_pull": "missing"}  # nobody can be asked for a newer one
    run = sandbox.playbook(PREPARE, **share).succeeded()
    assert sandbox.on(1, "docker", "images", "--no-trunc", "--quiet", image) == wanted
    assert "copies " in run.output or "loads " in run.output
    for node in (0, 1):
        assert sandbox.on(node, "ls", "/var/lib/lmfleet/pulls") == ""
        assert not re.search(
            rf":{8731:04X} \S+ 0A ", sandbox.on(node, "cat", "/proc/net/tcp")
        )  # nobody listens any more
    assert set(sandbox.playbook(PREPARE, **share).succeeded().changed.values()) == {0}


@pytest.mark.slow
def test_a_private_registry_wants_a_login_that_leaves_no_trace(sandbox: Sandbox, private_registry: str) -> None:
    refused = sandbox.playbook(PREPARE, plan_image=private_registry)
    refused.failed_with("no basic auth credentials")
    login = {
        "image_registry": PRIVATE_REGISTRY,
        "image_registry_username": "operator",
        "image_registry_password": REGISTRY_PASSWORD,
    }
    run = sandbox.playbook(PREPARE, "-v", "--diff", plan_image=private_registry, **login).succeeded()
    assert REGISTRY_PASSWORD not in run.output
    assert sandbox.on(0, "sh", "-c", "ls /root/.docker 2>/dev/null || true") == "", (
        "the users' own configuration was touched"
    )
    again = sandbox.playbook(PREPARE, plan_image=private_registry, **login).succeeded()
    assert set(again.changed.values()) == {0}
