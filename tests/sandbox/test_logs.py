# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive of logs, from real hosts: of a deployment that serves, of one that failed, and with a host that is off."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from sandbox.hosts import Sandbox

PLANTED = "planted-0123456789-and-known-to-the-inventory"


def logs(sandbox: Sandbox, folder: Path, **variables: Any) -> tuple[dict[str, Any], dict[str, str], bytes]:
    """The index, the files by their paths, and all bytes of the archive."""
    run = sandbox.playbook("playbooks/logs.yml", logs_dir=str(folder), **variables).succeeded()
    assert set(run.changed.values()) == {0}
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        files = {
            info.name.partition("/")[2]: tar.extractfile(info).read().decode()  # type: ignore[union-attr]
            for info in tar
        }
    return json.loads(files["index.json"]), files, gzip.decompress(archive.read_bytes())


def kept(sandbox: Sandbox, node: int) -> str:
    """Every file that the deployment keeps on the host, with its time; the engine's caches and Ray's sessions go on meanwhile."""
    where = "find /var/lib/lmfleet -maxdepth 2 -type f -printf '%p %T@ %s\\n' | sort"
    return sandbox.on(node, "sh", "-c", where)


@pytest.mark.slow
def test_the_archive_of_a_deployment_that_serves_has_all_hosts_and_no_secret(deployed: Sandbox, tmp_path: Path) -> None:
    token = deployed.on(0, "cat", "/var/lib/lmfleet/lmdeploy/secrets/ray_token").strip()
    deployed.on(0, "sh", "-c", "mkdir -p /var/lib/lmfleet/lmdeploy/logs")
    note = f"RuntimeError: CUDA out of memory, says {token} and {PLANTED}"
    deployed.on(0, "sh", "-c", f"echo '{note}' > /var/lib/lmfleet/lmdeploy/logs/lmdeploy-api.log")
    try:
        before = deployed.containers(), [kept(deployed, node) for node in deployed.nodes]
        index, files, raw = logs(deployed, tmp_path, image_registry_password=PLANTED)
        assert (deployed.containers(), [kept(deployed, node) for node in deployed.nodes]) == before
    finally:
        deployed.on(0, "rm", "/var/lib/lmfleet/lmdeploy/logs/lmdeploy-api.log")
    for secret in (token, PLANTED):
        assert secret.encode() not in raw + (tmp_path / "index.html").read_bytes()
    assert index["state"] == "as planned"
    assert [(node["name"], node["failed"]) for node in index["nodes"]] == [("node0", ""), ("node1", "")]
    names = {each["name"]: each for node in index["nodes"][:1] for each in node["containers"]}
    assert set(names) == {"lmdeploy-api", "lmdeploy-ray"}
    assert all(each["status"] == "running" for each in names.values())
    assert "Application startup complete" in files["hosts/node0/containers/lmdeploy-api.log"]
    assert json.loads(files["hosts/node1/state/record.json"])["format"] == 1
    assert json.loads(files["hosts/node0/containers/lmdeploy-api.inspect.json"])["Name"] == "/lmdeploy-api"
    # Beside those that other tests' containers have left.
    [former] = [each for each in index["nodes"][0]["former"] if each["file"]["path"].endswith("/lmdeploy-api.log")]
    assert "memory" in former["diagnosis"]["means"]
    assert json.loads(files["hosts/node0/docker-version.json"])["Version"]


@pytest.mark.slow
def test_a_container_that_failed_is_explained_and_a_host_that_is_off_is_named(
    deployed: Sandbox, tmp_path: Path
) -> None:
    deployed.on(0, "docker", "kill", "lmdeploy-api")
    deployed.power(1, on=False)
    try:
        index, files, __ = logs(deployed, tmp_path)
    finally:
        deployed.power(1, on=True)
    here, off = index["nodes"]
    [api] = [each for each in here["containers"] if each["name"] == "lmdeploy-api"]
    assert (api["status"], api["exit_code"], api["failed"]) == ("exited", 137, True)
    assert api["finished_at"]
    assert off["failed"].startswith("cannot be reached: ")
    assert off["failed"].split(":")[0] in files["index.html"]
