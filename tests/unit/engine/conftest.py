# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the simulator lies: it is a program of the test engine's image, not of the collection."""

from __future__ import annotations

from pathlib import Path

ENGINE = Path(__file__).parents[3] / "molecule" / "sandbox" / "engine"
