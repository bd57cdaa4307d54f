# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why Docker cannot be asked: the remedy fits the cause. The real SDK meets real sockets."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import daemon
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import API, Dockerd

ASKED = {"names": ["x"], "tcp": ["127.0.0.1:1"]}
pytestmark = [
    pytest.mark.usefixtures("sdk_leaks"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
COLLECTIONS = Path(__file__).parents[5] / "collections"


def told() -> tuple[str, str]:
    """(kind, text) of what one look says, whose other parts have to be there all the same."""
    answer = look(None, ASKED)
    assert answer.keys() == {"docker", "tcp"}
    assert "refused" in answer["tcp"]["127.0.0.1:1"]
    return answer["docker"]["kind"], answer["docker"]["error"]


def test_a_daemon_tells_its_version(dockerd: Dockerd) -> None:
    assert look(None, {"names": ["x"]}) == {
        "docker": {"version": "28.5.1", "api": API},
        "containers": {"x": {"present": False}},
    }
    assert dockerd.asked


def test_a_socket_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    kind, text = told()
    assert kind == "socket"
    assert text.startswith(f"{tmp_path}/docker.sock does not exist: install Docker and start it")


def test_a_socket_that_nobody_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    kind, text = told()
    assert kind == "daemon"
    assert "systemctl status docker" in text


@pytest.mark.skipif(os.getuid() != 0, reason="becomes nobody, which only root may")
def test_a_socket_that_the_user_may_not_open(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.socket.parent.chmod(0o755)
    dockerd.socket.chmod(0o600)
    nobody = pwd.getpwnam("nobody")
    program = (
        "import os, sys, json\n"
        f"sys.path[:0] = [{str(COLLECTIONS)!r}]\n"
        "from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look\n"
        "import docker, requests\n"
        f"os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})\n"
        "print(json.dumps(look(None, {'names': ['x']})['docker']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert '"kind": "permission"' in done.stdout, done.stdout + done.stderr
    assert f"the user nobody may not open {dockerd.socket}: run the play with become" in done.stdout


def test_podmans_socket_is_told_by_its_name(dockerd: Dockerd) -> None:
    dockerd.components = [{"Name": "Podman Engine", "Version": "5.4.0"}, {"Name": "Conmon", "Version": "2"}]
    kind, text = told()
    assert kind == "podman"
    assert "Podman Engine 5.4.0, which ignores what gives a container its GPUs" in text


def test_a_daemon_that_hangs(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "SECONDS", 0.3)
    dockerd.late_s = 3
    began = time.monotonic()
    kind, text = told()
    assert time.monotonic() - began < 2.5
    assert kind == "timeout"
    assert "systemctl restart docker" in text


def test_what_is_no_docker_at_all(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    kind, text = told()
    assert kind == "daemon"
    assert "tcp://127.0.0.1:1" in text
    assert not dockerd.asked


def test_an_sdk_that_does_not_go_with_its_requests(dockerd: Dockerd) -> None:
    # The error that SDK 6.1 gets from requests 2.32, out of requests itself.
    with pytest.raises(requests.exceptions.InvalidSchema) as raised:
        requests.get("http+docker://localhost/version", timeout=1)
    found = daemon.explained(raised.value)
    assert found.kind == "sdk"
    assert sys.executable in str(found)
    assert f"its requests ({requests.__version__})" in str(found)
    assert not dockerd.asked


def test_an_sdk_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    kind, text = told()
    assert kind == "sdk"
    assert sys.executable in text
    assert "apt-get install python3-docker" in text


def test_an_error_that_is_not_dockers_is_not_called_so() -> None:
    with pytest.raises(KeyError):
        daemon.explained(KeyError("x"))
