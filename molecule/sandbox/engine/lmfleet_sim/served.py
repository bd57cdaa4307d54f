# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the real api_server did with its completion requests, by its own clock; and those that it is told to refuse.

A wrapper around its ASGI application, outside all else: it sees what the HTTP server hands over and is given back.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import ModuleType
from typing import Any

from lmfleet_sim.faults import Fault
from lmfleet_sim.hooks import ImportHooks, replace
from lmfleet_sim.settings import Settings

PATHS = ("/v1/completions", "/v1/chat/completions")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]

REFUSAL = json.dumps(
    {
        "object": "error",
        "message": "lmfleet simulator: this request was to be refused",
        "type": "internal_server_error",
        "param": None,
        "code": 500,
    }
).encode()


def register(hooks: ImportHooks, settings: Settings) -> None:
    """Have the api_server of any release run its application in a wrapper, if the settings ask for something of it."""
    if not settings.stamps and not any(fault.kind == "refuse" for fault in settings.faults):
        return

    @hooks.after("lmdeploy.serve.openai.api_server")
    def wrap_the_application(api_server: Any) -> None:
        real_serve, real_uvicorn = api_server.serve, api_server.uvicorn

        @functools.wraps(real_serve)
        def serve(*args: Any, **kwargs: Any) -> Any:
            rank = kwargs["backend_config"].dp_rank

            def run(app: Application, **options: Any) -> None:
                real_uvicorn.run(Served(app, settings, rank), **options)

            uvicorn = ModuleType("uvicorn")  # the api_server's own, as the proxy's is to stay what it is
            uvicorn.__dict__.update(real_uvicorn.__dict__, run=run)
            replace(api_server, uvicorn=uvicorn)
            return real_serve(*args, **kwargs)

        replace(api_server, serve=serve)


class Served:
    """An ASGI application that stamps the requests to another and refuses some of them.

    Raises OSError at once if the stamps cannot be written.
    """

    def __init__(self, app: Application, settings: Settings, rank: int) -> None:
        self._app = app
        self._stamps = settings.stamps
        self._refusals = [fault for fault in settings.faults if fault.kind == "refuse" and fault.rank in (None, rank)]
        self._requests = 0
        self._append(b"")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection's request, or whatever else the HTTP server asks."""
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self._app(scope, receive, send)
            return
        answer = Answer(send, dict(scope["headers"]).get(b"user-agent", b"").decode(errors="replace"))
        self._requests += 1
        try:
            if any(self._due(fault) for fault in self._refusals):
                await refuse(receive, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        finally:
            self._append(json.dumps(answer.stamp()).encode() + b"\n")

    def _due(self, fault: Fault) -> bool:
        return self._requests % max(1, fault.requests) == 0

    def _append(self, line: bytes) -> None:
        """Write a line at once, so that ranks which share the file leave each other's lines whole."""
        if not self._stamps:
            return
        descriptor = os.open(self._stamps, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


class Answer:
    """An answer on its way through: when its tokens came by, and what it says about itself.

    An event with a token is one that has text. Tokens are counted by the answer's usage alone.
    """

    def __init__(self, send: Send, agent: str) -> None:
        self._send = send
        self._agent = agent
        self._in = time.time()
        self._first: float | None = None
        self._last: float | None = None
        self._status: int | None = None
        self._stream = False
        self._body = b""
        self._usage: dict[str, int] = {}

    async def send(self, message: Message) -> None:
        """Look at a message to the client and pass it on."""
        now = time.time()
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._stream = dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream")
        elif message.get("body"):
            if self._stream:
                self._read_events(message["body"], now)
            else:
                self._body += message["body"]
                self._last = now
        await self._send(message)

    def stamp(self) -> dict[str, float | int | str | None]:
        """Return what there is to say when the answer has ended. Without a token, ``last`` is the answer's end.

        ``agent`` is who asked, as it calls itself: the probes of a look and of an engine's supervisor give no name.
        """
        if not self._stream and self._status == 200:
            self._usage = json.loads(self._body or b"{}").get("usage", {})
            self._first = self._last
        return {
            "in": self._in,
            "first": self._first,
            "last": self._last or time.time(),
            "prompt_tokens": self._usage.get("prompt_tokens"),
            "tokens": self._usage.get("completion_tokens"),
            "status": self._status,
            "agent": self._agent,
        }

    def _read_events(self, body: bytes, now: float) -> None:
        for line in body.split(b"\n"):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[len(b"data: ") :])
            self._usage = event.get("usage") or self._usage
            if any(_text(choice) for choice in event.get("choices", [])):
                self._first = self._first or now
                self._last = now


def _text(choice: dict[str, Any]) -> str | None:
    said = choice.get("delta", choice)
    text: str | None = said.get("text") or said.get("content") or said.get("reasoning_content")
    return text


async def refuse(receive: Receive, send: Send) -> None:
    """Take the request in and answer it with an error, as the api_server words one."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSAL})
