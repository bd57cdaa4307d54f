# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The warm-up client: real tokens from every rank, at every shape, with all ranks asked at once.

A program of its own, run in the engine's image as `python3 -m PACKAGE._warmup CONFIG.json`, beside `_events`: openai and
the standard library are all it needs. It writes one JSON object a line to stdout, `progress` events while it works and a
`result` event at the end. Its exit code is 0 when every rank answered every shape, 1 when one did not, 2 when it could
not start. `_events.last_events` is the other side: it finds these lines again in a container's log.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .events import emit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    import openai as openai_types

CONNECT_TIMEOUT_S = 10.0
ANSWER_BYTES = 64 << 20  # an event of a token has some hundred bytes
# Once one request has failed for good the warm-up has failed; LMDeploy 0.8.0 would hold the other ranks' first requests
# until their time-out, because it answers no rank before every rank was asked.
GRACE_S = 30.0
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
RETRIED_STATUS = (429, 500, 502, 503, 504)

# Short, frequent words: close to one token each in the tokenizers of the models served.
WORDS = """
able acid also area army away baby back ball band bank base bear beat best bill bird blue boat body bone book born both
bring build burn call calm came camp card care case cash cast cell chair change city class clear close cloud coast code
cold come cook cool copy corn cost cover cross crowd dark data deal deep door down draw dream drive drop each earth east
edge even ever face fact fair fall farm fast fear feel field fight fill film find fire fish five flat floor flow
""".split()  # noqa: SIM905  (a list literal of it would fill a page)


@dataclass(frozen=True)
class Endpoint:
    """One rank's OpenAI-compatible server. `url` has no /v1, like http://10.0.0.1:23333."""

    rank: int
    node: str
    url: str


@dataclass(frozen=True)
class Shape:
    """What every rank is sent at one moment: `requests` prompts of `prompt_tokens`, for `max_tokens` each."""

    name: str
    prompt_tokens: int
    max_tokens: int
    requests: int = 1


# LMDeploy's kernels are compiled again for each power of two of a prefill's tokens, for odd and even numbers of them, for
# numbers at or just below a multiple of 512, and for some numbers of requests (docs/gpu.md). The first prompt's count makes
# the others exact.
PROMPTS = (64, 10, 100, 200, 400, 511, 800, 1023, 1500, 2047, 3000, 4095, 6000, 8191)  # and one more
# Requests, and tokens of each.
BURSTS = ((2, 16), (4, 16), (8, 10), (8, 128), (16, 16), (16, 128), (32, 16), (32, 128), (64, 16), (64, 100), (64, 128))
ROOM = 1.25  # tokens of a word, at most: where a word is several, counts do not make the next length exact


def measured_shapes(session_len: int = 0) -> list[Shape]:
    """What leaves little to compile to the first requests of users; without what does not fit `session_len`, if not 0."""
    singles = [Shape(f"1x{n}", n, 32 if n < 100 else 2) for tokens in PROMPTS for n in (tokens, tokens + 1)]
    bursts = [Shape(f"{requests}x{tokens}", tokens, 32, requests) for requests, tokens in BURSTS]
    return [
        shape
        for shape in (*singles, *bursts)
        if not session_len or ROOM * shape.prompt_tokens + shape.max_tokens <= session_len
    ]


