#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: image_share
short_description: Give an image from host to host, and show how far it is
version_added: 0.1.0
description:
  - Each host of the chain takes the image from the one before it, and gives it on while it comes. Runs on all of them at the same
    moment.
  - It is proven by its sha256 and by its id, and is not encrypted on its way.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Says who would take it.
  diff_mode:
    support: none
    description: Shows no difference.
options:
  name:
    description: The image to have. Not one that is named by its digest, for docker load gives no such name.
    type: str
    required: true
  chain:
    description: The hosts in their order, each C(name) and C(address); the first one has it.
    type: list
    elements: dict
    required: true
  port:
    description: TCP port, open between the hosts, on which one gives it to the next; used while that lasts.
    type: int
    default: 8731
  state_dir:
    description: Directory on the host in which it says how far it is.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Give it from host to host
  lmfleet.lmdeploy.image_share:
    name: openmmlab/lmdeploy:v0.18.0-cu12.8
    chain: [{name: node0, address: 10.0.0.10}, {name: node1, address: 10.0.0.11}]
    state_dir: /var/lib/lmfleet
"""

RETURN = r"""
image:
  description: The image's id.
  type: str
  returned: when it was given or taken
"""
