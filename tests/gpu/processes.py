# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes in place of containers, in the shape of docker.client as far as this collection's modules ask it.

What a container would give a service is given as follows. The machine's own environment comes below the service's.
HOME is a directory in which each mount below /root is a link to the mount's source; TMPDIR is one that is emptied at each
start, as a container's /tmp is; Ray's session directory is RAY_TMPDIR. Other paths of mounts and secrets are replaced by
their sources where command and environment name them. When the first process ends, all that it has started are killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = "LMFLEET_GPU_SERVICE"
ROOT_HOME, RAY_TMP = "/root", "/tmp/ray"
# What would lead a library past HOME.
DROPPED = ("HF_HOME", "TRITON_CACHE_DIR", "TRITON_HOME", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME", "CUDA_CACHE_PATH")


def stamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, as Docker stamps log lines."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09}Z"


def members(name: str) -> Iterator[int]:
    """The processes of a service, its own and all that these have started."""
    mark = f"{MARK}={name}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


def command_of(pid: int) -> str:
    """What a process is, for a person."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:160]
    return "?"


class Process:
    """One service that was started; the container's part in docker.client."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self.environment, self.log = name, dict(environment), log
        self.started_ns = time.time_ns()
        self.code: int | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd="/",
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("wb", buffering=0) as file:
            for line in self._process.stdout:
                file.write(f"{stamp(time.time_ns())} ".encode() + line.rstrip(b"\n") + b"\n")

    def _watch(self) -> None:
        code = self._process.wait()
        self.kill_all()
        self._reader.join(2)
        self.code = 128 - code if code < 0 else code

    @property
    def attrs(self) -> dict[str, Any]:
        state = {
            "Status": "running" if self.code is None else "exited",
            "ExitCode": self.code or 0,
            "OOMKilled": False,
            "StartedAt": stamp(self.started_ns),
            "Pid": self.pid,
        }
        return {
            "Id": self.name,
            "Name": f"/{self.name}",
            "Image": "",
            "Created": stamp(self.started_ns),
            "State": state,
            "RestartCount": 0,
            "Config": {"Cmd": [], "Env": [], "Labels": {}},
            "HostConfig": {},
        }

    def logs(self, *, timestamps: bool, tail: int) -> bytes:
        lines = self.log.read_bytes().splitlines(keepends=True)[-tail:] if self.log.exists() else []
        return b"".join(lines if timestamps else (line.partition(b" ")[2] for line in lines))

    def stats(self, *, stream: bool) -> dict[str, Any]:  # noqa: ARG002
        read = held = 0
        for pid in members(self.name):
            with contextlib.suppress(OSError):
                read += int(re.findall(r"read_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text())[0])
                held += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {"blkio_stats": {"io_service_bytes_recursive": [{"value": read}]}, "memory_stats": {"usage": held}}

    def exec_run(self, command: Sequence[str], *, demux: bool) -> tuple[int, tuple[bytes, bytes]]:  # noqa: ARG002
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        return done.returncode, (done.stdout, done.stderr)

    def kill_all(self) -> None:
        for __ in range(20):
            pids = list(members(self.name))
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def stop(self, timeout_s: float = 30.0) -> float:
        """As `docker stop`: the seconds it took."""
        began = time.monotonic()
        if self.code is None:
            self._process.send_signal(signal.SIGTERM)
            while self.code is None and time.monotonic() - began < timeout_s:
                time.sleep(0.05)
            self.kill_all()
        while self.code is None:
            time.sleep(0.05)
        return time.monotonic() - began


def _on_machine(word: str, named: Mapping[str, str]) -> str:
    """A word of a command with the path of a mount, or of what lies in it, as it is on the machine."""
    for target, source in named.items():
        if word == target or word.startswith(f"{target}/"):
            return source + word[len(target) :]
    return word


class _NoImages:
    """``docker.client.images`` of a machine that has none."""

    def get(self, name: str) -> Any:
        import docker.errors

        raise docker.errors.ImageNotFound(f"no image {name}")


class Client:
    """The services that were started, by name; ``containers`` is what docker.client calls them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, Process] = {}
        self.containers = self
        self.images = _NoImages()

    def version(self) -> dict[str, str]:
        return {"Version": "none: processes", "ApiVersion": "0"}

    def get(self, name: str) -> Process:
        import docker.errors

        if name not in self._processes:
            raise docker.errors.NotFound(f"no process {name}")
        return self._processes[name]

    def home_of(self, name: str) -> Path:
        """The service's HOME; short, for Ray has sockets below its TMPDIR, whose paths have 107 bytes at most."""
        return self._logs.parent / "h" / f"{zlib.crc32(name.encode()):08x}"

    def start(self, service: Mapping[str, Any], name: str, extra: Mapping[str, str]) -> Process:
        """Start a service of a plan again. ``name`` is unique on this machine; ``extra`` comes on top of its environment."""
        if name in self._processes:
            self._processes[name].stop()
        for directory in service["directories"]:
            Path(directory).mkdir(parents=True, exist_ok=True)
        mounts = sorted(service["mounts"], key=lambda mount: str(mount["target"]))
        home = self.home_of(name)
        shutil.rmtree(home, ignore_errors=True)
        (home / "tmp").mkdir(parents=True)
        for mount in mounts:
            if mount["target"].startswith(f"{ROOT_HOME}/"):
                link = home / Path(mount["target"]).relative_to(ROOT_HOME)
                if not link.is_symlink():
                    link.symlink_to(mount["source"])
        named = {
            each["target"]: each["source"]
            for each in [*mounts, *service["secrets"]]
            if not each["target"].startswith((f"{ROOT_HOME}/", RAY_TMP))
        }
        own = {name: value for name, value in os.environ.items() if name not in DROPPED}
        ray = [mount["source"] for mount in mounts if mount["target"] == RAY_TMP]
        environment = {
            **own,
            **{
                key: named.get(value, re.sub(rf"^{ROOT_HOME}/", f"{home}/", value))
                for key, value in service["environment"].items()
            },
            **({"RAY_TMPDIR": ray[0]} if ray else {}),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            MARK: name,
            **extra,
        }
        command = [_on_machine(word, named) for word in service["command"]]
        log = self._logs / f"{name}.{len(list(self._logs.glob(f'{name}.*.log')))}.log"
        self._processes[name] = Process(name, command, environment, log)
        return self._processes[name]

    def stop(self) -> None:
        """Stop all that runs, the last started first."""
        for process in reversed(self._processes.values()):
            process.stop()
