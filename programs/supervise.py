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
  GPUs that nobody has, Ray's head is ended, and Docker forms the cluster again. It is dead too when one of its workers, which are
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
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..plugins.module_utils._kept_logs import keep
from .listing import Listing, proxy_of
from .output import Output, say
from .ray_head import Ray
from .starts import Starts
from .watch import Watch

LOOK_S = 0.5
PAUSE_S = 10.0  # before the second start in a row that gave no token; doubled with each more
LONGEST_PAUSE_S = 300.0
MARK = (
    Path(tempfile.gettempdir()) / "lmfleet-was-started"
)  # in the container's own layer, which lives as long as it does
RANKS = "LMFLEET_RANKS"  # the directory where programs/rank.py tells of its engines, and reads how long to pause
GAVE_UP = 0
TERM_S = 15.0
LAST_WORDS_S = 1.0  # to read what an engine printed last


# ---- one start


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
        self._proxy = proxy_of(command)
        self._listing: Listing | None = None
        self._pids: dict[int, int] = {}
        self._proven = False
        environment = {**os.environ, **({RANKS: str(ranks)} if ranks else {})}
        reading, writing = os.pipe()
        self._child = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=writing, stderr=subprocess.STDOUT
        )
        os.close(writing)
        self.output = Output(reading)
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
        if self._proxy:
            watches = self._watches.values()
            self._listing = Listing(
                self._proxy,
                lambda: {each.url: each.model for each in watches if each.proven.is_set() and not each.dead},
            )
            self._listing.start()

    def _unwatch(self) -> None:
        for each in self._watches.values():
            each.end()
        if self._listing:
            self._listing.end()
        self._watches, self._listing = {}, None

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


class Told:
    """An event that a signal's handler may set.

    ``threading.Event`` has a lock that its own thread cannot take twice: a signal that comes while it waits, or a second one, would
    wait for itself for ever.
    """

    def __init__(self) -> None:
        self._set = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # A signal that comes just before ``select`` would be handled after it.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def set(self) -> None:
        """Have ``wait`` return, now and later."""
        self._set = True
        with contextlib.suppress(BlockingIOError):  # full of what was written before
            os.write(self._write, b".")

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def wait(self, timeout_s: float) -> bool:
        """Until it is set or a signal came, so many seconds at most; whether it is set."""
        if not self._set:
            select.select([self._read], [], [], timeout_s)
        return self._set


def supervise(ours: argparse.Namespace, told: Told, signals: list[int]) -> int:
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


def run(engine: Engine, bounds: Bounds, ranks: Path | None, told: Told, signals: Sequence[int]) -> str:
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
    told, signals = Told(), []

    def tell(signum: int, __: Any) -> None:
        signals.append(signum)
        told.set()

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, tell)
    return supervise(ours, told, signals)
