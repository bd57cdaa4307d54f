# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of a deployment, in real files: who gets it, who does not, and what is left of it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import fcntl
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _lock
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._lock import (
    Lock,
    LockError,
    LockFile,
    NoLock,
    Now,
    Run,
    freed,
    parsed,
    told,
)

COLLECTIONS = Path(__file__).parents[4] / "collections"
ALICE = Run("run-a", "alice", "alice", "laptop7", "m7", "b7", "pid:[1]", 4711, "100", "deploy_tp16.yml")
BOB = Run("run-b", "bob", "bob", "laptop8", "m8", "b8", "pid:[1]", 4712, "200", "teardown.yml")
LEASE_S = 60.0


class Clock:
    """A host's time, moved by hand."""

    def __init__(self) -> None:
        self.boot = "boot-1"
        self.uptime = 1000.0
        self.wall = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)

    def __call__(self) -> Now:
        return Now(self.boot, self.uptime, self.wall)

    def go(self, seconds: float) -> None:
        self.uptime += seconds
        self.wall += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lmfleet" / "tp" / "lock.json"


@pytest.fixture
def file(path: Path, clock: Clock) -> LockFile:
    return LockFile(path, clock)


def on_disk(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def names(path: Path) -> set[str]:
    return {found.name for found in path.parent.iterdir()}


def test_the_file_says_who_from_where_since_when_and_until_when(file: LockFile, path: Path) -> None:
    assert file.take(ALICE, LEASE_S).held
    content = on_disk(path)
    assert {key: content[key] for key in dataclasses.asdict(ALICE)} == dataclasses.asdict(ALICE)
    assert (content["format"], content["released"], content["boot"]) == (1, "", "boot-1")
    assert (content["since"], content["expires"]) == ("2026-07-01T12:00:00+00:00", "2026-07-01T12:01:00+00:00")
    assert (content["taken_uptime"], content["seen_uptime"], content["expires_uptime"]) == (1000, 1000, 1060)
    assert names(path) == {"lock.json", "lock.json.flock"}  # no draft


def test_a_second_run_is_refused_with_the_holder_and_changes_nothing(file: LockFile, path: Path, clock: Clock) -> None:
    file.take(ALICE, LEASE_S)
    before = path.read_bytes()
    clock.go(LEASE_S - 0.001)
    refused = file.take(BOB, LEASE_S)
    assert (refused.held, refused.refused) == (False, "held")
    assert refused.lock is not None
    assert (refused.lock.who, refused.lock.control) == ("alice", "laptop7")
    assert path.read_bytes() == before


def test_a_released_lock_is_free_and_keeps_its_serial(file: LockFile) -> None:
    first = told(file.take(ALICE, LEASE_S))["serial"]
    released = file.release("run-a")
    assert told(released)["serial"] == first
    assert released.lock is not None
    assert released.lock.released
    taken = file.take(BOB, LEASE_S)
    assert taken.held
    assert taken.abandoned is None  # it was given back, so there is nothing to tell
    assert told(taken)["serial"] > first


def test_an_expired_lock_is_free_to_the_second(file: LockFile, clock: Clock) -> None:
    file.take(ALICE, LEASE_S)
    clock.go(LEASE_S)
    taken = file.take(BOB, LEASE_S)
    assert taken.held
    assert taken.abandoned is not None
    assert taken.abandoned.run == "run-a"
    assert taken.why == "its run gave no sign of life for 60 s"


def test_a_sign_of_life_extends_the_lease_and_not_the_beginning(file: LockFile, clock: Clock) -> None:
    taken = file.take(ALICE, LEASE_S)
    for __ in range(3):
        clock.go(LEASE_S - 1)
        assert file.keep("run-a", LEASE_S).held
    refused = file.take(BOB, LEASE_S)
    assert refused.refused == "held"
    assert refused.lock is not None
    assert taken.lock is not None
    assert refused.lock.since == taken.lock.since
    assert refused.lock.serial == taken.lock.serial
    assert refused.now.uptime - refused.lock.taken_uptime == 3 * (LEASE_S - 1)


def test_the_same_run_takes_it_again_as_a_sign_of_life(file: LockFile, clock: Clock) -> None:
    first = file.take(ALICE, LEASE_S, expected_serial=0)
    clock.go(10)
    again = file.take(ALICE, LEASE_S, expected_serial=0)  # what was expected of the first does not matter any more
    assert again.held
    assert told(again)["serial"] == told(first)["serial"]
    assert told(again)["lock"]["expires_uptime"] == 1070
    assert again.abandoned is None


@pytest.mark.parametrize("uptime", [5.0, 1001.0])
def test_a_restart_of_the_host_frees_it(uptime: float, file: LockFile, clock: Clock) -> None:
    file.take(ALICE, LEASE_S)
    clock.boot, clock.uptime = "boot-2", uptime
    taken = file.take(BOB, LEASE_S)
    assert taken.held
    assert taken.why == "the host was restarted since"
    assert file.keep("run-a", LEASE_S).refused == "lost"


def test_a_run_goes_on_after_a_restart_of_the_host_if_nobody_came_between(file: LockFile, clock: Clock) -> None:
    file.take(ALICE, LEASE_S)
    clock.boot, clock.uptime = "boot-2", 5.0
    assert file.keep("run-a", LEASE_S).held
    refused = file.take(BOB, LEASE_S)
    assert refused.refused == "held"
    assert told(refused)["lock"]["taken_uptime"] == 5.0  # no age that is out of this world


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_is_set_neither_frees_the_lock_nor_holds_it_for_ever(
    hours: int, file: LockFile, clock: Clock
) -> None:
    serial = told(file.take(ALICE, LEASE_S))["serial"]
    clock.wall += timedelta(hours=hours)
    clock.go(LEASE_S - 1)
    assert file.take(BOB, LEASE_S).refused == "held"
    clock.go(1)
    taken = file.take(BOB, LEASE_S)
    assert taken.held
    assert told(taken)["serial"] > serial


def test_an_uptime_that_went_back_is_another_boot(file: LockFile, clock: Clock) -> None:
    file.take(ALICE, LEASE_S)
    clock.uptime = 10.0  # the snapshot of a virtual machine
    assert file.take(BOB, LEASE_S).held


def test_only_the_run_that_is_declared_dead_is_taken_over(file: LockFile) -> None:
    file.take(ALICE, LEASE_S)
    assert file.take(BOB, LEASE_S, gone="run-x").refused == "held"
    taken = file.take(BOB, LEASE_S, gone="run-a")
    assert taken.held
    assert taken.abandoned is not None
    assert taken.abandoned.who == "alice"
    assert taken.why == "its run was declared dead"
    # It was not dead: it is stopped, and cannot come back in by what was said of the other.
    assert file.keep("run-a", LEASE_S).refused == "lost"
    assert file.take(ALICE, LEASE_S, gone="run-a").refused == "held"


def test_a_run_that_lost_it_is_told_even_after_the_other_has_released_it(file: LockFile, clock: Clock) -> None:
    file.take(ALICE, LEASE_S)
    clock.go(LEASE_S)
    file.take(BOB, LEASE_S)
    file.release("run-b")
    lost = file.keep("run-a", LEASE_S)
    assert (lost.held, lost.refused) == (False, "lost")
    assert lost.lock is not None
    assert lost.lock.who == "bob"


def test_what_is_not_held_is_not_kept(file: LockFile, path: Path) -> None:
    assert file.keep("run-a", LEASE_S).refused == "lost"
    assert file.release("run-a").refused == ""
    assert not path.parent.exists()  # a deployment that was removed does not come back by this
    file.take(ALICE, LEASE_S)
    file.release("run-a")
    assert file.keep("run-a", LEASE_S).refused == "lost"


def test_another_runs_lock_is_not_released(file: LockFile, path: Path) -> None:
    file.take(ALICE, LEASE_S)
    before = path.read_bytes()
    assert file.release("run-b").lock == file.seen("run-a").lock
    assert path.read_bytes() == before


def test_a_run_that_came_between_look_and_lock_is_noticed(file: LockFile) -> None:
    look = told(file.seen("run-a"))["serial"]
    assert look == 0
    file.take(BOB, LEASE_S)
    file.release("run-b")
    refused = file.take(ALICE, LEASE_S, expected_serial=look)
    assert (refused.held, refused.refused) == (False, "serial")
    assert refused.lock is not None
    assert refused.lock.who == "bob"
    assert file.take(ALICE, LEASE_S, expected_serial=told(refused)["serial"]).held


def test_a_run_that_was_there_during_the_look_is_noticed_after_it_has_ended(file: LockFile, clock: Clock) -> None:
    file.take(BOB, LEASE_S)
    look = told(file.seen("run-a"))
    assert (look["refused"], look["serial"]) == ("held", -1)
    assert told(file.seen("run-a", "run-b"))["refused"] == ""  # it is dead, so it changes nothing any more
    file.release("run-b")
    assert file.take(ALICE, LEASE_S, expected_serial=look["serial"]).refused == "serial"
    file.take(BOB, LEASE_S)
    clock.go(LEASE_S)
    look = told(file.seen("run-a"))
    assert file.take(ALICE, LEASE_S, expected_serial=look["serial"]).held


def test_a_run_that_came_between_is_noticed_even_if_it_removed_the_directory(
    file: LockFile, path: Path, clock: Clock
) -> None:
    file.take(BOB, LEASE_S)
    file.release("run-b")
    look = told(file.seen("run-a"))["serial"]
    path.unlink()
    clock.go(1)
    file.take(BOB, LEASE_S)
    file.release("run-b")
    assert file.take(ALICE, LEASE_S, expected_serial=look).refused == "serial"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"format": 1}', b'{"format": true}', b"\xff\xfe\x00", b"[" * 100_000],
)
def test_what_is_no_lock_is_no_obstacle_and_is_kept_aside(content: bytes, file: LockFile, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert file.seen("run-a").lock is None
    assert path.read_bytes() == content
    taken = file.take(ALICE, LEASE_S)
    assert taken.held
    assert taken.broken == f"{path}.broken"
    assert Path(taken.broken).read_bytes() == content
    path.write_bytes(b"again")
    again = file.take(BOB, LEASE_S)
    assert again.broken == f"{path}.broken-2"
    assert Path(taken.broken).read_bytes() == content
    assert Path(again.broken).read_bytes() == b"again"


def test_every_field_is_needed_and_of_its_type(file: LockFile, path: Path) -> None:
    file.take(ALICE, LEASE_S)
    content = on_disk(path)
    assert parsed(json.dumps(content)) == file.seen("run-a").lock
    for name in content:
        for wrong in ("null", "true", "[]"):
            with pytest.raises(NoLock, match=name):
                parsed(json.dumps({**content, name: json.loads(wrong)}))
        with pytest.raises(NoLock, match=name):
            parsed(json.dumps({key: value for key, value in content.items() if key != name}))


def test_a_lease_has_an_end(file: LockFile, path: Path) -> None:
    file.take(ALICE, LEASE_S)
    path.write_text(json.dumps({**on_disk(path), "expires_uptime": float("nan")}), encoding="utf-8")
    assert file.take(BOB, LEASE_S).broken


def test_the_lock_of_a_later_release_is_respected(file: LockFile, path: Path) -> None:
    file.take(ALICE, LEASE_S)
    path.write_text(json.dumps({**on_disk(path), "format": 2, "more": 1}), encoding="utf-8")
    before = path.read_bytes()
    for ask in (file.seen, file.release):
        with pytest.raises(LockError, match=r"lock\.json cannot be read: it has format 2"):
            ask("run-b")
    with pytest.raises(LockError, match="use the other release"):
        file.take(BOB, LEASE_S)
    assert path.read_bytes() == before
    assert names(path) == {"lock.json", "lock.json.flock"}


def test_check_mode_tells_and_changes_nothing(file: LockFile, path: Path) -> None:
    assert file.take(ALICE, LEASE_S, dry=True).held
    assert not path.parent.exists()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no lock")
    assert file.take(ALICE, LEASE_S, dry=True).held
    assert names(path) == {"lock.json"}
    path.unlink()
    file.take(ALICE, LEASE_S)
    before = path.read_bytes()
    assert file.take(BOB, LEASE_S, dry=True).refused == "held"
    assert file.take(BOB, LEASE_S, gone="run-a", dry=True).held
    assert file.keep("run-a", 2 * LEASE_S, dry=True).held
    file.release("run-a", dry=True)
    assert path.read_bytes() == before


def test_an_outcome_without_a_lock_can_be_told(file: LockFile) -> None:
    assert told(file.seen("run-a")) == {
        "held": False,
        "refused": "",
        "serial": 0,
        "lock": {},
        "abandoned": {},
        "why": "",
        "broken": "",
        "now": 1000.0,
    }


def test_of_many_threads_at_once_one_wins_every_time(path: Path) -> None:
    takers = 8
    for attempt in range(20):
        line = threading.Barrier(takers)

        def take(number: int, line: threading.Barrier = line, attempt: int = attempt) -> bool:
            run = dataclasses.replace(ALICE, run=f"{attempt}-{number}")
            line.wait()
            return LockFile(path).take(run, 3600).held

        with concurrent.futures.ThreadPoolExecutor(takers) as pool:
            won = list(pool.map(take, range(takers)))
        assert won.count(True) == 1
        assert on_disk(path)["run"] == f"{attempt}-{won.index(True)}"
        LockFile(path).release(f"{attempt}-{won.index(True)}")


TAKER = """
import dataclasses, sys
from functools import partial
from pathlib import Path
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._lock import LockFile, Run
path, run, lease_s = sys.argv[1:]
me = Run(run, "alice", "alice", "laptop7", "m7", "b7", "p", 1, "1", "deploy.yml")
print("ready", flush=True)
sys.stdin.readline()
print(LockFile(Path(path)).take(me, float(lease_s)).held, flush=True)
sys.stdin.readline()
"""


def taker(path: Path, run: str, lease_s: float = 3600) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKER, str(path), run, str(lease_s)],
        env={"PYTHONPATH": str(COLLECTIONS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_many_processes_at_once_one_wins(path: Path) -> None:
    takers = [taker(path, f"run-{number}") for number in range(6)]
    for process in takers:
        go(process)
    won = [answer(process) for process in takers]
    for process in takers:
        process.communicate()
    assert sorted(won) == [*["False"] * 5, "True"]
    assert on_disk(path)["run"] == f"run-{won.index('True')}"


def test_a_run_that_was_killed_holds_its_lease_and_no_longer(path: Path) -> None:
    holder = taker(path, "run-a", lease_s=1000)
    go(holder)
    assert answer(holder) == "True"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    later = Clock()
    real = Now.read()
    later.boot, later.uptime = real.boot, real.uptime
    assert LockFile(path, later).take(BOB, LEASE_S).refused == "held"  # nobody here knows that it is dead
    later.go(1000)
    assert LockFile(path, later).take(BOB, LEASE_S).held


HANGING = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("has it", flush=True)
sys.stdin.readline()
"""


def test_a_change_that_hangs_is_named_and_one_that_was_killed_is_no_obstacle(path: Path) -> None:
    path.parent.mkdir(parents=True)
    guard = f"{path}.flock"
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, guard], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as hanging:
        assert answer(hanging) == "has it"
        with pytest.raises(LockError, match=r"Find it with 'fuser -v .*lock\.json\.flock' on this host"):
            LockFile(path, patience_s=0).take(BOB, LEASE_S)
        assert not path.exists()
        hanging.kill()
        hanging.communicate()
    assert LockFile(path).take(BOB, LEASE_S).held


def test_a_guard_that_is_removed_meanwhile_does_not_let_two_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Path(f"{path}.flock")
    locked = _lock._locked
    removals: list[Callable[[], object]] = [guard.unlink, partial(guard.replace, f"{guard}.old")]

    def removed_first(descriptor: int) -> bool:
        if removals:
            removals.pop()()  # after it was opened: now it is another file than that of the name
        return locked(descriptor)

    def clock() -> Now:
        with guard.open("a", encoding="utf-8") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Now.read()

    monkeypatch.setattr(_lock, "_locked", removed_first)
    assert LockFile(path, clock).take(ALICE, LEASE_S).held
    assert not removals


def test_the_hosts_time_is_its_own() -> None:
    first, second = Now.read(), Now.read()
    assert first.boot == second.boot
    assert second.uptime >= first.uptime > 0
    assert first.wall.tzinfo is not None


def test_every_reason_why_a_lock_is_free_is_told(file: LockFile, clock: Clock) -> None:
    lock = file.take(ALICE, LEASE_S).lock
    assert isinstance(lock, Lock)
    now = clock()
    assert freed(lock, "run-b", now) == ""
    assert freed(dataclasses.replace(lock, released="x"), "run-b", now) == "it was released"
    assert freed(lock, "run-a", now) == "it is this run's own"
    assert freed(lock, "run-b", now, "run-a") == "its run was declared dead"
