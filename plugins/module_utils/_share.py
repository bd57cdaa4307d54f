# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image from host to host: each takes it from the one before it in a chain, and gives it on while it comes.

The first host's ``docker save`` goes through all of them at once, and into each one's ``docker load``. Who takes and who gives
prove to each other that they have the run's key. What came is proven by the sha256 of the whole, and by the id of the image that
Docker made of it. Each host's part is a process of its own that ends by itself, as in ``_pull``. Runs on the hosts: Python 3.9,
standard library and Docker's SDK.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._processes import leave_behind
from ._pull import ALONE_S, RATE_S, WRITE_S, end_alone, write
from ._sockets import bound

CONNECT_S = 120.0  # in which all hosts of the chain have to begin
GREET_S = 10.0
SILENT_S = 1800.0  # docker save may write the whole image to a disk before its first byte; so may docker load before its answer
NONCE = 32
LENGTH = struct.Struct(">I")
MOST = 64 << 20  # bytes of a frame
BLOCK = 2 << 20
# docker save and docker load have the archive beside what it is made of or into.
SPACE_TO_GIVE, SPACE_TO_TAKE = 1.0, 2.0
GB = 1e9


class Failed(Exception):
    """Why a host cannot have the image, or give it; a sentence without its end."""


@dataclasses.dataclass(frozen=True)
class Link:
    """One host's part: ``before`` is (address, port) of who gives it the image, None of the first one."""

    file: Path
    reference: str
    key: str
    before: tuple[str, int] | None


class Progress:
    """How far it is, written to the file now and then."""

    def __init__(self, file: Path) -> None:
        self.file, self.stage, self.got, self.size = file, "waits", 0, 0
        self._written = float("-inf")
        self._seen: collections.deque[tuple[float, int]] = collections.deque()

    def summary(self, now: float) -> dict[str, Any]:
        """Stage, bytes, the rate of the last seconds, and seconds that are left; ``size`` is about that of the archive."""
        self._seen.append((now, self.got))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_S:
            self._seen.popleft()
        past, before = self._seen[0]
        rate = (self.got - before) / (now - past) if now - past >= WRITE_S else 0.0
        left = round((self.size - self.got) / rate) if rate > 0 and self.size > self.got else None
        return {"stage": self.stage, "got": self.got, "size": self.size, "rate": rate, "left_s": left}

    def tell(self, stage: str = "", result: dict[str, Any] | None = None) -> None:
        """Write it, where it is time to."""
        now = time.monotonic()
        if stage or result or now - self._written >= WRITE_S:
            self.stage, self._written = stage or self.stage, now
            write(self.file, {"summary": self.summary(now), "result": result})


def start(link: Link, listen: tuple[str, int] | None, alone_s: float = ALONE_S) -> dict[str, Any]:
    """Begin, and leave a process that does this host's part; ``listen`` is (address, port) for who comes behind it, if anybody.

    Raises ``Failed`` where the port is held.
    """
    listener = None
    if listen:
        sockets, refused = bound(listen[0], [listen[1]])
        if refused:
            why = (
                "is held by another process" if "held" in refused.values() else f"cannot be used ({refused[listen[1]]})"
            )
            raise Failed(f"TCP port {listen[1]} of {listen[0]} {why}")
        listener = sockets[listen[1]]
    link.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Progress(link.file).tell("waits")

    def work() -> None:
        threading.Thread(target=end_alone, args=(link.file, alone_s), daemon=True).start()
        share(link, listener)

    process = leave_behind(work, [listener.fileno()] if listener else [])
    if listener:
        listener.close()
    return process


def share(link: Link, listener: socket.socket | None, docker_host: str = "") -> None:
    """This host's part, from its first connection to the result in the file."""
    progress = Progress(link.file)
    result: dict[str, Any] = {"ok": False, "image": None, "error": ""}
    try:
        result = {"ok": True, "image": _share(link, listener, progress, docker_host), "error": ""}
    except Exception as error:  # noqa: BLE001 - whatever it is, who waits for it has to be told
        result["error"] = str(getattr(error, "explanation", None) or error) or type(error).__name__
    progress.tell(result=result)


def _share(link: Link, listener: socket.socket | None, progress: Progress, docker_host: str) -> str:
    import docker

    environment = {**os.environ, **({"DOCKER_HOST": docker_host} if docker_host else {})}
    ends = time.monotonic() + CONNECT_S
    with contextlib.ExitStack() as stack:
        client = docker.from_env(version="auto", timeout=SILENT_S, environment=environment)
        stack.callback(client.close)
        if link.before:
            giver = stack.enter_context(_taken(link.before, link.key.encode(), ends))
            header = json.loads(_frame(giver))
        else:
            attrs = client.images.get(link.reference).attrs
            header = {"image": attrs["Id"], "size": int(attrs.get("Size") or 0)}
        progress.size = int(header["size"])
        behind = _given(listener, link.key.encode(), header, ends) if listener else None
        if behind:
            stack.enter_context(behind)
        if link.before is None:
            if behind is None:
                raise Failed(f"no host came to take the image within {CONNECT_S:.0f} s")
            _room(client, header["size"] * SPACE_TO_GIVE)
            passing = Passing(client.api.get_image(link.reference, BLOCK), behind, progress)
            progress.tell("copies")
            passing.drain()
            return str(header["image"])  # one behind that took no more of it says why
        passing = Passing(_frames(giver), behind, progress, giver)
        return _take(client, link, str(header["image"]), progress, passing)


