# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real programs for tests: this machine's, or the distribution's, which scripts/lib/packages.sh fetches."""

from __future__ import annotations

import functools
import subprocess

from .plans import ROOT


@functools.cache
def program(name: str) -> str:
    """The path of one of them."""
    script = f"source {ROOT.resolve()}/scripts/lib/packages.sh && ensure_packages && command -v {name}"
    return subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.strip()
