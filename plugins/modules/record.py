#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Write on a host what a round made
version_added: 0.1.0
description:
  - Keeps the plan, the one before it, and what the host's engine was formed of, in C(record.json) of the deployment's own
    directory. The next run's decision reads it.
author:
  - lmfleet contributors (@lmfleet)
options:
  round:
    description: The round, counted from 0.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: none
    description: What was done was shown by the steps.
"""

EXAMPLES = r"""
- name: Write down what was made
  lmfleet.lmdeploy.record:
"""

RETURN = r""" # """
