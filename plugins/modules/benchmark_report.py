# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_report
short_description: Make a report of a benchmark's results
version_added: 0.1.0
description:
  - Runs on the control node and touches no host. The plan that was measured, and the hardware, are those of this run
    (M(lmfleet.lmdeploy.plan), M(lmfleet.lmdeploy.look)).
  - Writes C(report.json), C(report.csv), C(report.md), C(report.html) and C(plots/*.png), with a verdict for each row beside the
    published figures.
options:
  folder:
    description: Where to write it.
    type: path
    required: true
  image_labels:
    description: The labels of the image.
    type: dict
    default: {}
  rows:
    description: The rows, as M(lmfleet.lmdeploy.benchmark_matrix) returns them. Those without a result are left out.
    type: list
    elements: dict
    required: true
  reference:
    description:
      - Published figures to compare with, a CSV file on the control node with the columns of another report's C(report.csv). Left
        out, those of LMDeploy's guide for DeepSeek-V3.
    type: path
  tolerance:
    description: Within this share of them a row counts as reproduced.
    type: float
    default: 0.05
  other_release:
    description: Compare with figures of another release of LMDeploy too.
    type: bool
    default: false
requirements:
  - matplotlib
attributes:
  check_mode:
    description: Makes the report of the results that are there, and does not write it.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Report
  lmfleet.lmdeploy.benchmark_report:
    folder: benchmark/lmdeploy
    rows: "{{ matrix.batches | map(attribute='rows') | flatten }}"
"""

RETURN = r"""
report:
  description: The report, as in C(report.json).
  type: dict
  returned: success
"""
