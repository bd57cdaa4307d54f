#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: model_decide
short_description: Decide which host gets the model from where
version_added: 0.1.0
description:
  - Reads the run's plan and what M(lmfleet.lmdeploy.look) saw of the model on every host; the role C(model) is meant to use it.
  - Fails with every fault at once. Says for each host what is to be done there.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  source:
    description: >-
      Where the model comes from. V(present) takes what is on the hosts. V(hub) downloads it. V(modelscope) is refused, with what
      to do in its place.
    type: str
    choices: [present, hub, modelscope]
    default: present
  strategy:
    description: V(each) has every host download it, V(fanout) one, which gives it to the others.
    type: str
    choices: [each, fanout]
    default: each
  endpoint:
    description: URL of a mirror of the hub. Empty is the hub.
    type: str
    default: ""
  port:
    description: TCP port on which hosts give the model to each other, at their cluster addresses.
    type: int
    default: 8730
  limit:
    description: MB/s that a host takes from another at most; 0 does not limit it.
    type: float
    default: 0
  verify:
    description: Have every host read what it has, too, and replace what is damaged.
    type: bool
    default: false
  verified:
    description: Whether that was done by this run already.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Decide who gets the model from whom
  lmfleet.lmdeploy.model_decide:
    source: hub
    strategy: fanout
  run_once: true
"""

RETURN = r"""
hosts:
  description: The hosts that have a part in it. Empty where every host has the model whole.
  returned: success
  type: list
  elements: str
downloads:
  description: Whether the part is a download, after which there may be a next one.
  returned: success
  type: bool
lines:
  description: What is done on which host.
  returned: success
  type: list
  elements: str
image:
  description: The image that it is done in.
  returned: success
  type: str
image_needed_on:
  description: The hosts with a part that do not have that image yet.
  returned: success
  type: list
  elements: str
image_chain:
  description: These hosts behind one that has it, or will bring it, each C(name) and C(address).
  returned: success
  type: list
  elements: dict
"""
