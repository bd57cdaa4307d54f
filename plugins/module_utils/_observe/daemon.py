# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker on this host: the way to it, or why there is none."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .proxies import without_login

SECONDS = 20.0  # for each call; a daemon that answers at all answers in far less
SOCKET = "unix:///var/run/docker.sock"
PROC = Path("/proc")
PIDFILE = Path("/run/docker.pid")
CONFIGURATION = "/etc/docker/daemon.json"
HOOK = "nvidia-container-runtime-hook"
INSTALL = "apt-get install python3-docker (Debian, Ubuntu), or {0} -m pip install 'docker>=7.1'"


class DockerError(Exception):
    """Docker cannot be asked. ``kind``: sdk, permission, socket, daemon, podman or timeout."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind

    def told(self) -> dict[str, str]:
        """``{"error": ..., "kind": ...}``."""
        return {"error": str(self), "kind": self.kind}


def connect() -> Any:
    """A ``docker.client``, no call of which waits longer than ``SECONDS`` for the daemon. Raises DockerError."""
    try:
        import docker
    except ImportError as error:
        raise DockerError(_unusable(error), "sdk") from None
    if not hasattr(docker, "from_env"):
        raise DockerError(
            f"what {sys.executable} imports as docker ({_origin(docker)}) is not the Docker SDK for Python: take that away "
            f"(a file docker.py, or the package docker-py), and {INSTALL.format(sys.executable)}.",
            "sdk",
        )
    try:
        # As new as both know: a daemon refuses the version that an older SDK would take by itself.
        return docker.from_env(timeout=SECONDS, version="auto")
    except Exception as error:
        raise explained(error) from error


def _unusable(error: ImportError) -> str:
    other = "or have ansible_python_interpreter name the Python that has it."
    if error.name == "docker" or (not error.name and "docker" in str(error)):
        return f"the Docker SDK for Python is missing for {sys.executable}: {INSTALL.format(sys.executable)}; {other}"
    # It is there, but too old for this Python, or one that it needs is not there.
    return (
        f"the Docker SDK for Python of {sys.executable} cannot be imported ({error}): {sys.executable} -m pip install "
        f"--upgrade 'docker>=7.1' requests urllib3; {other}"
    )


def _origin(module: Any) -> str:
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "a folder"))


def version_of(client: Any) -> dict[str, str]:
    """``{"version", "api"}`` of the daemon. Raises DockerError, of kind podman where it is Podman's service."""
    try:
        said = client.version()
    except Exception as error:
        raise explained(error) from error
    podman = next((c for c in said.get("Components") or [] if "podman" in str(c.get("Name", "")).lower()), None)
    if podman:
        raise DockerError(
            f"{_address()} is the socket of {podman['Name']} {podman.get('Version', '')}, which ignores what gives a "
            "container its GPUs: install Docker, or set DOCKER_HOST to Docker's own socket.",
            "podman",
        )
    return {"version": str(said.get("Version")), "api": str(said.get("ApiVersion"))}


def settings_of(client: Any) -> dict[str, Any]:
    """What of the daemon's settings decides whether it can run the containers; see RETURN of M(observe). Raises DockerError."""
    try:
        said = client.info()
    except Exception as error:
        raise explained(error) from error
    options = {str(each).partition(",")[0] for each in said.get("SecurityOptions") or []}
    daemon = _process()
    return {
        "log_driver": str(said.get("LoggingDriver") or ""),
        "log_cache": not _cache_disabled(daemon),
        "userns": "name=userns" in options,
        "rootless": "name=rootless" in options,
        "gpus": _gives_gpus(daemon, said),
        **described(said),
    }


def described(said: Mapping[str, Any]) -> dict[str, Any]:
    """What only describes the daemon and its host; None is what it does not say, being too old."""
    proxies = {"http_proxy": "HttpProxy", "https_proxy": "HttpsProxy", "no_proxy": "NoProxy"}
    cdi = said.get("CDISpecDirs")  # from 25 on; empty where CDI is off
    texts = {
        "version": "ServerVersion",
        "storage_driver": "Driver",
        "root_dir": "DockerRootDir",
        "cgroup_driver": "CgroupDriver",
        "cgroup_version": "CgroupVersion",
        "kernel": "KernelVersion",
        "os": "OperatingSystem",
    }
    return {
        **{key: str(said[name]) if said.get(name) else None for key, name in texts.items()},
        "runtimes": None if said.get("Runtimes") is None else sorted(said["Runtimes"]),
        "cdi": None if cdi is None else bool(cdi),
        "proxies": {key: without_login(str(said[name])) for key, name in proxies.items() if said.get(name)},
    }


