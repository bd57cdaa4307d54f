# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read out of Docker's words: pure functions. test_look.py asks over a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import containers
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import (
    asked_of,
    before_up,
    cgroup_cpu_seconds,
    fixed,
    new_lines,
    up_after,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import logs
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import container


def test_what_was_asked_for_is_read_from_an_inspection() -> None:
    attrs: dict[str, Any] = {
        **container("x"),
        "Config": {"Cmd": ["serve", "--tp", "16"], "Env": ["A=1", "B=x=y", "PATH=/bin", "C="], "Labels": None},
        "HostConfig": {
            "NetworkMode": "host",
            "IpcMode": "host",
            "PidMode": "",
            "Privileged": False,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}],
            "CapAdd": ["CAP_IPC_LOCK"],
            "Devices": [{"PathOnHost": "/dev/infiniband", "PathInContainer": "/dev/infiniband"}],
        },
        "Mounts": [
            {"Source": "/z", "Destination": "/b", "RW": False},
            {"Source": "/data", "Destination": "/a", "RW": True},
        ],
    }
    assert asked_of(attrs, ["PATH=/bin", "A=2"]) == {
        "command": ["serve", "--tp", "16"],
        "environment": {"A": "1", "B": "x=y", "C": ""},
        "mounts": [["/data", "/a", False], ["/z", "/b", True]],
        "network_mode": "host",
        "ipc_mode": "host",
        "pid_mode": "",
        "privileged": False,
        "restart_policy": "on-failure:3",
        "gpus": True,
        "rdma": True,
    }


@pytest.mark.parametrize(
    "host",
    [{}, {"CapAdd": None, "Devices": None, "DeviceRequests": None, "RestartPolicy": None}, {"CapAdd": ["IPC_LOCK"]}],
)
def test_what_was_not_asked_for_is_false(host: dict[str, Any]) -> None:
    asked = asked_of({**container("x"), "HostConfig": host, "Mounts": None})
    assert (asked["gpus"], asked["rdma"], asked["privileged"], asked["restart_policy"]) == (False, False, False, "no")


# ---- log lines


def stamp(moment: int) -> str:
    """A time stamp as Docker writes it: always nine digits, so that it sorts as text."""
    return f"2026-11-24T22:25:{moment // 10**9:02d}.{moment % 10**9:09d}Z"


def test_a_stamp_gets_all_nine_digits() -> None:
    assert fixed("2026-11-24T22:25:01.5Z") == "2026-11-24T22:25:01.500000000Z"
    assert fixed("2026-11-24T22:25:01Z") == "2026-11-24T22:25:01.000000000Z"


def test_the_word_for_up_is_the_last_phase_of_a_start() -> None:
    phase = logs.phase_of(f"INFO:     {containers.UP}.")
    assert phase is not None
    assert phase.order == logs.UP


def test_only_the_lines_of_a_start_are_about_the_start() -> None:
    up = "INFO:     Application startup complete."
    assert before_up(["a", up, 'prompt: "address already in use"']) == ["a", up]
    assert before_up(["a", "b"]) == ["a", "b"]
    ranks = [
        "[rank 0] loads", f"[rank 0] {up}", "[rank 0] a prompt: CUDA out of memory", "[rank 1] loads",
        "[rank 1] torch.OutOfMemoryError", "torchrun ends",
    ]  # fmt: skip
    assert before_up(ranks) == [ranks[0], ranks[1], *ranks[3:]]


def test_lines_after_the_cursor_are_new() -> None:
    raw = "".join(f"{stamp(moment)} line {moment}\n" for moment in (1, 2, 3))
    assert new_lines(raw, "") == (["line 1", "line 2", "line 3"], stamp(3))
    assert new_lines(raw, stamp(2)) == (["line 3"], stamp(3))
    assert new_lines(raw, stamp(3)) == ([], stamp(3))
    assert new_lines("", stamp(3)) == ([], stamp(3))


