# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why Docker cannot be asked: the remedy fits the cause. The real SDK meets real sockets."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
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
    assert text.startswith(f"{tmp_path}/docker.sock does not exist: DOCKER_HOST names it")
    assert "unset it there" in text


def test_a_socket_that_nobody_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    kind, text = told()
    assert kind == "daemon"
    assert text.startswith(f"nothing serves {path}, so Docker does not run: start it (systemctl start docker)")


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
    kind, text = told()
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


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        # docker 5 on Python 3.12, docker 4 with urllib3 2, and requests that is not there
        ("import distutils_of_old", "cannot be imported (No module named 'distutils_of_old')"),
        ("from urllib3 import no_such_name", "cannot be imported (cannot import name 'no_such_name'"),
    ],
)
def test_an_sdk_that_is_there_and_cannot_be_imported(failure: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "__init__.py").write_text(failure)
    kind, text = elsewhere(tmp_path)
    assert kind == "sdk"
    assert words in text
    assert f"{sys.executable} -m pip install --upgrade 'docker>=7.1'" in text


def test_a_file_that_is_called_as_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "docker.py").write_text("")
    kind, text = elsewhere(tmp_path)
    assert kind == "sdk"
    assert f"({tmp_path}/docker.py) is not the Docker SDK" in text


def elsewhere(first: Path) -> tuple[str, str]:
    """What a look says in a Python that looks in ``first`` for its modules before all else."""
    program = (
        "import sys, json\n"
        f"sys.path[:0] = [{str(first)!r}, {str(COLLECTIONS)!r}]\n"
        "from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look\n"
        "print(json.dumps(look(None, {'names': ['x']})['docker']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return answer["kind"], answer["error"]


def test_a_daemon_that_wants_a_newer_api_is_asked_in_its_own(dockerd: Dockerd) -> None:
    dockerd.oldest_api = API
    assert look(None, {"names": ["x"]})["docker"] == {"version": "28.5.1", "api": API}


def test_an_sdk_that_is_too_old_for_the_daemon(dockerd: Dockerd) -> None:
    dockerd.oldest_api = API
    client = docker.DockerClient(base_url=dockerd.host, version="1.30")
    with pytest.raises(docker.errors.APIError) as raised:
        client.info()
    client.close()
    found = daemon.explained(raised.value)
    assert found.kind == "sdk"
    assert "is too old for the Docker of this host (client version 1.30 is too old." in str(found)


def test_a_docker_that_is_another_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://root@10.0.0.9")
    kind, text = told()
    assert kind == "socket"
    assert "DOCKER_HOST is ssh://root@10.0.0.9, another machine's Docker: unset it" in text


def test_tls_where_there_is_none(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(dockerd.socket.parent))
        kind, text = told()
    assert kind == "socket"
    assert "unset DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" in text


def test_an_error_of_the_daemon_itself_is_told_in_its_words(dockerd: Dockerd) -> None:
    dockerd.fails["/info"] = "layer does not exist"
    answer = look(None, {"docker_settings": True})
    assert answer["docker"]["kind"] == "daemon"
    assert (
        "does not answer as it should (layer does not exist): see systemctl status docker" in answer["docker"]["error"]
    )


# Settings ------------------------------------------------------------------------------------------------------------


def settings(dockerd: Dockerd) -> dict[str, Any]:
    answer = look(None, {"docker_settings": True})
    assert answer.keys() == {"docker", "docker_settings"}
    assert "/info" in dockerd.asked
    found: dict[str, Any] = answer["docker_settings"]
    return found


def test_settings_are_read_from_what_docker_says(dockerd: Dockerd) -> None:
    plain = {"log_driver": "json-file", "log_cache": True, "userns": False, "rootless": False, "gpus": None}
    unsaid = (
        "version",
        "storage_driver",
        "root_dir",
        "cgroup_driver",
        "cgroup_version",
        "kernel",
        "os",
        "runtimes",
        "cdi",
    )
    plain = {**plain, **dict.fromkeys(unsaid), "proxies": {}}
    assert settings(dockerd) == plain
    dockerd.info = {
        "LoggingDriver": "syslog",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns", "name=rootless", "name=cgroupns"],
        "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}],
    }
    assert settings(dockerd) == {**plain, "log_driver": "syslog", "userns": True, "rootless": True, "gpus": True}


def test_a_daemon_describes_itself_and_its_host(dockerd: Dockerd) -> None:
    # As in the API's reference (GET /info), of Docker 27 with NVIDIA's runtime.
    dockerd.info = {
        "LoggingDriver": "json-file",
        "ServerVersion": "27.5.1",
        "Driver": "overlay2",
        "DockerRootDir": "/var/lib/docker",
        "CgroupDriver": "systemd",
        "CgroupVersion": "2",
        "KernelVersion": "6.8.0-60-generic",
        "OperatingSystem": "Ubuntu 24.04.2 LTS",
        "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}},
        "CDISpecDirs": [],
        "HttpProxy": "http://fleet:secret@proxy.example:3128",
        "HttpsProxy": "",
        "NoProxy": "localhost,10.0.0.0/8",
    }
    found = settings(dockerd)
    assert (found["version"], found["storage_driver"], found["root_dir"]) == ("27.5.1", "overlay2", "/var/lib/docker")
    assert (found["cgroup_driver"], found["cgroup_version"]) == ("systemd", "2")
    assert (found["kernel"], found["os"]) == ("6.8.0-60-generic", "Ubuntu 24.04.2 LTS")
    assert (found["runtimes"], found["cdi"]) == (["nvidia", "runc"], False)
    assert found["proxies"] == {"http_proxy": "http://proxy.example:3128", "no_proxy": "localhost,10.0.0.0/8"}
    dockerd.info["CDISpecDirs"] = ["/etc/cdi", "/var/run/cdi"]
    assert settings(dockerd)["cdi"] is True


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/proc of the daemon behind the default socket, with its own root directory."""
    found = tmp_path / "proc" / "77"
    (found / "root/usr/bin").mkdir(parents=True)
    (found / "comm").write_text("dockerd\n")
    (found / "environ").write_bytes(b"HOME=/\0PATH=/sbin:/usr/bin\0")
    (found / "cmdline").write_bytes(b"dockerd\0--host=fd://\0")
    (tmp_path / "docker.pid").write_text("77")
    monkeypatch.setattr(daemon, "PROC", tmp_path / "proc")
    monkeypatch.setattr(daemon, "PIDFILE", tmp_path / "docker.pid")
    monkeypatch.setattr(daemon, "CONFIGURATION", str(tmp_path / "daemon.json"))
    return found


def of_process(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings, asked at what counts as the default socket."""
    monkeypatch.setattr(daemon, "SOCKET", dockerd.host)
    return settings(dockerd)


def test_gpus_are_given_where_the_daemon_finds_nvidias_hook(
    dockerd: Dockerd, process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_process(dockerd, monkeypatch)["gpus"] is False
    hook = process / "root/usr/bin/nvidia-container-runtime-hook"
    hook.symlink_to("/nowhere/of/this/root")
    assert of_process(dockerd, monkeypatch)["gpus"] is True
    hook.unlink()
    # A newer Docker may take them by CDI: nobody can tell.
    (process / "root/etc/cdi").mkdir(parents=True)
    (process / "root/etc/cdi/nvidia.yaml").write_text("")
    assert of_process(dockerd, monkeypatch)["gpus"] is None


def test_of_a_daemon_that_is_not_this_hosts_own_nothing_is_concluded(
    dockerd: Dockerd, process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings(dockerd)["gpus"] is None  # DOCKER_HOST names another socket
    (process / "comm").write_text("bash\n")  # its pid was given to another program since
    assert of_process(dockerd, monkeypatch)["gpus"] is None


@pytest.mark.parametrize(
    ("options", "configuration", "cached"),
    [
        ([], None, True),
        ([], '{"log-driver": "syslog", "log-opts": {"cache-disabled": "true"}}', False),
        ([], '{"log-opts": {"cache-disabled": "false"}}', True),
        ([], "no JSON", True),
        (["--log-opt", "cache-disabled=true"], None, False),
        (["--log-opt=cache-disabled=true"], None, False),
    ],
)
def test_whether_a_copy_of_logs_is_kept_is_read_where_docker_reads_it(
    dockerd: Dockerd,
    process: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    configuration: str | None,
    cached: bool,
) -> None:
    (process / "cmdline").write_bytes("\0".join(["dockerd", *options, ""]).encode())
    if configuration is not None:
        Path(daemon.CONFIGURATION).write_text(configuration)
    assert of_process(dockerd, monkeypatch)["log_cache"] is cached


def test_a_configuration_file_of_another_name_is_read(
    dockerd: Dockerd, process: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.json").write_text('{"log-opts": {"cache-disabled": "true"}}')
    for argument in ([f"--config-file={tmp_path}/own.json"], ["--config-file", f"{tmp_path}/own.json"]):
        (process / "cmdline").write_bytes("\0".join(["dockerd", *argument, ""]).encode())
        assert of_process(dockerd, monkeypatch)["log_cache"] is False


@pytest.mark.parametrize(
    ("options", "configuration", "limits"),
    [
        ([], None, {}),
        ([], '{"default-ulimits": {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}}}', {"memlock": -1}),
        (
            ["--default-ulimit", "memlock=-1:-1", "--default-ulimit=nofile=65536"],
            None,
            {"memlock": -1, "nofile": 65536},
        ),
        (["--default-ulimit"], '{"default-ulimits": [1]}', {}),
        (["--default-ulimit=memlock=lots"], '{"default-ulimits": {"memlock": {"Soft": "-1"}, "nofile": 7}}', {}),
    ],
)
def test_limits_that_docker_gives_every_container(
    dockerd: Dockerd,
    process: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    configuration: str | None,
    limits: dict[str, int],
) -> None:
    monkeypatch.setattr(daemon, "SOCKET", dockerd.host)
    (process / "cmdline").write_bytes("\0".join(["dockerd", *options, ""]).encode())
    if configuration is not None:
        Path(daemon.CONFIGURATION).write_text(configuration)
    assert daemon.default_limits() == limits
