# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_compare
short_description: Compare two reports of a benchmark
version_added: 0.1.0
description:
  - Runs on the control node and touches no host.
  - Compares rows of the same settings, and fails where throughput, TTFT, TPOT or the share of failed requests became worse beyond
    noise. It also names what else differs between the two.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  before:
    description: The earlier report, its C(report.json) or the folder that has it.
    type: path
    required: true
  after:
    description: The later one.
    type: path
    required: true
  tolerance:
    description: The least relative change that counts, however quiet the rows are.
    type: float
    default: 0.03
"""

EXAMPLES = r"""
- name: Has the new release become slower?
  lmfleet.lmdeploy.benchmark_compare:
    before: benchmark/0.17
    after: benchmark/0.18
"""

RETURN = r"""
comparison:
  description: All C(changes), the C(regressions) and C(improvements) as lines, rows that only one has, and what else C(differs).
  type: dict
  returned: when both reports could be read
"""
