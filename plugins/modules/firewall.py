#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Close a host's planned ports to all but the hosts of the plan
version_added: 0.1.0
description:
  - One table of nftables, C(lmfleet_NAME) of the family inet, which is the deployment's own. No other rule is read or changed.
  - The rules are checked, a timer is set that takes them back, they are applied in one step, and a new connection has to come in.
    Only then are they kept. Over a reboot a unit of systemd brings them back.
author:
  - lmfleet contributors (@lmfleet)
options:
  state:
    description: V(looked) only tells whether nftables is there; V(absent) removes the table and what brings it back.
    type: str
    choices: [looked, present, absent]
    default: present
  folder:
    description: Where on the host its files are kept, in a directory of the deployment's name.
    type: path
    default: /etc/lmfleet
  trusted:
    description: Addresses and networks that are taken for the cluster's.
    type: list
    elements: str
    default: []
  open_ports:
    description: TCP ports that are for everybody, beside that of the URL and SSH.
    type: list
    elements: int
    default: []
  strict:
    description: Whether all that comes from outside the cluster is dropped, and not what is for planned ports alone.
    type: bool
    default: false
  rollback:
    description: Seconds after which the host takes rules back that were not confirmed.
    type: float
    default: 60
  image_share_port:
    description: The port at which an image goes from host to host.
    type: int
    default: 8731
  model_port:
    description: The port at which a model goes from host to host.
    type: int
    default: 8730
attributes:
  check_mode:
    support: full
    description: Says what it would change; C(nft -c) reads the rules where it is there.
  diff_mode:
    support: full
    description: Shows the rules before and after.
"""

EXAMPLES = r"""
- name: Close the planned ports
  lmfleet.lmdeploy.firewall:
    trusted: [192.0.2.0/24]
"""

RETURN = r"""
nft:
  description: Whether nftables is installed.
  returned: O(state=looked)
  type: bool
persistent:
  description: Whether the rules come back after a reboot. Without systemd nothing brings them back.
  returned: O(state=present)
  type: bool
file:
  description: Where on the host the rules are kept.
  returned: O(state=present)
  type: str
"""
