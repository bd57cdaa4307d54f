#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: link_test
short_description: Measure all-reduce between the GPUs of a plan's hosts
version_added: 0.1.0
description:
  - Run it on every node of the plan in one task, after M(lmfleet.lmdeploy.decide). In each round it runs a container like the
    engine's on each host, with the engine's image and environment, and a program in it that does all-reduce with
    C(torch.distributed), over NCCL where torch has CUDA, else over Gloo. The containers are removed in any case.
  - First every host's own GPUs are measured, then every pair of hosts of an engine, pairs without a host in common at the same
    moment, then all of an engine together.
  - Fails, with hosts and what the ranks said, where a group does not come to an end or gives a wrong sum. A slow one is a warning.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.runs_client
options:
  min_bytes:
    description: The smallest all-reduce. How long it takes is the latency.
    type: int
    default: 8
  max_bytes:
    description: The largest all-reduce. V(0) is 256 MiB with NCCL, 4 MiB with Gloo.
    type: int
    default: 0
  factor:
    description: From one size to the next.
    type: int
    default: 4
  iterations:
    description: How many of each size are measured.
    type: int
    default: 20
  timeout:
    description: Seconds that a round may take in its containers. A group that takes longer is ended and named.
    type: float
    default: 120
  running:
    description: >-
      What to do where engines of the deployment run, which hold the GPUs' memory. V(refuse) fails, V(skip) measures other engines
      only, V(beside) measures beside them.
    type: str
    choices: [refuse, skip, beside]
    default: refuse
  slow:
    description: Below this share of the median a group is slow.
    type: float
    default: 0.7
  links_share:
    description: Below this share of what the hosts' links have a group is slow.
    type: float
    default: 0.5
  strict:
    description: Whether what is slow is a failure too.
    type: bool
    default: false
  folder:
    description: Where on the control node the result is written, a file a run.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Measure the links
  lmfleet.lmdeploy.link_test:
    folder: link_test/lmdeploy
"""

RETURN = r"""
file:
  description: The result, on the control node; on the first host of the plan, as the others.
  returned: where something was measured
  type: str
table:
  description: The figures in lines.
  returned: where something was measured, on success
  type: list
  elements: str
faults:
  description: What is broken, a sentence each.
  returned: where something was measured, on success
  type: list
  elements: str
warned:
  description: What is slow, or went over what it should not.
  returned: where something was measured, on success
  type: list
  elements: str
"""
