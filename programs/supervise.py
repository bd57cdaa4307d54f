# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps one engine, or one host's share of a DP group, running: the first process of its container.

    python3 /opt/lmfleet --starts FILE --endpoint 0=http://10.0.0.1:23333 --restarts 3
        [--ray 10.0.0.1:6379 --ray-node 10.0.0.1=8 --ray-node 10.0.0.2=8 --ray-claim 16] -- lmdeploy serve api_server ...

It runs the command, and asks its endpoints for progress: it reads the token counters, and only where they stand still it asks
for one token. What is dead by proof (``engines.py``, the judgement of M(observe)) is ended, for LMDeploy's server outlives its
engine. Then

- an api_server (``--ray``) is started again, once Ray counts every node of the plan and gives it the GPUs; where Ray keeps
  GPUs that nobody has, Ray's head is ended, and Docker forms the cluster anew. It is dead too when one of its workers, which are
  Ray's, has ended: nothing takes its place, and the others may wait for it with busy GPUs;
- ranks are started again by torchrun, with those of all other hosts; only the dead one is ended here.

It is bounded: after ``--restarts`` starts in a row that gave no token it gives up and ends with 0, which Docker leaves as it is.
A container's first start has no second: somebody is there to read what it says. Every start, and why, is kept in ``--starts``,
and beside it the end of what an engine printed that has ended.

Python 3.10 or later; nothing but the standard library, and the image's Ray in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from ..plugins.module_utils._http import NoAnswer, exchange
from ..plugins.module_utils._kept_logs import LAST_BYTES, keep
from ..plugins.module_utils._observe.engines import EngineProbe, Patience, State, Verdict, read_metrics
from ..plugins.module_utils._observe.gpus import gpus_work
from ..plugins.module_utils._observe.ray import DEAD_ACTORS, PROGRAM, Members
from .silence import Silence, processor_seconds
from .starts import Starts

LOOK_S = 0.5
READ_S = 4.0  # from one look at the counters to the next
STILL_S = 10.0  # counters that stood still for so long: one token is asked for
UNPROVEN = Patience(20, 1800, 1800)  # until the first token: kernels compile, and other ranks may still load
PAUSE_S = 10.0  # before the second start in a row that gave no token; doubled with each more
LONGEST_PAUSE_S = 300.0
REFUSALS = 3  # a claim takes eight seconds to be refused
RAY_S = 60.0  # for one question to Ray
LAST_ASKED_S = 60.0  # for any answer at all, of a server that has not even given its counters for long
WITHOUT_TOKEN_S = 5.0  # after which, and then again and again, Ray is asked whether its workers live
WORKER = "RayWorkerWrapper"  # LMDeploy's actor, one for each GPU
RAY_ENDED_S = 90.0  # workers' raylets end when they have missed their head for so long
MARK = (
    Path(tempfile.gettempdir()) / "lmfleet-was-started"
)  # in the container's own layer, which lives as long as it does
RANKS = "LMFLEET_RANKS"  # the directory where programs/rank.py tells of its engines, and reads how long to pause
GAVE_UP = 0
TERM_S = 15.0
LAST_WORDS_S = 1.0  # to read what an engine printed last


def say(text: str) -> None:
    """A line in the container's log."""
    print(f"lmfleet: {text}", flush=True)


# ---- progress


