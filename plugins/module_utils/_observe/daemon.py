# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker on this host: the way to it, or why there is none."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from typing import Any

SECONDS = 20.0  # for each call; a daemon that answers at all answers in far less
SOCKET = "unix:///var/run/docker.sock"


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
    except ImportError:
        raise DockerError(
            f"the Docker SDK for Python is missing for {sys.executable}: apt-get install python3-docker (Debian, Ubuntu), "
            f"or {sys.executable} -m pip install docker; or have ansible_python_interpreter name the Python that has it.",
            "sdk",
        ) from None
    try:
        return docker.from_env(timeout=SECONDS)
    except Exception as error:
        raise explained(error) from error


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


def explained(error: BaseException) -> DockerError:
    """What a failed call of Docker means, and what to do; raises ``error`` itself where Docker has no part in it."""
    if isinstance(error, DockerError):
        return error
    chain = list(_chain(error))
    foreign = ("docker", "requests", "urllib3")
    if not any(isinstance(e, OSError) or type(e).__module__.partition(".")[0] in foreign for e in chain):
        raise error
    text = " ".join(map(str, chain))
    where = _address()
    if "http+docker" in text:
        return DockerError(
            f"the Docker SDK for Python of {sys.executable}{_versions()} do not go together ({error}): "
            f"{sys.executable} -m pip install 'docker>=7.1' (or 'requests<2.32').",
            "sdk",
        )
    if "Permission denied" in text:
        user = _user()
        return DockerError(
            f"the user {user} may not open {where}: run the play with become, or add the user to the group docker "
            f"(usermod -aG docker {user}).",
            "permission",
        )
    if "No such file or directory" in text:
        return DockerError(
            f"{where} does not exist: install Docker and start it (systemctl enable --now docker), or set DOCKER_HOST to "
            "where its socket is.",
            "socket",
        )
    if any("Timeout" in type(each).__name__ for each in chain) or "timed out" in text.lower():
        return DockerError(
            f"Docker took the call at {where} and did not answer in time ({error}): see journalctl -u docker, and "
            "restart it (systemctl restart docker) where it hangs.",
            "timeout",
        )
    return DockerError(
        f"Docker at {where} does not answer as it should ({error}): see systemctl status docker and journalctl -u docker.",
        "daemon",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was made from, and what these carry: requests packs urllib3's into its arguments."""
    while error is not None:
        yield error
        for inner in error.args:
            if isinstance(inner, BaseException):
                yield from _chain(inner)
        error = error.__cause__ or error.__context__


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
