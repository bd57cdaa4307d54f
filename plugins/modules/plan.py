#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Compute and check the plan of a deployment
version_added: 0.1.0
description:
  - Runs on the control node and touches no host.
  - Reads the C(plan_*) variables of every host of a group, checks them together, and computes every container, command line,
    environment, port and URL of the deployment from them.
  - Fails with one message that lists every fault and the variable to change.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  group:
    description: The inventory group whose hosts are the nodes.
    type: str
    required: true
  topology:
    description: The topology that the playbook deploys; another one in C(plan_topology) is a fault. Left out, any will do.
    type: str
    choices: [tp, dpep]
"""

EXAMPLES = r"""
- name: Compute the plan of the hosts in lmdeploy_nodes
  lmfleet.lmdeploy.plan:
    group: lmdeploy_nodes
"""

RETURN = r"""
plan:
  description: Nodes, engines, services, endpoints, proxy, ports and URL of the deployment, as plain data.
  returned: success
  type: dict
shown:
  description: The plan as C(table) for people, as C(shell) commands that a person would type instead, and as C(json).
  returned: success
  type: dict
"""
