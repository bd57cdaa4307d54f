#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: wait
short_description: Wait until the services of a plan are ready, on all hosts at once
version_added: 0.1.0
description:
  - Run it on every node of the plan in one task. Shows what happens while it waits.
  - Ends on all hosts within seconds when one host fails. A container that exits, restarts in a loop, or logs a line after
    which it cannot come up any more is a failure at once, and the error shows the decisive lines of its log.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Skipped, since nothing was started.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  stage:
    description: >-
      V(ray) waits until Ray counts every node and GPU of the plan. V(api) waits until every rank of the hosts answers with
      the planned model, and the proxy, where there is one, lists exactly the planned ranks.
    type: str
    required: true
    choices: [ray, api]
  timeout:
    description: Seconds after which the wait has failed.
    type: int
    default: 3600
  no_progress_timeout:
    description: Seconds without a new log line and without data read on any host, after which the wait has failed.
    type: int
    default: 600
  allow_lost_start:
    description: >-
      Whether to end with RV(lost_start) instead of an error where an engine ended by chance at its start, as LMDeploy
      0.18 does on a busy host, and another start may do.
    type: bool
    default: false
  round:
    description: The round of the decision that is waited for, counted from 0.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Wait for the engine
  lmfleet.lmdeploy.wait:
    stage: api
"""

RETURN = r"""
seconds:
  description: How long it took.
  returned: success
  type: float
lost_start:
  description: >-
    The nodes whose service has to be started once more; the wait is over on all hosts then. Empty where all are ready.
    A node that lost its start is in its own list; another host may have seen fewer of them.
  returned: success
  type: list
  elements: str
msg:
  description: On failure, the node, the service, the decisive lines of its log, what they mean and what to do.
  returned: failure
  type: str
"""
