#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: explain
short_description: Say why the service that wrote a log failed
version_added: 0.1.0
description:
  - Runs on the control node and touches no host. Prints the decisive lines of a log, what they mean, what to do first, and the
    node whose process wrote them where the log names one; and returns the same as data.
  - The decisive lines are those of the exception that ended a process, or came last before its end. What a process got over, and
    what only says that another process failed, does not count.
  - What Docker, Compose, kubectl, journald, torchrun, torch, Ray and the rank program put before a line is taken off.
  - Does not fail where the log tells of no failure, nor of one that is not known.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  file:
    description:
      - The log, a text file on the control node. As C(docker logs) prints it, with C(--timestamps) or without, or a file of
        Docker's C(json-file).
      - Of a very long one the last 32 MiB are read.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Why did it fail?
  lmfleet.lmdeploy.explain:
    file: /tmp/lmdeploy-api.log
  register: explained

- name: Tell somebody
  ansible.builtin.debug:
    msg: "{{ explained.means or explained.decisive }}"
"""

RETURN = r"""
decisive:
  description: The decisive lines, at most eight; none where the log tells of no failure.
  returned: success
  type: list
  elements: str
id:
  description: The failure's name in the catalogue, empty where it is not known.
  returned: success
  type: str
means:
  description: What it means, empty where it is not known.
  returned: success
  type: str
remedy:
  description: What to do, the first thing first; empty where it is not known.
  returned: success
  type: str
node:
  description: The address or name of the host whose process wrote the decisive lines; empty where the log does not have it.
  returned: success
  type: str
table:
  description: What was printed, by line.
  returned: success
  type: list
  elements: str
"""
