# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor, laid out as containers have it, over small servers in the engine's place. The real ones run in the sandbox."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import put_aside, set_aside
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import Patience
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import ProxyList
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.healing import healing
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.supervision import programs
from ansible_collections.lmfleet.lmdeploy.programs.silence import Silence
from ansible_collections.lmfleet.lmdeploy.programs.starts import KEPT, Starts, read
from ansible_collections.lmfleet.lmdeploy.programs.supervise import Bounds
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT
from ansible_collections.lmfleet.lmdeploy.tests.unit.proxy import StandIn

DEADLINE_S = 300  # nothing here takes long, but for a busy machine; a test that hangs shall fail
# What is waited for is made short: what is tried is what happens, not how long it takes.
RUN = """
import sys
sys.path.insert(0, {place!r})
from lmfleet.programs import supervise, watch
supervise.LOOK_S, supervise.PAUSE_S = 0.05, 0.01
supervise.Watch.__init__.__defaults__ = (lambda: '', {still}, 0.05)
{more}
sys.exit(supervise.main())
"""
# An api_server by what it is asked: a file of the name of a fault in its directory makes it have that.
SERVER = """
import http.server, json, os, pathlib, subprocess, sys
place, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, str(place / "opt"))
import rank
rank.die_with_parent()  # as the engine does
(place / "pids").open("a").write(f"{os.getpid()}\\n")
# LMDeploy's engine has processes of its own, which outlive it where it is killed.
helper = subprocess.Popen(["sleep", "3600"])
(place / "helpers").open("a").write(f"{helper.pid}\\n")
if (place / "crash").exists():
    sys.exit("crashes at load")
print("serves", flush=True)
tokens = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def say(self, status, text):
        self.send_response(status); self.send_header("Content-Length", str(len(text))); self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        global tokens
        tokens += (place / "busy").exists()
        if self.path == "/v1/models":
            self.say(200, json.dumps({"data": [{"id": "m"}]}))
        elif self.path == "/metrics":
            self.say(200, f"lmdeploy:generation_tokens_total {tokens}\\n")
        else:
            self.say(200, json.dumps({"status": "healthy"}))
    def do_POST(self):
        global tokens
        (place / "asked").open("a").write("x")
        self.rfile.read(int(self.headers["Content-Length"]))
        if (place / "dead").exists():
            return self.say(500, json.dumps({"message": "the engine is gone"}))
        tokens += 1
        self.say(200, json.dumps({"choices": [{"finish_reason": "length"}], "usage": {"completion_tokens": 1}}))
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Box:
    """A container's place: the programs, the file of starts, a server's directory and port."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name, text in programs().items():
            (path / "opt" / name).parent.mkdir(parents=True, exist_ok=True)
            (path / "opt" / name).write_text(text, encoding="utf-8")
        (path / "server.py").write_text(SERVER)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]

    @contextmanager
    def running(
        self, *command: str, restarts: int = 3, still_s: float = 0.2, more: str = ""
    ) -> Iterator[subprocess.Popen[str]]:
        program = RUN.format(place=str(self.path / "opt"), still=still_s, more=more)
        argv = [
            sys.executable,
            "-Bc",
            program,
            "--starts",
            str(self.path / "starts.jsonl"),
            "--restarts",
            str(restarts),
        ]
        argv += ["--endpoint", f"0=http://127.0.0.1:{self.port}", "--mark", str(self.path / "mark")]
        # As with torchrun, so that no Ray is waited for: what runs is the one rank of its group.
        argv += ["--", *(command or self.agent())]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.terminate()  # which ends all that it has started
                process.wait(DEADLINE_S)
                for pid in (*self.pids, *self.helpers):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def agent(self) -> list[str]:
        """What torchrun does with one rank: start it, and start it again whenever it has ended.

        It takes its time, so that the supervisor has seen the end on a busy machine too, as torchrun's own meeting does.
        """
        program = f"""
import os, pathlib, subprocess, sys, time
starts = pathlib.Path({str(self.path / "starts.jsonl")!r})
def ends():
    return starts.read_text().count('"event": "end"') if starts.exists() else 0
sys.path.insert(0, {str(self.path / "opt")!r})
import rank
while True:
    before = ends()
    child = os.fork()
    if not child:
        rank.die_with_parent()  # as the rank program does
        notes = rank.Notes(os.environ["LMFLEET_RANKS"], 0)
        os._exit(rank.supervise([sys.executable, {str(self.path / "server.py")!r}, {str(self.path)!r}, "{self.port}"],
            os.environ, 0, "0", grace_s=1, notes=notes))
    try:
        os.waitpid(child, 0)
    except KeyboardInterrupt:
        pass
    waited = 0
    while ends() == before and waited < 100:
        waited += 1
        time.sleep(0.05)
    time.sleep(0.2)
"""
        return [sys.executable, "-Bc", program]

    def fault(self, name: str, *, on: bool = True) -> None:
        (self.path / name).touch() if on else (self.path / name).unlink(missing_ok=True)

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in _text(self.path / "pids").split()]

    @property
    def helpers(self) -> list[int]:
        return [int(line) for line in _text(self.path / "helpers").split()]

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(each["event"], each["why"]) for each in read(self.path / "starts.jsonl")]

    def wait(self, what: Callable[[], Any]) -> None:
        ends = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < ends, self.events
            time.sleep(0.05)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_ended(pid: int) -> bool:
    """Whether a process is gone, be it that nobody has buried it."""
    stat = _text(Path(f"/proc/{pid}/stat"))
    return not stat or stat.rpartition(")")[2].split()[0] == "Z"


