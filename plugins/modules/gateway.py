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
    default: 60
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
msg:
  description: Why it did not do it, with the end of its log.
  returned: failure
  type: str
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import GatewayError, put_aside, state_of
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import daemon

PAUSE_S = 0.2
AGAIN_S = 5.0
LINES = 20  # of its log, where it does not do what it is told


class Gateway:
    """The gateway at a socket; ``container`` is Docker's, of which ``kill`` and ``logs`` are used."""

    def __init__(self, socket: str, container: Any, expected: str, timeout_s: float) -> None:
        self._socket, self._container, self._expected, self._timeout_s = socket, container, expected, timeout_s

    def wait(self) -> None:
        """Until it says that it has read what is expected. Raises ``GatewayError`` with what its log says."""
        self._until(lambda: None)

    def reload(self) -> None:
        """The same, after it was told to read its files; told again where it did not hear, as one that was just started."""
        again = time.monotonic()

        def tell() -> None:
            nonlocal again
            if time.monotonic() >= again:
                again = time.monotonic() + AGAIN_S
                self._container.kill(signal="SIGUSR2")

        self._until(tell)

    def _until(self, tell: Callable[[], None]) -> None:
        ends = time.monotonic() + self._timeout_s
        while True:
            tell()
            why = self._lacks()
            if not why:
                return
            if time.monotonic() >= ends:
                log = self._container.logs(tail=LINES).decode("utf-8", "replace").strip()
                raise GatewayError(
                    f"{why}, for {self._timeout_s:g} s (gateway_timeout). Its container's log ends:\n{log}"
                )
            time.sleep(PAUSE_S)

    def _lacks(self) -> str:
        try:
            found = state_of(self._socket)["description"]
        except GatewayError as error:
            return str(error)
        return "" if found == self._expected else "it still runs with the files that it read before"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "act": {"type": "str", "choices": ["wait", "reload", "close", "open"], "required": True},
            "expected": {"type": "str"},
            "container": {"type": "str"},
            "servers": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 60},
        },
        required_if=[("act", act, ("container", "expected")) for act in ("wait", "reload")],
    )
    options = module.params
    act = options["act"]
    try:
        if act in ("close", "open"):
            put_aside(options["socket"], options["servers"], aside=act == "close")
        else:
            with contextlib.closing(daemon.connect()) as client:
                container = client.containers.get(options["container"])
                gateway = Gateway(options["socket"], container, options["expected"], options["timeout"])
                (gateway.reload if act == "reload" else gateway.wait)()
    except GatewayError as error:
        module.fail_json(msg=f"The gateway: {error}")
    except Exception as error:  # noqa: BLE001 - anything that is not Docker's is raised again
        module.fail_json(msg=f"The gateway: {daemon.explained(error)}")
    module.exit_json(changed=act != "wait")


if __name__ == "__main__":
    main()