@dataclass(frozen=True)
class Config:
    """A warm-up. `timeout_s` bounds one request with all its retries."""

    endpoints: tuple[Endpoint, ...]
    model: str
    shapes: tuple[Shape, ...]
    api_key: str | None = None
    timeout_s: float = 600.0
    retries: int = 3
    seed: int = 0

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Config:
        """Raises ValueError, which lists every fault, and TypeError or KeyError for an unknown or missing key."""
        config = cls(
            **{
                **raw,
                "endpoints": tuple(Endpoint(**endpoint) for endpoint in raw["endpoints"]),
                "shapes": tuple(Shape(**shape) for shape in raw["shapes"]),
            }
        )
        faults = list(config.faults())
        if faults:
            raise ValueError("; ".join(faults))
        return config

    def faults(self) -> Iterable[str]:
        """What is wrong with this warm-up, one sentence each."""
        if not self.endpoints:
            yield "endpoints is empty: a warm-up of nothing proves nothing"
        if not self.shapes:
            yield "shapes is empty: a warm-up of nothing proves nothing"
        if not self.model:
            yield "model is empty: give the name that the engine serves"
        if self.timeout_s <= 0:
            yield f"timeout_s is {self.timeout_s}, it must be above 0"
        if self.retries < 0:
            yield f"retries is {self.retries}, it must be 0 or more"
        for endpoint in self.endpoints:
            if not endpoint.url.startswith(("http://", "https://")):
                yield f"endpoint of rank {endpoint.rank}: url {endpoint.url!r} must start with http:// or https://"
        for key, names in (("url", [e.url for e in self.endpoints]), ("shape", [s.name for s in self.shapes])):
            for name in sorted({name for name in names if names.count(name) > 1}):
                yield f"{key} {name} is given more than once"
        for shape in self.shapes:
            for key in ("prompt_tokens", "max_tokens", "requests"):
                if getattr(shape, key) < 1:
                    yield f"shape {shape.name}: {key} is {getattr(shape, key)}, it must be 1 or more"


@dataclass(frozen=True)
class Reply:
    """A request that gave tokens; times are seconds since it was sent, `ttft_s` to the first text."""

    ttft_s: float
    total_s: float
    completion_tokens: int
    prompt_tokens: int


class RequestError(Exception):
    """A request that gave no token for good. `kind` is engine, connection, request or timeout."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class EngineError(Exception):
    """The server answered 200, but the engine behind it gave no tokens."""


async def limit(response: Any) -> None:
    """Have the body of an answer, whatever reads it, end with an EngineError where it is longer than any that is asked for."""
    body = response.stream

    kind: Any = type(body)  # the transport asks for its kind

    class Limited(kind):
        def __init__(self) -> None:
            self.left = ANSWER_BYTES

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for data in body:
                self.left -= len(data)
                if self.left < 0:
                    raise EngineError(f"the answer is longer than {ANSWER_BYTES} bytes")
                yield data

        async def aclose(self) -> None:
            await body.aclose()

    response.stream = Limited()


class Tokenization:
    """How many words make a prompt of so many tokens: a word each, until the server has counted what it was sent.

    Most tokenizers have a token for every one of WORDS and put one before the text. Then two counts give exact lengths.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # tokens by words

    def learn(self, words: int, tokens: int) -> None:
        """Note what a server has counted; fewer tokens than words is no count."""
        if tokens >= words:
            self._counts[words] = tokens

    def words(self, tokens: int) -> int:
        """Words for a prompt of `tokens`, at least one."""
        if not self._counts:
            return tokens
        few, many = min(self._counts), max(self._counts)
        each = (self._counts[many] - self._counts[few]) / (many - few) if many > few else 1.0
        return max(1, few + round((tokens - self._counts[few]) / max(each, 1.0)))


def prompt(config: Config, endpoint: Endpoint, shape: Shape, index: int, words: int) -> str:
    """A text of so many words that no other request of this warm-up shares a beginning with."""
    rng = random.Random(f"{config.seed}/{endpoint.rank}/{endpoint.url}/{shape.name}/{index}")  # noqa: S311  (no secret)
    return " ".join(rng.choices(WORDS, k=words))


def import_openai() -> Any:
    """The openai package, late: this file is also read on hosts that have none."""
    import openai

    return openai


