#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: look
short_description: Look at one host, for the decision of this run
version_added: 0.1.0
description:
  - Asks the host everything that judging and deciding need, with one call of M(lmfleet.lmdeploy.observe), and keeps the
    answer for M(lmfleet.lmdeploy.decide). The plan of the run says what to ask.
  - A host that cannot be reached, or gives no answer, does not fail the task; the decision names it, with all others.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  ask_registry:
    description: Ask the registry whether it has another image under the plan's reference.
    type: bool
    default: false
  registry_mirror:
    description: The registry to ask in place of the reference's own, as the variable C(image_mirror) names it.
    type: str
    default: ""
  token_timeout:
    description: Seconds that an endpoint may take for one token, before its progress is watched.
    type: float
    default: 20
  stall_timeout:
    description: Seconds beyond O(token_timeout) without any progress, after which an engine counts as dead. With 0 none does for
      its silence.
    type: float
    default: 30
  limit:
    description: Seconds that the whole look may take, beyond what tokens may. Left out, it is that of
      M(lmfleet.lmdeploy.observe).
    type: float
  only:
    description: The parts of the look that are wanted, as M(lmfleet.lmdeploy.observe) names them; empty for all.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Look at every host
  lmfleet.lmdeploy.look:
"""

RETURN = r""" # """
