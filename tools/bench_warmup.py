#!/usr/bin/env python3
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time the warm-up client beside a plain loop over asyncio.to_thread, on this machine, against a loopback null server.

The null server is a process of its own and takes DELAY seconds an answer. The plain loop sends one request a rank with
openai's synchronous client on asyncio's default thread pool, as LMDeploy's guide does.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def client_seconds(urls: list[str]) -> tuple[float, float]:
    """(the requests' seconds as the client reports them, its whole process's seconds)."""
    config = {
        "endpoints": [{"rank": rank, "node": "loopback", "url": url} for rank, url in enumerate(urls)],
        "model": "null",
        "shapes": [{"name": "short", "prompt_tokens": 16, "max_tokens": 8, "requests": 1}],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        program = ROOT / "plugins" / "module_utils" / "_warmup.py"
        started = time.monotonic()
        done = subprocess.run([sys.executable, program, file.name], stdout=subprocess.PIPE, check=True, text=True)
        whole = time.monotonic() - started
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"]), whole


def plain_loop_seconds(urls: list[str]) -> float:
    """The guide's way: one synchronous client and one thread of the default pool a rank."""
    from openai import OpenAI  # its import is not what is timed

    async def one(url: str) -> None:
        client = OpenAI(api_key="none", base_url=f"{url}/v1")
        await asyncio.to_thread(client.completions.create, model="null", prompt="hello", max_tokens=8)

    async def every() -> None:
        await asyncio.gather(*(one(url) for url in urls))

    started = time.monotonic()
    asyncio.run(every())
    return time.monotonic() - started


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=32)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds an answer takes (default 2)")
    options = parser.parse_args()
    program = ROOT / "tests" / "unit" / "null_server.py"
    command = [sys.executable, str(program), str(options.endpoints), str(options.delay)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:  # its exit closes stdin
        urls = json.loads(server.stdout.readline())  # type: ignore[union-attr]
        requests, whole = client_seconds(urls)
        plain = plain_loop_seconds(urls)
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
