# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time, on the control node: who this run is, whether another has ended, and what to tell a person."""

from __future__ import annotations

import multiprocessing
import os
import platform
import pwd
import subprocess
import uuid
from collections.abc import Mapping
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from ansible import constants

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._lock import BOOT_ID, Run

PROC = Path("/proc")
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
HOST_PID_SPACE = "pid:[4026531836]"  # Linux's first PID namespace has this number on every machine
BREAK_VARIABLE = "converge_break_lock"


class Ended(Exception):
    """The main process of this run has been killed, and only a worker is left of it."""


def me(what: str = "") -> Run:
    """This run of ansible-playbook: the same in the main process and in all its workers."""
    pid = main_pid()
    try:
        start = started(pid)
    except OSError:
        start = ""
    if start is None:
        raise Ended(f"this run has ended: its main process {pid} is gone")
    machine, boot, space = machine_id(), boot_id(), pid_space()
    # Where nothing tells when the process began, the name of its temporary directory still tells runs apart.
    parts = [platform.node(), machine, boot, space, str(pid), start, Path(constants.DEFAULT_LOCAL_TMP).name]
    user = account()
    by = os.environ.get("SUDO_USER", "")
    return Run(
        run=str(uuid.uuid5(uuid.NAMESPACE_OID, "\n".join(parts))),
        user=user,
        who=f"{by} as {user}" if by and by != user else user,
        control=platform.node() or "an unnamed control node",
        machine=machine,
        control_boot=boot,
        pid_space=space,
        pid=pid,
        start=start,
        what=what or "a playbook",
    )


def main_pid() -> int:
    """The main process's. Workers are forked by multiprocessing, which notes their parent: it stays when that is killed."""
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def account() -> str:
    """The account that runs this, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def machine_id() -> str:
    """The machine's id; nothing where it has none."""
    for path in MACHINE_IDS:
        found = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if len(found) == 32:  # not "uninitialized", as in an image
            return found
    if PROC.joinpath("self", "stat").exists():
        return ""  # a container: its boot id and PID namespace say more than the address of its interface
    node = uuid.getnode()
    return "" if node >> 40 & 1 else f"{node:012x}"  # that bit: made up, as there is no interface


def boot_id() -> str:
    """The boot id; nothing where there is none."""
    return BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else ""


def pid_space() -> str:
    """The PID namespace: containers of one machine have the same numbers for other processes."""
    try:
        return str(PROC.joinpath("self", "ns", "pid").readlink())
    except OSError:
        return ""


def started(pid: int) -> str | None:
    """When the process began, by a clock that cannot be set where there is one; None if there is no such process.

    One that was killed and whose parent has not noticed yet is none. ``OSError`` where nobody can tell.
    """
    if not PROC.joinpath("self", "stat").exists():
        return started_by_ps(pid)
    try:
        text = PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the command's name may have spaces and brackets
    return None if fields[0] in "ZX" else fields[19]


def started_by_ps(pid: int) -> str | None:
    """The same where there is no /proc, as on macOS."""
    argv = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    state, __, start = done.stdout.strip().partition(" ")
    if done.returncode and (state or done.stderr.strip()):
        raise OSError(f"ps: {done.stderr.strip()}")
    return None if not state or state.startswith("Z") else " ".join(start.split())


def holder_is_gone(lock: Mapping[str, Any], this: Run) -> bool:
    """Whether it is certain, here, that the lock's run has ended: its process was one of this user on this machine."""
    if lock["user"] != this.user or lock["machine"] != this.machine:
        return False
    if (lock["control_boot"], lock["pid_space"]) == (this.control_boot, this.pid_space):
        if not lock["start"] or not (this.machine or this.control_boot):
            return False
        try:
            return started(int(lock["pid"])) != str(lock["start"])
        except OSError:
            return False
    # This machine was restarted since. A container may share its id with others, and a copied machine too, but not its name.
    spaces = {lock["pid_space"], this.pid_space}
    restarted = spaces == {HOST_PID_SPACE} and lock["control_boot"] != this.control_boot
    return bool(restarted and this.machine and lock["control"] == this.control)