def explained(error: BaseException) -> DockerError:
    """What a failed call of Docker means, and what to do; raises ``error`` itself where Docker has no part in it."""
    if isinstance(error, DockerError):
        return error
    chain = list(_chain(error))
    foreign = ("docker", "requests", "urllib3")
    if not any(isinstance(e, OSError) or type(e).__module__.partition(".")[0] in foreign for e in chain):
        raise error
    text = " ".join(map(str, chain))
    lower = text.lower()
    where = _address()
    # Every error of Docker's API names a URL of this scheme; these two do not know it.
    if "url scheme http+docker" in lower or "no connection adapters" in lower:
        return DockerError(
            f"the Docker SDK for Python of {sys.executable}{_versions()} do not go together ({error}): "
            f"{sys.executable} -m pip install 'docker>=7.1' (or 'requests<2.32').",
            "sdk",
        )
    if "client version" in lower and "too old" in lower:
        return DockerError(
            f"the Docker SDK for Python of {sys.executable}{_versions()} is too old for the Docker of this host "
            f"({_short(error)}): {sys.executable} -m pip install --upgrade 'docker>=7.1'.",
            "sdk",
        )
    if "paramiko" in lower or where.startswith("ssh://"):
        return DockerError(
            f"DOCKER_HOST is {where}, another machine's Docker: unset it for Ansible's user on this host, for containers "
            "have to run on the host itself.",
            "socket",
        )
    if any(word in lower for word in ("certificate", "ssl:", "tls", "http request to an https server")):
        return DockerError(
            f"Docker at {where} is asked with or without TLS, and expects it otherwise ({_short(error)}): unset DOCKER_HOST, "
            "DOCKER_TLS_VERIFY and DOCKER_CERT_PATH for Ansible's user, so that the socket of this host is used.",
            "socket",
        )
    if "permission denied" in lower:
        user = _user()
        return DockerError(
            f"the user {user} may not open {where}: run the play with become (ansible_become: true), or add the user to the "
            f"group docker (usermod -aG docker {user}) and let the user log in again (ansible: meta reset_connection).",
            "permission",
        )
    if "no such file or directory" in lower:
        return DockerError(f"{where} does not exist: {_instead()}", "socket")
    if "connection refused" in lower:
        return DockerError(
            f"nothing serves {where}, so Docker does not run: start it (systemctl start docker), and see why it ended "
            "(systemctl status docker, journalctl -u docker).",
            "daemon",
        )
    if any("Timeout" in type(each).__name__ for each in chain) or "timed out" in lower:
        return DockerError(
            f"Docker took the call at {where} and did not answer in time ({error}): see journalctl -u docker, and "
            "restart it (systemctl restart docker) where it hangs.",
            "timeout",
        )
    return DockerError(
        f"Docker at {where} does not answer as it should ({_short(error)}): see systemctl status docker and journalctl -u docker.",
        "daemon",
    )


def _instead() -> str:
    """What to do about a socket that is not there, by what else is on the host."""
    if os.environ.get("DOCKER_HOST"):
        return (
            "DOCKER_HOST names it, in the environment of Ansible's user on this host: unset it there, or set it to where "
            "Docker's socket is."
        )
    others = [
        path
        for path in (Path(f"/run/user/{os.getuid()}/docker.sock"), Path("~/.docker/desktop/docker.sock").expanduser())
        if path.exists()
    ]
    if others:
        return (
            f"there is {others[0]}, of a rootless Docker or Docker Desktop, which cannot run these containers (host network, "
            "all GPUs): install Docker Engine for the whole host and start it (systemctl enable --now docker)."
        )
    if Path("/run/podman/podman.sock").exists():
        return (
            "there is only Podman, which is not supported: install Docker and start it (systemctl enable --now docker)."
        )
    return "install Docker and start it (systemctl enable --now docker), or set DOCKER_HOST to where its socket is."


