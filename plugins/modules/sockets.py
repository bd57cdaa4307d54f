#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's step of the check whether hosts reach each other; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sockets
short_description: Listen on ports for a moment, and try to connect to those of other hosts
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.reach) does on each host, one step a call. Use that; this module is not meant for playbooks.
  - The listener is a process that ends by itself. Nothing is sent.
options:
  state:
    description: V(listening) leaves a listener behind, V(connected) tries to connect, V(closed) ends the listener.
    type: str
    choices: [listening, connected, closed]
    required: true
  address:
    description: The host's own address to listen on. Needed for O(state=listening).
    type: str
  ports:
    description: The ports to listen on; V(0) is one of the kernel's choice. One that is held by another is left alone.
    type: list
    elements: int
    default: []
  others:
    description: Ports that are left alone, and only looked at whether something listens there.
    type: list
    elements: int
    default: []
  seconds:
    description: How long the listener lives at most.
    type: float
    default: 60
  targets:
    description: What is tried, each as V(address:port); an address of IPv6 has no brackets.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that a connection may take.
    type: float
    default: 4
  process:
    description: The listener, as O(state=listening) returned it.
    type: dict
attributes:
  check_mode:
    support: full
    description: Changes nothing that stays, so check mode does the same.
  diff_mode:
    support: none
    description: There is nothing to compare.
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See whether two ports of another host are reached
  lmfleet.lmdeploy.sockets:
    state: connected
    targets: ["10.0.0.11:6379", "10.0.0.11:6380"]
"""

RETURN = r"""
listening:
  description: The ports that are listened on, by those that were asked for; that of the kernel's choice under V("0").
  type: dict
  returned: O(state=listening)
held:
  description: The ports that something else listens on.
  type: list
  elements: int
  returned: O(state=listening)
errors:
  description: Why other ports could not be listened on.
  type: dict
  returned: O(state=listening)
process:
  description: The listener; none where there is nothing to listen on.
  type: dict
  returned: O(state=listening)
outcomes:
  description:
    - How each connection of O(targets) ended, in their order. V(reached), V(refused), V(timeout), V(unreachable), V(forbidden), or
      the system's words.
  type: list
  elements: str
  returned: O(state=connected)
sources:
  description: For each address of O(targets), the host's own one on the way there; those without a way are left out.
  type: dict
  returned: O(state=connected)
was_there:
  description: Whether the listener was still there to be ended. What was refused meanwhile says nothing where it was not.
  type: bool
  returned: O(state=closed)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._processes import stop
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._sockets import connect, listen, sources


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listening", "connected", "closed"], "required": True},
            "address": {"type": "str"},
            "ports": {"type": "list", "elements": "int", "default": []},
            "others": {"type": "list", "elements": "int", "default": []},
            "seconds": {"type": "float", "default": 60},
            "targets": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 4},
            "process": {"type": "dict"},
        },
        required_if=[("state", "listening", ["address"]), ("state", "closed", ["process"])],
        supports_check_mode=True,
    )
    options = module.params
    result: dict[str, Any] = {}
    try:
        if options["state"] == "listening":
            result = listen(options["address"], options["ports"], options["others"], options["seconds"])
        elif options["state"] == "connected":
            pairs = [target.rpartition(":") for target in options["targets"]]
            result = {
                "outcomes": connect([(address, int(port)) for address, __, port in pairs], options["timeout"]),
                "sources": sources({address for address, __, __ in pairs}),
            }
        else:
            result = {"was_there": stop(options["process"])}
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"sockets: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
