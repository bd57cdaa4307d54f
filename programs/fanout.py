# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a model from host to host: each host takes it from the one before it in a chain, and gives it to the one behind.

Run in the engine's image on every host as ``python3 -m PACKAGE.fanout CONFIG.json``. Serving and fetching are aiohttp's,
which LMDeploy's own proxy is made of: its file responses go out by ``sendfile`` and know ranges, and so a fetch that was cut
off goes on where it was. A host gives what it has of a file before it has all of it, so every link of the chain is busy from
the first moment. What arrived is verified on each host before it gets its name. Events are on stdout, as ``events`` has it:
``progress``, then ``result``; after it the program goes on giving until it is removed, or nobody asked for ``idle_s``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from .events import emit
from .model_files import (
    CHUNK,
    INCOMING,
    Manifest,
    Trouble,
    digest,
    finish,
    hasher_of,
    manifest_of,
    put_aside,
    refuse_without_room,
    unsound,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

STREAMS = 4  # files at a time
POLL_S = 0.2
GRACE_S = 30.0
NOT_YET, NEVER, LOOKING = 404, 410, 503
TRIES = 3  # of a file that arrives with another content than its name says
RANGE_END = 416


@dataclasses.dataclass(frozen=True)
class Config:
    """One host's part. Peers are ``http://ADDRESS:PORT``: ``before`` it in the chain, the nearest first, and ``others``."""

    root: str
    revision: str  # empty: a directory that is no cache
    host: str
    port: int
    before: tuple[str, ...]
    others: tuple[str, ...]
    api_key: str  # the run's own; whoever does not have it is given nothing
    limit: float = 0.0  # bytes/s; 0 does not limit
    verify: bool = False  # read everything that is there too
    stall_s: float = 300.0
    idle_s: float = 900.0

    @classmethod
    def from_mapping(cls, raw: Any) -> Config:
        """Raises TypeError for an unknown or missing key."""
        return cls(**{**raw, "before": tuple(raw["before"]), "others": tuple(raw["others"])})


class Node:
    """One host of the chain: what it has, what it gives, what it fetches."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = Path(config.root)
        self.manifest: Manifest | None = None
        self.have: set[str] = set()
        self.lost: set[str] = set()
        self.sums: dict[str, str] = {}
        self.failed = ""
        self.stage = "list"
        self.done = self.total = self.needed = 0
        self.received = self.resumed = 0
        self.aside: list[str] = []
        self.began = self.moved = self.asked = time.monotonic()
        self.marks: list[tuple[float, int]] = []
        self._due = 0.0

    # ---- what it gives

    def application(self) -> web.Application:
        """The server's side."""

        @web.middleware
        async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.config.api_key}".encode()):
                raise web.HTTPUnauthorized
            self.asked = time.monotonic()
            response: web.StreamResponse = await handler(request)
            return response

        application = web.Application(middlewares=[guard])
        application.add_routes(
            [
                web.get("/manifest", self._give_manifest),
                web.get("/file/{path:.+}", self._give_file),
                web.get("/sum/{path:.+}", self._give_sum),
            ]
        )
        return application

    async def _give_manifest(self, __: web.Request) -> web.Response:
        if self.manifest is None:
            return web.Response(status=NEVER if self.failed else NOT_YET)
        return web.json_response(dataclasses.asdict(self.manifest))

    async def _give_file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if self.manifest is None:
            return web.Response(status=NEVER if self.failed else LOOKING)
        if path in self.have:
            return web.FileResponse(self.root / path, chunk_size=CHUNK)
        if self.failed or path in self.lost or path not in self.manifest.files:
            return web.Response(status=NEVER)
        part = self.part(path)
        # What is there of it by now. It only grows, but for a part that turned out wrong: those behind verify it themselves.
        return web.FileResponse(part, chunk_size=CHUNK) if part.is_file() else web.Response(status=NOT_YET)

    async def _give_sum(self, request: web.Request) -> web.Response:
        """The digest of a file whose name does not say it."""
        path = request.match_info["path"]
        if self.manifest is None or path not in self.have:
            return web.Response(status=NOT_YET)
        if path not in self.sums:
            size = self.manifest.files[path]
            self.sums[path] = await asyncio.to_thread(digest, self.root / path, path, size)
        return web.Response(text=self.sums[path])

    # ---- what it fetches

    def part(self, path: str) -> Path:
        """Where a file is while it arrives."""
        return self.root / INCOMING / path.replace("/", "--")

    async def bring(self) -> None:
        """Have the whole model. Raises ``Trouble``."""
        self.root.mkdir(parents=True, exist_ok=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        headers = {"Authorization": f"Bearer {self.config.api_key}"}
        async with aiohttp.ClientSession(
            timeout=timeout, headers=headers, auto_decompress=False, read_bufsize=CHUNK
        ) as session:
            self.session = session
            if self.config.before:
                manifest = await self._ask_manifest()
            else:
                manifest = manifest_of(self.root, self.config.revision)
            await self._see_what_is_there(manifest)
            missing = [path for path in manifest.files if path not in self.have]
            self.stage = "copy"
            queue = iter(missing)
            workers = [asyncio.create_task(self._work(queue)) for __ in range(min(STREAMS, len(missing)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
            await asyncio.to_thread(finish, self.root, manifest)

    async def _ask_manifest(self) -> Manifest:
        began = time.monotonic()
        while True:
            gone = 0
            # The host just before this one may start a little later; those before it are not to give twice for that.
            early = time.monotonic() - began < GRACE_S
            for peer in self.config.before[: 1 if early else None]:
                try:
                    async with self.session.get(f"{peer}/manifest") as answer:
                        if answer.status == 200:
                            return Manifest.from_mapping(await answer.json())
                        gone += answer.status == NEVER
                        self._refused(peer, answer.status)
                except (aiohttp.ClientError, asyncio.TimeoutError):  # noqa: PERF203
                    pass
            if gone == len(self.config.before):
                raise Trouble("no host before this one has the list of the model's files: see what was told of those.")
            self._give_up_if_stalled("none of the hosts before it gave the list of the model's files")
            await asyncio.sleep(POLL_S)

    @staticmethod
    def _refused(peer: str, status: int) -> None:
        if status == 401:
            raise Trouble(f"what answers at {peer} is of another run: wait until that one has ended, and run again.")

    async def _see_what_is_there(self, manifest: Manifest) -> None:
        """Put aside what is not as it must be, note what is, and refuse what does not fit on the disk."""
        self.stage, self.total = "verify" if self.config.verify else "look", manifest.total

        def told(size: int) -> None:
            self.done += size
            self.moved = time.monotonic()

        wrong = await asyncio.to_thread(unsound, self.root, manifest.files, whole=self.config.verify, told=told)
        if self.config.verify and self.config.before:
            wrong.update(await self._unlike(manifest, wrong))
        self.aside = [f"{path}: {why}" for path, why in wrong.items()]
        put_aside(self.root, wrong)
        have = {path for path in manifest.files if (self.root / path).is_file()}
        missing = [path for path in manifest.files if path not in have]
        (self.root / INCOMING).mkdir(exist_ok=True)
        self.needed = sum(manifest.files[path] for path in missing)
        started = {path: self.part(path).stat().st_size for path in missing if self.part(path).is_file()}
        for path, size in started.items():
            if size > manifest.files[path]:
                self.part(path).unlink()  # our own, and of no use
                started[path] = 0
        self.resumed = sum(started.values())
        refuse_without_room(self.root, self.needed - self.resumed)
        self.done = manifest.total - self.needed + self.resumed
        self.have, self.manifest = have, manifest
        self.moved = time.monotonic()

    async def _unlike(self, manifest: Manifest, wrong: Mapping[str, str]) -> dict[str, str]:
        """Files whose names do not say what they hold, and that are not as on the host that gives the list."""
        found = {}
        for path, size in manifest.files.items():
            if path in wrong or hasher_of(path, size)[1] or not (self.root / path).is_file():
                continue
            self.sums[path] = await asyncio.to_thread(digest, self.root / path, path, size)
            self.moved = time.monotonic()
            if self.sums[path] != await self._ask_sum(path, self.config.before[-1]):
                found[path] = "its content is not that of the host that gives the model"
        return found

    async def _work(self, queue: Any) -> None:
        for path in queue:
            await self._fetch(path)

    async def _fetch(self, path: str) -> None:
        """Have one file, verified, under its name."""
        manifest = self.manifest
        if manifest is None:
            raise RuntimeError("the list of files comes first")
        size = manifest.files[path]
        part = self.part(path)
        for __ in range(TRIES):
            found, expected = hasher_of(path, size)
            with part.open("ab+", buffering=0) as stream:
                stream.seek(0)
                while block := stream.read(CHUNK):
                    await asyncio.to_thread(found.update, block)
                peer = await self._fill(path, size, stream, found)
            expected = expected or await self._ask_sum(path, peer)
            if found.hexdigest() == expected:
                self.sums[path] = expected
                final = self.root / path
                final.parent.mkdir(parents=True, exist_ok=True)
                await asyncio.to_thread(_sync, part)
                part.replace(final)
                self.have.add(path)
                return
            self.done -= size
            part.unlink()
        self.lost.add(path)
        raise Trouble(
            f"{path} arrived {TRIES} times with another content than it must have: a host before this one holds it damaged. "
            "Run again with -e model_verify=true, which finds and replaces it."
        )

    async def _fill(self, path: str, size: int, stream: Any, found: Any) -> str:
        """Append to the part until it is as long as the file. The peer that gave last."""
        giver = ""
        while stream.tell() < size:
            before = stream.tell()
            hope = False
            for peer in (*self.config.before, *self.config.others):
                status = await self._read(peer, path, size, stream, found)
                if stream.tell() > before:
                    giver = peer
                    break
                if status == LOOKING:
                    self.moved = time.monotonic()  # it reads what it has
                if status in (LOOKING, 0):
                    hope = True  # one that does not answer may come back
                if peer in self.config.before and status in (NOT_YET, RANGE_END, LOOKING):
                    hope = True  # it is on its way there: no need to burden the hosts before that one
                    break
            if stream.tell() == before:
                if not hope:
                    self.lost.add(path)
                    raise Trouble(f"no host has {path} ({size} bytes) whole: fetch the model with model_source: hub.")
                self._give_up_if_stalled(f"{path} stays at {before} of {size} bytes, and no host gives more of it")
                await asyncio.sleep(POLL_S)
        return giver or (*self.config.before, *self.config.others)[0]

    async def _read(self, peer: str, path: str, size: int, stream: Any, found: Any) -> int:
        """Append what ``peer`` has of it beyond what is here. HTTP status; 0 where it does not answer."""
        at = stream.tell()
        try:
            async with self.session.get(f"{peer}/file/{path}", headers={"Range": f"bytes={at}-"}) as answer:
                if answer.status == 206 or (answer.status == 200 and at == 0):
                    async for block in answer.content.iter_chunked(CHUNK):
                        usable = block[: size - stream.tell()]
                        await asyncio.to_thread(_append, stream, found, usable)
                        self._count(len(usable))
                        await self._hold_back(len(usable))
                else:
                    self._refused(peer, answer.status)
                return answer.status
        except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError):
            return 0

    async def _ask_sum(self, path: str, peer: str) -> str:
        while True:
            for each in (peer, *self.config.before, *self.config.others):
                try:
                    async with self.session.get(f"{each}/sum/{path}") as answer:
                        if answer.status == 200:
                            return await answer.text()
                except (aiohttp.ClientError, asyncio.TimeoutError):  # noqa: PERF203
                    pass
            self._give_up_if_stalled(f"no host tells the digest of {path}")
            await asyncio.sleep(POLL_S)

    def _count(self, size: int) -> None:
        self.done += size
        self.received += size
        self.moved = time.monotonic()

    async def _hold_back(self, size: int) -> None:
        if self.config.limit:
            now = time.monotonic()
            self._due = max(self._due, now) + size / self.config.limit
            await asyncio.sleep(max(0.0, self._due - now))

    def _give_up_if_stalled(self, why: str) -> None:
        if time.monotonic() - self.moved > self.config.stall_s:
            raise Trouble(
                f"{why}, for {self.config.stall_s:.0f} s: see that port {self.config.port} is open between the hosts "
                "(model_port), and what was told of the other hosts."
            )

    # ---- what it tells

    def progress(self) -> dict[str, Any]:
        """The progress event; the rate is that of the last ten seconds."""
        now = time.monotonic()
        self.marks = [*[mark for mark in self.marks if now - mark[0] < 10], (now, self.done)]
        then, had = self.marks[0]
        rate = max(0.0, (self.done - had) / (now - then)) if now - then > 0.5 else 0.0
        return {
            "event": "progress",
            "stage": self.stage,
            "bytes": self.done,
            "total": self.total,
            "rate": round(rate),
            "left_s": round((self.total - self.done) / rate) if rate else None,
            "seconds": round(now - self.began, 1),
        }

    def result(self, fault: str = "") -> dict[str, Any]:
        """The result event. ``twice`` is what came over the network beyond what was missing."""
        return {
            "event": "result",
            "ok": not fault,
            "fault": fault,
            "total": self.total,
            "needed": self.needed,
            "resumed": self.resumed,
            "received": self.received,
            "twice": max(0, self.received - (self.needed - self.resumed)) if not fault else None,
            "aside": self.aside,
            "seconds": round(time.monotonic() - self.began, 1),
        }


def _append(stream: Any, found: Any, block: bytes) -> None:
    stream.write(block)
    found.update(block)


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


async def _tell(node: Node) -> None:
    while True:
        emit(node.progress())
        await asyncio.sleep(1)


async def serve_and_bring(config: Config) -> int:
    """Run one host's part; the exit code."""
    node = Node(config)
    runner = web.AppRunner(node.application(), access_log=None)
    await runner.setup()
    telling = asyncio.create_task(_tell(node))
    try:
        await web.TCPSite(runner, config.host, config.port).start()
        await node.bring()
    except Trouble as trouble:
        node.failed = str(trouble)
    except OSError as error:
        node.failed = f"{error.filename or f'{config.host}:{config.port}'}: {error.strerror or error}."
    finally:
        telling.cancel()
    emit(node.progress())
    emit(node.result(node.failed))
    node.asked = time.monotonic()
    while time.monotonic() - node.asked < config.idle_s:  # noqa: ASYNC110  (those behind are not done yet)
        await asyncio.sleep(1)
    await runner.cleanup()
    return 1 if node.failed else 0


def main() -> int:
    """Read the configuration, and do it."""
    raw = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    return asyncio.run(serve_and_bring(Config.from_mapping(raw)))


if __name__ == "__main__":
    sys.exit(main())
