#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: image_archives
short_description: See that archives of images are there, and have room on a host
version_added: 0.1.0
description:
  - Finds tars of C(docker save) on the control node, and compares their sizes with the disks of the host, where they are copied one
    after another and where Docker unpacks them. Fails with all that is wrong.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  archives:
    description: The archives' paths.
    type: list
    elements: str
    required: true
  state_dir:
    description: Directory on the host below which they are copied.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: See that the archives have room
  lmfleet.lmdeploy.image_archives:
    archives: [/srv/images/lmdeploy.tar]
    state_dir: /var/lib/lmfleet
"""

RETURN = r"""
paths:
  description: The archives' absolute paths.
  type: list
  elements: str
  returned: success
"""
