#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: teardown
short_description: Remove from one host what its deployment made there
version_added: 0.1.0
description:
  - Removes the deployment's containers, found by their labels, whether they are of the plan or not, and those of its jobs that an
    interrupted run has left. Then the directories of O(caches), if any.
  - A container of others is never touched. Run again, it changes nothing.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Says what would be removed.
  diff_mode:
    support: full
    description: Has a line for each thing that is removed.
options:
  act:
    description: V(check) refuses O(caches) that the deployment does not keep, and touches no host. V(remove) removes.
    type: str
    choices: [check, remove]
    required: true
  caches:
    description:
      - Directories on the hosts to remove too, each of them one that the plan has, typed in full. Kernel caches, Ray's sessions,
        results of benchmarks, former logs, the model.
      - A host on which a running container of others has one of them mounted is refused as a whole.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Remove the deployment, and its compiled kernels for Triton
  lmfleet.lmdeploy.teardown:
    act: remove
    caches: [/var/lib/lmfleet/lmdeploy/triton]
"""

RETURN = r"""
steps:
  description: What was removed, or would be in check mode.
  returned: with O(act=remove)
  type: list
  elements: str
"""
