# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who this run is, whether another has ended (of real processes), and what a person is told."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible import constants

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._lock import LockFile, Run, told
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import lock as control
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import (
    HOST_PID_SPACE,
    Ended,
    duration,
    holder_is_gone,
    lost,
    me,
    outrun,
    refusal,
    started,
    started_by_ps,
    taken_over,
    wrong_break,
)

UTC = timezone.utc
FORK = multiprocessing.get_context("fork")  # as ansible-core does


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def lock_of(holder: Run, **other: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(holder), **other}


def held_by(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    return lock_of(me(), run="another", pid=process.pid, start=started(process.pid))


# --- this run


def test_this_run_is_this_process() -> None:
    this = me("deploy_tp16.yml")
    assert (this.pid, this.user, this.what) == (os.getpid(), pwd.getpwuid(os.getuid()).pw_name, "deploy_tp16.yml")
    assert this.start
    assert this.control
    assert me("deploy_tp16.yml") == this


def test_every_worker_is_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    answers: Any = FORK.SimpleQueue()

    def work() -> None:
        os.setsid()  # as the workers of ansible-core 2.19 do
        answers.put(me())

    workers = [FORK.Process(target=work) for __ in range(3)]
    for worker in workers:
        worker.start()
    assert [answers.get() for __ in workers] == [me()] * 3
    for worker in workers:
        worker.join()


def test_a_worker_whose_main_process_was_killed_does_not_take_another_for_it() -> None:
    go, told_to_go = os.pipe()
    child = f"""
import multiprocessing, os
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import Ended, main_pid, me
def work():
    print("ready", flush=True)
    os.read({go}, 1)
    try:
        me()
    except Ended as ended:
        print(main_pid(), "-", ended, flush=True)
multiprocessing.get_context("fork").Process(target=work).start()
input()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4] / "collections")}
    with subprocess.Popen(
        [sys.executable, "-c", child],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[go],
    ) as main:
        assert main.stdout is not None
        assert main.stdout.readline() == "ready\n"
        main.kill()
        main.wait()
        os.write(told_to_go, b"x")
        said = main.stdout.read()
    assert said == f"{main.pid} - this run has ended: its main process {main.pid} is gone\n"
    os.close(go)
    os.close(told_to_go)


def test_sudo_says_who_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    user = me().user
    assert me().who == user
    monkeypatch.setenv("SUDO_USER", "alice-of-the-tests")
    assert (me().who, me().user) == (f"alice-of-the-tests as {user}", user)


def test_runs_differ_even_where_nobody_tells_when_a_process_began(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(__: int) -> str:
        raise OSError

    monkeypatch.setattr(control, "started", unknown)
    first = me()
    assert first.start == ""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", "/tmp/another")
    assert me().run != first.run
    assert not holder_is_gone(dataclasses.asdict(first), first)


# --- the holder


def test_a_holder_that_lives_is_not_gone(holder: subprocess.Popen[bytes]) -> None:
    assert not holder_is_gone(held_by(holder), me())


def test_a_holder_that_is_stopped_is_not_gone(holder: subprocess.Popen[bytes]) -> None:
    lock = held_by(holder)
    holder.send_signal(signal.SIGSTOP)
    assert not holder_is_gone(lock, me())


def test_a_holder_that_was_killed_is_gone_before_its_parent_has_noticed(holder: subprocess.Popen[bytes]) -> None:
    lock = held_by(holder)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie from here on
    assert Path(f"/proc/{holder.pid}").exists()
    assert holder_is_gone(lock, me())
    holder.wait()
    assert not Path(f"/proc/{holder.pid}").exists()
    assert holder_is_gone(lock, me())


def test_another_process_of_that_number_is_not_the_holder(holder: subprocess.Popen[bytes]) -> None:
    assert holder_is_gone({**held_by(holder), "start": "1"}, me())


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"user": "somebody-else"},
        {"machine": "another machine"},
        {"pid_space": "pid:[1]"},  # another container
        {"control_boot": "another", "pid_space": "pid:[1]"},
    ],
)
def test_what_cannot_be_seen_from_here_is_not_gone(elsewhere: dict[str, str], holder: subprocess.Popen[bytes]) -> None:
    lock = held_by(holder)
    holder.kill()
    holder.wait()
    assert holder_is_gone(lock, me())
    assert not holder_is_gone({**lock, **elsewhere}, me())


def test_a_restart_of_the_control_node_ends_its_runs_unless_it_is_a_copy_or_a_container() -> None:
    this = dataclasses.replace(me(), machine="0" * 32, control_boot="second", pid_space=HOST_PID_SPACE)
    before = lock_of(this, control_boot="first")
    assert holder_is_gone(before, this)
    assert not holder_is_gone({**before, "control": "its copy"}, this)
    assert not holder_is_gone({**before, "pid_space": "pid:[1]"}, this)
    assert not holder_is_gone(before, dataclasses.replace(this, pid_space="pid:[1]"))
    nameless = dataclasses.replace(this, machine="")
    assert not holder_is_gone(lock_of(nameless, control_boot="first"), nameless)


def test_the_name_of_a_command_may_have_brackets_and_spaces(tmp_path: Path) -> None:
    odd = tmp_path / ") Z 1 (a"
    odd.symlink_to(sys.executable)
    with subprocess.Popen([odd, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert Path(f"/proc/{process.pid}/comm").read_text() == f"{odd.name}\n"
        assert str(started(process.pid)).isdigit()
        process.kill()


def test_ps_tells_it_where_there_is_no_proc(
    holder: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PROC", tmp_path)
    first = started(holder.pid)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert abs(parsed(started(holder.pid)) - parsed(first)) <= timedelta(seconds=1)  # Linux's ps computes it again
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert started(holder.pid) is None
    holder.wait()
    assert started(holder.pid) is None


def parsed(start: str | None) -> datetime:
    assert start is not None
    return datetime.strptime(start, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)


def test_without_ps_nobody_can_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control, "PROC", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="ps"):
        started_by_ps(os.getpid())
    assert me().start == ""


def test_an_image_without_an_id_is_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "machine-id"
    monkeypatch.setattr(control, "MACHINE_IDS", (file,))
    assert control.machine_id() == ""
    file.write_text("uninitialized\n", encoding="ascii")
    assert control.machine_id() == ""
    file.write_text("0123456789abcdef" * 2 + "\n", encoding="ascii")
    assert control.machine_id() == "0123456789abcdef" * 2


# --- what a person is told

ALICE = Run("4495c6f9", "alice", "alice", "laptop7", "m", "b", "p", 4711, "1", "deploy_tp16.yml")


def lock(tmp_path: Path, run: Run = ALICE) -> dict[str, Any]:
    content: dict[str, Any] = dict(told(LockFile(tmp_path / "lock.json").take(run, 900))["lock"])
    today = datetime.now(UTC).date()
    return {
        **content,
        "since": f"{today}T17:03:12+00:00",
        "taken_uptime": 1000.0,
        "seen_uptime": 1120.0,
        "expires_uptime": 2020.0,
    }


def test_a_refusal_says_who_from_where_since_when_and_what_to_do(tmp_path: Path) -> None:
    assert refusal(lock(tmp_path), 1124.0, "tp16", UTC) == (
        "The deployment tp16 is in use: deploy_tp16.yml, run by alice from laptop7 (process 4711 there), since 17:03:12 UTC"
        " (2 min ago; last sign of life 4 s ago).\n"
        "This run has changed nothing. Wait until the other one has ended, then run again.\n"
        "Was it killed? Without another sign of life it counts as dead in 14 min. If you know that it is dead, there is no"
        " need to wait: run again with -e converge_break_lock=4495c6f9"
    )
    assert refusal(lock(tmp_path), 1124.0).startswith("The deployment is in use: ")


def test_times_are_by_the_readers_clock_and_with_their_day_if_it_was_another(tmp_path: Path) -> None:
    east = timezone(timedelta(hours=9), "JST")
    said = refusal({**lock(tmp_path), "since": "2026-01-31T20:00:00+00:00"}, 1124.0, "tp16", east)
    assert "since 2026-02-01 05:00:00 JST (" in said
    assert "since some day (" in refusal({**lock(tmp_path), "since": "some day"}, 1124.0, "tp16", east)


def test_a_run_that_was_outrun_is_told_by_whom(tmp_path: Path) -> None:
    content = lock(tmp_path)
    released = {**content, "released": content["since"].replace("17:03", "17:05")}
    assert outrun(released, "tp16", UTC) == (
        "Another run was at the deployment tp16 after this one had looked at its hosts, and before this one got the lock:"
        " deploy_tp16.yml, run by alice from laptop7 (process 4711 there), since 17:03:12 UTC until 17:05:12 UTC.\n"
        "So what this run saw may be out of date. It has changed nothing: run it again."
    )
    assert "the lock file was removed" in outrun({}, "tp16", UTC)


def test_a_run_that_lost_the_lock_is_told_to_whom(tmp_path: Path) -> None:
    bob = dataclasses.replace(ALICE, run="b")
    said = lost(lock(tmp_path), bob, "tp16", UTC).splitlines()
    assert said[0].startswith(
        "This run no longer has the lock of the deployment tp16: it was taken over by deploy_tp16.yml, run by alice from"
        " laptop7 (process 4711 there), since 17:03:12 UTC. This run had given no sign of life"
    )
    assert said[1].startswith("It stops here, before its next change.")
    assert "its lock file is gone" in lost({}, bob)
    assert "this run has released it at " in lost({**lock(tmp_path), "released": "then"}, ALICE)


def test_a_takeover_and_a_wrong_break_name_the_run(tmp_path: Path) -> None:
    said = taken_over(lock(tmp_path), "its run was declared dead", UTC)
    assert "alice from laptop7" in said
    assert said.endswith("since 17:03:12 UTC; its run was declared dead")
    assert "converge_break_lock is x, but the lock is now that of 4495c6f9" in wrong_break(lock(tmp_path), "x")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h 0 min")],
)
def test_durations_are_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_that_has_ended_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "started", lambda __: None)
    with pytest.raises(Ended, match="is gone"):
        me()
