# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes of the modules that look and change nothing."""

from __future__ import annotations


class ModuleDocFragment:
    """``extends_documentation_fragment: [lmfleet.lmdeploy.reads_only]``."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Changes nothing, so check mode does the same.
  diff_mode:
    support: none
    description: Changes nothing, so there is nothing to compare.
"""
