#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: docker
short_description: Run a module of community.docker, and read its failure for a person
version_added: 0.1.0
description:
  - Runs the module on the host with the arguments that are given, and returns what it returned.
  - A module's failure may quote a container's log or a registry. Of that, nothing that a terminal would obey is left, and
    what to do first is added.
author:
  - lmfleet contributors (@lmfleet)
options:
  module:
    description: The module's name in community.docker, such as V(docker_image_pull).
    type: str
    required: true
  arguments:
    description: Its arguments.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: As the module's own.
  diff_mode:
    support: full
    description: As the module's own.
"""

EXAMPLES = r"""
- name: Pull the image
  lmfleet.lmdeploy.docker:
    module: docker_image_pull
    arguments:
      name: openmmlab/lmdeploy:v0.18.0-cu12.8
"""

RETURN = r"""
transient:
  description: Of a failure, whether an image may well come at another try, since its registry was not reached.
  type: bool
  returned: failure
"""
