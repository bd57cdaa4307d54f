#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ends of containers' logs, kept; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keep_logs
short_description: Keep the ends of containers' logs before the containers are removed
version_added: 0.1.0
description:
  - Writes the last 256 KiB of what each container printed to a file, C(NAME.UTC-TIME.log), readable by its owner alone. The
    eight latest of each name stay.
  - A log that cannot be read or kept is no failure, for what it is kept for is to go on. RV(left_out) says why there is none.
author:
  - lmfleet contributors (@lmfleet)
options:
  containers:
    description: The containers' ids, by what the files' names begin with.
    type: dict
    required: true
  directory:
    description: Where the files are kept. It is made where there is none.
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
  lmfleet.lmdeploy.keep_logs:
    containers:
      lmdeploy-proxy: 0a1b2c3d
    directory: /var/lib/lmfleet/lmdeploy/logs
"""

RETURN = r"""
files:
  description: The paths of the files.
  returned: always
  type: list
  elements: str
left_out:
  description: By name, why there is none.
  returned: always
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._kept_logs import keep
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import daemon

LINES = 4000


def log_of(client: Any, container: str) -> bytes:
    """The last lines of a container's log, with Docker's times. Raises DockerError."""
    try:
        return bytes(client.containers.get(container).logs(tail=LINES, timestamps=True))
    except Exception as error:
        raise daemon.explained(error) from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "containers": {"type": "dict", "required": True},
            "directory": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    files: list[str] = []
    left_out: dict[str, str] = {}
    if module.check_mode:
        module.exit_json(changed=False, files=files, left_out=left_out)
    directory, containers = Path(module.params["directory"]), module.params["containers"]
    try:
        client = daemon.connect()
    except daemon.DockerError as error:
        module.exit_json(changed=False, files=files, left_out=dict.fromkeys(containers, str(error)))
    for name, container in containers.items():
        try:
            log = log_of(client, container)
            if not log:
                continue  # it has printed nothing
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.append(str(directory / keep(directory, name, log)))
        except (OSError, daemon.DockerError) as error:
            left_out[name] = str(error)
    client.close()
    module.exit_json(changed=bool(files), files=files, left_out=left_out)


if __name__ == "__main__":
    main()
