#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: model_job
short_description: Start, follow or remove the container in which a host gets its model
version_added: 0.1.0
description:
  - Does on each host what M(lmfleet.lmdeploy.model_decide) decided for it; the role C(model) is meant to use it.
  - A host without a part in it is skipped.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Says what would run.
  diff_mode:
    support: none
    description: Shows no difference.
options:
  state:
    description: >-
      V(started) starts it. V(followed) shows how far it is until this host's part is done; the container goes on giving to others.
      V(removed) removes it.
    type: str
    choices: [started, followed, removed]
    required: true
  token:
    description:
      - The hub's token, for a download; by default the variable C(model_hub_token), so that nobody sees it among the arguments.
      - It is put into the container as a file that its owner alone can read, with the variables of C(model_hub_environment).
    type: str
    default: ""
  timeout:
    description: Seconds after which O(state=followed) gives up.
    type: float
    default: 86400
"""

EXAMPLES = r"""
- name: Follow it
  lmfleet.lmdeploy.model_job:
    state: followed
"""

RETURN = r"""
model_result:
  description: What the host's part came to, with bytes that were missing, resumed, received and received twice.
  returned: O(state=followed)
  type: dict
"""
