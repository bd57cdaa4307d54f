# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time: the lock of a deployment, a file on its head.

A run takes it, keeps it from step to step, and releases it. One that was killed cannot release it, so a lock is a lease: it
ends by itself when its run gives no sign of life. Time is the host's uptime, which nobody can set, and counts for one boot.
Every change is made under flock on a file beside it, and in one step, so that no reader sees half a lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

FORMAT = 1
UNSETTLED = -1  # no lock has this serial
PATIENCE_S = 60.0  # for another's change, which takes milliseconds
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}


class LockError(Exception):
    """The lock can be neither read nor changed."""


class NoLock(Exception):
    """The file holds something, but no lock."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of ansible-playbook; all that is known of it on its control node."""

    run: str  # the same in all its workers, and no other's
    user: str  # the account
    who: str  # for people
    control: str  # the control node's name
    machine: str  # its machine id, boot id and PID namespace, as far as it has them
    control_boot: str
    pid_space: str
    pid: int  # of the main process
    start: str  # when that process began: no other process has both
    what: str  # the playbook


@dataclasses.dataclass(frozen=True)
class Lock(Run):
    """The lock of a run, held or (``released``) the last that was."""

    format: int
    serial: int  # grows with every taking, and with the file lost as well
    since: str
    released: str  # when, or nothing
    boot: str  # the host's; the uptimes are of this boot
    taken_uptime: float
    seen_uptime: float  # the last sign of life
    expires_uptime: float
    expires: str  # the same by the calendar, for people


@dataclasses.dataclass(frozen=True)
class Now:
    """The host's time."""

    boot: str
    uptime: float
    wall: datetime

    @classmethod
    def read(cls) -> Now:
        """It, now."""
        boot = BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else ""
        uptime = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
        return cls(boot, uptime, datetime.now(timezone.utc))

    def iso(self, after_s: float = 0.0) -> str:
        """By the calendar, some seconds later."""
        return datetime.fromtimestamp(self.wall.timestamp() + after_s, timezone.utc).isoformat(timespec="seconds")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    held: bool  # by the run that asked
    refused: str  # "", or held (by another), serial (another was here meanwhile), lost (it is not this run's any more)
    lock: Lock | None  # as it is now
    abandoned: Lock | None  # another run's that was not released, and is taken over
    why: str  # why that could be taken
    broken: str  # where the unreadable content of the file lies now
    now: Now


def freed(lock: Lock, run: str, now: Now, gone: str = "") -> str:
    """Why ``run`` may take a lock that is there, or nothing when it may not."""
    if lock.released:
        return "it was released"
    if lock.run == run:
        return "it is this run's own"
    if lock.run == gone:
        return "its run was declared dead"
    if lock.boot != now.boot or now.uptime < lock.seen_uptime:
        return "the host was restarted since"
    if now.uptime >= lock.expires_uptime:
        return f"its run gave no sign of life for {now.uptime - lock.seen_uptime:.0f} s"
    return ""


def parsed(text: str) -> Lock:
    """The lock that a file holds; ``NoLock``, or ``LockError`` where a later release of the collection wrote it."""
    try:
        content = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise NoLock(f"no JSON: {error}") from None
    if not isinstance(content, dict):
        raise NoLock("no JSON object")
    written = content.get("format")
    if isinstance(written, int) and not isinstance(written, bool) and written != FORMAT:
        raise LockError(
            f"it has format {written}, this release of lmfleet.lmdeploy knows {FORMAT}: use the other release"
        )
    fields = {field.name: KINDS[str(field.type)] for field in dataclasses.fields(Lock)}
    wrong = [
        name
        for name, kinds in fields.items()
        if not isinstance(content.get(name), kinds) or isinstance(content[name], bool)
    ]
    if wrong:
        raise NoLock(f"missing or of another type: {', '.join(wrong)}")
    return Lock(**{name: content[name] for name in fields})


