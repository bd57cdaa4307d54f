# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host has to tell of a deployment that failed: logs, states, versions; bounded, and without secrets.

Nothing is made on the host: all of it is in memory, packed, until it is in the answer.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import gzip
import io
import json
import os
import platform
import re
import stat
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Callable

from ._harmless import harmless
from ._observe import commands, daemon, parallel
from ._observe.kernel import kernel_log
from ._redact import Redactor

DEPLOYMENT, JOB, OWNER, SERVICE, ENGINE = (
    f"lmfleet.lmdeploy.{name}" for name in ("deployment", "job", "owner", "service", "engine")
)
MB = 1 << 20
LEFT_OUT = "[lmfleet: {} of the log are left out here]"
JOURNAL_LINES = 5000
FIRST_TAIL = 2000  # lines, and eight times as many until there is enough
MOST_TAIL = 8 << 20
MOST_FILES = 200  # of the deployment's state directory
SMALL = 4 * MB  # a record, or a page of nvidia-smi
TEXT_SAMPLE = 8192
# Of these the content is a secret, a program or no text.
NOT_KEPT = ("secrets", "programs", "cache", "triton", "deep_gemm", "nv", "ray", "benchmark")
# The earlier states of a progress bar, after Docker's stamp.
_CARRIED = re.compile(r"^(\d{4}-\d\d-\d\dT[\d:.]+Z )?[^\n]*\r(?=[^\n])", re.MULTILINE)


class Bounds:
    """Bytes of a container's log, hours of the host's logs, seconds and bytes of the whole."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.first = int(asked["first_mb"] * MB)
        self.last = int(asked["last_mb"] * MB)
        self.hours = asked["hours"]
        self.seconds = asked["limit_s"]
        self.total = int(asked["total_mb"] * MB)


def collect(client: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the module ``collect``; ``client`` is a ``docker.client``, or None to have one made.

    ``archive`` is a tar.gz as base64, ``containers`` a row for each container, ``files`` what is in the archive (bytes, and how
    many were left out), ``unread`` what could not be read, and why.
    """
    whole = _Collection(client, asked)
    try:
        return whole.answer()
    finally:
        whole.close()


