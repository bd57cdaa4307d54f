#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: closure
short_description: See which planned ports answer from outside the cluster
version_added: 0.1.0
description:
  - Once for each host that tries, delegated to it, then once for all of them, which tells what was found.
  - Tries every planned port of every node at all addresses that the node has, of IPv4 and IPv6, and the ports that Ray's processes
    of the deployment have chosen themselves, as the nodes say. Connects, and sends nothing. Nothing else is tried.
  - Fails where a port answers that is not for everybody, saying what it would allow and which process listens there; and where the
    deployment's URL does not answer.
  - What comes from an address of the cluster may reach everything. Such a host's answers are left out.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  state:
    description: V(tried) has this host try all of them, V(judged) tells what all hosts have found.
    type: str
    choices: [tried, judged]
    required: true
  name:
    description: What the host that tries is called. Needed for O(state=tried).
    type: str
    default: ""
  image_share_port:
    description: The port at which an image goes from host to host.
    type: int
    required: true
  model_port:
    description: The port at which a model goes from host to host.
    type: int
    required: true
  timeout:
    description: Seconds that a connection may take.
    type: float
    default: 3.5
  file:
    description: A file on the control node for what was found, as JSON.
    type: path
"""

EXAMPLES = r"""
- name: Try every planned port from the control node
  lmfleet.lmdeploy.closure:
    state: tried
    name: localhost
    image_share_port: 8731
    model_port: 8730
  delegate_to: localhost
  run_once: true

- name: Tell what was found
  lmfleet.lmdeploy.closure:
    state: judged
    image_share_port: 8731
    model_port: 8730
    file: closure.json
  run_once: true
"""

RETURN = r"""
tried:
  description: How many connections were tried.
  returned: O(state=tried)
  type: int
closure:
  description: What was found; C(from) has the hosts that tried, C(public) the ports for everybody, C(notes) what should be known.
  returned: O(state=judged), on success
  type: dict
msg:
  description: On failure, everything that is wrong.
  returned: O(state=judged)
  type: str
"""