PROVEN = ("proven", "every endpoint of this host has given a token")
FIRST = ("start", "the container was made")


def test_what_was_never_seen_to_work_is_not_tried_again(box: Box) -> None:
    box.fault("crash")
    with box.running() as process:
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0  # Docker starts again what ended with anything else
    assert "lmfleet: GAVE UP: its first start gave no token, so it is not tried again by itself" in out
    assert [event for event, __ in box.events] == ["start", "end", "gave up"]
    assert box.events[1] == ("end", "rank 0 ended with exit code 1")


def test_an_engine_that_ended_is_started_again_and_why_is_kept(box: Box) -> None:
    with box.running():
        box.wait(lambda: PROVEN in box.events)
        os.kill(box.pids[0], signal.SIGKILL)
        box.wait(lambda: box.events.count(PROVEN) == 2)
    assert box.events == [
        FIRST,
        PROVEN,
        ("end", "rank 0 ended with signal SIGKILL"),
        ("start", "rank 0 ended with signal SIGKILL"),
        PROVEN,
    ]
    found = dataclasses.replace(healing(read(box.path / "starts.jsonl")), directory=str(box.path))
    assert [each.why for each in found.starts] == ["the container was made", "rank 0 ended with signal SIGKILL"]
    told = found.told("gpu1")
    assert "gpu1 was started again once by itself, last at " in told
    [log] = box.path.glob("starts.*.log")
    assert told.endswith(f"; the end of the former start's log: {log}")
    assert log.read_text().splitlines()[0] == "[rank 0] serves"
    assert log.stat().st_mode & 0o777 == 0o600


def test_after_as_many_starts_without_a_token_it_stays_down(box: Box) -> None:
    with box.running(restarts=2) as process:
        box.wait(lambda: PROVEN in box.events)
        box.fault("crash")
        os.kill(box.pids[0], signal.SIGKILL)
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "lmfleet: GAVE UP: 2 starts in a row gave no token. It stays down until a deploy starts it." in out
    assert [event for event, __ in box.events] == ["start", "proven", "end", "start", "end", "start", "end", "gave up"]
    assert len(box.pids) == 3
    told = healing(read(box.path / "starts.jsonl")).told("gpu1")
    assert told.startswith(
        "gpu1 GAVE UP: 2 starts in a row gave no token. It stays down until a deploy starts it; the end of the former start's log"
    )
    last = box.path / told.rpartition("/")[2]
    assert "crashes at load" in last.read_text()
    assert "serves" not in last.read_text()  # that is the first one's, which has a file of its own
    assert out.count("crashes at load") == 2  # the container's own log has all of it


def test_what_is_dead_though_its_process_runs_is_ended_and_started_again(box: Box) -> None:
    with box.running():
        box.wait(lambda: PROVEN in box.events)
        box.fault("dead")
        box.wait(lambda: box.events[-1][0] == "end")
        box.fault("dead", on=False)
        box.wait(lambda: box.events.count(PROVEN) == 2)
    ended = dict(box.events)["end"]
    assert ended == f"rank 0: http://127.0.0.1:{box.port} is dead: engine error: HTTP 500: the engine is gone"
    assert len(box.pids) == 2


def test_an_engine_whose_counters_move_is_asked_for_nothing(box: Box) -> None:
    box.fault("busy")
    with box.running(still_s=3600):
        box.wait(lambda: PROVEN in box.events)
        before = float(_metrics(box))
        box.wait(lambda: float(_metrics(box)) > before + 20)  # each reading is one
    assert _text(box.path / "asked") == ""


def _metrics(box: Box) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{box.port}/metrics", timeout=30) as answer:
        return str(answer.read().decode()).split()[1]


