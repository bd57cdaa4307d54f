#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Judge what was seen of the hosts by every rule
version_added: 0.1.0
description:
  - Runs on the control node, after M(lmfleet.lmdeploy.look) on every host. Prints a table of what is wrong, what is unknown and how
    many results there are of each state, and returns the same as data. The page C(docs/preflight.md) lists the rules.
  - Fails where an error stands that the variable C(plan_waive) does not waive. What could not be read is unknown, which is no
    failure. A failure names rules and hosts; the table has the rest, and so has O(report).
  - Hosts that did not answer are an error each, and what else is asked of them is unknown.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  report:
    description: A directory on the control node that C(preflight.json) and C(preflight.html) are written to, in check mode too.
    type: path
"""

EXAMPLES = r"""
- name: Judge the hosts
  lmfleet.lmdeploy.preflight:
    report: /tmp/preflight
"""

RETURN = r"""
preflight:
  description: What was found.
  returned: success
  type: dict
  contains:
    deployment:
      description: Its name.
      type: str
    looked_at:
      description: When it was judged, in UTC.
      type: str
    nodes:
      description: The hosts, each with C(name) and C(address).
      type: list
      elements: dict
    counts:
      description: How many results there are of each state, V(error), V(warning), V(unknown), V(waived), V(ok) and V(not needed).
      type: dict
    findings:
      description:
        - Errors, what is waived and warnings, in this order. Each has C(rule), C(severity), C(state), C(host) (empty for what is
          judged of all hosts together), the C(hosts) that it is about, C(told) (the whole sentence), C(said) (without the host's
          name before it) and C(waived), the reason of the waiver.
      type: list
      elements: dict
    unknown:
      description: What could not be read, each reason as C(why) with its C(hosts) and C(rules).
      type: list
      elements: dict
    rules:
      description: Every rule with C(id), C(severity), C(scope), C(title), C(remedy), its C(states) by host, and C(why) by host.
      type: list
      elements: dict
    table:
      description: What was printed, by line.
      type: list
      elements: str
"""
