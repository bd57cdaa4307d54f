# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an engine makes progress: its counters are read, and only where they stand still it is asked for a token."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable

from ..plugins.module_utils._http import NoAnswer, exchange
from ..plugins.module_utils._observe.engines import EngineProbe, Patience, State, Verdict, read_metrics
from ..plugins.module_utils._observe.gpus import gpus_work
from .silence import Silence, processor_seconds

READ_S = 4.0  # from one look at the counters to the next
STILL_S = 10.0  # counters that stood still for so long: one token is asked for
UNPROVEN = Patience(20, 1800, 1800)  # until the first token: kernels compile, and other ranks may still load
LAST_ASKED_S = 60.0  # for any answer at all, of a server that has not even given its counters for long
WITHOUT_TOKEN_S = 5.0  # after which, and then again and again, it is asked whether the engine has lost what it needs


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
