# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client lives as long as somebody asks after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.programs import watched
from ansible_collections.lmfleet.lmdeploy.programs.watched import ALONE, Asked

SLEEPS = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)"


def start(limit_s: float, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, watched.__file__, str(limit_s), "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_that_nobody_asks_after_is_ended_and_says_so() -> None:
    with start(0.1, SLEEPS) as run:
        out, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (ALONE, "nobody has asked after this client for 0 s, so it was ended\n")
    assert not Path(f"/proc/{out.strip()}").exists()


@pytest.mark.parametrize(("code", "ended"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_clients(code: str, ended: int) -> None:
    with start(600, code) as run:
        run.communicate(timeout=60)
    assert run.returncode == ended


def test_a_poll_is_a_sign_and_a_stop_ends_the_client() -> None:
    with start(600, SLEEPS) as run:
        assert run.stdout is not None
        client = int(run.stdout.readline())
        run.send_signal(signal.SIGURG)
        os.kill(run.pid, 0)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    assert not Path(f"/proc/{client}").exists()


def test_time_is_counted_from_the_last_sign() -> None:
    now = [10.0]
    asked = Asked(lambda: now[0])
    now[0] = 25.0
    assert asked.for_s() == 15.0
    asked.now(signal.SIGURG, None)
    now[0] = 27.5
    assert asked.for_s() == 2.5
