# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the hosts of one task meet, each of which Ansible runs in a process of its own: by files on the control node."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from ansible import constants

POLL_S = 0.05


class Board:
    """What the hosts of one task tell each other: one small file a host for each kind of word (alive, ready, failed, ...)."""

    def __init__(self, task: str, host: str) -> None:
        self._directory = Path(constants.DEFAULT_LOCAL_TMP) / f"lmfleet-board-{task}"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._host = host

    def post(self, kind: str, text: str) -> None:
        """Put this host's word up, in one step so that no reader sees half of it."""
        draft = self._directory / f".{kind}-{self._host}"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self._directory / f"{kind}@{self._host}")

    def read(self, kind: str) -> dict[str, str]:
        """Every host's word of one kind."""
        found = self._directory.glob(f"{kind}@*")
        return {path.name.partition("@")[2]: path.read_text(encoding="utf-8") for path in found}

    def meet(self, kind: str, hosts: Iterable[str], patience_s: float, every_s: float = POLL_S) -> list[str]:
        """Wait until every one of ``hosts`` has posted ``kind``, ``failed`` or ``left``. Those that have not after ``patience_s``.

        ``every_s`` is how many seconds pass between two looks.
        """
        wanted, deadline = set(hosts), time.monotonic() + patience_s
        while True:
            missing = wanted - self.read(kind).keys() - self.read("failed").keys() - self.read("left").keys()
            if not missing or time.monotonic() > deadline:
                return sorted(missing)
            time.sleep(every_s)
