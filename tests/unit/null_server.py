# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A null server: OpenAI-like endpoints on loopback that answer by the clock, with no engine behind them.

For tests of the clients only. As a program (`python3 null_server.py COUNT DELAY_S`) it prints its URLs as one JSON list
and serves until its stdin closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

UNAVAILABLE = {
    "message": "The inference engine is unavailable.",
    "type": "server_error",
    "code": 503,
    "object": "error",
}


@dataclass
class NullEndpoint:
    """One endpoint's behaviour, which a test may change at any time, and what it has seen.

    mode: ok | status (answers `status`) | stream_error (200, then LMDeploy's error event) | finish_error (200, then
    finish_reason error) | empty (200, but no token) | break (200, then the connection ends) | hang (no answer) | proxy
    (200, and LMDeploy's proxy says in the body that it cannot reach the rank) | drip (200, then a byte now and then) |
    endless (200, then a line without an end) | endless_error (500, and such a body).
    fail_first: so many requests get `status` before the mode counts.
    hold: no request is answered before the server has had so many (as LMDeploy 0.8.0 does in DP).
    metrics: whether there are any. counts: whether their counters move.
    usage_each: usage in every event (LMDeploy 0.8).
    """

    mode: str = "ok"
    delay_s: float = 0.0
    status: int = 503
    fail_first: int = 0
    hold: int = 0
    counts: bool = False
    metrics: bool = True
    health: str = "healthy"
    usage_each: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sent: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""


class NullServer:
    """`count` endpoints, each on a port of its own that the system chose; use it as a context manager."""

    def __init__(self, count: int = 1, **behaviour: Any) -> None:
        self.endpoints = [NullEndpoint(**behaviour) for __ in range(count)]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._all_came = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> NullServer:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone, as a server that was killed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._loop.close()

    async def _serve(self) -> None:
        servers = []
        for endpoint in self.endpoints:
            server = await asyncio.start_server(partial(self._handle, endpoint), "127.0.0.1", 0, backlog=1024)
            endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            servers.append(server)
        self._ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, endpoint: NullEndpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = lines[0].split()[1]
            fields = (line.partition(":") for line in lines[1:] if line)
            headers = {key.lower(): value.strip() for key, __, value in fields}
            raw = await reader.readexactly(int(headers.get("content-length", "0")))
            if path in ("/v1/completions", "/v1/chat/completions"):
                endpoint.headers.append(headers)
                endpoint.bodies.append(json.loads(raw))
                endpoint.times.append(time.monotonic())
                endpoint.in_flight += 1
                endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
                try:
                    await self._complete(endpoint, endpoint.bodies[-1], writer)
                finally:
                    endpoint.in_flight -= 1
            elif path == "/v1/models":
                _reply(writer, 200, {"object": "list", "data": [{"id": "null", "object": "model"}]})
            elif path == "/health":
                _reply(writer, 200 if endpoint.health == "healthy" else 503, {"status": endpoint.health})
            elif path == "/metrics" and endpoint.metrics:
                tokens = int(time.monotonic() * 1000) if endpoint.counts else 7
                text = "# TYPE lmdeploy:generation_tokens_total counter\n"
                text += f'lmdeploy:generation_tokens_total{{engine="0",model_name="null"}} {tokens}.0\n'
                text += 'lmdeploy:prompt_tokens_total{engine="0",model_name="null"} 3.0\n'
                _reply(writer, 200, text)
            else:
                _reply(writer, 404, {"detail": "Not Found"})
            await writer.drain()
        writer.close()

    async def _complete(self, endpoint: NullEndpoint, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if sum(len(other.bodies) for other in self.endpoints) < endpoint.hold:
            await self._all_came.wait()
        self._all_came.set()
        if len(endpoint.bodies) <= endpoint.fail_first or endpoint.mode == "status":
            _reply(writer, endpoint.status, {**UNAVAILABLE, "code": endpoint.status})
            return
        if endpoint.mode == "hang":
            await asyncio.sleep(3600)
        if endpoint.mode == "proxy":
            _reply(writer, 200, {"error_code": 10402, "text": "Failed to get response after a period of time"})
            return
        if endpoint.mode in ("drip", "endless", "endless_error"):
            await _without_end(endpoint, writer)
        counted = 1 + len(str(body.get("prompt", "")).split())  # a token for each word, and one before the text
        usage = {
            "prompt_tokens": counted,
            "completion_tokens": body["max_tokens"],
            "total_tokens": counted + body["max_tokens"],
        }
        finish = "error" if endpoint.mode == "finish_error" else "length"
        text = "internal error happened" if endpoint.mode == "finish_error" else "token"
        choice = {"index": 0, "text": text, "finish_reason": finish}
        if not body.get("stream"):
            await asyncio.sleep(endpoint.delay_s)
            _reply(writer, 200, {"id": "1", "object": "text_completion", "choices": [choice], "usage": usage})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(endpoint.delay_s)
        if endpoint.mode == "break":
            return
        base = {"id": "1", "object": "text_completion", "created": 1, "model": body["model"]}
        events: list[dict[str, Any]] = [{**base, "choices": [choice], "usage": usage if endpoint.usage_each else None}]
        if not endpoint.usage_each:
            events.append({**base, "choices": [], "usage": usage})
        if endpoint.mode == "stream_error":
            events = [{"error": UNAVAILABLE}]
        if endpoint.mode == "empty":
            events = [{**base, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}]
        data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data.encode()))


async def _without_end(endpoint: NullEndpoint, writer: asyncio.StreamWriter) -> None:
    status = "500 x" if endpoint.mode == "endless_error" else "200 OK"
    writer.write(f"HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\n\r\n".encode())
    piece = b"data: x" if endpoint.mode == "drip" else b"x" * 65536
    while True:
        writer.write(piece)
        await writer.drain()
        endpoint.sent += len(piece)
        await asyncio.sleep(0.05 if endpoint.mode == "drip" else 0)


def _reply(writer: asyncio.StreamWriter, status: int, body: dict[str, Any] | str) -> None:
    kind, text = ("text/plain", body) if isinstance(body, str) else ("application/json", json.dumps(body))
    head = f"HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
    writer.write((head + text).encode())


if __name__ == "__main__":
    with NullServer(int(sys.argv[1]), delay_s=float(sys.argv[2])) as server:
        sys.stdout.write(json.dumps([endpoint.url for endpoint in server.endpoints]) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