class _Collection:
    def __init__(self, client: Any, asked: Mapping[str, Any]) -> None:
        self._asked, self._bounds = asked, Bounds(asked)
        self._ends = time.monotonic() + self._bounds.seconds
        self._redactor = Redactor()
        self._client, self._given = client, client is not None
        self._files: dict[str, tuple[str, int]] = {}  # name -> text, bytes that were left out
        self._unread: list[dict[str, str]] = []
        self._lock = threading.Lock()

    def answer(self) -> dict[str, Any]:
        listed = parallel.start(self._inspected)
        jobs: dict[str, Callable[[], Any]] = {
            "the state directory": self._state,
            "Docker's version": lambda: self._docker("docker-version.json", "version"),
            "Docker's state": lambda: self._docker("docker-info.json", "info"),
            "Docker's log": lambda: self._journal("docker.log", "-u", "docker.service"),
            "the kernel's log": self._kernel,
            "nvidia-smi": self._gpus,
            "the host": self._host,
            "the secrets": self._learn_files,
        }
        futures = {what: parallel.start(job) for what, job in jobs.items()}
        containers = self._take("containers", listed) or []
        logs = {each["name"]: parallel.start(self._log, each) for each in containers}
        for what, future in {**futures, **{f"the log of {name}": each for name, each in logs.items()}}.items():
            self._take(what, future)
        for each in containers:
            each.pop("container")
        packed, files = self._packed()
        return {
            "containers": self._redactor.data(containers),
            "files": files,
            "unread": self._redactor.data(self._unread),
            "archive": base64.b64encode(packed).decode(),
        }

    def close(self) -> None:
        """Give back what was opened here."""
        if self._client is not None and not self._given:
            self._client.close()

    # ---- with an end

    def _take(self, what: str, future: concurrent.futures.Future[Any]) -> Any:
        try:
            return parallel.by(self._ends, future)
        except parallel.Late:
            self._missed(what, f"no answer within {self._bounds.seconds:g} s")
        except daemon.DockerError as error:
            self._missed(what, str(error))
        except Exception as error:  # noqa: BLE001  (whatever one part breaks at, the others are worth having)
            self._missed(what, f"{type(error).__name__}: {error}")
        return None

    def _missed(self, what: str, why: str) -> None:
        with self._lock:
            if all(each["why"] != why or each["what"] != what for each in self._unread):
                self._unread.append({"what": what, "why": harmless(why)})

    def _keep(self, name: str, text: str, left_out: int = 0) -> None:
        text = harmless(_CARRIED.sub(lambda match: match[1] or "", text.replace("\r\n", "\n")))
        with self._lock:
            self._files[name] = (text, left_out)

    # ---- what is a secret

    def _learn_files(self) -> None:
        """The deployment's own secrets, and the hub's token where huggingface_hub keeps it."""
        paths = [Path(path) for path in self._asked["secrets"]]
        paths += self._listed(Path(self._asked["state_dir"]) / "secrets")
        for path in dict.fromkeys(paths):
            self._learn_file(path)
        for folder in (Path(self._asked["state_dir"]).parent / "docker", Path("~/.docker").expanduser()):
            self._redactor.learn(logins(folder / "config.json"))
        # Last, for a file system of models may hang.
        for home in self._asked["hf_homes"]:
            for name in ("token", "stored_tokens"):
                self._learn_file(Path(home) / name)

    def _learn_file(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")[:65536]
        except OSError:
            return
        self._redactor.learn(re.findall(r"=\s*(\S+)", text) if path.name == "stored_tokens" else [text])

    @staticmethod
    def _listed(folder: Path) -> list[Path]:
        try:
            return sorted(path for path in folder.iterdir() if path.is_file())
        except OSError:
            return []

    # ---- Docker

    def _docker_client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = daemon.connect()
            return self._client

    def _inspected(self) -> list[dict[str, Any]]:
        """A row for each container of the deployment, running or not, and of its jobs."""
        client, name = self._docker_client(), self._asked["deployment"]
        try:
            found = client.containers.list(all=True, filters={"label": f"{DEPLOYMENT}={name}"}, ignore_removed=True)
            jobs = client.containers.list(all=True, filters={"label": JOB}, ignore_removed=True)
        except Exception as error:
            raise daemon.explained(error) from error
        own = [each for each in jobs if owned_by(each.labels, name)]
        rows = []
        for container in {each.id: each for each in [*found, *own]}.values():
            attrs = container.attrs
            config = attrs.get("Config") or {}
            self._redactor.learn_environment(config.get("Env") or [])
            for words in (config.get("Cmd"), config.get("Entrypoint"), attrs.get("Args")):
                self._redactor.learn_command(words or [])
            rows.append(self._row(container))
            self._keep(f"containers/{safe(rows[-1]['name'])}.inspect.json", json.dumps(container.attrs))
        return sorted(rows, key=lambda row: row["name"])

    @staticmethod
    def _row(container: Any) -> dict[str, Any]:
        attrs, state, labels = container.attrs, container.attrs["State"], container.labels
        return {
            "container": container,
            "name": attrs["Name"].lstrip("/"),
            "service": labels.get(SERVICE) or labels.get(JOB) or "",
            "engine": labels.get(ENGINE) or "",
            "status": state["Status"],
            "exit_code": state.get("ExitCode"),
            "oom_killed": bool(state.get("OOMKilled")),
            "restarts": attrs.get("RestartCount") or 0,
            "started_at": state.get("StartedAt") or "",
            "finished_at": state.get("FinishedAt") or "",
            "error": harmless(state.get("Error") or ""),
            "log": "",
        }

    def _docker(self, name: str, question: str) -> None:
        client = self._docker_client()
        try:
            said = getattr(client, question)()
        except Exception as error:
            raise daemon.explained(error) from error
        self._keep(name, json.dumps(said))

    def _log(self, row: dict[str, Any]) -> None:
        name = f"containers/{safe(row['name'])}.log"
        try:
            text, left_out = container_log(row["container"], self._bounds.first, self._bounds.last, self._ends)
        except Exception as error:
            raise daemon.explained(error) from error
        self._keep(name, text, left_out)
        row["log"] = name

    # ---- files

    def _state(self) -> None:
        """What the deployment keeps on the host beside its secrets: the record, the lock, former logs."""
        home = Path(self._asked["state_dir"])
        count = 0
        for folder, directories, names in os.walk(home, onerror=self._unwalked):
            inside = Path(folder).relative_to(home)
            directories[:] = sorted(
                d for d in directories if len(inside.parts) < 3 and (inside.parts or d not in NOT_KEPT)
            )
            for each in sorted(names):
                count += 1
                if count > MOST_FILES:
                    self._missed(str(home), f"it has more than {MOST_FILES} files; the others are left out")
                    return
                self._file(Path(folder) / each, f"state/{'/'.join(map(safe, (*inside.parts, each)))}")

    def _unwalked(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self._missed(str(error.filename), str(error.strerror))

    def _file(self, path: Path, name: str) -> None:
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return  # a link may lead anywhere, and a pipe nowhere
            text, left_out = file_text(path, self._bounds.first, self._bounds.last)
        except (OSError, EOFError, ValueError) as error:
            self._missed(str(path), getattr(error, "strerror", None) or str(error))
            return
        self._keep(name.removesuffix(".gz"), text, left_out)

    # ---- the host's own logs

    def _journal(self, name: str, *which: str) -> bool:
        path = commands.find("journalctl")
        if path is None:
            self._missed(name, "journalctl is not installed")
            return False
        argv = [
            path,
            *which,
            "--since",
            f"-{self._bounds.hours:g}h",
            "-n",
            str(JOURNAL_LINES),
            "--no-pager",
            "-o",
            "short-iso",
        ]
        said, failed = commands.run(argv, seconds=min(30.0, self._bounds.seconds))
        if failed or not said.strip() or said.startswith("-- No entries --"):
            self._missed(name, failed or f"journalctl has no line of the last {self._bounds.hours:g} hours")
        if said.strip():
            self._keep(name, *bounded(said, self._bounds.last))
        return bool(said.strip()) and not said.startswith("-- No entries --")

    def _kernel(self) -> None:
        if self._journal("kernel.log", "-k"):
            return
        text = kernel_log()  # as dmesg has it: of the whole boot, so far as the kernel keeps it
        if text is None:
            self._missed("kernel.log", "this user may not read the kernel's messages: run with become")
            return
        self._keep("kernel.log", *bounded(text, self._bounds.last))

    def _gpus(self) -> None:
        path = commands.find("nvidia-smi")
        if path is None:
            self._missed("nvidia-smi", "nvidia-smi is not installed")
            return
        questions = {"nvidia-smi-q.txt": ["-q"], "nvidia-smi-L.txt": ["-L"], "nvidia-smi-topo.txt": ["topo", "-m"]}
        answers = parallel.each(lambda name: commands.run([path, *questions[name]]), questions)
        for name, (said, failed) in answers.items():
            if failed:
                self._missed(name, failed)
            if said.strip():
                self._keep(name, said)

    def _host(self) -> None:
        release = Path("/etc/os-release")
        try:
            uptime = Path("/proc/uptime").read_text(encoding="utf-8").split()[0]
            name = release.read_text(encoding="utf-8", errors="replace") if release.exists() else ""
        except OSError:
            uptime, name = "?", ""
        lines = [
            f"uname: {' '.join(os.uname())}",
            f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}",
            f"uptime: {uptime} s",
            f"load: {' '.join(f'{each:.2f}' for each in os.getloadavg())} on {os.cpu_count()} CPUs",
            f"python: {platform.python_version()} at {sys.executable}",
            f"docker SDK: {_sdk_version()}",
            "",
            name,
        ]
        self._keep("host.txt", "\n".join(lines))

    # ---- the answer

    def _packed(self) -> tuple[bytes, list[dict[str, Any]]]:
        with self._lock:
            found = dict(self._files)
        room, files, packed = self._bounds.total, [], io.BytesIO()
        # The small ones first: a log that fills all must not push the others out.
        chosen: dict[str, bytes] = {}
        for name, (text, left_out) in sorted(found.items(), key=lambda each: (len(each[1][0]), each[0])):
            # What has no room even so is not worth the time.
            data = (self._clean(name, text) if len(text) <= room else text).encode("utf-8", "replace")
            if len(data) > room:
                self._missed(
                    name,
                    f"all of this host's files together have more than {self._bounds.total >> 20} MB (logs_total_mb)",
                )
                continue
            room -= len(data)
            chosen[name] = data
            files.append({"path": name, "bytes": len(data), "left_out": left_out})
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as tar:
            for name in sorted(chosen):
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.mtime = len(chosen[name]), 0o600, int(time.time())
                tar.addfile(info, io.BytesIO(chosen[name]))
        return packed.getvalue(), sorted(files, key=lambda each: str(each["path"]))

    def _clean(self, name: str, text: str) -> str:
        """``text`` without secrets; of JSON also by its keys."""
        if name.endswith(".json"):
            with contextlib.suppress(ValueError):  # what is broken, or cut, is kept as it is
                text = json.dumps(self._redactor.data(json.loads(text)), indent=1)
        return self._redactor.text(text)


# ---- parts that need nothing of a host


def owned_by(labels: Mapping[str, str], deployment: str) -> bool:
    """Whether a job's container is of this deployment: its owner is the name, or ends with it, as in ``warm-up of lmdeploy``."""
    owner = labels.get(OWNER) or ""
    return owner == deployment or owner.endswith(f" of {deployment}")


def logins(path: Path) -> list[str]:
    """What Docker keeps of logins at registries, and the passwords in it; nothing where there is no such file."""
    try:
        auths = json.loads(path.read_bytes()).get("auths") or {}
        found = [each[key] for each in auths.values() for key in ("auth", "identitytoken", "password") if each.get(key)]
        decoded = [
            base64.b64decode(each["auth"]).decode().partition(":")[2] for each in auths.values() if each.get("auth")
        ]
    except (OSError, ValueError, AttributeError, TypeError):
        return []
    return [*found, *decoded]


def safe(name: str) -> str:
    """``name`` as a part of a path that no file system and no page takes for anything else."""
    return re.sub(r"[^\w.@+-]", "_", harmless(name)).lstrip(".")[:120] or "_"


def bounded(text: str, last: int, first: int = 0) -> tuple[str, int]:
    """The first and the last so many bytes of ``text`` in whole lines, and how many bytes were left out between them."""
    data = text.encode("utf-8", "replace")
    if len(data) <= first + last:
        return text, 0
    head, tail = whole_lines(data[:first], end=True), whole_lines(data[-last:] if last else b"", start=True)
    return _joined(head, tail, len(data) - len(head) - len(tail)), len(data) - len(head) - len(tail)


def whole_lines(data: bytes, *, start: bool = False, end: bool = False) -> bytes:
    """``data`` without the part of a line at its start or end, whose other part, perhaps of a secret, was cut off."""
    if start:
        data = data.partition(b"\n")[2]
    if end:
        data = data[: data.rfind(b"\n") + 1]
    return data


def _joined(head: bytes, tail: bytes, left_out: int) -> str:
    amount = f"{left_out / MB:.1f} MB" if left_out >= MB // 10 else f"{left_out} bytes"
    middle = f"{LEFT_OUT.format(amount if left_out else 'some lines')}\n"
    return f"{head.decode('utf-8', 'replace')}{middle}{tail.decode('utf-8', 'replace')}"


def file_text(path: Path, first: int, last: int) -> tuple[str, int]:
    """A text file, unpacked where it is gzip's, bounded as ``bounded`` says. Raises OSError, EOFError and ValueError."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        if packed:
            return _unpacked(file, first, last)
        head = file.read(min(size, first + last))
        if b"\0" in head[:TEXT_SAMPLE]:
            raise ValueError("it is no text")
        if size <= first + last:
            return head.decode("utf-8", "replace"), 0
        file.seek(size - last)
        head, tail = whole_lines(head[:first], end=True), whole_lines(file.read(last), start=True)
    left_out = size - len(head) - len(tail)
    return _joined(head, tail, left_out), left_out


def _unpacked(file: Any, first: int, last: int) -> tuple[str, int]:
    with gzip.open(file) as unpacked:
        data = unpacked.read(first + last + SMALL)
        if unpacked.read(1):
            head = whole_lines(data[: first + last], end=True)
            return f"{head.decode('utf-8', 'replace')}{LEFT_OUT.format('the rest')}\n", 1
    if b"\0" in data[:TEXT_SAMPLE]:
        raise ValueError("it is no text")
    return bounded(data.decode("utf-8", "replace"), last, first)


def container_log(container: Any, first: int, last: int, ends: float) -> tuple[str, int]:
    """A container's log with Docker's time stamps: its first and last so many bytes, and about how many were left out.

    Docker gives a log from its beginning, or its last lines; nobody but it knows how long it is.
    """
    tail, lines = b"", FIRST_TAIL
    while True:
        tail, whole = _tail(container, lines, last, ends)
        if whole and len(tail) <= last:
            return tail.decode("utf-8", "replace"), 0
        if len(tail) >= last or lines >= MOST_TAIL or time.monotonic() > ends:
            break
        lines *= 8
    tail = whole_lines(tail[-last:] if last else b"", start=True)
    head = whole_lines(_head(container, first, ends), end=True)
    # The two may have lines in common: a stamp is one line's own.
    line, __, __ = tail.partition(b"\n")
    overlap = head.find(line + b"\n") if line else -1
    if overlap >= 0:
        return (head[:overlap] + tail).decode("utf-8", "replace"), 0
    return _joined(head, tail, 0), 1


def _tail(container: Any, lines: int, last: int, ends: float) -> tuple[bytes, bool]:
    """The last ``lines`` lines, of those a little more than the last ``last`` bytes; and whether that is all of the log."""
    kept, count, cut = bytearray(), 0, False
    for piece in container.logs(timestamps=True, stream=True, follow=False, tail=lines):
        kept += piece
        count += piece.count(b"\n")
        if len(kept) > 2 * last + MB:
            del kept[: len(kept) - last - 1]
            cut = True
        if time.monotonic() > ends:
            raise daemon.DockerError("Docker did not give the log in time", "timeout")
    return bytes(kept), not cut and count < lines


def _head(container: Any, first: int, ends: float) -> bytes:
    kept = bytearray()
    stream = container.logs(timestamps=True, stream=True, follow=False)
    for piece in stream:
        kept += piece
        if len(kept) >= first or time.monotonic() > ends:
            break
    # What is not read to its end has to be ended: the SDK's stream ends its socket, and leaves the response open.
    stream.close()
    stream._response.close()
    return bytes(kept[:first])


def _sdk_version() -> str:
    try:
        import docker
    except ImportError as error:
        return str(error)
    return str(getattr(docker, "__version__", "?"))


def members(archive: str) -> Iterable[tuple[str, str]]:
    """(name, text) of every file of an answer's ``archive``."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(archive)), mode="r:gz") as tar:
        for info in tar:
            file = tar.extractfile(info)
            if file is not None:
                yield info.name, file.read().decode("utf-8", "replace")