# ---- the daemon's process: what only its command line, its environment and its configuration file say


def _process() -> Path | None:
    """/proc/PID of the dockerd behind the default socket, or None where that cannot be known."""
    if os.environ.get("DOCKER_HOST") not in (None, "", SOCKET, SOCKET.replace("/var/run/", "/run/")):
        return None
    with contextlib.suppress(OSError, ValueError):
        process = PROC / str(int(PIDFILE.read_text(encoding="ascii")))
        if (process / "comm").read_text(encoding="utf-8").strip() == "dockerd":
            return process
    return None


def _arguments(daemon: Path | None) -> list[str]:
    with contextlib.suppress(OSError):
        if daemon:
            return (daemon / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    return []


def _cache_disabled(daemon: Path | None) -> bool:
    """Whether Docker is told to keep no copy of logs that a driver sends away (it does so from 20.10 on)."""
    arguments = _arguments(daemon)
    if any("cache-disabled=true" in each for each in arguments):
        return True
    options = _configuration(arguments).get("log-opts")
    disabled = options.get("cache-disabled", "false") if isinstance(options, dict) else "false"
    return str(disabled).lower() in ("true", "1", "t")


def _configuration(arguments: Sequence[str]) -> Mapping[str, Any]:
    """What dockerd's configuration file holds; empty where there is none."""
    named = [each.partition("=")[2] for each in arguments if each.startswith("--config-file=")]
    named += [value for option, value in zip(arguments, arguments[1:]) if option == "--config-file"]
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(Path((named or [CONFIGURATION])[-1]).read_bytes())
        if isinstance(content, dict):
            return content
    return {}


def default_limits() -> dict[str, int]:
    """Name -> the soft limit that Docker gives every container which asks for none; -1 is no limit."""
    arguments = _arguments(_process())
    given = [each.partition("=")[2] for each in arguments if each.startswith("--default-ulimit=")]
    given += [value for option, value in zip(arguments, arguments[1:]) if option == "--default-ulimit"]
    found = {}
    configured = _configuration(arguments).get("default-ulimits")
    for name, limit in configured.items() if isinstance(configured, dict) else ():
        if isinstance(limit, dict) and isinstance(limit.get("Soft"), int):
            found[str(name)] = int(limit["Soft"])
    for each in given:
        name, __, limit = each.partition("=")
        with contextlib.suppress(ValueError):
            found[name] = int(limit.partition(":")[0])
    return found


def _gives_gpus(daemon: Path | None, info: Mapping[str, Any]) -> bool | None:
    """Whether Docker has what gives a container GPUs (``--gpus``); None where nobody can tell.

    dockerd looks for NVIDIA's hook in its PATH when it starts. Newer ones take devices of CDI as well.
    """
    if any("nvidia.com/gpu" in str(each.get("ID")) for each in info.get("DiscoveredDevices") or []):
        return True
    if daemon is None:
        return None
    try:
        environment = (daemon / "environ").read_bytes().decode("utf-8", "replace").split("\0")
        root = daemon / "root"
        next(root.iterdir())
    except OSError:
        return None
    path = next((each.partition("=")[2] for each in environment if each.startswith("PATH=")), os.defpath)
    # Not through symbolic links: an absolute one leads out of the daemon's root.
    if any(os.path.lexists(f"{root}{folder}/{HOOK}") for folder in path.split(":") if folder.startswith("/")):
        return True
    described = any(next((root / folder).glob("*nvidia*"), None) for folder in ("etc/cdi", "var/run/cdi", "run/cdi"))
    return None if described else False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was made from, and what these carry: requests packs urllib3's into its arguments."""
    while error is not None:
        yield error
        for inner in error.args:
            if isinstance(inner, BaseException):
                yield from _chain(inner)
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    return str(getattr(error, "explanation", None) or error)


def _address() -> str:
    return (os.environ.get("DOCKER_HOST") or SOCKET).replace("unix://", "")


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _versions() -> str:
    import docker
    import requests

    return f" ({docker.__version__}) and its requests ({requests.__version__})"
