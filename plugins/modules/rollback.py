#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Put a recorded plan in the place of the run's
version_added: 0.1.0
description:
  - What follows, M(lmfleet.lmdeploy.look) and M(lmfleet.lmdeploy.decide), then is of that plan. It is bound already, and its image
    has to be on the hosts.
  - Runs on the control node.
author:
  - lmfleet contributors (@lmfleet)
options:
  state:
    description:
      - V(noted) keeps why the host failed.
      - V(prepared) takes the plan that was recorded last when the run began, where a failure was noted. It fails where there is
        none.
      - V(told) ends the run with what has failed, and with how it went to bring that plan back.
      - V(chosen) takes the plan before the one that served last; or that one, where containers of a plan are there that never
        served. The hosts' containers and records were looked at. It fails where there is none, or where the inventory has other
        nodes.
    type: str
    choices: [noted, prepared, told, chosen]
    required: true
  msg:
    description: Why it failed, for V(noted).
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Choose the plan to bring back
  lmfleet.lmdeploy.rollback:
    state: chosen
  run_once: true
"""

RETURN = r"""
wanted:
  description: Whether a failure was noted.
  returned: O(state=prepared)
  type: bool
plan:
  description: The identity of the plan.
  returned: O(state=chosen)
  type: str
"""
