#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: decide
short_description: Judge what was seen of the hosts, and decide what is done
version_added: 0.1.0
description:
  - Runs on the control node, after M(lmfleet.lmdeploy.look) on every host. Fails with every fault of every host at once.
  - Where the image has to be pulled or asked first, it says so, and is to be called again afterwards.
  - Else it binds the plan to what hosts and image are, and says what is done in which rounds, and why.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  ray_token:
    description:
      - The Ray token to have everywhere, 32 characters or more. Empty keeps the one on each engine's head, or makes one.
      - A callback may print it (C(display_args_to_stdout)). The role leaves it out; the variable C(preflight_ray_token) is taken.
    type: str
    default: ""
  option_changes:
    description: Options of the api_server to put over the inventory's, for a benchmark's engines; an empty one puts the plan back.
    type: dict
  image_brought:
    description: The image was brought and asked already in this run.
    type: bool
    default: false
  break_lock:
    description: The run whose lock does not count, as the refusal names it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Decide what is done
  lmfleet.lmdeploy.decide:
  run_once: true
"""

RETURN = r"""
prepare:
  description: Whether the image has to be brought or asked before anything can be decided.
  returned: success
  type: bool
pull:
  description: By host, why its image has to be brought.
  returned: success
  type: dict
chain:
  description: The hosts between which the image can go, each C(name) and C(address); the first one has it, or will bring it.
  returned: success
  type: list
  elements: dict
ask:
  description: The host on which the image has to be asked what it is, if any.
  returned: success
  type: str
rounds:
  description:
    - What is carried out, in this order. Each has C(engines) that are waited for and their C(hosts), the C(acts) and the kinds of
      C(services) that are started, and C(endpoints) to warm up.
  returned: success
  type: list
  elements: dict
lines:
  description: The same in words.
  returned: when nothing has to be prepared
  type: list
  elements: str
states:
  description: By URL, whether each endpoint is V(alive), V(busy), V(loading), V(dead), V(unreachable), V(unknown) or V(absent).
  returned: when nothing has to be prepared
  type: dict
prove:
  description: Whether a completion through the public URL has to prove that it serves.
  returned: when nothing has to be prepared
  type: bool
busy:
  description: Of an unchanged deployment, the endpoints that answer others and were not asked for a token of this run's own.
  returned: when nothing has to be prepared
  type: list
  elements: str
identity:
  description: Changes with what the plan serves and how.
  returned: when nothing has to be prepared
  type: str
"""
