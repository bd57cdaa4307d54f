# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls side by side that share one deadline.

Not ThreadPoolExecutor: Python waits at its end for such a pool's threads, and so for whatever hangs in one, be it a
daemon that does not answer or a network file system that is gone.
"""

from __future__ import annotations

import collections
import concurrent.futures
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")
Late = concurrent.futures.TimeoutError


def start(call: Callable[..., Value], *arguments: Any) -> concurrent.futures.Future[Value]:
    """Begin ``call(*arguments)`` in a thread of its own, which nobody waits for at the end."""
    future: concurrent.futures.Future[Value] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:  # noqa: BLE001  (whoever takes the result gets it)
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def each(call: Callable[[Key], Value], keys: Iterable[Key], at_once: int = 0) -> dict[Key, Value]:
    """Key -> ``call(key)``, all at once, or ``at_once`` of them; raises what a call raises.

    The calls have to end by themselves.
    """
    started: dict[Key, concurrent.futures.Future[Value]] = {key: concurrent.futures.Future() for key in keys}
    waiting = collections.deque(started.items())

    def work() -> None:
        while True:
            try:
                key, future = waiting.popleft()
            except IndexError:
                return
            try:
                future.set_result(call(key))
            except BaseException as error:  # noqa: BLE001  (whoever takes the result gets it)
                future.set_exception(error)

    for __ in range(min(at_once or len(started), len(started))):
        threading.Thread(target=work, daemon=True).start()
    return {key: future.result() for key, future in started.items()}


def by(ends: float, future: concurrent.futures.Future[Value]) -> Value:
    """The result, at ``ends`` (of time.monotonic) at the latest. Raises ``Late``, and what the call raised."""
    return future.result(timeout=max(ends - time.monotonic(), 0.0))
