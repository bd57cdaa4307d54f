#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a container's log, kept; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keep_log
short_description: Keep the end of a container's log before the container is removed
version_added: 0.1.0
description:
  - Writes the last 256 KiB of what the container printed to a file, C(NAME.UTC-TIME.log), readable by its owner alone. The
    eight latest of each name stay.
  - A log that cannot be read or kept is no failure, for what it is kept for is to go on. C(msg) says why there is none.
author:
  - lmfleet contributors (@lmfleet)
options:
  container:
    description: The container's id or name.
    type: str
    required: true
  name:
    description: What the file's name begins with.
    type: str
    required: true
  directory:
    description: Where the file is kept. It is made where there is none.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Does nothing.
  diff_mode:
    support: none
    description: A log is no difference.
"""

EXAMPLES = r"""
- name: Keep what the former proxy said
  lmfleet.lmdeploy.keep_log:
    container: 0a1b2c3d
    name: lmdeploy-proxy
    directory: /var/lib/lmfleet/lmdeploy/logs
"""

RETURN = r"""
file:
  description: The path of the file.
  returned: where a log was kept
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._kept_logs import keep
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import daemon

LINES = 4000


def log_of(container: str) -> bytes:
    """The last lines of a container's log, with Docker's times. Raises DockerError."""
    client = daemon.connect()
    try:
        return bytes(client.containers.get(container).logs(tail=LINES, timestamps=True))
    except Exception as error:
        raise daemon.explained(error) from error
    finally:
        client.close()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "directory": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, msg="check mode: no log is kept")
    directory = Path(module.params["directory"])
    try:
        log = log_of(module.params["container"])
        if not log:
            module.exit_json(changed=False, msg="it has printed nothing")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = keep(directory, module.params["name"], log)
    except (OSError, daemon.DockerError) as error:
        module.exit_json(changed=False, msg=f"its log is not kept: {error}")
    module.exit_json(changed=True, file=str(directory / file))


if __name__ == "__main__":
    main()