class Watch(threading.Thread):
    """Asks one endpoint for progress: ``proven`` once a token was seen, ``dead`` says why none will come.

    While requests are answered it reads the counters, and no more.
    """

    def __init__(
        self,
        url: str,
        lost: Callable[[], str] = lambda: "",
        still_s: float = STILL_S,
        read_s: float = READ_S,
    ) -> None:
        """``lost`` says what the engine has lost beyond repair; empty: nothing, or nobody knows."""
        super().__init__(daemon=True)
        self.url, self._lost = url, lost
        self.proven = threading.Event()
        self.dead: str = ""
        self.model = ""
        self._still_s, self._read_s = still_s, read_s
        self._silence = Silence()
        self._ended = threading.Event()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def run(self) -> None:
        """Until it is dead, or nobody wants to know any more."""
        tokens, moved = None, time.monotonic()
        while not self._ended.wait(self._read_s):
            self.model = self.model or self._serves()
            if not self.model:
                continue  # it loads; that it ends is seen by the one who waits for it
            counted = self._counted()
            self._silence.heard(gave=counted is not None)
            if counted is not None and tokens is not None and counted > tokens:
                self.proven.set()
                moved = time.monotonic()
            tokens = counted
            if time.monotonic() - moved < self._still_s:
                continue
            verdict = self._verdict()
            if self._ended.is_set():
                return
            if verdict.state is State.DEAD:
                self.dead = verdict.reason
                return
            if verdict.state is State.ALIVE:
                self.proven.set()
            elif why := self._hangs():
                self.dead = why
                return
            tokens, moved = self._counted(), time.monotonic()

    def _hangs(self) -> str:
        """Why the server itself is dead: one that hangs gives no counters either, so that the engine's judgement is unknown."""
        why = self._silence.told(Patience() if self.proven.is_set() else UNPROVEN)
        if why:
            with contextlib.suppress(NoAnswer):
                exchange(f"{self.url}/health", deadline_s=LAST_ASKED_S)
                return ""
        return why

    def _verdict(self) -> Verdict:
        """Ask for a token; one that does not come soon may never come."""
        probe = EngineProbe(
            self.url,
            self.model,
            patience=Patience() if self.proven.is_set() else UNPROVEN,
            cpu_s=processor_seconds,
            gpus_work=gpus_work,
        )
        said: list[Verdict] = []
        asker = threading.Thread(target=lambda: said.append(probe.run()), daemon=True)
        asker.start()
        asker.join(WITHOUT_TOKEN_S)
        while asker.is_alive():
            why = self._lost() if self.proven.is_set() else ""
            if why:
                return Verdict(State.DEAD, why)
            asker.join(WITHOUT_TOKEN_S)
        return said[0]

    def _serves(self) -> str:
        """The name of the model that it serves; empty while it does not answer."""
        with contextlib.suppress(NoAnswer, ValueError, KeyError, IndexError, TypeError, RecursionError):
            return str(json.loads(exchange(f"{self.url}/v1/models", deadline_s=5).body)["data"][0]["id"])
        return ""

    def _counted(self) -> float | None:
        with contextlib.suppress(NoAnswer):
            return read_metrics(exchange(f"{self.url}/metrics", deadline_s=5).text)[0]
        return None


# ---- Ray


