# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull of an image in a process of its own, which goes on while nobody waits for it, and what it says of its progress.

Docker ends a pull whose client goes away. So the process ends itself, and with it the pull, where nobody has asked after it
for ``ALONE_S`` seconds, as after a Ctrl-C; what came by then Docker keeps.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _files
from ._processes import leave_behind, started, stop

ALONE_S = 300.0
WRITE_S = 0.5
RATE_S = 15.0  # the rate is that of so many seconds


@dataclasses.dataclass
class Layer:
    """One layer; bytes are those of the registry's compressed file. ``size`` is None until Docker begins with it."""

    got: int = 0
    size: int | None = None
    unpacked: int = 0
    downloaded: bool = False
    done: bool = False


class Progress:
    """What Docker's lines of a pull come to."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.error = ""
        self.lines = 0
        self._seen: collections.deque[tuple[float, int]] = collections.deque()

    def see(self, line: Mapping[str, Any]) -> None:
        """Take one line in, of a Docker with or without containerd's image store."""
        self.lines += 1
        error = line.get("errorDetail") or line.get("error")
        if error:
            self.error = str(error.get("message") if isinstance(error, Mapping) else error)
        name, status = str(line.get("id") or ""), str(line.get("status") or "")
        if not name or status.startswith("Pulling from"):  # its id is the tag
            return
        if status == "Already exists":
            self.layers.pop(name, None)  # nothing of it is to be done
            return
        layer = self.layers.setdefault(name, Layer())
        detail = line.get("progressDetail") or {}
        current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
        if status == "Downloading":
            layer.got, layer.size = current, total if total > 0 else layer.size
        elif status.startswith("Retrying in"):
            layer.got = 0
        elif status in ("Verifying Checksum", "Download complete", "Extracting", "Pull complete"):
            layer.downloaded = True
            if status == "Extracting" and not detail.get("units"):  # containerd's store tells seconds there
                layer.size, layer.unpacked = total if total > 0 else layer.size, current
            layer.size = layer.got if layer.size is None else layer.size
            layer.got = layer.size
            layer.done = layer.done or status == "Pull complete"
            if layer.done:
                layer.unpacked = layer.size

    def summary(self, now: float) -> dict[str, Any]:
        """How far it is at the monotonic time ``now``: bytes, layers, bytes a second, and seconds that are left to download.

        ``sized`` says that every layer's size is known; before that ``size`` is what is known, and ``left_s`` is None.
        """
        layers = list(self.layers.values())
        got, size = sum(each.got for each in layers), sum(each.size or 0 for each in layers)
        sized = bool(layers) and all(each.size is not None for each in layers)
        if self._seen and self._seen[-1][1] > got:  # a layer is begun again
            self._seen.clear()
        self._seen.append((now, got))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_S:
            self._seen.popleft()
        past, before = self._seen[0]
        rate = (got - before) / (now - past) if now - past >= WRITE_S else 0.0
        downloaded = all(each.downloaded for each in layers)
        return {
            "stage": "waits" if not layers else "unpacks" if downloaded else "downloads",
            "got": got,
            "size": size,
            "sized": sized,
            "unpacked": sum(each.unpacked for each in layers),
            "layers": len(layers),
            "done": sum(each.done for each in layers),
            "rate": rate,
            "left_s": round((size - got) / rate) if sized and rate > 0 else None,
            "lines": self.lines,
        }


def start(file: Path, reference: str, tag_as: str, alone_s: float = ALONE_S) -> dict[str, Any]:
    """Begin to pull ``reference``, and leave a process that does so and writes to ``file``. ``tag_as``: also name it that."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(file, {"summary": Progress().summary(time.monotonic()), "result": None})

    def work() -> None:
        threading.Thread(target=end_alone, args=(file, alone_s), daemon=True).start()
        pull(file, reference, tag_as)

    return leave_behind(work)


def end_alone(file: Path, alone_s: float) -> None:
    """End this process where nobody asks any more; who asks touches ``file``'s mark."""
    mark, last, since = marked(file), 0, time.monotonic()
    while True:
        time.sleep(min(1.0, alone_s))
        with contextlib.suppress(OSError):
            asked = mark.stat().st_mtime_ns
            if asked != last:
                last, since = asked, time.monotonic()
        if time.monotonic() - since > alone_s:
            os._exit(1)


def marked(file: Path) -> Path:
    """What is touched by who asks after the pull that writes to ``file``."""
    return file.with_suffix(".asked")


def pull(file: Path, reference: str, tag_as: str) -> None:
    """Pull it, and write how far it is, and at last ``{"ok", "image", "error"}``, to ``file``."""
    import docker

    progress, written = Progress(), float("-inf")
    result: dict[str, Any] = {"ok": False, "image": None, "error": ""}
    try:
        with contextlib.closing(docker.from_env(version="auto", timeout=60)) as client:
            for line in client.api.pull(reference, stream=True, decode=True):
                progress.see(line)
                now = time.monotonic()
                if now - written >= WRITE_S:
                    written = now
                    write(file, {"summary": progress.summary(now), "result": None})
            if progress.error:
                result["error"] = progress.error
            else:
                image = client.images.get(reference)
                if tag_as:
                    repository, tag = docker.utils.parse_repository_tag(tag_as)
                    image.tag(repository, tag=tag or "latest")
                result = {"ok": True, "image": image.id, "error": ""}
    except Exception as error:  # noqa: BLE001 - whatever it is, who waits for it has to be told
        result["error"] = str(getattr(error, "explanation", None) or error) or type(error).__name__
    write(file, {"summary": progress.summary(time.monotonic()), "result": result})


def poll(file: Path, process: Mapping[str, Any]) -> dict[str, Any]:
    """``{"summary", "result"}`` of what ``start`` began; the result of one whose process is gone is a failure."""
    marked(file).touch()
    ended = started(int(process["pid"])) != process["started"]  # before the file, so that an ended one's is its last
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if ended and found["result"] is None:
        found["result"] = {"ok": False, "image": None, "error": "the process that brought it has ended: run again"}
    return found


def remove(file: Path, process: Mapping[str, Any]) -> None:
    """End it, and remove what it wrote."""
    stop(process)
    for path in (file, marked(file)):
        path.unlink(missing_ok=True)


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write it in one step, so that no reader sees half of it."""
    _files.write(file, json.dumps(content).encode(), _files.OWN)