LISTS_SOON = "from lmfleet.programs import listing; listing.READ_S = 0.05"


@pytest.fixture
def proxy() -> Iterator[StandIn]:
    with StandIn(query=False).serving() as server:
        yield server


def test_what_serves_and_the_proxy_has_dropped_registers_again(box: Box, proxy: StandIn) -> None:
    url = f"http://127.0.0.1:{box.port}"
    with box.running(*box.agent(), "--proxy-url", proxy.url, more=LISTS_SOON):
        for __ in range(2):
            box.wait(lambda: url in proxy.nodes)
            assert proxy.nodes[url]["models"] == ["m"]
            proxy.nodes.clear()


def test_what_a_drain_has_set_aside_stays_aside(box: Box, proxy: StandIn) -> None:
    url = f"http://127.0.0.1:{box.port}"
    with box.running(*box.agent(), "--proxy-url", proxy.url, more=LISTS_SOON):
        box.wait(lambda: url in proxy.nodes)
        put_aside(ProxyList(proxy.url), [url], "m")
        before = proxy.reads
        box.wait(lambda: proxy.reads > before + 5)
        assert proxy.nodes[url]["models"] == [set_aside("m")]


def test_what_gave_no_token_is_not_listed(box: Box, proxy: StandIn) -> None:
    box.fault("dead")
    with box.running(*box.agent(), "--proxy-url", proxy.url, more=LISTS_SOON) as process:
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert "GAVE UP" in out
    assert proxy.nodes == {}


def test_a_proxy_that_is_away_is_asked_again(box: Box, proxy: StandIn) -> None:
    url = f"http://127.0.0.1:{box.port}"
    proxy.broken = "Internal Server Error"
    with box.running(*box.agent(), "--proxy-url", proxy.url, more=LISTS_SOON):
        box.wait(lambda: proxy.reads > 3)
        assert proxy.nodes == {}
        proxy.broken = ""
        box.wait(lambda: url in proxy.nodes)


def test_a_server_that_hangs_and_gives_no_counters_any_more_is_ended(box: Box) -> None:
    short = "watch.LAST_ASKED_S = 1; real = watch.Patience; watch.Patience = lambda: real(1, 1, 1)"
    with box.running(more=short):
        box.wait(lambda: PROVEN in box.events)
        os.kill(box.pids[0], signal.SIGSTOP)
        box.wait(lambda: box.events[-1] == PROVEN and len(box.pids) > 1)
    ends = [why for event, why in box.events if event == "end"]
    assert ends[0].startswith(f"rank 0: http://127.0.0.1:{box.port} is dead: its server hangs: it has answered nothing")
    assert has_ended(box.pids[0])


def told_after(for_s: float, *, cpu_s: float = 0.0, works: bool | None = None, gave: bool = True) -> str:
    """What is said of a server that fell silent so many seconds ago, in which processors were used for ``cpu_s``."""
    now, used = [0.0], [100.0]
    silence = Silence(lambda: now[0], lambda: used[0], lambda: works)
    silence.heard(gave=gave)
    for at in (10.0, 10.0 + for_s / 2, 10.0 + for_s):
        now[0] = at
        silence.heard(gave=False)
    used[0] += cpu_s
    return silence.told(Patience(20, 30, 300))


def test_a_server_is_given_as_long_as_an_engine_and_longer_where_anything_works() -> None:
    assert told_after(49) == ""
    assert told_after(50) == "its server hangs: it has answered nothing for 50 s, with idle processors"
    assert told_after(50, cpu_s=20) == ""
    assert told_after(319, cpu_s=200) == ""
    assert told_after(320, cpu_s=200) == "its server hangs: it has answered nothing for 320 s"
    assert told_after(60, works=True) == ""
    assert told_after(320, works=True)
    assert told_after(3600, gave=False) == ""  # a release that has no counters


def test_what_was_heard_again_was_no_silence() -> None:
    now = [0.0]
    silence = Silence(lambda: now[0], lambda: 0.0, lambda: None)
    for at, gave in ((0, True), (1, False), (300, True), (301, False)):
        now[0] = at
        silence.heard(gave=gave)
    assert silence.told(Patience(20, 30, 300)) == ""


