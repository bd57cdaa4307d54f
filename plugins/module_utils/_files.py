# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written in one step. Standard library, Python 3.9: used on hosts, on the control node and in containers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

READABLE = 0o644
OWN = 0o600


def write(path: Path, content: bytes, mode: int) -> None:
    """Write the file so that who reads it finds the old content or the new one, whole. Raises OSError."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(handle, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink()
        raise
