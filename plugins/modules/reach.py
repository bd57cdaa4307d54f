#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: reach
short_description: See that the hosts of a plan reach each other on its ports
version_added: 0.1.0
description:
  - Run it on every node of the plan in one task. Every host listens for a moment on its planned ports, those that nothing holds,
    and on one of the kernel's choice, as NCCL and Gloo take theirs; then every host tries to connect to the others'. Then the
    listeners are gone.
  - A port that a service of the deployment holds is tried as it is. One that a running container has yet to take is left alone.
  - Fails with every closed link at once, each told once, with hosts, port, variable and what to do. A port that serving does
    without (Ray's agents and metrics) is a warning.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  all:
    description: Try every link of the plan. By default only those of the engines that the decision of this run starts, and none
      where it starts nothing.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: See that the hosts reach each other
  lmfleet.lmdeploy.reach:
    all: true
"""

RETURN = r"""
links:
  description: How many links were tried.
  returned: success
  type: int
closed:
  description: What is closed and serving does without, a sentence each; on the first host by name.
  returned: success
  type: list
  elements: str
msg:
  description: On failure, every closed link.
  returned: failure
  type: str
"""