@dataclasses.dataclass
class Ray:
    """The Ray that an api_server needs: ``nodes`` is address -> GPUs, ``claim`` how many it is given."""

    address: str
    nodes: Mapping[str, int]
    claim: int
    known: frozenset[str] = frozenset()  # workers that had ended when tokens came

    def settled(self) -> None:
        """Tokens have come: what has ended until now was no loss."""
        self.known = frozenset(self._dead_workers())

    def lost(self) -> str:
        """Which of the engine's workers have ended since; empty where none, or Ray does not say."""
        dead = {each: address for each, address in self._dead_workers().items() if each not in self.known}
        where = sorted({address for address in dead.values() if address})
        on = f" on {', '.join(where)}" if where else ""
        return f"{len(dead)} of its workers ended{on}, as Ray says" if dead else ""

    def _dead_workers(self) -> dict[str, str]:
        found = self._run(DEAD_ACTORS.format(address=self.address, name=WORKER))
        return {} if "error" in found else found

    def wait(self, told: threading.Event) -> None:
        """Until Ray counts every node and gives the GPUs; returns early once ``told``. Forms it anew where it keeps GPUs."""
        said, refusals = "", 0
        while not told.is_set():
            answer = self._ask()
            members = Members.of(answer, self.nodes)
            state = members.told(self.nodes)
            if members.whole and answer["given"]:
                if said:
                    say(f"{state}, and gives the engine its GPUs")
                return
            if members.whole and answer["given"] is False:
                refusals += 1
                state += f", and does not give {self.claim} of them to the engine"
            if state != said:
                said = state
                say(f"waits for Ray: {state}")
            if refusals >= REFUSALS:
                refusals = 0
                self.form_anew("it keeps GPUs that nobody has")
                told.wait(RAY_ENDED_S)
            told.wait(1)

    def _ask(self) -> dict[str, Any]:
        return self._run(PROGRAM.format(address=self.address, claim=self.claim, count_s=4))

    def _run(self, program: str) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, timeout=RAY_S, check=False
            )
            if done.returncode:
                return {"error": (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:300]}
            found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            return {"error": f"Ray at {self.address} did not answer within {RAY_S:g} s"}
        except (OSError, ValueError, IndexError) as error:
            return {"error": str(error)}
        return found

    def form_anew(self, why: str) -> None:
        """End Ray's head on this host: its container ends and is started again, and so are those of its workers."""
        port = self.address.rpartition(":")[2]
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError, ValueError):
                words = command.read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("gcs_server") and f"--gcs_server_port={port}" in words:
                    say(f"ends Ray's head, so that Docker forms the cluster anew: {why}")
                    os.kill(int(command.parent.name), signal.SIGKILL)


# ---- one start


class Output(threading.Thread):
    """Passes on what a command prints, byte by byte as it is, and has the end of it."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._source = source
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self.start()

    def run(self) -> None:
        """Until nobody can print any more."""
        while part := os.read(self._source.fileno(), 65536):
            with self._lock:
                self._parts.append(part)
                self._size += len(part)
                while self._size - len(self._parts[0]) > LAST_BYTES:
                    self._size -= len(self._parts.popleft())
            with contextlib.suppress(OSError):  # nobody reads the container's log: the engine serves on
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()

    def take(self) -> bytes:
        """What was printed since this was last asked, or the end of it."""
        with self._lock:
            log, self._size = b"".join(self._parts), 0
            self._parts.clear()
        return log


class Engine:
    """One run of the command, with its endpoints watched. ``ranks`` is where torchrun's ranks tell of themselves.

    Without it the command is the engine itself. With it, torchrun may start the ranks several times: each is one formation.
    """

    def __init__(
        self, command: Sequence[str], endpoints: Mapping[int, str], ranks: Path | None, ray: Ray | None = None
    ) -> None:
        self._endpoints, self._ranks, self._ray = endpoints, ranks, ray
        for told in ranks.glob("[0-9.]*") if ranks else ():  # by those of an earlier torchrun
            told.unlink()
        self._watches: dict[int, Watch] = {}
        self._pids: dict[int, int] = {}
        self._proven = False
        environment = {**os.environ, **({RANKS: str(ranks)} if ranks else {})}
        self._child = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.output = Output(cast("IO[bytes]", self._child.stdout))
        if ranks is None:
            self._watch()

    @property
    def pid(self) -> int:
        """The command's."""
        return self._child.pid

    def look(self) -> tuple[str, str] | None:
        """What has happened since the last look, one thing at a time, and why.

        ``start`` and ``end`` of the ranks, ``proven`` when each endpoint has given a token, ``over`` when the command has ended.
        """
        if self._ranks and (happened := self._look_at_ranks(self._ranks)):
            return happened
        if self._watches and not self._proven and all(each.proven.is_set() for each in self._watches.values()):
            self._proven = True
            if self._ray:
                self._ray.settled()
            return "proven", "every endpoint of this host has given a token"
        for rank, each in self._watches.items():
            if each.dead:
                why, each.dead = f"{each.url} is dead: {each.dead}", ""
                say(f"ends {f'rank {rank}' if self._ranks else 'the engine'}, for {why}")
                if not self._ranks:
                    self.kill()
                    return "over", why
                kill_session(self._pids[rank])
                self._unwatch()
                return "end", f"rank {rank}: {why}"
        code = self._child.poll()
        if code is None:
            return None
        how = f"ended with signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return "over", f"{'torchrun' if self._ranks else 'the api_server'} {how}"

    def _look_at_ranks(self, ranks: Path) -> tuple[str, str] | None:
        """A group's start is one of all of its ranks. The first rank that ended unasked is why all of them end."""
        told = self._told(ranks)
        pids = {rank: int(each["pid"]) for rank, each in told.items()}
        ended = [
            (bool(each["told"]), f"rank {rank} {each['ended']}") for rank, each in told.items() if each.get("ended")
        ]
        if self._watches and (ended or pids != self._pids):
            self._unwatch()
            for pid in self._pids.values():  # where the rank program itself was killed, its engine lives on
                if pid not in pids.values() or ended:
                    kill_session(pid)
            asked, why = min(ended, default=(False, "a rank's program is gone"))
            return "end", f"{why}, for another host of the group lost a rank" if asked else why
        if not self._watches and not ended and len(pids) == len(self._endpoints) and pids != self._pids:
            self._pids, self._proven = pids, False
            self._watch()
            return "start", ""
        return None

    def _told(self, ranks: Path) -> dict[int, dict[str, Any]]:
        told = {}
        for rank in self._endpoints:
            with contextlib.suppress(OSError, ValueError):
                told[rank] = json.loads((ranks / str(rank)).read_text(encoding="utf-8"))
        return told

    def _watch(self) -> None:
        lost = self._ray.lost if self._ray else lambda: ""
        self._watches = {rank: Watch(url, lost) for rank, url in self._endpoints.items()}
        for each in self._watches.values():
            each.start()

    def _unwatch(self) -> None:
        for each in self._watches.values():
            each.end()
        self._watches = {}

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """End it, and all that it has started; by force, where a milder signal has not done so in ``TERM_S`` seconds."""
        self._unwatch()
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self._child.send_signal(signum)
            self._child.wait(TERM_S)
        kill_session(self._child.pid)
        # A torchrun that was killed leaves its ranks' engines to what ends with their parent; their own children do not.
        for each in self._told(self._ranks).values() if self._ranks else ():
            kill_session(int(each["pid"]))
        self._child.wait()
        if os.getpid() == 1:  # all that is left in the container is the dead engine's, and may hold its GPUs
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)