async def ask(client: openai_types.AsyncOpenAI, model: str, text: str, max_tokens: int) -> Reply:
    """Stream one completion.

    Tokens are counted by `usage` alone, because an event may hold many. ignore_eos makes the engine decode all of
    `max_tokens`, whatever it makes of random words. Raises EngineError when the stream ends without a token, and the
    client's own errors.
    """
    sent = time.monotonic()
    first: float | None = None
    prompt_tokens = tokens = 0
    stream = await client.completions.create(
        model=model,
        prompt=text,
        max_tokens=max_tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async with stream:
        async for chunk in stream:
            if chunk.usage is not None:
                prompt_tokens, tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
            for choice in chunk.choices or ():
                reason: str | None = choice.finish_reason  # LMDeploy has reasons that OpenAI has not
                if reason in ("error", "abort"):
                    raise EngineError(f"finish_reason={reason}: {choice.text or 'no text'}")
                if first is None and choice.text:
                    first = time.monotonic()
    done = time.monotonic()
    if tokens < 1:
        raise EngineError("the stream ended without a generated token in its usage")
    return Reply(
        ttft_s=(first or done) - sent, total_s=done - sent, completion_tokens=tokens, prompt_tokens=prompt_tokens
    )


def root_cause(error: BaseException) -> str:
    """The innermost error's text: the client wraps "connection refused" twice."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__


def classify(error: Exception) -> tuple[str, str, bool]:
    """(kind, reason, may a retry help) of what `ask` raised."""
    openai = import_openai()
    if isinstance(error, EngineError):
        return "engine", str(error), True
    if isinstance(error, openai.APIConnectionError):
        return "connection", root_cause(error), True
    if isinstance(error, openai.APIError):
        body: Mapping[str, Any] = error.body if isinstance(error.body, dict) else {}
        # An engine that dies after the headers went out puts the status into the stream.
        status = getattr(error, "status_code", None) or body.get("code")
        reason = f"HTTP {status}: {body.get('message') or error.message}"
        if status in RETRIED_STATUS:
            return ("request" if status == 429 else "engine"), reason, True
        return ("request" if isinstance(status, int) and 400 <= status < 500 else "engine"), reason, False
    # While a stream is read the transport's own errors come through: the connection broke under the answer.
    return "connection", f"{type(error).__name__}: {root_cause(error)}", True


async def ask_until(config: Config, client: openai_types.AsyncOpenAI, text: str, max_tokens: int) -> Reply:
    """`ask`, again while a retry may help. Raises RequestError after `config.retries` retries or `config.timeout_s`."""
    failure: RequestError | None = None

    async def attempts() -> Reply:
        nonlocal failure
        for attempt in range(config.retries + 1):
            if attempt:
                await asyncio.sleep(min(FIRST_BACKOFF_S * 2 ** (attempt - 1), MAX_BACKOFF_S))
            try:
                return await ask(client, config.model, text, max_tokens)
            except Exception as error:  # noqa: BLE001  (classify knows what to make of each)
                kind, reason, retry = classify(error)
                tries = f" (tried {attempt + 1} times)" if attempt else ""
                failure = RequestError(kind, reason + tries)
                if not retry:
                    break
        assert failure is not None  # noqa: S101  (the loop runs at least once)
        raise failure

    try:
        return await asyncio.wait_for(attempts(), config.timeout_s)
    except asyncio.TimeoutError:
        last = f"; before that: {failure}" if failure else ""
        raise RequestError("timeout", f"no answer within {config.timeout_s:g} s{last}") from None


@dataclass
class ShapeRun:
    """One shape at all endpoints: its tasks, by endpoint, and what they came to."""

    shape: Shape
    words: int
    tasks: dict[Endpoint, list[asyncio.Task[Reply]]] = field(default_factory=dict)

    def failure(self, endpoint: Endpoint) -> RequestError | None:
        """The endpoint's first failed request."""
        for task in self.tasks[endpoint]:
            if task.cancelled():
                return RequestError("timeout", f"no answer yet, {GRACE_S:g} s after another request had failed")
            error = task.exception()
            if isinstance(error, RequestError):
                return error
            if error is not None:
                raise error
        return None

    def report(self, endpoint: Endpoint) -> dict[str, Any]:
        """The shape's entry in an endpoint's result."""
        failure = self.failure(endpoint)
        replies = [task.result() for task in self.tasks[endpoint] if not task.cancelled() and task.exception() is None]
        return {
            "name": self.shape.name,
            "ok": failure is None,
            "requests": self.shape.requests,
            "ttft_s": [round(reply.ttft_s, 4) for reply in replies],
            "total_s": [round(reply.total_s, 4) for reply in replies],
            "prompt_tokens": sorted({reply.prompt_tokens for reply in replies}),
            "completion_tokens": sum(reply.completion_tokens for reply in replies),
            "error": None if failure is None else str(failure),
            "kind": None if failure is None else failure.kind,
        }


async def run_shape(
    config: Config,
    clients: Mapping[Endpoint, openai_types.AsyncOpenAI],
    shape: Shape,
    words: int,
    emit: Callable[[dict[str, Any]], None],
) -> ShapeRun:
    """Send a shape's requests, prompts of so many words, to all endpoints at once and wait for them."""
    started = time.monotonic()
    done, failed, total = 0, 0, len(clients) * shape.requests

    def progress() -> None:
        seconds = round(time.monotonic() - started, 1)
        emit(
            {"event": "progress", "shape": shape.name, "done": done, "failed": failed, "of": total, "seconds": seconds}
        )

    async def send(endpoint: Endpoint, index: int) -> Reply:
        """One request, counted before its task is done: no progress is told after the shape's end."""
        nonlocal done, failed
        text = prompt(config, endpoint, shape, index, words)
        try:
            return await ask_until(config, clients[endpoint], text, shape.max_tokens)
        except BaseException:
            failed += 1
            raise
        finally:
            done += 1
            progress()

    progress()
    run = ShapeRun(shape, words)
    for endpoint in clients:
        run.tasks[endpoint] = [asyncio.ensure_future(send(endpoint, index)) for index in range(shape.requests)]
    tasks = [task for of_endpoint in run.tasks.values() for task in of_endpoint]
    __, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    if pending:
        __, pending = await asyncio.wait(pending, timeout=GRACE_S)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return run


async def warm_up(config: Config, emit: Callable[[dict[str, Any]], None]) -> bool:
    """Send one shape after the other, each to all endpoints at once, until one fails; tell whether none did."""
    openai = import_openai()
    started = time.monotonic()
    # No limits, for a queued request is one that its rank's peers may wait for. No proxy from the environment:
    # these are cluster addresses.
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=None)
    timeout = openai.Timeout(config.timeout_s, connect=CONNECT_TIMEOUT_S)
    runs: list[ShapeRun] = []
    tokenization = Tokenization()
    transport_of = openai.DefaultAsyncHttpxClient
    hooks = {"response": [limit]}
    async with transport_of(limits=limits, timeout=timeout, trust_env=False, event_hooks=hooks) as transport:
        clients = {
            endpoint: openai.AsyncOpenAI(
                base_url=endpoint.url.rstrip("/") + "/v1",
                api_key=config.api_key or "none",
                http_client=transport,
                timeout=timeout,
                max_retries=0,
            )
            for endpoint in config.endpoints
        }
        for shape in config.shapes:
            run = await run_shape(config, clients, shape, tokenization.words(shape.prompt_tokens), emit)
            runs.append(run)
            if any(run.failure(endpoint) for endpoint in config.endpoints):
                break
            tokenization.learn(run.words, run.tasks[config.endpoints[0]][0].result().prompt_tokens)
    endpoints = []
    for endpoint in config.endpoints:
        shapes = [run.report(endpoint) for run in runs]
        error = next((f"{shape['name']}: {shape['error']}" for shape in shapes if not shape["ok"]), None)
        endpoints.append({**endpoint.__dict__, "ok": error is None, "error": error, "shapes": shapes})
    ok = all(endpoint["ok"] for endpoint in endpoints)
    emit({"event": "result", "ok": ok, "seconds": round(time.monotonic() - started, 3), "endpoints": endpoints})
    return ok


def main(path: str) -> int:
    """Run the warm-up that the JSON file describes; the exit code."""
    try:
        config = Config.from_mapping(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        sys.stderr.write(f"warm-up: wrong configuration: {error}\n")
        return 2
    # Every request holds a socket, and 1024 is a common soft limit.
    __, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return 0 if asyncio.run(warm_up(config, emit)) else 1
    except ImportError as error:
        sys.stderr.write(f"warm-up: this image cannot run the client: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