def _take(client: Any, link: Link, wanted: str, progress: Progress, passing: Passing) -> str:
    """Have the image, and give it on, whatever becomes of it here."""
    import docker

    trouble = ""
    progress.tell("copies")
    if not _has(client, wanted):
        stream = iter(passing)
        try:
            _room(client, progress.size * SPACE_TO_TAKE)
            for line in client.api.load_image(stream):
                trouble = str(line.get("error") or trouble)
        except (Failed, docker.errors.DockerException, OSError) as error:
            trouble = str(getattr(error, "explanation", None) or error)
    passing.drain()
    if passing.error:
        raise Failed(passing.error)
    progress.tell("loads")
    if not _has(client, wanted):
        why = (
            trouble
            or "Docker gave it another id: have all hosts containerd's image store, or none of them (docker info, driver-type)"
        )
        raise Failed(f"the image is not {wanted} on this host after docker load: {why}")
    repository, tag = docker.utils.parse_repository_tag(link.reference)
    client.images.get(wanted).tag(repository, tag=tag or "latest")
    return wanted


def _has(client: Any, image: str) -> bool:
    import docker

    try:
        client.images.get(image)
    except docker.errors.NotFound:
        return False
    return True


def _room(client: Any, needed: float) -> None:
    """Refuse what does not fit where Docker has its data; what cannot be seen refuses nothing."""
    path = str(client.info().get("DockerRootDir") or "")
    try:
        disk = os.statvfs(path)
    except OSError:
        return
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise Failed(
            f"{path} has {free / GB:.1f} GB free, and the image needs about {needed / GB:.1f} GB there on its way (no space left "
            "on device)"
        )


class Passing:
    """The image's archive, block by block, each given on to ``behind`` first; a host behind that is lost is let go.

    ``error`` says why it is not whole; ``giver`` tells the digest of the whole at the end.
    """

    def __init__(
        self,
        blocks: Iterator[bytes],
        behind: socket.socket | None,
        progress: Progress,
        giver: socket.socket | None = None,
    ) -> None:
        self.behind, self.error = behind, ""
        self._stream = self._pass(blocks, progress, giver)

    def __iter__(self) -> Iterator[bytes]:
        return self._stream

    def drain(self) -> None:
        """Give on what is left, as long as somebody takes it."""
        with contextlib.suppress(OSError, Failed):
            while self.behind and next(self._stream, b""):
                pass

    def _pass(self, blocks: Iterator[bytes], progress: Progress, giver: socket.socket | None) -> Iterator[bytes]:
        digest = hashlib.sha256()
        try:
            for block in blocks:
                digest.update(block)
                self._send(LENGTH.pack(len(block)) + block)
                progress.got += len(block)
                progress.tell()
                yield block
            if giver:
                _prove(digest.digest(), _exactly(giver, digest.digest_size))
        except (OSError, Failed) as error:
            self.error = str(error) or type(error).__name__
            raise
        self._send(LENGTH.pack(0) + digest.digest())

    def _send(self, data: bytes) -> None:
        if self.behind:
            try:
                self.behind.sendall(data)
            except OSError:
                self.behind = None


# ---- between two hosts


def _prove(digest: bytes, told: bytes) -> None:
    if digest != told:
        raise Failed("it arrived with another content than was sent: run again")


def _proof(key: bytes, who: bytes, nonces: bytes) -> bytes:
    return hmac.new(key, who + nonces, hashlib.sha256).digest()


def _taken(before: tuple[str, int], key: bytes, ends: float) -> socket.socket:
    """A connection to who gives the image, which has proven that it is of this run."""
    said = ""
    while time.monotonic() < ends:
        try:
            giver = socket.create_connection(before, GREET_S)
            if _greeted(giver, key):
                return giver
            giver.close()
            said = "what answers there is of another run"
        except (OSError, Failed) as error:  # it may begin a little later
            said = str(error) or type(error).__name__
        time.sleep(0.2)
    raise Failed(
        f"{before[0]} gave no image at TCP port {before[1]} within {CONNECT_S:.0f} s ({said}): let that port through between the "
        "hosts, or set image_share_port to one that is open"
    )


def _greeted(giver: socket.socket, key: bytes) -> bool:
    """Whether it is of this run, by its proof; it has ours then."""
    mine = secrets.token_bytes(NONCE)
    giver.sendall(mine)
    theirs, proof = _exactly(giver, NONCE), _exactly(giver, NONCE)
    if not hmac.compare_digest(proof, _proof(key, b"give", mine + theirs)):
        return False
    giver.sendall(_proof(key, b"take", mine + theirs))
    giver.settimeout(SILENT_S)
    return True


def _given(listener: socket.socket, key: bytes, header: dict[str, Any], ends: float) -> socket.socket | None:
    """A connection of who takes the image, which has proven that it is of this run; None where nobody comes in time."""
    with listener:
        while (left := ends - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                taker, __ = listener.accept()
            except OSError:
                return None
            try:
                taker.settimeout(GREET_S)
                theirs, mine = _exactly(taker, NONCE), secrets.token_bytes(NONCE)
                taker.sendall(mine + _proof(key, b"give", theirs + mine))
                if hmac.compare_digest(_exactly(taker, NONCE), _proof(key, b"take", theirs + mine)):
                    taker.settimeout(SILENT_S)
                    told = json.dumps(header).encode()
                    taker.sendall(LENGTH.pack(len(told)) + told)
                    return taker
            except (OSError, Failed):
                pass
            taker.close()
    return None


def _frames(giver: socket.socket) -> Iterator[bytes]:
    """The blocks up to the empty one."""
    while block := _frame(giver):
        yield block


def _frame(giver: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_exactly(giver, LENGTH.size))
    if length > MOST:
        raise Failed("what was sent is no image")
    return _exactly(giver, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes; raises ``Failed`` where the connection ends before."""
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        got = connection.recv_into(view[at:])
        if not got:
            raise Failed(
                "the host before this one in the chain stopped before the image was complete: see that host's message"
            )
        at += got
    return bytes(data)