def kill_session(pid: int) -> None:
    """Kill what leads a session, and all in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def reap(but: int) -> None:
    """Bury what has ended and is nobody else's child, as the first process of a container has to."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


# ---- how often


class Bounds:
    """Whether an engine is started again, and after how long."""

    def __init__(self, starts: Starts, restarts: int, *, new: bool) -> None:
        """``new``: the container has never been started before."""
        self._starts, self._restarts, self._new = starts, restarts, new
        self._why = "the container was made" if new else "the container was started again"
        self._running = False

    def took_place(self, event: str, why: str, log: Callable[[], bytes] = bytes) -> str:
        """Note what has happened; why it is given up, or empty. ``log`` gives what an engine printed that has ended."""
        if event == "start":
            self._starts.note("start", self._why, **({"new": True} if self._new else {}))
            self._new, self._running = False, True
        elif event in ("proven", "gave up"):
            self._starts.note(event, why)
        elif self._running or event == "over":
            # A torchrun that meets nobody ends again and again, and has nothing to say that would be worth the log of a crash.
            if self._running or not self._starts.has_ended:
                self._starts.note("end", why, **self._kept(log()))
            self._running = False
            self._why = why
            say(f"the engine is down: {why}")
            return self.enough()
        return ""

    def _kept(self, log: bytes) -> dict[str, str]:
        """The file that has the end of a log; nothing where none was printed, or the disk is full."""
        with contextlib.suppress(OSError):
            return {"log": keep(self._starts.path.parent, self._starts.path.stem, log)} if log else {}
        return {}

    def enough(self) -> str:
        """Why there is no further start, or empty."""
        count = self._starts.unproven
        if not self._starts.proven_here and count:
            return "its first start gave no token, so it is not tried again by itself"
        if count >= self._restarts:
            return f"{count} starts in a row gave no token"
        return ""

    @property
    def pause_s(self) -> float:
        """Before the next start."""
        count = 0 if self._new else self._starts.unproven
        return min(PAUSE_S * 2 ** (count - 1), LONGEST_PAUSE_S) if count else 0.0