def test_a_container_is_up_when_the_last_of_its_servers_is() -> None:
    second, up = 10**9, "INFO:     Application startup complete."
    earlier_run, loading, first, last = (f"{stamp(n * second)} {line}\n" for n, line in enumerate((up, "...", up, up)))
    assert up_after(earlier_run + loading, stamp(second // 2)) is None
    assert up_after(earlier_run + loading + first + last, stamp(second // 2)) == 2.5


def run_of(*moments: int, started: int) -> list[str]:
    raw = "".join(f"{stamp(moment * 10**9)} {place}\n" for place, moment in enumerate(moments))
    return new_lines(raw, "", stamp(started * 10**9))[0]


def test_a_clock_that_is_set_back_loses_no_lines() -> None:
    """Row 70: what is new is told by its place, for stamps go back with the clock."""
    assert run_of(10, 11, 30, 31, started=30) == ["2", "3"]
    assert run_of(10, 11, 30, 31, 5, 6, started=30) == ["2", "3", "4", "5"], "in this run, to before its start"
    assert run_of(10, 11, 30, 40, 33, 34, started=30) == ["2", "3", "4", "5"], "in this run"
    assert run_of(50, 51, 20, 21, started=20) == ["2", "3"], "between two runs"
    assert run_of(10, 11, started=30) == [], "nothing was written yet"
    raw = "".join(f"{stamp(moment)} line {moment}\n" for moment in (5, 9, 2, 3))
    lines, cursor = new_lines(raw, stamp(9))
    assert (lines, cursor) == (["line 2", "line 3"], stamp(3))
    assert new_lines(raw + f"{stamp(1)} line 1\n", cursor)[0] == ["line 1"]
    assert up_after(f"{stamp(30 * 10**9)} x\n{stamp(5 * 10**9)} INFO:     {containers.UP}.\n", stamp(29 * 10**9)) == 0.0


def test_lines_of_one_moment_are_each_seen_once_and_streams_come_interleaved() -> None:
    raw = "".join(f"{stamp(7)} {text}\n" for text in "abcd")
    lines, cursor = new_lines(raw[: len(raw) // 2], "")
    assert lines == ["a", "b"]
    assert new_lines(raw, cursor)[0] == ["c", "d"]
    interleaved = f"{stamp(3_000_000)} out\n{stamp(2_000_000)} err\n"
    assert new_lines(interleaved, "", stamp(1_000_000))[0] == ["out", "err"]


def test_a_log_that_has_grown_by_more_than_is_read_at_once_is_all_new() -> None:
    raw = "".join(f"{stamp(moment)} {moment}\n" for moment in (8, 9))
    assert new_lines(raw, stamp(1))[0] == ["8", "9"]


def test_a_progress_bar_is_its_last_state_and_a_line_may_be_empty() -> None:
    raw = f"{stamp(1)} 10%\r 50%\r 90%\r\n{stamp(2)} \n{stamp(3)} a b  c\n"
    assert new_lines(raw, "")[0] == [" 90%", "", "a b  c"]


words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


@given(
    log=st.lists(st.tuples(st.integers(1, 59 * 10**9), words), max_size=20, unique_by=lambda entry: entry[0]).map(
        sorted
    ),
    looks=st.lists(st.integers(0, 20)).map(sorted),
)
def test_looking_many_times_at_a_growing_log_gives_each_line_once(log: list[tuple[int, str]], looks: list[int]) -> None:
    raw = [f"{stamp(moment)} {text}\n" for moment, text in log]
    seen: list[str] = []
    cursor = ""
    for length in [*looks, len(log)]:
        lines, cursor = new_lines("".join(raw[:length]), cursor)
        seen += lines
    assert seen == [text for __, text in log]


# ---- processor time


def test_processor_time_is_read_from_either_version_of_control_groups(tmp_path: Path) -> None:
    (tmp_path / "system.slice" / "docker-1.scope").mkdir(parents=True)
    (tmp_path / "system.slice" / "docker-1.scope" / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert cgroup_cpu_seconds("0::/system.slice/docker-1.scope\n", tmp_path) == 2.5
    (tmp_path / "cpuacct" / "docker" / "1").mkdir(parents=True)
    (tmp_path / "cpuacct" / "docker" / "1" / "cpuacct.usage").write_text("1500000000\n")
    assert cgroup_cpu_seconds("9:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/\n", tmp_path) == 1.5
    with pytest.raises(ValueError, match="no control group"):
        cgroup_cpu_seconds("9:memory:/docker/1\n", tmp_path)
    with pytest.raises(OSError, match="No such file"):
        cgroup_cpu_seconds("0::/gone\n", tmp_path)
