# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fault under a steady load: how it is struck, what clients see of it, and what is kept of that for docs/reliability.md.

Times are of the wall clock, which this machine and the sandbox's hosts share: the supervisors note theirs by it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sandbox.hosts import GPUS, MODEL, Run, Sandbox
from sandbox.replicas import listed

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import read_answer
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.healing import healing
from ansible_collections.lmfleet.lmdeploy.tools.reliability import SANDBOX, Row

RESULTS = "LMFLEET_RELIABILITY"  # the file that results are added to, for tools/reliability.py
DEADLINE_S = 900  # a bound, no promise: the machine may be slow
QUIET_S = 30  # without a failed request: what may fail late would have
BODY = json.dumps({"model": MODEL, "prompt": "one two three", "max_tokens": 4}).encode()
# The supervisor has the command of what it runs in its own command line.
API_SERVER = r"^[^ ]*python3 [^ ]*/lmdeploy serve api_server"
PROXY_SERVER = r"^[^ ]*python3 [^ ]*/lmdeploy serve proxy"
ENGINE = "ZMQMPEngine"  # what LMDeploy calls the process beside its server that has the engine
# What an engine does in a fault: it is started again; it lives through it; or either, and nobody has to care.
STARTS, LIVES, EITHER = "starts", "lives", "either"
Strike = Callable[[Sandbox], object]
Events = Mapping[str, Sequence[Mapping[str, Any]]]


# ---- what clients see


@dataclass(frozen=True)
class Asked:
    """One request: when it was over, what became of it, and whether an engine may have got it."""

    at: float
    said: str
    reached: bool

    @property
    def good(self) -> bool:
        return self.said == "200"


Seen = Mapping[str, Sequence[Asked]]


def ask(url: str) -> tuple[str, bool]:
    """What became of one request (a status, or the name of what went wrong), and whether an engine may have got it."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    reached = False
    try:
        connection.connect()
        reached = True
        connection.request("POST", "/v1/completions", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return judged(answer.status, answer.read())
    except (OSError, http.client.HTTPException) as error:
        return named(error), reached
    finally:
        connection.close()


def judged(status: int, body: bytes) -> tuple[str, bool]:
    """The same of an answer. 404 and error_code 10400 are the proxy's, where it knows of no engine."""
    if status != 200:
        return str(status), status != 404
    if read_answer(status, body).token:
        return "200", True
    return "200 without tokens", re.search(rb'"error_code":\s*10400', body) is None


def named(error: Exception) -> str:
    """In a word."""
    kinds: list[tuple[type[Exception], str]] = [
        (http.client.RemoteDisconnected, "disconnected"),
        (ConnectionRefusedError, "refused"),
        (ConnectionResetError, "reset"),
        (TimeoutError, "timed out"),
    ]
    return next((word for kind, word in kinds if isinstance(error, kind)), str(error) or type(error).__name__)


