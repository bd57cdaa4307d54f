#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: container_engine
short_description: Decide what a host lacks of Docker Engine, and what has to be restarted for it
version_added: 0.1.0
description:
  - Looks at the host with M(lmfleet.lmdeploy.container_engine_facts), and decides; the role C(container_engine) carries it out.
  - Fails with all that a person has to mend first. Changes nothing.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  config:
    description: Docker's configuration file.
    type: path
    default: /etc/docker/daemon.json
  pending:
    description: The file in which the role keeps what waits for a restart.
    type: path
    required: true
  log_driver:
    description: The log driver that is wanted; empty leaves logs as they are.
    type: str
    default: json-file
  log_max_size:
    description: Size at which a container's log is cut; empty leaves it.
    type: str
    default: 100m
  log_max_file:
    description: How many files a container's log has; 0 leaves it.
    type: int
    default: 5
  memlock:
    description: Whether containers may lock all memory, unless they are told otherwise.
    type: bool
    default: true
  settings:
    description: More settings, as they stand in the configuration file.
    type: dict
    default: {}
  overwrite:
    description: Keys, with dots between levels, in which the wanted value takes the place of another one that is there.
    type: list
    elements: str
    default: []
  toolkit:
    description: Whether the NVIDIA container toolkit is wanted.
    type: bool
    default: true
  source:
    description: Where Docker comes from if there is none, the distribution's packages or Docker's own repository.
    type: str
    choices: [distribution, docker]
    default: distribution
  packages:
    description: Packages of Docker, in place of those that O(source) has.
    type: list
    elements: str
    default: []
  toolkit_packages:
    description: Packages of the toolkit.
    type: list
    elements: str
    default: [nvidia-container-toolkit]
  python_packages:
    description: Packages of the Docker SDK for Python.
    type: list
    elements: str
    default: [python3-docker]
  restart:
    description: Whether Docker may be restarted though containers run.
    type: bool
    default: false
  restart_command:
    description: The command that restarts Docker, for the message.
    type: str
    default: systemctl restart docker
  before:
    description: What this decided before the packages were installed in the same run.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Look at Docker, and decide
  lmfleet.lmdeploy.container_engine:
    pending: /var/lib/lmfleet/container_engine.json
"""

RETURN = r"""
install:
  description: Packages and repositories that are missing.
  type: dict
  returned: success
settings:
  description: The configuration's content as it shall be, and the keys that change.
  type: dict
  returned: success
apply:
  description: Whether Docker is to be reloaded or restarted, and what waits for a restart that is left to a person.
  type: dict
  returned: success
seen:
  description: What of the host the role has to know.
  type: dict
  returned: success
"""
