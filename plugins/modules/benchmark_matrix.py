# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_matrix
short_description: Read a benchmark's matrix, and see what of it is measured already
version_added: 0.1.0
description:
  - Runs on the control node and touches no host. Comes after M(lmfleet.lmdeploy.decide), with whose plan it goes.
  - Checks the rows, and groups them by the max batch size that they need, each with what it changes in the plan, those of the
    deployment as it is first. The plan itself is not changed.
  - Fails with one message that lists every fault.
options:
  preset:
    description:
      - V(quick) is two rows of a minute or two each. V(guide_two_nodes) and V(guide_four_nodes) are the workloads of the
        tables in LMDeploy's guide for DeepSeek-V3.
    type: str
    default: quick
  client:
    description: The load generator, which may not be able to send every row.
    type: str
    choices: [aiperf, lmdeploy]
    default: aiperf
  rows:
    description: Rows in place of the preset's.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called, in file names too. Left out, it is made of the other keys.
        type: str
      input_len:
        description: The prompt's length in tokens, or the longest one.
        type: int
        required: true
      output_len:
        description: The answer's length in tokens, or the longest one.
        type: int
        required: true
      num_prompts:
        description: How many requests are sent.
        type: int
        required: true
      max_batch_size:
        description: The engine's, a number, or V(default) for its release's own. Left out, the engine stays as it is deployed.
        type: raw
      request_rate:
        description: Requests per second, by a Poisson process. Left out, all are sent at once.
        type: float
      concurrency:
        description: How many requests are in flight at most. Left out, there is no limit.
        type: int
      lengths:
        description: V(uniform) draws lengths from 1 to those given, as LMDeploy's guide does; V(fixed) takes just those.
        type: str
        choices: [uniform, fixed]
        default: uniform
      stream:
        description: Whether answers are streamed.
        type: bool
        default: true
      target:
        description: V(url) asks where clients ask, V(ranks) asks all ranks in turn, past the proxy.
        type: str
        choices: [url, ranks]
        default: url
  conditions:
    description: What else has to be the same for a row to count as measured already.
    type: dict
    default: {}
  folder:
    description: Where the results are, on the control node.
    type: path
    required: true
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Read one row
  lmfleet.lmdeploy.benchmark_matrix:
    rows:
      - {input_len: 2048, output_len: 1024, num_prompts: 10000, max_batch_size: 1024}
    folder: benchmark/lmdeploy
"""

RETURN = r"""
batches:
  description:
    - For each max batch size its C(changes), which are O(lmfleet.lmdeploy.decide#module:option_changes) and empty for the
      deployment as it is; the C(identity) of the plan with them; the C(max_batch_size) that this comes to (null if it is not
      known); and C(rows).
    - Each row has C(row), C(key), C(done), and the paths C(result) and C(records).
  type: list
  elements: dict
  returned: success
todo:
  description: How many rows are not measured yet.
  type: int
  returned: success
folder:
  description: The folder, as an absolute path.
  type: str
  returned: success
"""
