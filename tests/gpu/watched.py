# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cost of being watched: the scenario ``watch``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gpu.deployment import ROOT, Deployment
from gpu.load import Prompts, Size, decode

if TYPE_CHECKING:
    from gpu.scenarios import Run

BUSY = Size(128, 32)  # streams at once, each of
BUSY_TOKENS = 1024  # tokens: some looks of the watch long
TURNS = 4
WATCHER = """
import sys
from ansible_collections.lmfleet.lmdeploy.programs.watch import Watch
Watch(sys.argv[1]).run()
sys.exit("the watch found it dead")
"""


def watch(run: Run) -> None:
    """Tokens a second and time per token of a busy engine, with the supervisor's watch and without it, turn by turn.

    The engine is started unsupervised, and the watch is the supervisor's own, in a process of its own as in a container.
    """
    ports = {"api": 23633, "torch": 29900}
    plan = run.machine.plan("one", plan_name="watch", plan_ports=ports, plan_restarts=0)
    at = Deployment(run.machine, plan, only=["api"], gpu=0)  # with tp 1 it uses no Ray
    with run.step("watch", 150) as go:
        if go:
            run.up("watch", at, 240, "api")
            prompts = Prompts(at.tokenizer(), [BUSY], times=2 * TURNS + 1)
            asyncio.run(decode(at.url, at.model, prompts.take(BUSY), BUSY_TOKENS))  # which pays for compiling
            turns: dict[str, list[dict[str, float]]] = {"alone": [], "watched": []}
            for number in range(2 * TURNS):
                cost: dict[str, float] = {}
                kind = "watched" if number % 4 in (1, 2) else "alone"  # so that a drift is none of either
                with watched(at, cost) if kind == "watched" else contextlib.nullcontext():
                    found = asyncio.run(decode(at.url, at.model, prompts.take(BUSY), BUSY_TOKENS))
                turns[kind].append({**found, **cost})
                run.results.put("watch.turns", turns)
            for figure in ("tok_s", "tpot_ms"):
                alone, seen = (statistics.median(each[figure] for each in turns[kind]) for kind in ("alone", "watched"))
                told = {"alone": alone, "watched": seen, "change_percent": round(100 * (seen / alone - 1), 2)}
                run.results.put(f"watch.{figure}", told)
    at.stop()


@contextlib.contextmanager
def watched(at: Deployment, cost: dict[str, float]) -> Iterator[None]:
    """The watch beside what is done; its processor time in seconds is in ``cost`` once that is over."""
    path = os.pathsep.join([str(ROOT / "collections"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", WATCHER, at.url], env={**os.environ, "PYTHONPATH": path})
    try:
        yield
        assert process.poll() is None, "the watch has ended: it took a busy engine for a dead one"
    finally:
        if process.poll() is None:
            process.kill()
            __, __, used = os.wait4(process.pid, 0)
            process.returncode = -signal.SIGKILL  # so that nobody waits for it again
            cost["watch_cpu_s"] = round(used.ru_utime + used.ru_stime, 2)