def test_a_group_that_waits_for_one_that_is_gone_keeps_the_log_of_what_happened(tmp_path: Path) -> None:
    """Its torchrun ends again and again; the logs of that do not push out the one of the crash."""
    starts = Starts(tmp_path / "dp.jsonl")
    bounds = Bounds(starts, 3, new=True)
    for event in ("start", "proven"):
        bounds.took_place(event, "")
    for why in (
        "rank 1 ended with signal SIGKILL",
        "torchrun ended with exit code 1",
        "torchrun ended with exit code 1",
    ):
        assert bounds.took_place("end" if "rank" in why else "over", why, why.encode) == ""
    assert bounds.pause_s == 0
    bounds.took_place("start", "")
    assert [(each["event"], each["why"]) for each in starts.events] == [
        FIRST,
        ("proven", ""),
        ("end", "rank 1 ended with signal SIGKILL"),
        ("start", "torchrun ended with exit code 1"),
    ]
    [log] = tmp_path.glob("*.log")
    assert log.read_text() == "rank 1 ended with signal SIGKILL"


def test_who_is_told_to_end_ends_its_engine_and_starts_none(box: Box) -> None:
    with box.running() as process:
        box.wait(lambda: PROVEN in box.events)
        process.terminate()
        assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM  # which Docker starts again after a reboot
    assert box.events == [FIRST, PROVEN]
    box.wait(lambda: has_ended(box.pids[0]))


def test_a_new_container_waits_for_nothing_of_the_one_before(box: Box) -> None:
    box.fault("crash")
    with box.running() as process:
        process.communicate(timeout=DEADLINE_S)
    box.fault("crash", on=False)
    (box.path / "mark").unlink()  # a deploy has made another one
    with box.running() as process:
        box.wait(lambda: PROVEN in box.events)
        process.terminate()
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert "pause" not in out


def test_a_container_that_is_started_again_goes_on_counting(box: Box) -> None:
    with box.running() as process:
        box.wait(lambda: PROVEN in box.events)
        process.terminate()
        process.wait(DEADLINE_S)
    with box.running():
        box.wait(lambda: box.events.count(PROVEN) == 2)
    assert box.events[2:] == [("start", "the container was started again"), PROVEN]
    (box.path / "mark").unlink()  # another container
    with box.running() as process:
        box.wait(lambda: box.events.count(PROVEN) == 3)
        process.terminate()
        out, __ = process.communicate(timeout=DEADLINE_S)
    assert "pause" not in out
    assert len(healing(read(box.path / "starts.jsonl")).starts) == 1


def test_a_rank_program_that_is_gone_takes_its_engine_with_it(box: Box) -> None:
    with box.running():
        box.wait(lambda: PROVEN in box.events)
        [engine] = box.pids
        os.kill(parent_of(engine), signal.SIGKILL)
        box.wait(lambda: box.events.count(PROVEN) == 2)
    assert ("end", "a rank's program is gone") in box.events
    box.wait(lambda: has_ended(engine))


def test_a_torchrun_that_was_killed_leaves_nothing_of_its_ranks(box: Box) -> None:
    """Seen on two H200: what was left of the engine was in the way of every start that followed."""
    with box.running():
        box.wait(lambda: PROVEN in box.events)
        [engine], [helper] = box.pids, box.helpers
        os.kill(parent_of(parent_of(engine)), signal.SIGKILL)
        box.wait(lambda: box.events.count(PROVEN) == 2)
    assert ("end", "torchrun ended with signal SIGKILL") in box.events
    assert has_ended(engine)
    assert has_ended(helper)


def test_of_many_starts_the_last_are_kept_and_a_broken_file_hinders_nothing(tmp_path: Path) -> None:
    path = tmp_path / "starts.jsonl"
    path.write_text('{"event": "start", "why"\n[1]\n{"event": "proven", "why": "x", "at": 1}\n')
    starts = Starts(path, clock=lambda: 5.0)
    assert [each["event"] for each in starts.events] == ["proven"]
    for __ in range(KEPT + 5):
        starts.note("start", "again")
    assert len(path.read_text().splitlines()) == KEPT
    last = json.loads(path.read_text().splitlines()[-1])
    assert last == {"at": 5.0, "event": "start", "why": "again", "formations": 0, "restarts": KEPT + 5}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["starts.jsonl", "starts.prom"]
    Starts(tmp_path / "nowhere" / "x").note("start", "a disk that is gone ends no engine")


SIGNALS = """
import signal, sys
sys.path.insert(0, "collections")
from ansible_collections.lmfleet.lmdeploy.programs.supervise import Told
signal.signal(signal.SIGALRM, lambda *__: told.set())
for turn in range(400):
    told = Told()
    signal.setitimer(signal.ITIMER_REAL, (1 + turn % 60) / 1e6)
    while not told.wait(100):
        pass
    assert told.is_set()
"""


def test_signals_that_come_at_any_moment_are_heard_and_hold_up_nothing() -> None:
    """With threading.Event the first of them that came while it was waited for waited for itself."""
    done = subprocess.run([sys.executable, "-c", SIGNALS], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
