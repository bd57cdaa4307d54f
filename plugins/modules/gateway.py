#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway
short_description: Tell a running gateway (HAProxy) something
version_added: 0.1.0
description:
  - One step of M(lmfleet.lmdeploy.act) or M(lmfleet.lmdeploy.drain), on the gateway's host. Use those; this module is not meant for
    playbooks.
  - No connection is lost by any of it.
options:
  socket:
    description: The socket at which it is asked and told.
    type: path
    required: true
  act:
    description:
      - V(wait) waits until it answers.
      - V(reload) has it read its files again, and waits until it says that it has.
      - V(close) keeps new requests from O(servers), those that run go on; V(open) gives them requests again.
    type: str
    choices: [wait, reload, close, open]
    required: true
  container:
    description: With O(act=wait) and O(act=reload), its container.
    type: str
  expected:
    description: What it says of itself once it has read the files that it is to have read.
    type: str
  servers:
    description: With O(act=close) and O(act=open), their names.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that it may take to answer, or to read its files.
    type: float
    default: 30
attributes:
  check_mode:
    support: none
    description: Its callers do not call it then.
  diff_mode:
    support: none
    description: Its callers tell what is done, and why.
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Keep new requests from a rank
  lmfleet.lmdeploy.gateway:
    socket: /var/lib/lmfleet/lmdeploy/gateway/run/admin.sock
    act: close
    servers: [rank1]
"""

RETURN = r"""
description:
  description: What it has read.
  returned: O(act) is V(wait) or V(reload)
  type: str
"""

import time
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import GatewayError, put_aside, state_of
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import daemon

PAUSE_S = 0.2
LINES = 20  # of its log, where it does not do what it is told
NOTHING = "it does not answer"
SAME = "it still has what it had read before"


def read_by(container: str, act: str, read: Callable[[str], str]) -> str:
    """What it has read, once ``read`` has seen that; with V(reload) it is told to. Else the error has what its log says."""
    client = daemon.connect()
    try:
        found = client.containers.get(container)
        if act == "reload":
            found.kill(signal="SIGUSR2")
        try:
            return read(SAME if act == "reload" else NOTHING)
        except GatewayError as error:
            log = found.logs(tail=LINES).decode("utf-8", "replace").strip()
            raise GatewayError(f"{error}. Its log ends:\n{log}") from None
    finally:
        client.close()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "act": {"type": "str", "choices": ["wait", "reload", "close", "open"], "required": True},
            "expected": {"type": "str"},
            "container": {"type": "str"},
            "servers": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 30},
        },
        required_if=[("act", act, ("container", "expected")) for act in ("wait", "reload")],
    )
    options = module.params
    path, expected = options["socket"], options["expected"]

    def read(why: str) -> str:
        ends = time.monotonic() + options["timeout"]
        while True:
            try:
                found = str(state_of(path)["description"])
            except GatewayError as error:
                why = str(error)
            else:
                if found == expected:
                    return found
            if time.monotonic() >= ends:
                raise GatewayError(f"{why}, {options['timeout']:g} s long")
            time.sleep(PAUSE_S)

    try:
        if options["act"] in ("close", "open"):
            put_aside(path, options["servers"], aside=options["act"] == "close")
            module.exit_json(changed=True)
        told = read_by(options["container"], options["act"], read)
    except GatewayError as error:
        module.fail_json(msg=f"The gateway: {error}")
    except Exception as error:  # noqa: BLE001 - anything that is not Docker's is raised again
        module.fail_json(msg=f"The gateway: {daemon.explained(error)}")
    module.exit_json(changed=options["act"] == "reload", description=told)


if __name__ == "__main__":
    main()
