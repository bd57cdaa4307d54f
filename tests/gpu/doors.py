# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a door before an engine costs: the scenario ``doors``.

The same streams straight to a real engine, through LMDeploy's proxy, and through the gateway over plain HTTP and over TLS, with
the client and the table of tools/bench_gateway.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gpu.deployment import Deployment
from gpu.gateways import KEYS, UP_S, gateway

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import ProxyError, ProxyList
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns
from ansible_collections.lmfleet.lmdeploy.tools.bench_gateway import HEAD, Door, Seen, measured, row

if TYPE_CHECKING:
    from gpu.scenarios import Run

STREAMS = (1, 64, 256)
TOKENS = 64


def doors(run: Run) -> None:
    """One engine; at each number of streams every door, twice, of which the second counts: the first pays for compiling."""
    from gpu.scenarios import WARM_UPS, beside_others

    at = beside_others(run, "doors", 1, plan_api_server_options={"cache_max_entry_count": 0.3})
    with run.step("doors", 240) as go, contextlib.ExitStack() as stack:
        if not go:
            return
        run.up("doors", at, 240, "api")
        stack.callback(at.stop)
        run.results.put("doors.warm_up", at.warm_up(WARM_UPS["few-bursts"]))
        found = [Door("direct", at.url)]
        through = stack.enter_context(proxy(run, at))
        found.append(Door("LMDeploy's proxy", str(through.plan["proxy"]["url"]), pid=through.process("proxy").pid))
        for number, (name, tls) in enumerate((("gateway, HTTP", False), ("gateway, TLS", True)), 1):
            one = stack.enter_context(gateway(run, [at.url], f"door-{number}", number, plan_gateway_tls=tls))
            found.append(Door(name, one.url, KEYS["gpu"], one.process("gateway").pid))
        asked = {"model": at.model, "prompt": "one two", "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
        rows: list[tuple[str, ...]] = [HEAD]
        for streams in STREAMS:
            for turn in range(2):
                direct: Seen | None = None
                for door in found:
                    seen = asyncio.run(measured(door.url, door.key, streams, asked, door.pid))
                    direct = direct or seen
                    if turn:
                        rows.append(row(door.name, streams, seen, direct))
                        run.results.text("doors.txt", "\n".join(columns(rows)) + "\n")
        print("\n".join(columns(rows)), flush=True)


@contextlib.contextmanager
def proxy(run: Run, engine: Deployment) -> Iterator[Deployment]:
    """LMDeploy's proxy of a plan, with this engine alone on its list."""
    at = Deployment(run.machine, run.machine.plan("replicas", plan_name="listed"), only=["proxy"])
    at.start("proxy")
    try:
        listed, began = ProxyList(str(at.plan["proxy"]["url"])), time.monotonic()
        while True:
            try:
                listed.add(engine.url, engine.model)
                break
            except ProxyError:
                if time.monotonic() > began + UP_S:
                    raise
            time.sleep(0.5)
        yield at
    finally:
        at.stop()
