# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files: the digests of those whose content a container was started with, and the JSON that this collection keeps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGITS = 12


def digest(path: str) -> str | None:
    """The first ``DIGITS`` of a file's sha256; None where it is missing or cannot be read."""
    total = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while True:
                piece = file.read(1 << 20)
                if not piece:
                    return total.hexdigest()[:DIGITS]
                total.update(piece)
    except OSError:
        return None


def text_of(path: Path) -> str | None:
    """What a small file of the kernel's says, without the spaces around it; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """The whole number that such a file has; None where it has none."""
    try:
        return int(text_of(path) or "")
    except ValueError:
        return None


def kept_json(path: str) -> Any:
    """What a JSON file holds; None where there is none, ``{"error": ...}`` where it cannot be read."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return {"error": f"{path} cannot be read: {error.strerror}."}
    except ValueError as error:
        return {"error": f"{path} is broken ({error}): remove it, or restore it."}
