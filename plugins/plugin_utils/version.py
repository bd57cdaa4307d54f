# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version of a collection this is, installed or in a checkout."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def version_of(root: Path = ROOT) -> str:
    """The version of the collection at ``root``, by default this one; ``?`` where it does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((root / "MANIFEST.json").read_text("utf-8"))["collection_info"]["version"])
    with contextlib.suppress(OSError, yaml.YAMLError, KeyError, TypeError):
        return str(yaml.safe_load((root / "galaxy.yml").read_text("utf-8"))["version"])
    return "?"
