# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ray that an api_server needs: whether it is whole, whether the engine's workers live, and how it is formed again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plugins.module_utils._observe.ray import DEAD_ACTORS, PROGRAM, Members
from .output import say

if TYPE_CHECKING:
    from .supervise import Told

REFUSALS = 3  # a claim takes eight seconds to be refused
RAY_S = 60.0  # for one question to Ray
# Between two questions, each of which starts a Python with Ray: seconds of a core. A host may be away for days.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
WORKER = "RayWorkerWrapper"  # LMDeploy's actor, one for each GPU
RAY_ENDED_S = 90.0  # workers' raylets end when they have missed their head for so long


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

    def wait(self, told: Told) -> None:
        """Until Ray counts every node and gives the GPUs; returns early once ``told``. Forms it again where it keeps GPUs."""
        said, refusals, pause_s = "", 0, FIRST_PAUSE_S
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
                said, pause_s = state, FIRST_PAUSE_S
                say(f"waits for Ray: {state}")
            if refusals >= REFUSALS:
                refusals = 0
                self.form_again("it keeps GPUs that nobody has")
                told.wait(RAY_ENDED_S)
            told.wait(pause_s)
            pause_s = min(pause_s * 1.3, LONGEST_PAUSE_S)

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

    def form_again(self, why: str) -> None:
        """End Ray's head on this host: its container ends and is started again, and so are those of its workers."""
        port = self.address.rpartition(":")[2]
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError, ValueError):
                words = command.read_bytes().decode(errors="replace").split("\0")
                if words[0].endswith("gcs_server") and f"--gcs_server_port={port}" in words:
                    say(f"ends Ray's head, so that Docker forms the cluster again: {why}")
                    os.kill(int(command.parent.name), signal.SIGKILL)
