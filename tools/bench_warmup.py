#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time the warm-up client beside a plain loop over asyncio.to_thread, on this machine.

The plain loop asks each rank for its models and for one chat completion, with openai's synchronous client on asyncio's
default thread pool, as LMDeploy's guide does. Against a loopback null server, a process of its own that takes DELAY
seconds an answer, both run one after the other. Against real ranks (--plan, as plan.yml writes it with plan_show=json)
one of them runs, since only a fresh rank can be warmed up: start all ranks again before each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLIENT = "ansible_collections.lmfleet.lmdeploy.programs.warmup"


def client_seconds(urls: list[str], model: str = "null") -> tuple[float, float]:
    """(the requests' seconds as the client reports them, its whole process's seconds)."""
    config = {
        "endpoints": [{"rank": rank, "node": "loopback", "url": url} for rank, url in enumerate(urls)],
        "model": model,
        "shapes": [{"name": "short", "prompt_tokens": 16, "max_tokens": 8, "requests": 1}],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        command = [sys.executable, "-m", CLIENT, file.name]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
        started = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
        whole = time.monotonic() - started
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"]), whole


def plain_loop_seconds(urls: list[str], cut_off: float | None = None) -> tuple[float, int]:
    """The guide's way, a thread of the default pool for each call: (seconds, ranks that answered before the cut-off)."""
    from openai import OpenAI  # its import is not what is timed

    async def one(url: str) -> None:
        client = OpenAI(api_key="none", base_url=f"{url}/v1")
        models = await asyncio.to_thread(client.models.list)
        chat: Callable[..., Any] = client.chat.completions.create
        asked = [{"role": "user", "content": "Are you awake?"}]
        await asyncio.to_thread(chat, model=models.data[0].id, messages=asked, max_tokens=20)

    async def every() -> tuple[float, int]:
        started = time.monotonic()
        tasks = [asyncio.ensure_future(one(url)) for url in urls]
        done, __ = await asyncio.wait(tasks, timeout=cut_off)
        return time.monotonic() - started, sum(task.exception() is None for task in done)

    loop = asyncio.new_event_loop()  # not asyncio.run, whose end would wait for threads that were cut off
    return loop.run_until_complete(every())


def real_ranks(plan: dict[str, Any], way: str, cut_off: float) -> None:
    """Warm the ranks of a plan up in one of the two ways, and print what it did."""
    urls = [endpoint["url"] for endpoint in plan["endpoints"]]
    release, cores = plan["image"]["release"], os.cpu_count() or 1
    print(
        f"{len(urls)} ranks of LMDeploy {release}, {cores} cores (asyncio.to_thread's pool: {min(32, cores + 4)} threads)"
    )
    if way == "client":
        requests, __ = client_seconds(urls, plan["served_model_name"])
        print(f"warm-up client: all {len(urls)} ranks answered, {requests:.2f} s", flush=True)
        return
    seconds, answered = plain_loop_seconds(urls, cut_off)
    print(f"plain loop over to_thread: {answered} of {len(urls)} ranks answered, {seconds:.2f} s", flush=True)
    os._exit(0)  # the threads that wait for an answer cannot be ended


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=32)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds an answer takes (default 2)")
    parser.add_argument("--plan", type=Path, help="a plan as JSON: warm up its real ranks")
    parser.add_argument("--way", choices=["client", "plain"], default="client", help="of the two, with --plan")
    parser.add_argument(
        "--cut-off", type=float, default=120.0, help="seconds for the plain loop, with --plan (default 120)"
    )
    options = parser.parse_args()
    if options.plan:
        real_ranks(json.loads(options.plan.read_text(encoding="utf-8")), options.way, options.cut_off)
        return
    program = ROOT / "tests" / "unit" / "null_server.py"
    command = [sys.executable, str(program), str(options.endpoints), str(options.delay)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:  # its exit closes stdin
        urls = json.loads(server.stdout.readline())  # type: ignore[union-attr]
        requests, whole = client_seconds(urls)
        plain, __ = plain_loop_seconds(urls)
    cores = os.cpu_count() or 1
    sys.stdout.write(
        f"{options.endpoints} endpoints, {options.delay:g} s an answer, {cores} cores"
        f" (asyncio.to_thread's pool: {min(32, cores + 4)} threads)\n"
        f"warm-up client, requests     {requests:8.2f} s\n"
        f"warm-up client, with imports {whole:8.2f} s\n"
        f"plain loop over to_thread    {plain:8.2f} s  ({plain / requests:.1f} times the client's requests)\n"
    )


if __name__ == "__main__":
    main()
