#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Let the requests of an engine end before it is replaced
version_added: 0.1.0
description:
  - Of the engines that serve and that a round takes down. Has the proxy send them no new requests, then waits until they have none
    left, by LMDeploy's gauges C(num_requests_running) and C(num_requests_waiting), which are up to 10 s old.
  - Where nobody can count them, LMDeploy before 0.9.2 for example, it says so and waits for 30 s.
  - Runs on the proxy's host. Without a proxy nothing is done, since new requests would not end to come.
author:
  - lmfleet contributors (@lmfleet)
options:
  round:
    description: The round of the decision, counted from 0.
    type: int
    default: 0
  timeout:
    description: Seconds after which requests that still run end with their engine. With 0 nothing is waited for.
    type: float
    default: 300
  warmup:
    description: >-
      Instead, whether to keep new requests from what the round has started and is going to warm up, where other engines serve. The
      proxy's list is corrected after the warm-up.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Does nothing.
  diff_mode:
    support: none
    description: What becomes of the proxy's list is shown when it is corrected.
"""

EXAMPLES = r"""
- name: Let its requests end
  lmfleet.lmdeploy.drain:
    timeout: 60
"""

RETURN = r"""
seconds:
  description: How long it took.
  returned: when there was something to wait for
  type: float
msg:
  description: How it ended.
  returned: when there was something to wait for
  type: str
"""