# ---- the whole


def supervise(ours: argparse.Namespace, told: threading.Event, signals: list[int]) -> int:
    """Until it is told to end, or gives up; the exit status."""
    new = not ours.mark.exists()
    with contextlib.suppress(OSError):
        ours.mark.touch()
    bounds = Bounds(Starts(Path(ours.starts)), ours.restarts, new=new)
    why = bounds.enough() if not new else ""
    ray = Ray(ours.ray, dict(ours.ray_node), ours.ray_claim) if ours.ray else None
    with tempfile.TemporaryDirectory() as directory:
        ranks = None if ray else Path(directory)
        while not why and not told.is_set():
            told.wait(pause := bounds.pause_s)
            if ray and not told.is_set():
                ray.wait(told)
            if told.is_set():
                break
            if ranks is None:
                bounds.took_place("start", "")
            elif pause:
                say(f"started after a pause of {pause:g} s")
            why = run(Engine(ours.command, dict(ours.endpoint), ranks, ray), bounds, ranks, told, signals)
    if told.is_set():
        return 128 + signals[0]
    say(f"GAVE UP: {why}. It stays down until a deploy starts it.")
    bounds.took_place("gave up", why)
    return GAVE_UP


def run(engine: Engine, bounds: Bounds, ranks: Path | None, told: threading.Event, signals: Sequence[int]) -> str:
    """Until the command has ended; why it is given up, or empty: it is started again."""
    while not told.wait(LOOK_S):
        happened = engine.look()
        if happened is None:
            reap(engine.pid)
            continue
        if happened[0] == "over":
            engine.output.join(LAST_WORDS_S)
        why = bounds.took_place(*happened, engine.output.take)
        if ranks:
            (ranks / "pause").write_text(str(bounds.pause_s))
        if why:
            engine.kill(signal.SIGTERM)
            return why
        if happened[0] == "over":
            engine.kill()
            return ""
    engine.kill(signals[0])
    return ""


def _pair(text: str) -> tuple[str, str]:
    name, __, value = text.partition("=")
    return name, value


def _endpoint(text: str) -> tuple[int, str]:
    rank, url = _pair(text)
    return int(rank), url


def _node(text: str) -> tuple[str, int]:
    address, gpus = _pair(text)
    return address, int(gpus)


def main() -> int:
    """Run as the first process of a container."""
    parser = argparse.ArgumentParser(prog="supervise", description="Keeps an engine of LMDeploy running.")
    parser.add_argument("--starts", required=True, help="file that keeps when it was started, and why")
    parser.add_argument("--restarts", type=int, required=True, help="starts in a row that may give no token")
    parser.add_argument("--endpoint", type=_endpoint, action="append", required=True, metavar="RANK=URL")
    parser.add_argument("--ray", help="address of the Ray that the command needs")
    parser.add_argument("--ray-node", type=_node, action="append", default=[], metavar="ADDRESS=GPUS")
    parser.add_argument("--ray-claim", type=int, default=0, help="GPUs of one engine")
    parser.add_argument("--mark", type=Path, default=MARK, help="file that is there once the container was started")
    parser.add_argument("command", nargs="+", help="after --")
    ours = parser.parse_args()
    told, signals = threading.Event(), []

    def tell(signum: int, __: Any) -> None:
        signals.append(signum)
        told.set()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, tell)
    return supervise(ours, told, signals)
