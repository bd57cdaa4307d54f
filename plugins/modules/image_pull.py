#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
short_description: Pull an image, and show how far it is
version_added: 0.1.0
description:
  - Pulls the image on the host by M(lmfleet.lmdeploy.pull_job), and shows bytes, rate, and the time that is left once Docker
    has told the sizes of all layers.
  - A failure says what to do first.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Says whether the image would be pulled; asks no registry.
  diff_mode:
    support: none
    description: Shows no difference.
options:
  name:
    description: The image to have.
    type: str
    required: true
  mirror:
    description: A registry, with or without a path, to pull it from in place of its own. It gets the name O(name) all the same.
    type: str
    default: ""
  pull:
    description: Whether to pull where it is missing only, or in any case.
    type: str
    choices: [missing, always]
    default: missing
  state_dir:
    description: Directory on the host in which the pull says how far it is.
    type: path
    required: true
  stall:
    description: Seconds without a word of the registry after which the pull is given up.
    type: float
    default: 900
"""

EXAMPLES = r"""
- name: Pull the image
  lmfleet.lmdeploy.image_pull:
    name: openmmlab/lmdeploy:v0.18.0-cu12.8
    state_dir: /var/lib/lmfleet
"""

RETURN = r"""
image:
  description: The image's id.
  type: str
  returned: when it was pulled
transient:
  description: Of a failure, whether the image may well come at another try, since its registry was not reached.
  type: bool
  returned: failure
"""
