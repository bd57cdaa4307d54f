# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions that run a client in a container on the target host need, and how they behave in check mode."""

from __future__ import annotations


class ModuleDocFragment:
    """``extends_documentation_fragment: [lmfleet.lmdeploy.runs_client]``."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - Docker and the Docker SDK for Python >= 5.0.3 (python3-docker) on the host
attributes:
  check_mode:
    support: full
    description: Sends nothing then, and is skipped with a message.
  diff_mode:
    support: none
    description: There is nothing to compare.
"""
