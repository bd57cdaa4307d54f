# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An OpenAI-like server without an engine: it answers by the clock, and stamps what it did.

What a load generator can drive, and whether its numbers are right, is measured against it. Like an engine it works in
steps: at each, every stream that has had its first token gets one more, as an event of its own (the worst case for the
client; a real engine's tokens arrive coalesced). It never waits for a client.

A program of its own: `python3 null_server.py PORT STEP_S TTFT_S [FAIL_EVERY [TOKENS_PER_EVENT [FAULT]]]` serves on
loopback (port 0: any) until its stdin closes or it is told to end, and prints one JSON object when it listens:
{"port": n}. Every FAIL_EVERY-th completion fails (0: none), and each step gives TOKENS_PER_EVENT tokens in one event (1).
How one fails is FAULT, one of FAULTS. GET /stamps gives what it did, one entry for each request that was served: `in`,
`first`, `last` (seconds of the wall clock), `prompt_tokens`, `tokens`; a failed request is not among them. Standard
library alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

MODEL = "null"
CUT_AFTER = 4  # tokens, of an answer that is not given whole
# How a completion fails, as LMDeploy and its proxy were seen to fail.
FAULTS = {
    "status": "HTTP 500",
    "proxy": "HTTP 200 and an error_code in the body, as the proxy answers while a rank cannot be reached",
    "rank": "HTTP 200 and a rank's own error in the body, whose status the proxy has lost",
    "abort": "some tokens, then finish_reason abort",
    "error": "some tokens, then finish_reason error",
    "short": "some tokens, then an end as of a whole answer",
    "end": "some tokens, then the stream ends in good order, with no finish_reason and no usage",
    "break": "some tokens, then the connection ends",
    "code": "some tokens, then the proxy's error_code, for its rank was gone",
}


@dataclass
class Answer:
    """One completion that is being given: its connection, and how many of its tokens are still to come."""

    transport: asyncio.Transport
    chat: bool
    stream: bool
    usage: bool
    prompt_tokens: int
    tokens: int
    due: float
    stamp: dict[str, Any]
    given: int = 0
    fault: str = ""


@dataclass
class Engine:
    """All answers in flight, driven by one clock."""

    step_s: float
    ttft_s: float
    fail_every: int = 0
    tokens_per_event: int = 1
    fault: str = "status"
    asked: int = 0
    answers: list[Answer] = field(default_factory=list)
    stamps: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        """Step for ever. A step that comes late does not move the following ones."""
        loop = asyncio.get_running_loop()
        following = loop.time()
        while True:
            following += self.step_s
            await asyncio.sleep(max(0.0, following - loop.time()))
            self.step(loop.time())

    def fails(self) -> bool:
        """Whether the completion that is asked for now is one of those that fail."""
        self.asked += 1
        return bool(self.fail_every) and self.asked % self.fail_every == 0

    def begin(self, answer: Answer) -> None:
        """Take an answer up."""
        if not answer.fault:
            self.stamps.append(answer.stamp)
        self.answers.append(answer)

    def step(self, now: float) -> None:
        """Give every answer that is due its next token."""
        ended = False
        for answer in self.answers:
            if answer.due > now:
                continue
            wall = time.time()
            if not answer.given:
                answer.stamp["first"] = wall
            answer.given = min(answer.given + self.tokens_per_event, answer.tokens)
            last = answer.given == answer.tokens
            if last:
                answer.stamp["last"] = wall
                ended = True
            if answer.transport.is_closing():
                answer.given, ended = answer.tokens, True
            elif last and answer.fault == "break":
                answer.transport.close()
            elif answer.stream:
                answer.transport.write(_ending(answer) if last else (CHAT_EVENT if answer.chat else EVENT))
            elif last:
                answer.transport.write(_whole(answer))
        if ended:
            self.answers = [answer for answer in self.answers if answer.given < answer.tokens]


class Connection(asyncio.Protocol):
    """One client's connection: keep-alive, one request after the other, bodies by content-length."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer every whole request of what has come."""
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, __, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            self.answer(head.split(b" ", 2)[1].decode(), rest[:length])

    def answer(self, path: str, body: bytes) -> None:
        """Answer one request, at its time."""
        arrived, due = time.time(), asyncio.get_running_loop().time() + self.engine.ttft_s
        if path.endswith("/completions"):
            asked = json.loads(body)
            chat = path.endswith("/chat/completions")
            prompt = asked["messages"][-1]["content"] if chat else asked["prompt"]
            if isinstance(prompt, list):
                prompt = prompt[0]
            stream = bool(asked.get("stream"))
            fault = self.engine.fault if self.engine.fails() else ""
            if fault == "status":
                self.transport.write(_reply({"error": {"message": "made to fail"}}, "500 Internal Server Error"))
                return
            if fault in ANSWERED_200:
                said = json.dumps(ANSWERED_200[fault]) + "\n"
                self.transport.write(STREAM_HEAD + _chunk(said) + LAST_CHUNK if stream else _reply(ANSWERED_200[fault]))
                return
            usage = not stream or bool((asked.get("stream_options") or {}).get("include_usage"))
            tokens = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16)
            tokens = min(tokens, CUT_AFTER) if fault else tokens
            given = len(prompt.split())
            stamp = {"in": arrived, "first": None, "last": None, "prompt_tokens": given, "tokens": tokens}
            if stream:
                self.transport.write(STREAM_HEAD)
            self.engine.begin(Answer(self.transport, chat, stream, usage, given, tokens, due, stamp, fault=fault))
        elif path == "/stamps":
            self.transport.write(_reply(self.engine.stamps))
        elif path == "/v1/models":
            self.transport.write(_reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
        elif path == "/health":
            self.transport.write(_reply({"status": "healthy"}))
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")


def _chunk(payload: str) -> bytes:
    data = payload.encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _choice(*, chat: bool, finish: str | None) -> dict[str, Any]:
    said: dict[str, Any] = {"delta": {"role": "assistant", "content": "token "}} if chat else {"text": "token "}
    return {"index": 0, **said, "finish_reason": finish}


def _base(*, chat: bool) -> dict[str, Any]:
    return {"id": "1", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1, "model": MODEL}


# Both as LMDeploy 0.18 words them.
TIMED_OUT = {"error_code": 10402, "text": "Failed to get response after a period of time"}
ANSWERED_200: dict[str, dict[str, Any]] = {
    "proxy": TIMED_OUT,
    "rank": {
        "message": "The inference engine is unavailable.",
        "type": "server_error",
        "code": 503,
        "param": None,
        "object": "error",
    },
}
LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = _chunk(_event({**_base(chat=False), "choices": [_choice(chat=False, finish=None)]}))
CHAT_EVENT = _chunk(_event({**_base(chat=True), "choices": [_choice(chat=True, finish=None)]}))


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens, "total_tokens": total}


