#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure what a door before the endpoints costs: the same streams straight to an endpoint, and through each door, in one run.

Without arguments all is on loopback: one endpoint that gives a token every --interval-ms by the clock, and a real HAProxy with the
files of a plan's gateway, over plain HTTP and over TLS. With --direct and --through anything that runs is measured, such as
engines in the sandbox: ``--direct http://10.77.0.11:23333 --through proxy=http://10.77.0.11:8000``.

For each number of streams at once, of each door: time to first token and between two tokens (median and 99th percentile, ms),
tokens a second, processor time of the gateway for 1000 tokens (ms), answers that were no whole stream; beside each the ratio
to the direct one. The client is one process: what it costs itself is in every row.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns  # noqa: E402

OK = 200
ROUNDS = 4
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Seen:
    """What one number of streams through one door came to; seconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: int = 0
    seconds: float = 0.0
    cpu_s: float | None = None


# ---- an endpoint by the clock


async def serve(port: int) -> None:
    """Serve on loopback until the process is ended."""

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        event = {"choices": [{"index": 0, "text": " token", "finish_reason": None}]}
        line = f"data: {json.dumps(event)}\n\n".encode()
        for __ in range(body["max_tokens"]):
            await asyncio.sleep(body["interval_s"])
            await answer.write(line)
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def healthy(__: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    application = web.Application()
    application.router.add_post("/v1/completions", complete)
    application.router.add_get("/health", healthy)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    print(flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def endpoint() -> Iterator[str]:
    """A process that serves; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, __file__, "--serve", str(port)], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout:
                process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


# ---- the client


async def stream(session: aiohttp.ClientSession, url: str, asked: Mapping[str, object], seen: Seen) -> None:
    """One answer, token by token."""
    began = last = time.perf_counter()
    tokens, whole = 0, False
    try:
        async with session.post(f"{url}/v1/completions", json=asked) as answer:
            async for line in answer.content:
                if line.startswith(b"data: [DONE]"):
                    whole = True
                elif line.startswith(b"data: ") and answer.status == OK:
                    now = time.perf_counter()
                    (seen.between if tokens else seen.first).append(now - last if tokens else now - began)
                    last, tokens = now, tokens + 1
    except aiohttp.ClientError:
        whole = False
    seen.tokens += tokens
    seen.failed += not whole


async def measured(url: str, key: str, streams: int, asked: Mapping[str, object], pid: int | None) -> Seen:
    """So many streams at once, one after another in each for as many rounds as ``ROUNDS``."""
    seen = Seen()
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    connector = aiohttp.TCPConnector(limit=0, ssl=unverified)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        await asyncio.gather(*(stream(session, url, asked, Seen()) for __ in range(streams)))  # connections are made
        used, began = cpu_s(pid), time.perf_counter()

        async def one_after_another() -> None:
            for __ in range(ROUNDS):
                await stream(session, url, asked, seen)

        await asyncio.gather(*(one_after_another() for __ in range(streams)))
        seen.seconds = time.perf_counter() - began
        now = cpu_s(pid)
        seen.cpu_s = None if used is None or now is None else now - used
    return seen


def cpu_s(pid: int | None) -> float | None:
    """Processor time of a process and of those that it has made, in seconds."""
    if pid is None:
        return None
    total = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = place.read_text().rpartition(")")[2].split()
            if pid in (int(place.parent.name), int(words[1])):
                total += int(words[11]) + int(words[12])
    return total / TICKS


# ---- the table


def row(name: str, streams: int, seen: Seen, direct: Seen) -> tuple[str, ...]:
    """One line."""

    def ms(values: Sequence[float], reference: Sequence[float]) -> str:
        if not values or not reference:
            return "-"
        at = [statistics.median(values), sorted(values)[int(len(values) * 0.99)]]
        ratio = at[0] / statistics.median(reference)
        return f"{1000 * at[0]:.1f} / {1000 * at[1]:.1f} ({ratio:.2f})"

    rate, reference = seen.tokens / seen.seconds, direct.tokens / direct.seconds
    cpu = "-" if seen.cpu_s is None or not seen.tokens else f"{1e6 * seen.cpu_s / seen.tokens:.1f}"
    return (
        *(name, str(streams), ms(seen.first, direct.first), ms(seen.between, direct.between)),
        *(f"{rate:.0f} ({rate / reference:.2f})", cpu, str(seen.failed)),
    )


HEAD = (
    "door",
    "streams",
    "first token p50 / p99 ms (ratio)",
    "between tokens p50 / p99 ms (ratio)",
    "tokens/s (ratio)",
    "gateway CPU ms per 1000 tokens",
    "not whole",
)


@dataclass(frozen=True)
class Door:
    """Where clients ask; ``pid`` is whose processor time is counted."""

    name: str
    url: str
    key: str = ""
    pid: int | None = None


@contextlib.contextmanager
def doors(arguments: argparse.Namespace) -> Iterator[list[Door]]:
    """What is measured, the direct way first."""
    key = Path(arguments.key_file).read_text(encoding="utf-8").strip() if arguments.key_file else ""
    if arguments.direct:
        given = (each.partition("=")[::2] for each in arguments.through)
        yield [Door("direct", arguments.direct), *(Door(name, url, key) for name, url in given)]
        return
    from ansible_collections.lmfleet.lmdeploy.tests.unit.haproxy import KEYS, gateway_plan, running

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(endpoint())
        found = [Door("direct", url)]
        for name, tls in (("gateway, HTTP", False), ("gateway, TLS", True)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            started = stack.enter_context(running(gateway_plan([url], plan_gateway_tls=tls), folder))
            started.until("the endpoint is up", lambda state: all(each["up"] for each in state["servers"].values()))
            found.append(Door(name, started.url, KEYS["chat"], started.pid))
        yield found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--prompt-bytes", type=int, default=4, help="of a request's prompt")
    parser.add_argument(
        "--interval-ms", type=float, default=20, help="from one token to the next, of the endpoint by the clock"
    )
    parser.add_argument("--model", default="null")
    parser.add_argument("--direct", metavar="URL", help="an endpoint that runs, without /v1")
    parser.add_argument("--through", metavar="NAME=URL", action="append", default=[], help="a door before it")
    parser.add_argument("--key-file", help="a file with the key that the doors want")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    asked = {
        "model": arguments.model,
        "prompt": "ping" * (arguments.prompt_bytes // 4),
        "max_tokens": arguments.tokens,
        "stream": True,
        "ignore_eos": True,
    }
    if not arguments.direct:
        asked["interval_s"] = arguments.interval_ms / 1000
    rows: list[tuple[str, ...]] = [HEAD]
    with doors(arguments) as found:
        for streams in arguments.streams:
            direct: Seen | None = None
            for door in found:
                seen = asyncio.run(measured(door.url, door.key, streams, asked, door.pid))
                direct = direct or seen
                rows.append(row(door.name, streams, seen, direct))
    print("\n".join(columns(rows)))


if __name__ == "__main__":
    main()
