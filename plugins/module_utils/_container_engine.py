# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of Docker Engine is on a host, whether it runs, and with what. Reads only; needs neither Docker nor its SDK.

Docker is asked by its socket only where its process runs: systemd would start it for the asking.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PIDFILE = Path("/run/docker.pid")
SOCKET = "/var/run/docker.sock"
SECONDS = 20.0
DEPLOYMENT = "lmfleet.lmdeploy.deployment"
PROGRAMS = ("dockerd", "nvidia-container-runtime", "nvidia-container-runtime-hook", "ip")
FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
SOURCES = ("etc/apt/sources.list", "etc/apt/sources.list.d/*", "etc/yum.repos.d/*.repo")


def facts(config: str, pending: str, repositories: Mapping[str, str], ours: str) -> dict[str, Any]:
    """All of it; see RETURN of M(container_engine_facts).

    ``repositories`` are names and the words by which a repository's file is known; files that begin with ``ours`` do not count.
    """
    path = f"{os.environ.get('PATH', '')}:{FOLDERS}"
    programs = {name: shutil.which(name, path=path) or "" for name in PROGRAMS}
    daemon = dockerd()
    return {
        "os": system(_text(Path("/etc/os-release")) or _text(Path("/usr/lib/os-release")) or ""),
        "systemd": Path("/run/systemd/system").is_dir(),
        "programs": programs,
        "snap": Path("/snap/docker/current").exists(),
        "sdk": importlib.util.find_spec("docker") is not None,
        "repositories": {name: _repository(word, ours) for name, word in repositories.items()},
        "config": _text(Path(config)),
        "config_directory": Path(config).parent.is_dir(),
        "pending": _json(Path(pending)),
        "validates": _validates(programs["dockerd"]),
        "dockerd": daemon,
        "arguments": daemon["arguments"] if daemon else unit_arguments(),
        **(asked(SOCKET) if daemon else {"containers": [], "live_restore": None, "unanswered": ""}),
    }


def system(release: str) -> dict[str, Any]:
    """``{"id", "like", "version", "codename", "architecture"}`` by the text of os-release."""
    values = {
        key: value.strip().strip("\"'")
        for key, equals, value in (line.partition("=") for line in release.splitlines())
        if equals and not key.startswith("#")
    }
    return {
        "id": values.get("ID", "").lower(),
        "like": values.get("ID_LIKE", "").lower().split(),
        "version": values.get("VERSION_ID", ""),
        "codename": values.get("UBUNTU_CODENAME")
        or values.get("VERSION_CODENAME", ""),  # of Ubuntu, where it is made from it
        "architecture": platform.machine(),
    }


def dockerd(proc: Path = PROC, pidfile: Path = PIDFILE) -> dict[str, Any] | None:
    """The daemon's process, or None where none runs; one in a container of this host is not it.

    ``process`` is the same as long as it is the same process: its number, and its start in ticks since the boot.
    """
    with contextlib.suppress(OSError, ValueError):
        folder = proc / str(int(pidfile.read_text(encoding="ascii")))
        if (folder / "comm").read_text(encoding="utf-8").strip() == "dockerd":
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            executable = ""
            with contextlib.suppress(OSError):
                executable = str((folder / "exe").readlink())
            boot = _text(proc / "sys/kernel/random/boot_id") or ""
            return {
                "pid": int(folder.name),
                "process": f"{boot.strip()} {folder.name} {stat.rpartition(')')[2].split()[19]}",
                "arguments": (folder / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0"),
                "executable": executable,
            }
    return None


def unit_arguments() -> list[str]:
    """With what systemd would start the daemon; empty where that is not to be known."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asking = ["systemctl", "show", "docker.service", "--property=ExecStart"]
        done = subprocess.run(asking, capture_output=True, timeout=SECONDS, check=False)
        return arguments_of(done.stdout.decode("utf-8", "replace"))
    return []


def arguments_of(shown: str) -> list[str]:
    """The command line in systemd's ``ExecStart={ path=... ; argv[]=... ; ... }``; variables in it stay names."""
    found = re.search(r"argv\[\]=(.*?) ; ignore_errors=", shown, re.DOTALL)
    return found[1].split() if found else []


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of this host."""

    def __init__(self, address: str) -> None:
        super().__init__("docker", timeout=SECONDS)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


def asked(address: str) -> dict[str, Any]:
    """The containers that run, and whether they outlive the daemon; None where it does not say, and why not."""
    try:
        containers = [
            {
                "name": str((each.get("Names") or [each.get("Id", "?")])[0]).lstrip("/"),
                "deployment": str((each.get("Labels") or {}).get(DEPLOYMENT, "")),
            }
            for each in _get(address, "/containers/json")
        ]
        live_restore = _get(address, "/info").get("LiveRestoreEnabled")
    except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:
        return {"containers": None, "live_restore": None, "unanswered": str(error) or type(error).__name__}
    return {"containers": containers, "live_restore": live_restore, "unanswered": ""}


def _get(address: str, path: str) -> Any:
    connection = _Connection(address)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ValueError(f"HTTP {answer.status}: {body.decode('utf-8', 'replace').strip()}")
    return json.loads(body)


def _repository(word: str, ours: str, root: Path = Path("/")) -> str:
    """The file that names a repository with ``word`` in its address, other than one of ours; empty without."""
    for pattern in SOURCES:
        for file in sorted(root.glob(pattern)):
            lines = (_text(file) or "").splitlines()
            if not file.name.startswith(ours) and any(
                re.search(r"://", line) and word in line and not line.lstrip().startswith("#") for line in lines
            ):
                return str(file)
    return ""


def _validates(dockerd: str) -> bool:
    """Whether dockerd can check a configuration file, as it can from 23.0 on."""
    if not dockerd:
        return False
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([dockerd, "--help"], capture_output=True, timeout=SECONDS, check=False)
        return b"--validate" in done.stdout
    return False


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        found = json.loads(_text(path) or "")
        return found if isinstance(found, dict) else None
    return None
