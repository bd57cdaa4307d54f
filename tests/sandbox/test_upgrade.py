# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an upgrade promises, on real hosts: two TP replicas behind one proxy, under a steady load of requests.

Run it alone: ``scripts/test --full`` does, or ``python -m pytest tests/sandbox/test_upgrade.py -m slow`` with the sandbox up.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import urllib.error
import urllib.request

import pytest
from sandbox.hosts import GPUS, MODEL, PROXY, SIM, URL
from sandbox.replicas import GROUPS, OTHER, Replicas, listed, option

pytestmark = pytest.mark.slow
API, OTHER_API = "node0/lmdeploy-api", "node1/lmdeploy-api"
WORKERS = 3


class Load:
    """Requests through the proxy, one after another from each of ``WORKERS`` clients, every answer looked at."""

    def __init__(self) -> None:
        self.answers = 0
        self.failed: list[str] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._threads = [
            threading.Thread(target=self._ask, args=(stream,)) for stream in (True, False, False)[:WORKERS]
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *__: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, stream: bool) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, "stream": stream}
        while not self._ended.is_set():
            request = urllib.request.Request(
                f"{PROXY}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            began, why = time.time(), ""
            try:
                with self._opener.open(request, timeout=120) as answer:
                    why = wrong(answer.read().decode(), stream=stream)
            except urllib.error.HTTPError as error:
                why = f"HTTP {error.code}: {error.read()[:200]!r}"
            except OSError as error:
                why = repr(error)
            with self._lock:
                self.answers += 1
                if why:
                    self.failed.append(
                        f"{time.strftime('%H:%M:%S', time.gmtime(began))}, {time.time() - began:.1f} s: {why}"
                    )
            time.sleep(0.2)


def wrong(text: str, *, stream: bool) -> str:
    """What is wrong with an answer; LMDeploy's proxy says errors with status 200 as well."""
    if stream:
        return "" if text.rstrip().endswith("[DONE]") and "error_code" not in text else text[-300:]
    try:
        return "" if json.loads(text)["usage"]["completion_tokens"] else text[-300:]
    except (ValueError, KeyError, TypeError):
        return text[-300:]


@pytest.fixture
def replicas(pair: Replicas) -> Replicas:
    """Both of them up, with the option that the test before has left them."""
    pair.groups.write_text(GROUPS)
    pair.play("deploy", **pair.serving()).succeeded()
    return pair


def test_rollback_brings_back_the_plan_before_and_returns(replicas: Replicas) -> None:
    """The first test: once there was an upgrade, there is a plan before."""
    first = replicas.batch_sizes()
    replicas.play("rollback").failed_with("no record of a plan before the one that serves")
    replicas.play("upgrade", **option(8)).succeeded()
    check = replicas.play("rollback", "--check", "--diff").succeeded()
    assert "round 1 of 2:" in check.text
    assert replicas.batch_sizes() == ["8", "8"]
    with Load() as load:
        replicas.play("rollback").succeeded()
    print(f"{load.answers} answers, {len(load.failed)} failed: {load.failed[:5]}")
    assert load.failed == []
    assert replicas.batch_sizes() == first
    replicas.play("rollback").succeeded()
    assert replicas.batch_sizes() == ["8", "8"]


def test_an_option_changes_one_engine_after_another_without_one_failed_request(replicas: Replicas) -> None:
    before, wanted = replicas.sandbox.containers(), replicas.another()
    with Load() as load:
        run = replicas.play("upgrade", "--diff", **wanted).succeeded()
    print(f"{load.answers} answers, {len(load.failed)} failed: {load.failed[:5]}")
    assert load.answers > 20
    assert load.failed == []
    after = replicas.sandbox.containers()
    assert {name for name in after if after[name] != before[name]} == {API, OTHER_API}
    assert replicas.serving() == wanted
    assert listed() == {URL: [MODEL], OTHER: [MODEL]}
    for name in ("left", "right"):
        assert f"lmdeploy-{name}: the proxy sends it no new requests, and those that it has may end" in run.text
        assert f"lmdeploy-{name}: no request runs there any more" in run.text
    assert set(replicas.play("upgrade", **wanted).succeeded().changed.values()) == {0}


def test_an_engine_that_fails_at_load_is_rolled_back_and_the_other_one_is_not_touched(replicas: Replicas) -> None:
    before, served = replicas.sandbox.containers(), replicas.serving()
    fault = {**SIM, "LMFLEET_SIM_FAULTS": f"crash_at_load@{GPUS - 1}"}
    with Load() as load:
        run = replicas.play("upgrade", plan_environment=fault, **served)
    print(f"{load.answers} answers, {len(load.failed)} failed: {load.failed[:5]}")
    run.failed_with(
        "The upgrade failed: ",
        "RuntimeError: lmfleet simulator",
        "lmdeploy-left was rolled back to what served before",
        f"and it serves: {PROXY}",
    )
    assert load.failed == []
    after = replicas.sandbox.containers()
    assert {name for name in after if after[name] != before[name]} == {API, "node0/lmdeploy-ray"}
    assert listed() == {URL: [MODEL], OTHER: [MODEL]}
    # What serves is what was recorded: a deploy of the old inventory has nothing to do.
    assert set(replicas.play("deploy", **served).succeeded().changed.values()) == {0}


def test_the_second_engine_that_fails_takes_the_first_one_back_with_it(replicas: Replicas) -> None:
    """Only node1's containers have the fault, so that the first engine is proven with the new option."""
    groups, served = replicas.groups, replicas.serving()
    fault = json.dumps({**SIM, "LMFLEET_SIM_FAULTS": "crash_at_load@0"})
    groups.write_text(f"left: {{hosts: {{node0: {{}}}}}}\nright: {{hosts: {{node1: {{plan_environment: {fault}}}}}}}\n")
    with Load() as load:
        run = replicas.play("upgrade", **replicas.another())
    print(f"{load.answers} answers, {len(load.failed)} failed: {load.failed[:5]}")
    groups.write_text(GROUPS)
    run.failed_with("RuntimeError: lmfleet simulator", "lmdeploy-left, lmdeploy-right were rolled back")
    assert load.failed == []
    assert set(replicas.play("deploy", **served).succeeded().changed.values()) == {0}


def test_an_upgrade_that_is_left_as_it_failed_is_rolled_back_on_demand(replicas: Replicas) -> None:
    first, served = replicas.batch_sizes(), replicas.serving()
    fault = {**SIM, "LMFLEET_SIM_FAULTS": f"crash_at_load@{GPUS - 1}"}
    run = replicas.play("upgrade", plan_environment=fault, upgrade_rollback=False, **served)
    run.failed_with("RuntimeError: lmfleet simulator")
    assert "The upgrade failed" not in run.text
    run = replicas.play("rollback").succeeded()
    assert "The plan to bring back is the last one that served; lmdeploy-api on node0" in run.text
    assert replicas.batch_sizes() == first
    assert set(replicas.play("deploy", **served).succeeded().changed.values()) == {0}


def test_requests_that_do_not_end_hold_an_upgrade_up_no_longer_than_the_deadline(replicas: Replicas) -> None:
    def long() -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4000}
        for url in 4 * [URL, OTHER]:
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            threading.Thread(target=lambda asked=request: ends(asked), daemon=True).start()

    def ends(asked: urllib.request.Request) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError):  # its engine is replaced
            opener.open(asked, timeout=300).read()

    long()
    time.sleep(12)  # until the gauges tell of them
    run = replicas.play("upgrade", **replicas.another(), upgrade_drain_timeout=20).succeeded()
    assert re.search(r"after 20 s \d+ requests still run or wait there, and are cut off now", run.text)
