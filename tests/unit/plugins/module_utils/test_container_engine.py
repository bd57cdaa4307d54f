# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of Docker Engine on a host, which may have none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _container_engine
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._container_engine import DEPLOYMENT, asked, dockerd
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container


def test_running_containers_are_told_with_their_deployment(tmp_path: Path) -> None:
    with Dockerd(tmp_path / "d.sock") as daemon:
        daemon.containers = {"web": container("web"), "lmdeploy-ray": container("lmdeploy-ray")}
        daemon.containers["lmdeploy-ray"]["Config"]["Labels"] = {DEPLOYMENT: "lmdeploy"}
        daemon.info["LiveRestoreEnabled"] = True
        assert asked(str(daemon.socket)) == {
            "containers": [{"name": "web", "deployment": ""}, {"name": "lmdeploy-ray", "deployment": "lmdeploy"}],
            "live_restore": True,
            "unanswered": "",
        }
        daemon.fails["/containers/json"] = "it is not well"
        assert asked(str(daemon.socket))["containers"] is None
        assert "it is not well" in asked(str(daemon.socket))["unanswered"]


def test_a_socket_that_nobody_serves_is_no_crash(tmp_path: Path) -> None:
    assert asked(str(tmp_path / "none"))["containers"] is None


def test_the_daemon_is_the_process_that_its_pid_file_names(tmp_path: Path) -> None:
    pidfile = tmp_path / "docker.pid"
    assert dockerd(pidfile=pidfile) is None
    pidfile.write_text(str(os.getpid()))
    assert dockerd(pidfile=pidfile) is None  # a number that another program has now
    folder = tmp_path / "proc" / "700"
    folder.mkdir(parents=True)
    pidfile.write_text("700\n")
    (folder / "comm").write_text("dockerd\n")
    (folder / "stat").write_text(f"700 (dockerd) S {' '.join(str(n) for n in range(4, 53))}\n")
    (folder / "cmdline").write_bytes(b"/usr/bin/dockerd\0-H\0fd://\0")
    found = dockerd(tmp_path / "proc", pidfile)
    assert found == {
        "pid": 700,
        "process": " 700 22",
        "arguments": ["/usr/bin/dockerd", "-H", "fd://"],
        "executable": "",
    }


def test_a_repository_is_known_by_its_address(tmp_path: Path) -> None:
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    line = "deb [signed-by=/usr/share/keyrings/nvidia.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n"
    (folder / "lmfleet-nvidia.sources").write_text("URIs: https://nvidia.github.io/libnvidia-container/stable/deb\n")
    (folder / "off.list").write_text(f"# {line}")
    known = ("libnvidia-container", "lmfleet-", tmp_path)
    assert _container_engine._repository(*known) == ""
    (folder / "nvidia.list").write_text(line)
    assert _container_engine._repository(*known) == str(folder / "nvidia.list")


def test_all_of_it_is_read_on_a_host_without_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container_engine, "dockerd", lambda: None)
    found = _container_engine.facts(str(tmp_path / "no/daemon.json"), str(tmp_path / "pending"), {}, "lmfleet-")
    assert found["config"] is None
    assert found["config_directory"] is False
    assert found["pending"] is None
    assert found["sdk"] is True
