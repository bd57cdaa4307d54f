#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: act
short_description: Carry out one host's steps of one wave
version_added: 0.1.0
description:
  - Does what M(lmfleet.lmdeploy.decide) has decided for this host, and nothing else. Containers are run by
    C(community.docker.docker_container).
  - A container is removed by the id that was seen, so never another one of its name.
author:
  - lmfleet contributors (@lmfleet)
options:
  act:
    description:
      - V(read) reads the engine's token on its head, V(bring) brings directories, programs and secrets.
      - V(remove) and V(start) remove and start containers, V(list) corrects the proxy's list.
      - V(wait) waits until a gateway that was started answers.
      - V(reload) has the gateway read its files again, V(open) has it send requests to every endpoint.
    type: str
    choices: [read, bring, remove, start, list, wait, reload, open]
    required: true
  round:
    description: The round, counted from 0.
    type: int
    default: 0
  services:
    description: The kinds of services that are meant; empty for all.
    type: list
    elements: str
    default: []
  proven:
    description: >-
      With O(act=list), whether the round's engines have given their tokens. Then the list is read in every case, and the task fails
      where one that serves is not on it in the end.
    type: bool
    default: false
  timeout:
    description: With O(act=wait) and O(act=reload), seconds that the gateway may take.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: full
    description: Shows each step with its reason.
"""

EXAMPLES = r"""
- name: Start Ray's containers
  lmfleet.lmdeploy.act:
    act: start
    services: [ray]
"""

RETURN = r"""
steps:
  description: What was done, each with its reason.
  returned: O(act) is V(remove) or V(start)
  type: list
  elements: str
token_read:
  description: That the token was read. Its content goes to the run's own directory alone.
  returned: O(act=read), success
  type: bool
"""