def is_held(lock: Mapping[str, Any] | None, boot_id: object, uptime: float) -> bool:
    """Whether a run has the lock of a host, whose boot and uptime are these: its lease has not ended."""
    if not isinstance(lock, Mapping) or lock.get("released", "no lock"):
        return False
    return bool(lock.get("boot") == boot_id and uptime < lock.get("expires_uptime", 0.0))


def refusal(lock: Mapping[str, Any], now: float, deployment: str = "", zone: tzinfo | None = None) -> str:
    """Why the run cannot begin, for a person; ``now`` is the host's uptime, as the module gives it."""
    left = lock["expires_uptime"] - now
    return (
        f"{_named(deployment)} is in use: {_run(lock)}, since {_clock(lock['since'], zone)}"
        f" ({duration(now - lock['taken_uptime'])} ago; last sign of life {duration(now - lock['seen_uptime'])} ago).\n"
        "This run has changed nothing. Wait until the other one has ended, then run again.\n"
        f"Was it killed? Without another sign of life it counts as dead in {duration(left)}. If you know that it is dead,"
        f" there is no need to wait: run again with -e {BREAK_VARIABLE}={lock['run']}"
    )


def wrong_break(lock: Mapping[str, Any], given: str) -> str:
    """What to add where another lock was to be broken than the one that is there."""
    return (
        f"{BREAK_VARIABLE} is {given}, but the lock is now that of {lock['run']}, another run: it was not broken."
        " See who that is, and give its name, or wait."
    )


def outrun(lock: Mapping[str, Any], deployment: str = "", zone: tzinfo | None = None) -> str:
    """Why a run that has looked at the hosts cannot go on: another has been there before it got the lock."""
    other = f"{_run(lock)}, {_period(lock, zone)}" if lock else "the lock file was removed"
    return (
        f"Another run was at {_named(deployment, inside=True)} after this one had looked at its hosts, and before this"
        f" one got the lock: {other}.\nSo what this run saw may be out of date. It has changed nothing: run it again."
    )


def lost(lock: Mapping[str, Any], this: Run, deployment: str = "", zone: tzinfo | None = None) -> str:
    """Why a run that had the lock must stop."""
    name = _named(deployment, inside=True)
    if not lock:
        why = "its lock file is gone"
    elif lock["run"] == this.run:
        why = f"this run has released it at {_clock(lock['released'], zone)}"
    else:
        why = (
            f"it was taken over by {_run(lock)}, {_period(lock, zone)}. This run had given no sign of life for its whole"
            " lease, or was declared dead, or the host was restarted"
        )
    return (
        f"This run no longer has the lock of {name}: {why}.\n"
        "It stops here, before its next change. See what the other run has done, then run again."
    )


def taken_over(lock: Mapping[str, Any], why: str, zone: tzinfo | None = None) -> str:
    """A line about the run before, which ended without releasing the lock."""
    return f"taken over from a run that has not released it: {_run(lock)}, since {_clock(lock['since'], zone)}; {why}"


def duration(seconds: float) -> str:
    """Such as ``4 s``, ``2 min`` or ``3 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _named(deployment: str, inside: bool = False) -> str:
    the = "the" if inside else "The"
    return f"{the} deployment {deployment}" if deployment else f"{the} deployment"


def _run(lock: Mapping[str, Any]) -> str:
    return f"{lock['what']}, run by {lock['who']} from {lock['control']} (process {lock['pid']} there)"


def _period(lock: Mapping[str, Any], zone: tzinfo | None) -> str:
    until = f" until {_clock(lock['released'], zone)}" if lock["released"] else ""
    return f"since {_clock(lock['since'], zone)}{until}"


def _clock(iso: str, zone: tzinfo | None) -> str:
    """A time of the host by the reader's clock."""
    try:
        then = datetime.fromisoformat(iso).astimezone(zone)
    except ValueError:  # written by hand
        return iso
    today = datetime.now(zone).date()
    return then.strftime("%H:%M:%S %Z" if then.date() == today else "%Y-%m-%d %H:%M:%S %Z")
