#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's step of setting a firewall; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Put one table of nftables on a host, and take it back unless it is confirmed
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.firewall) does on each host, one step a call. Use that; this module is not meant for playbooks.
  - Reads and changes this one table of the family inet, and nothing else of nftables.
options:
  state:
    description: V(looked) tells what is there, V(checked) whether O(text) would be taken, V(applied) takes it until it is
      taken back, V(confirmed) keeps it, V(absent) removes table, files and unit.
    type: str
    choices: [looked, checked, applied, confirmed, absent]
    required: true
  table:
    description: Its name.
    type: str
    required: true
  folder:
    description: Where on the host its files are.
    type: path
    required: true
  text:
    description: What C(nft -f) is given. Needed for V(checked), V(applied) and V(confirmed).
    type: str
  seconds:
    description: After how many seconds V(applied) is taken back.
    type: float
    default: 60
  armed:
    description: What V(applied) returned; needed for V(confirmed).
    type: dict
attributes:
  check_mode:
    support: partial
    description: What would be changed is told, and nothing is.
    details: V(absent) tells what it would do; V(applied) and V(confirmed) are not called then.
  diff_mode:
    support: none
    description: Its caller shows it.
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See what is there
  lmfleet.lmdeploy.nft_table:
    state: looked
    table: lmfleet_lmdeploy
    folder: /etc/lmfleet/lmdeploy
"""

RETURN = r"""
seen:
  description:
    - C(nft), whether nftables is installed; C(text), what was kept last; C(there), whether the table is; C(as_kept), whether it is
      what was kept, and comes back after a reboot; C(persistent), whether anything can bring it back; C(ssh_ports), by which
      port of the host this connection came.
  type: dict
  returned: O(state=looked)
armed:
  description: What takes the rules back; for O(armed).
  type: dict
  returned: O(state=applied)
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._firewall import FirewallError, Table


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["looked", "checked", "applied", "confirmed", "absent"],
                "required": True,
            },
            "table": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "text": {"type": "str"},
            "seconds": {"type": "float", "default": 60},
            "armed": {"type": "dict"},
        },
        required_if=[
            ("state", "checked", ["text"]),
            ("state", "applied", ["text"]),
            ("state", "confirmed", ["text", "armed"]),
        ],
        supports_check_mode=True,
    )
    options = module.params
    table = Table(options["table"], Path(options["folder"]))
    result: dict[str, Any] = {"changed": False}
    try:
        if options["state"] == "looked":
            result["seen"] = table.look()
        elif options["state"] == "checked":
            table.check(options["text"])
        elif options["state"] == "applied":
            result = {"changed": True, "armed": table.apply(options["text"], options["seconds"])}
        elif options["state"] == "confirmed":
            table.confirm(options["text"], options["armed"])
            result = {"changed": True}
        else:
            result = {"changed": table.remove(really=not module.check_mode)}
    except (FirewallError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