@contextmanager
def load(urls: Iterable[str]) -> Iterator[dict[str, list[Asked]]]:
    """A request after another on each URL, and what became of them; begins when each has given tokens once."""
    seen: dict[str, list[Asked]] = {url: [] for url in urls}
    over = threading.Event()

    def ask_on(url: str) -> None:
        while not over.wait(0.5):
            said, reached = ask(url)
            seen[url].append(Asked(time.time(), said, reached))

    threads = [threading.Thread(target=ask_on, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        wait(lambda: all(any(each.good for each in asked) for asked in seen.values()), lambda: told(seen))
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def failed(asked: Sequence[Asked], since: float) -> list[Asked]:
    return [each for each in asked if each.at > since and not each.good]


def counts(asked: Sequence[Asked]) -> dict[str, int]:
    return {said: sum(each.said == said for each in asked) for said in dict.fromkeys(each.said for each in asked)}


def wait(what: Callable[[], bool], seen: Callable[[], str], limit_s: float = DEADLINE_S) -> None:
    """Until it is so; fails with what was seen."""
    ends = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < ends, f"not so after {limit_s:.0f} s:\n{seen()}"
        time.sleep(1)


def told(seen: Seen, hosts: Sandbox | None = None, since: float = 0.0) -> str:
    """What a test that fails has to say."""
    lines = [f"{url}: {[each.said for each in asked][-8:]}" for url, asked in seen.items()]
    if hosts:
        for node in hosts.nodes:
            with contextlib.suppress(subprocess.SubprocessError):  # it is off
                lines.append(
                    hosts.on(node, "docker", "ps", "-a", "--format", f"node{node}: {{{{.Names}}}} {{{{.Status}}}}")
                )
        with contextlib.suppress(subprocess.SubprocessError):
            lines += [f"{node}: {each}" for node, each in ledger(hosts, since).items()]
    return "\n".join(lines)


# ---- what the supervisors note


def ledger(hosts: Sandbox, since: float = 0.0) -> dict[str, list[dict[str, Any]]]:
    """By host, what its supervisor noted of its engine's starts since then."""
    found = {}
    for node in hosts.nodes:
        lines = hosts.on(node, "sh", "-c", "cat /var/lib/lmfleet/lmdeploy/starts/*.jsonl 2>/dev/null || true")
        events = [json.loads(line) for line in lines.splitlines()]
        found[f"node{node}"] = [each for each in events if each["at"] > since]
    return found


def started(events: Events) -> bool:
    return any(each["event"] == "start" for of_host in events.values() for each in of_host)


def own_start(events: Events) -> float | None:
    """Seconds of the last start that gave tokens, on the host where it took longest; None: there was none."""
    found = [start.ready_s for of_host in events.values() for start in healing(of_host).starts[-1:]]
    return max((round(seconds, 1) for seconds in found if seconds is not None), default=None)


# ---- strikes


def signalled(name: str, node: int, *pattern: str) -> Strike:
    """Send a signal to the processes of a host that pgrep finds by ``pattern``: options, and a regular expression."""
    *options, words = pattern

    def strike(hosts: Sandbox) -> None:
        try:
            hosts.on(node, "pkill", f"-{name}", *(options or ["-f"]), "--", words)
        except subprocess.CalledProcessError as error:
            running = hosts.on(node, "ps", "-eo", "pid,comm,args")
            pytest.fail(
                f"node{node}: pkill {pattern} ended with {error.returncode} ({error.stderr}); there are\n{running}"
            )

    return strike


def kill(node: int, *pattern: str) -> Strike:
    return signalled("KILL", node, *pattern)


def freeze(node: int, *pattern: str) -> Strike:
    """A hang: the process is there, and does nothing. Whoever ends it uses SIGKILL."""
    return signalled("STOP", node, *pattern)


def reboot(*nodes: int) -> Strike:
    """Switch hosts off, and when all are, on again."""

    def strike(hosts: Sandbox) -> None:
        for node in nodes:
            hosts.power(node, on=False)
        for node in nodes:
            hosts.power(node, on=True)

    return strike


def docker_kill(node: int, container: str) -> Strike:
    """Docker keeps such a container down."""
    return lambda hosts: hosts.on(node, "docker", "kill", container)


def docker_restarted(node: int) -> Strike:
    """The host's own Docker ends with all containers, and its entrypoint starts it again, as systemd does elsewhere."""

    def strike(hosts: Sandbox) -> None:
        def daemons() -> set[str]:
            return set(hosts.on(node, "sh", "-c", "pgrep -x dockerd || true").split())

        before = daemons()
        signalled("TERM", node, "-x", "dockerd")(hosts)
        wait(lambda: bool(daemons() - before) and not daemons() & before, lambda: f"{before} -> {daemons()}", 180)
        hosts.on(node, "wait-ready")

    return strike


@contextmanager
def cut_off(hosts: Sandbox, node: int) -> Iterator[None]:
    """Nothing comes to a host by its network, and nothing leaves it, as at a switch that is dead; it reaches itself.

    What the test does on it goes by the outer Docker, not by that network.
    """
    rules = [("INPUT", "-i", "eth0"), ("OUTPUT", "-o", "eth0")]
    try:
        for chain, *which in rules:
            hosts.on(node, "iptables", "-I", chain, *which, "-j", "DROP")
        yield
    finally:
        for chain, *which in rules:
            hosts.on(node, "sh", "-c", f"iptables -D {chain} {' '.join(which)} -j DROP || true")


def cut(node: int, seconds: float) -> Strike:
    def strike(hosts: Sandbox) -> None:
        with cut_off(hosts, node):
            time.sleep(seconds)

    return strike


def while_loading(node: int, first: Strike, second: Strike) -> Strike:
    """Once more, when the engine that is started again has begun to load."""

    def strike(hosts: Sandbox) -> None:
        struck = time.time()
        first(hosts)
        wait(lambda: started({"": ledger(hosts, struck)[f"node{node}"]}), lambda: told({}, hosts, struck))
        time.sleep(5)
        second(hosts)

    return strike


# ---- the whole


@dataclass
class Trial:
    """One fault, on ``urls`` that it strikes; ``spared`` are others, which may not fail once; ``proxy`` is asked if there is one.

    ``topology`` is the hosts' own where it is empty. Times are those of the strike's beginning and end.
    """

    hosts: Sandbox
    fault: str
    urls: Sequence[str]
    spared: Sequence[str] = ()
    proxy: str = ""
    topology: str = ""
    seen: dict[str, list[Asked]] = field(default_factory=dict, init=False)
    struck: float = field(default=0.0, init=False)
    done: float = field(default=0.0, init=False)

    @contextmanager
    def under_load(self) -> Iterator[Trial]:
        """Requests on every URL; afterwards what was spared did not fail, and nobody has made a container or removed one."""
        before = set(self.hosts.containers())
        with load(dict.fromkeys([*self.urls, *self.spared, *([self.proxy] if self.proxy else [])])) as self.seen:
            yield self
        spared = {url: counts(failed(self.seen[url], self.struck)) for url in self.spared}
        assert not any(spared.values()), f"what the fault does not strike failed: {spared}"
        assert set(self.hosts.containers()) == before

    def strike(self, strike: Strike) -> None:
        self.struck = time.time()
        strike(self.hosts)
        self.done = time.time()

    def back(self, engine: str) -> None:
        """Wait until every URL gives tokens, each engine that was started again is proven, and the proxy knows all of them."""
        wait(lambda: self._is_back(engine), lambda: told(self.seen, self.hosts, self.struck))
        if engine == LIVES:
            events = ledger(self.hosts, self.struck)
            assert not started(events), f"an engine was started again: {events}"
        if self.proxy:
            wanted = {*self.urls, *self.spared}
            wait(
                lambda: set(listed()) == wanted,
                lambda: f"the proxy lists {sorted(listed())}, not {sorted(wanted)}",
                180,
            )

    def _is_back(self, engine: str) -> bool:
        events = ledger(self.hosts, self.struck)
        if any(each["event"] == "gave up" for of_host in events.values() for each in of_host):
            pytest.fail(f"it gave up: {told(self.seen, self.hosts, self.struck)}")
        if engine == STARTS and not started(events):
            return False
        if any(of_host and of_host[-1]["event"] != "proven" for of_host in events.values()):
            return False
        quiet_s = 0 if engine == STARTS else QUIET_S
        asked = [*self.urls, *([self.proxy] if self.proxy else [])]
        return all(is_steady(self.seen[url], self.done, time.time(), quiet_s) for url in asked)

    def keep(self, person: str = "") -> None:
        """Print the row, and add it to the file of results where one is named."""
        row = row_of(self, ledger(self.hosts, self.struck), person)
        print(f"\n{row.line()}")
        if os.environ.get(RESULTS):
            with Path(os.environ[RESULTS]).open("a", encoding="utf-8") as file:
                file.write(f"{row.line()}\n")


def is_steady(asked: Sequence[Asked], since: float, now: float, quiet_s: float) -> bool:
    """Whether the last three requests since then gave tokens, and all those of so many seconds did."""
    after = [each for each in asked if each.at > since]
    bad = max((each.at for each in after if not each.good), default=since)
    return len(after) >= 3 and all(each.good for each in after[-3:]) and now - bad >= quiet_s


def row_of(trial: Trial, events: Events, person: str = "") -> Row:
    """What is kept of a fault, once it is over."""
    bad = [each for url in trial.urls for each in failed(trial.seen[url], trial.struck)]
    through = failed(trial.seen[trial.proxy], trial.struck) if trial.proxy else []
    starts = [[each["event"] for each in of_host].count("start") for of_host in events.values()]
    return Row(
        kind=SANDBOX,
        topology=trial.topology or trial.hosts.topology,
        fault=trial.fault,
        on={
            "lmdeploy": os.environ.get("LMFLEET_SANDBOX_RELEASE") or "0.18.0",
            "hosts": len(trial.hosts.nodes),
            "gpus": GPUS,
            "cores": len(os.sched_getaffinity(0)),
        },
        away_s=away(bad, trial.struck),
        start_s=own_start(events),
        failed=counts(bad),
        unreached=sum(not each.reached for each in [*bad, *through]),
        proxy_away_s=away(through, trial.struck) if trial.proxy else None,
        proxy_failed=counts(through) if trial.proxy else None,
        restarts=max(starts, default=0),
        person=person,
    )


def away(bad: Sequence[Asked], struck: float) -> float:
    return round(max((each.at for each in bad), default=struck) - struck, 1)


def comes_back(trial: Trial, strike: Strike, engine: str = STARTS) -> None:
    """Strike under load, and wait until it serves again with nobody's help."""
    with trial.under_load():
        trial.strike(strike)
        trial.back(engine)
    trial.keep()


def needs_a_deploy(
    trial: Trial,
    strike: Strike,
    until: Callable[[], bool],
    status: Sequence[str],
    deploy: Sequence[str],
    play: Callable[[str], Run],
) -> None:
    """Strike under load; wait ``until`` it is down; status.yml tells it, and one deploy puts it back.

    ``status`` and ``deploy`` are what they have to say, and ``play`` runs the playbook of a name.
    """
    with trial.under_load():
        trial.strike(strike)
        wait(until, lambda: told(trial.seen, trial.hosts, trial.struck))
        play("status").says(*status)
        run = play("deploy").succeeded().says(*deploy)
        trial.back(EITHER)
    trial.keep(f"one deploy, {run.seconds:.0f} s")


def log_since(hosts: Sandbox, node: int, container: str, since: float) -> str:
    return hosts.on(node, "docker", "logs", "--since", f"{since:.0f}", container)
