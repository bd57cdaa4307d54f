#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strike the same faults behind HAProxy as a plan configures it and behind SMG, and count what clients get.

On loopback, two endpoints by the clock for each: a few clients ask one after another for --seconds, and in the middle the fault is
struck. What is counted: whole answers, answers by status, streams that were cut. SMG (PyPI ``smg``) is run with the options that
docs/gateway.md tells. Beside them memory and processor time of each. This chose the gateway; nothing of the collection needs it.

    python3 -m venv /tmp/smg && /tmp/smg/bin/pip install smg==1.13.0
    tools/compare_gateways.py --smg /tmp/smg/bin/smg
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.tests.unit.haproxy import (  # noqa: E402
    KEYS,
    free_ports,
    gateway_plan,
    running,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.tools.bench_gateway import cpu_s  # noqa: E402

CLIENTS = 8
ANSWER_S = 0.1
UP_S = 30.0
SMG_OPTIONS = (
    *("--policy", "round_robin", "--health-check-interval-secs", "2", "--health-failure-threshold", "2"),
    *("--cb-failure-threshold", "3"),
)
Servers = Sequence[NullServer]


def mode(name: str, status: int = 503, *, both: bool = False) -> Callable[[Servers], None]:
    """A fault: the first endpoint, or both, behave so from now on; /health goes on saying that they are well."""

    def strike(servers: Servers) -> None:
        for each in servers if both else servers[:1]:
            each.endpoints[0].status = status
            each.endpoints[0].mode = name

    return strike


FAULTS: dict[str, Callable[[Servers], None]] = {
    "none": lambda __: None,
    "one endpoint is killed": lambda servers: servers[0].stop(),
    "one gives 503 alone": mode("status"),
    "one gives 500 alone": mode("status", 500),
    "both give 503 alone": mode("status", both=True),
    "one ends every stream in its middle": mode("break"),
}


@contextlib.contextmanager
def haproxy(urls: Sequence[str], __: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Key, port and process of the plan's gateway before these endpoints."""
    with tempfile.TemporaryDirectory() as folder, running(gateway_plan(urls), Path(folder)) as door:
        door.until("all are up", lambda state: all(each["up"] for each in state["servers"].values()))
        yield KEYS["chat"], door.port, door.pid


@contextlib.contextmanager
def smg(urls: Sequence[str], arguments: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """The same of SMG."""
    port = free_ports()
    given = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(port + 1), "--worker-urls", *urls]
    with subprocess.Popen(
        [arguments.smg, "launch", *given, *SMG_OPTIONS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            began = time.monotonic()
            while time.monotonic() < began + UP_S and asked(port, "") != "200":
                time.sleep(0.2)
            yield "", port, process.pid
        finally:
            process.terminate()


def asked(port: int, key: str) -> str:
    """What one streamed request came to: its status, or that it was cut."""
    body = json.dumps({"model": "null", "prompt": "ping", "max_tokens": 1, "stream": True})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", "/v1/completions", body, headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException):
        return "cut"
    else:
        return (
            str(answer.status)
            if answer.status != http.client.OK or text.endswith(b"[DONE]\n\n")
            else "200 without an end"
        )
    finally:
        connection.close()


def struck(port: int, key: str, strike: Callable[[], None], seconds: float) -> Counter[str]:
    """Ask for so long, strike in the middle, and count from then on."""
    seen: Counter[str] = Counter()
    began, lock = time.monotonic(), threading.Lock()

    def client() -> None:
        while (now := time.monotonic()) < began + seconds:
            said = asked(port, key)
            if now >= began + seconds / 2:
                with lock:
                    seen[said] += 1

    threads = [threading.Thread(target=client) for __ in range(CLIENTS)]
    for each in threads:
        each.start()
    time.sleep(seconds / 2)
    strike()
    for each in threads:
        each.join()
    return seen


def memory_mb(pid: int) -> float:
    """Resident memory of a process and of those that it has made."""
    total = 0.0
    for place in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.partition(":\t")[::2] for line in place.read_text().splitlines())
            if str(pid) in (place.parent.name, fields.get("PPid")):
                total += int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
    return total


def main() -> None:
    """Strike and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smg", required=True, help="where its program is")
    parser.add_argument("--seconds", type=float, default=10, help="of each fault; struck in the middle")
    arguments = parser.parse_args()
    rows = [("fault", "gateway", "answers after it", "memory MB", "CPU ms per 1000 requests")]
    for fault, strike in FAULTS.items():
        for name, door in (("HAProxy", haproxy), ("SMG", smg)):
            with contextlib.ExitStack() as stack:
                servers = [stack.enter_context(NullServer(delay_s=ANSWER_S)) for __ in range(2)]
                key, port, pid = stack.enter_context(door([each.endpoints[0].url for each in servers], arguments))
                used = cpu_s(pid) or 0.0
                seen = struck(port, key, functools.partial(strike, servers), arguments.seconds)
                cost = 1e6 * ((cpu_s(pid) or 0.0) - used) / max(2 * sum(seen.values()), 1)
                told = ", ".join(f"{said}: {count}" for said, count in seen.most_common())
                rows.append((fault, name, told, f"{memory_mb(pid):.0f}", f"{cost:.0f}"))
    print("\n".join(columns(rows)))


if __name__ == "__main__":
    main()