class LockFile:
    """The lock at ``path``. Methods raise ``LockError`` and ``OSError``; with ``dry`` they tell, and change nothing."""

    def __init__(self, path: Path, clock: Callable[[], Now] = Now.read, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._clock = clock
        self._patience_s = patience_s

    def seen(self, run: str, gone: str = "") -> Outcome:
        """The lock, unchanged, and whether it is in the way."""
        lock, now = self._lenient(), self._clock()
        held = lock is not None and not lock.released and lock.run == run
        return Outcome(held, "held" if lock and not freed(lock, run, now, gone) else "", lock, None, "", "", now)

    def take(
        self, me: Run, lease_s: float, *, gone: str = "", expected_serial: int | None = None, dry: bool = False
    ) -> Outcome:
        """Take it, or be refused. A run that has it already keeps it, with its serial."""
        with self._alone(dry):
            before, broken = self._read(dry)
            now = self._clock()
            why = freed(before, me.run, now, gone) if before else ""
            if before and not why:
                return Outcome(False, "held", before, None, "", broken, now)
            if before and before.run == me.run and not before.released:
                return self._kept(before, lease_s, now, broken, dry)
            serial = before.serial if before else 0
            if expected_serial is not None and serial != expected_serial:
                return Outcome(False, "serial", before, None, "", broken, now)
            lock = Lock(
                **dataclasses.asdict(me),
                format=FORMAT,
                serial=max(serial, int(now.wall.timestamp())) + 1,
                since=now.iso(),
                released="",
                boot=now.boot,
                taken_uptime=now.uptime,
                seen_uptime=now.uptime,
                expires_uptime=now.uptime + lease_s,
                expires=now.iso(lease_s),
            )
            self._write(lock, dry)
            abandoned = before if before and not before.released else None
            return Outcome(True, "", lock, abandoned, why if abandoned else "", broken, now)

    def keep(self, run: str, lease_s: float, *, dry: bool = False) -> Outcome:
        """A sign of life. Refused where another run took the lock meanwhile, be it that it has released it again."""
        dry = dry or not self._path.parent.exists()
        with self._alone(dry):
            before, broken = self._read(dry)
            now = self._clock()
            if not before or before.released or before.run != run:
                return Outcome(False, "lost", before, None, "", broken, now)
            return self._kept(before, lease_s, now, broken, dry)

    def release(self, run: str, *, dry: bool = False) -> Outcome:
        """Give it back; nothing is done to another's."""
        dry = dry or not self._path.parent.exists()
        with self._alone(dry):
            before, broken = self._read(dry)
            now = self._clock()
            if before and not before.released and before.run == run:
                before = dataclasses.replace(before, released=now.iso())
                self._write(before, dry)
            return Outcome(False, "", before, None, "", broken, now)

    def _kept(self, lock: Lock, lease_s: float, now: Now, broken: str, dry: bool) -> Outcome:
        since_taken = lock.taken_uptime if lock.boot == now.boot else now.uptime
        lock = dataclasses.replace(
            lock,
            boot=now.boot,
            taken_uptime=since_taken,
            seen_uptime=now.uptime,
            expires_uptime=now.uptime + lease_s,
            expires=now.iso(lease_s),
        )
        self._write(lock, dry)
        return Outcome(True, "", lock, None, "", broken, now)

    def _read(self, dry: bool) -> tuple[Lock | None, str]:
        """The lock, and where its content was put when it is none: such a file is no obstacle, and not lost either."""
        if dry:
            return self._lenient(), ""
        try:
            return self._strict(), ""
        except NoLock:
            aside = self._path.with_name(f"{self._path.name}.broken")
            number = 1
            while os.path.lexists(aside):
                number += 1
                aside = self._path.with_name(f"{self._path.name}.broken-{number}")
            self._path.rename(aside)
            return None, str(aside)

    def _lenient(self) -> Lock | None:
        try:
            return self._strict()
        except NoLock:
            return None

    def _strict(self) -> Lock | None:
        try:
            return parsed(self._path.read_bytes().decode("utf-8", "replace"))
        except FileNotFoundError:
            return None
        except LockError as error:
            raise LockError(f"{self._path} cannot be read: {error}") from None

    def _write(self, lock: Lock, dry: bool) -> None:
        if dry:
            return
        draft = self._path.with_name(f"{self._path.name}.draft")  # nobody else writes now
        with draft.open("w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(lock), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    @contextlib.contextmanager
    def _alone(self, dry: bool) -> Iterator[None]:
        """While nobody else changes the lock. The kernel ends this with the process, so it is never left behind."""
        if dry:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        guard = self._path.with_name(f"{self._path.name}.flock")
        deadline = time.monotonic() + self._patience_s
        while True:
            with guard.open("a", encoding="utf-8") as file:
                if _locked(file.fileno()) and _is(file.fileno(), guard):
                    yield
                    return
            if time.monotonic() > deadline:
                raise LockError(
                    f"another process has held {guard} for {self._patience_s:.0f} s, and milliseconds are normal: it hangs, or the "
                    f"disk does. Find it with 'fuser -v {guard}' on this host, and end it"
                )
            time.sleep(0.02)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of this name: somebody may have removed the directory."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def told(outcome: Outcome) -> Mapping[str, Any]:
    """The outcome as a module's result.

    Its serial is what a run may expect to find when it takes the lock; none while another run has it and may change things.
    """
    serial = outcome.lock.serial if outcome.lock else 0
    return {
        "held": outcome.held,
        "refused": outcome.refused,
        "serial": UNSETTLED if outcome.refused == "held" else serial,
        "lock": dataclasses.asdict(outcome.lock) if outcome.lock else {},
        "abandoned": dataclasses.asdict(outcome.abandoned) if outcome.abandoned else {},
        "why": outcome.why,
        "broken": outcome.broken,
        "now": outcome.now.uptime,
    }
