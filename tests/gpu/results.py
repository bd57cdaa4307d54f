# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures, written out as they come, so that a run that is cut short has left them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class Results:
    """``results.json`` in ``folder``; a key's dots are levels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.values: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, value: Any) -> None:
        *levels, last = key.split(".")
        with self._lock:
            place = self.values
            for level in levels:
                place = place.setdefault(level, {})
            place[last] = value
            (self._folder / "results.json").write_text(json.dumps(self.values, indent=1), encoding="utf-8")

    def text(self, name: str, content: str) -> None:
        (self._folder / name).write_text(content, encoding="utf-8")
