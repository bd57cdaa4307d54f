# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python runs this file at the start of every process: the literal ``lmdeploy`` command and Ray's workers alike."""

from __future__ import annotations

import os

if os.environ.get("LMFLEET_SIM") == "1":
    from lmfleet_sim import activate

    activate()
