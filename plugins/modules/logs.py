#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: logs
short_description: Write the logs and states of all hosts as one archive
version_added: 0.1.0
description:
  - Runs on the control node, after M(lmfleet.lmdeploy.look) and M(lmfleet.lmdeploy.collect) on every host. Writes a tar.gz with an
    index page, the plan, the status, the preflight, versions, and what each host gave. Hosts that gave nothing are named in it.
  - Secrets are replaced by C(***), those of the inventory's variables wherever they stand, and what looks like one. Users' prompts,
    which LMDeploy logs at its level INFO, are not.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  directory:
    description: A directory on the control node; by default one below the current one, named by deployment and time. It is written
      to in check mode too.
    type: path
  page:
    description: Write the index page beside the archive too. Its links work once the archive is unpacked there.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Write the archive
  lmfleet.lmdeploy.logs:
    directory: /tmp/logs
  register: written
"""

RETURN = r"""
archive:
  description: The file.
  returned: success
  type: str
index:
  description:
    - What is in it. C(nodes) have C(name), C(address), C(engine), C(failed) (why nothing was read), C(containers), C(former) logs,
      C(files) and C(unread).
  returned: success
  type: dict
not_read:
  description: The hosts that gave nothing.
  returned: success
  type: list
  elements: str
"""
