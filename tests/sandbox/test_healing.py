# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines come back by themselves: what is killed under a steady load, how long tokens stay away, and that no person is needed.

Each test prints a row of docs/reliability.md.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from sandbox.hosts import GPUS, MODEL, URL, Sandbox

DEADLINE_S = 600  # a bound, no promise: the machine may be slow
RANKS = [f"http://10.77.0.{11 + rank // GPUS}:{23333 + 10 * rank}" for rank in range(4 * GPUS)]
# The supervisor has the command of what it runs in its own command line.
API_SERVER = r"^[^ ]*python3 [^ ]*/lmdeploy serve api_server"
Strike = Callable[[Sandbox], object]


def kill(node: int, pattern: str) -> Strike:
    return lambda hosts: hosts.on(node, "pkill", "-9", "-f", pattern)


def reboot(node: int) -> Strike:
    def strike(hosts: Sandbox) -> None:
        hosts.power(node, on=False)
        hosts.power(node, on=True)

    return strike


def asks(url: str) -> str:
    """What became of one request: a status, or the name of what went wrong."""
    body = {"model": MODEL, "prompt": "one two three", "max_tokens": 4}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return "200" if "choices" in json.load(answer) else "200 without tokens"
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return type(reason).__name__


@contextmanager
def load(urls: Sequence[str]) -> Iterator[dict[str, list[tuple[float, str]]]]:
    """A request after another on each URL: when it was over, and what became of it."""
    seen: dict[str, list[tuple[float, str]]] = {url: [] for url in urls}
    over = threading.Event()

    def ask_on(url: str) -> None:
        while not over.wait(0.5):
            said = asks(url)
            seen[url].append((time.monotonic(), said))

    threads = [threading.Thread(target=ask_on, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def comes_back(hosts: Sandbox, name: str, urls: Sequence[str], strike: Strike) -> None:
    """Strike, and wait until every URL has failed once, or the engine was started again, and answers again three times."""
    before = hosts.containers()
    began = starts(hosts)
    with load(urls) as seen:
        wait(lambda: all(any(said == "200" for __, said in each) for each in seen.values()))
        struck = time.monotonic()
        strike(hosts)
        done = time.monotonic()
        wait(lambda: starts(hosts) > began)
        wait(lambda: all([said for at, said in each if at > done][-3:] == ["200"] * 3 for each in seen.values()))
    failed = [(at, said) for each in seen.values() for at, said in each if at > struck and said != "200"]
    away = max((at for at, __ in failed), default=struck) - struck
    kinds = {said: sum(each == said for __, each in failed) for __, said in failed}
    print(f"| {name} | {away:.0f} s without tokens everywhere | {kinds or 'no failed request'} | no person |")
    assert set(hosts.containers()) == set(before)  # nobody has made or removed one


def starts(hosts: Sandbox) -> int:
    """How often the supervisors have started an engine, on all hosts."""
    count = 0
    for node in hosts.nodes:
        kept = hosts.on(node, "sh", "-c", "cat /var/lib/lmfleet/lmdeploy/starts/*.jsonl 2>/dev/null || true")
        count += kept.count('"event": "start"')
    return count


def wait(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < ends, "it did not come back"
        time.sleep(1)


TP = {
    "a Ray worker, kill -9": kill(1, "ray::RayWorkerWrapper"),
    "the api_server, kill -9": kill(0, API_SERVER),
    "the worker's raylet, kill -9": kill(1, "raylet/raylet"),
    "the GCS, kill -9": kill(0, "gcs_server"),
    "the worker's host, off and on": reboot(1),
    "the head's host, off and on": reboot(0),
}


# One of them is in every run of scripts/test.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "api_server" in name else [pytest.mark.slow]) for name in TP]
)
def test_a_tp_engine_comes_back(deployed: Sandbox, name: str) -> None:
    comes_back(deployed, name, [URL], TP[name])


@pytest.mark.slow
def test_a_status_tells_how_often_and_why_an_engine_was_started_again(deployed: Sandbox) -> None:
    comes_back(deployed, "the api_server, kill -9", [URL], TP["the api_server, kill -9"])
    run = deployed.playbook("playbooks/status.yml").succeeded()
    assert "was started again" in run.text
    assert "ended with signal SIGKILL" in run.text
    before = deployed.containers()
    deployed.deploy().succeeded()
    assert deployed.containers() == before  # it serves, and is left alone


@pytest.mark.slow
def test_an_engine_that_crashes_at_every_start_stays_down_and_says_so(deployed: Sandbox) -> None:
    """Its model is gone, as where a file system was not mounted after a reboot."""
    deployed.deploy(plan_restarts=2).succeeded()
    hub = "/srv/huggingface/hub"
    for node in deployed.nodes:
        deployed.on(node, "mv", hub, f"{hub}.away")
    try:
        deployed.on(0, "pkill", "-9", "-f", API_SERVER)
        wait(lambda: "Exited (0)" in deployed.on(0, "docker", "ps", "-a", "--filter", "name=lmdeploy-api"))
        log = deployed.on(0, "docker", "logs", "--tail", "3", "lmdeploy-api")
        status = deployed.playbook("playbooks/status.yml", plan_restarts=2)
    finally:
        for node in deployed.nodes:
            deployed.on(node, "mv", f"{hub}.away", hub)
    assert "GAVE UP: 2 starts in a row gave no token" in log
    assert "GAVE UP: 2 starts in a row gave no token" in status.text
    run = deployed.deploy(plan_restarts=2).succeeded()
    assert "lmdeploy-api: it gave up: 2 starts in a row gave no token" in run.text


DP = {
    "a rank's engine, kill -9": kill(1, f"rank.py --engine {GPUS} "),
    "a rank's program, kill -9": kill(2, r"-u /opt/lmfleet/rank.py --first-rank"),
    "a torchrun agent, kill -9": kill(1, "bin/torchrun --nnodes"),
    "a worker's host, off and on": reboot(3),
}


@pytest.mark.slow
@pytest.mark.dpep
@pytest.mark.parametrize("name", DP)
def test_a_group_of_ranks_comes_back(ranks: Sandbox, name: str) -> None:
    comes_back(ranks, name, RANKS, DP[name])