def _ending(answer: Answer) -> bytes:
    """The last token's event, the usage if it was asked for (as OpenAI and LMDeploy do), the end of the stream."""
    if answer.fault in ("end", "code"):
        plain = _event({**_base(chat=answer.chat), "choices": [_choice(chat=answer.chat, finish=None)]})
        return _chunk(plain + (json.dumps(TIMED_OUT) + "\n" if answer.fault == "code" else "")) + LAST_CHUNK
    last = _event({**_base(chat=answer.chat), "choices": [_choice(chat=answer.chat, finish=_finish(answer))]})
    usage = _event({**_base(chat=answer.chat), "choices": [], "usage": _usage(answer)})
    return _chunk(last + (usage if answer.usage else "") + "data: [DONE]\n\n") + LAST_CHUNK


def _finish(answer: Answer) -> str:
    return answer.fault if answer.fault in ("abort", "error") else "length"


def _whole(answer: Answer) -> bytes:
    text = "token " * answer.tokens
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if answer.chat else {"text": text}
    kind = "chat.completion" if answer.chat else "text_completion"
    choices = [{"index": 0, **said, "finish_reason": _finish(answer)}]
    return _reply({**_base(chat=answer.chat), "object": kind, "choices": choices, "usage": _usage(answer)})


def _reply(body: Any, status: str = "200 OK") -> bytes:
    data = json.dumps(body)
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n{data}".encode()


async def serve(port: int, engine: Engine) -> None:
    """Serve until stdin closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=4096)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    ended = asyncio.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    stepping = asyncio.ensure_future(engine.run())
    await ended.wait()
    stepping.cancel()
    server.close()


if __name__ == "__main__":
    _left_out = ["0", "1", "status"][max(len(sys.argv) - 4, 0) :]
    _port, _step_s, _ttft_s, _fail_every, _tokens_per_event, _fault = [*sys.argv[1:], *_left_out]
    if _fault not in FAULTS:
        sys.exit(f"FAULT is {_fault}; there are {', '.join(FAULTS)}")
    asyncio.run(
        serve(int(_port), Engine(float(_step_s), float(_ttft_s), int(_fail_every), int(_tokens_per_event), _fault))
    )
