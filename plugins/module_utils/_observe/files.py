# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files: the digests of those whose content a container was started with, and the JSON that this collection keeps."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

DIGITS = 12
LINES_BYTES = 64 << 10
MOST_LINES = 200


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


def kept_lines(path: str) -> list[Any]:
    """What the last lines of a file of JSON hold; what is none is left out, and so is a file that cannot be read."""
    found = []
    with contextlib.suppress(OSError), Path(path).open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - LINES_BYTES))
        for line in stream.read(LINES_BYTES).decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    found.append(event)
    return found[-MOST_LINES:]
