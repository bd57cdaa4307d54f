# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run LMDeploy's benchmark script unchanged, and keep what it returns: `python3 -m PACKAGE.script SCRIPT RESULT ARGUMENT...`.

The script prints means and throws away what each request did; its main coroutine returns it. It takes every answer of
status 200 for a whole one, with as many tokens as were asked for. So the lines of each answer are looked at on their way
to it, and one that ends early ends with an exception, which the script counts as a failure.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import runpy
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .records import CUT_SHORT, FEWER, NO_END

# Of an event; of text in it, the quotes would be escaped.
FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
USAGE = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
NO_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class NoAnswer(Exception):
    """Status 200, and an error in the body: the proxy answers so, for itself and for its ranks."""


class CutShort(Exception):
    """An answer ended before all the tokens that were asked for had come."""


@dataclass
class End:
    """How a request ended: the tokens that it asked for and that came, as the answer's usage says, and its times."""

    asked: int | None
    tokens: int | None = None
    finish: str = ""
    sent: float | None = None
    done: float | None = None
    began: bool = False

    def see(self, line: bytes) -> bool:
        """Look at a line of the stream; whether the script shall have it, which cannot read an event without a choice.

        Raises NoAnswer and CutShort where it is no event.
        """
        text = line.strip()
        if text and b'"choices"' not in text and text != b"data: [DONE]":
            said = text[:200].decode(errors="replace")
            raise CutShort(f"{CUT_SHORT}: {said}") if self.began else NoAnswer(f"HTTP 200, but {said}")
        self.began = True
        if found := USAGE.search(line):
            self.tokens = int(found[1])
        if found := FINISH.search(line):
            self.finish = found[1].decode()
        return NO_CHOICE.search(line) is None

    def check(self) -> None:
        """Raises CutShort where it was no whole answer."""
        if self.finish in ("error", "abort"):
            raise CutShort(f"{CUT_SHORT}: finish_reason {self.finish}")
        if self.tokens is None:
            raise CutShort(NO_END)
        if self.asked is not None and self.tokens < self.asked:
            raise CutShort(FEWER)


def watch(ends: list[End]) -> None:
    """Have aiohttp note the end of every request in ``ends``, in the order in which they are sent."""
    import aiohttp

    mine: dict[Any, End] = {}  # by task: the script has one for each request
    request: Callable[..., Coroutine[Any, Any, Any]] = aiohttp.ClientSession._request
    lines: Callable[[Any], Any] = aiohttp.StreamReader.__aiter__

    @functools.wraps(request)
    async def noted(self: Any, method: str, url: Any, **options: Any) -> Any:
        body: Mapping[str, Any] = options.get("json") or {}
        if "max_tokens" not in body:
            return await request(self, method, url, **options)
        end = End(body["max_tokens"], sent=time.time())
        ends.append(end)
        mine[asyncio.current_task()] = end
        try:
            return await request(self, method, url, **options)
        finally:
            end.done = time.time()

    def looked_at(self: Any) -> Any:
        end = mine.get(asyncio.current_task())
        return lines(self) if end is None else through(lines(self), end)

    async def through(stream: AsyncIterator[bytes], end: End) -> AsyncIterator[bytes]:
        try:
            async for line in stream:
                if end.see(line):
                    yield line
        finally:
            end.done = time.time()
        end.check()

    aiohttp.ClientSession._request = noted  # type: ignore[method-assign,assignment]
    aiohttp.StreamReader.__aiter__ = looked_at  # type: ignore[method-assign]


def main() -> None:
    """Run the script as `python3 SCRIPT ARGUMENT...` would."""
    script, kept = sys.argv[1], Path(sys.argv[2])
    run = asyncio.run
    ends: list[End] = []

    def run_and_keep(main: Coroutine[Any, Any, Any], **options: Any) -> Any:
        result = run(main, **options)
        # Before its requests it sends one to see whether the server is there.
        count = len(result["errors"])
        own = ends[-count:] if len(ends) >= count else [End(None)] * count
        kept.write_text(json.dumps({**result, "ends": [asdict(end) for end in own]}, default=float), encoding="utf-8")
        return result

    watch(ends)
    asyncio.run = run_and_keep
    sys.argv = [script, *sys.argv[3:]]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
