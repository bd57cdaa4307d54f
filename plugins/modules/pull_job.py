#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull that goes on while nobody waits for it; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pull_job
short_description: Start, poll or end the pull of an image
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.image_pull) does on a host. The pull is a process of its own, which ends itself where nobody has
    polled it for five minutes. Layers that came by then stay.
  - Credentials are those of Docker's configuration, which E(DOCKER_CONFIG) names.
author:
  - lmfleet contributors (@lmfleet)
attributes:
  check_mode:
    support: full
    description: Starts nothing, and says whether the image is there.
  diff_mode:
    support: none
    description: Shows no difference.
options:
  state:
    description: V(started) begins it, if it is needed, V(polled) says how far it is, V(removed) ends it and removes its file.
    type: str
    choices: [started, polled, removed]
    required: true
  reference:
    description: The image to have.
    type: str
  source:
    description: The reference to pull it by, if that is another one. The image gets the name O(reference) too.
    type: str
    default: ""
  always:
    description: Whether to pull though the image is there.
    type: bool
    default: false
  file:
    description: The file to which the pull writes how far it is.
    type: path
    required: true
  process:
    description: What O(state=started) returned as such.
    type: dict
"""

EXAMPLES = r"""
- name: See how far a pull is
  lmfleet.lmdeploy.pull_job:
    state: polled
    file: /var/lib/lmfleet/pulls/1a2b3c4d.json
    process: {pid: 4711, started: "123456"}
"""

RETURN = r"""
before:
  description: The id of the image that was there, if any.
  type: str
  returned: O(state=started)
root:
  description: Where Docker has its data, and the bytes that are free there; none where it cannot be seen.
  type: dict
  returned: O(state=started)
process:
  description: The pull; none where it is not needed, and in check mode.
  type: dict
  returned: O(state=started)
summary:
  description: How far it is, in bytes and layers, with its rate and the seconds that are left, where they are known.
  type: dict
  returned: O(state=polled)
result:
  description: Once it has ended, whether it went well, the image's id, or the error.
  type: dict
  returned: O(state=polled)
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._image_job import run, there
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._pull import start


def room(client: Any) -> dict[str, Any]:
    """Docker's root, and the bytes that are free there; None where it cannot be seen."""
    path = str(client.info().get("DockerRootDir") or "")
    try:
        disk = os.statvfs(path)
    except OSError:
        return {"path": path, "free_bytes": None}
    return {"path": path, "free_bytes": disk.f_bavail * disk.f_frsize}


def begin(client: Any, module: AnsibleModule) -> dict[str, Any]:
    """Begin the pull where it is needed."""
    options, reference, source = module.params, module.params["reference"], module.params["source"]
    before, process = there(client, reference), None
    if (before is None or options["always"]) and not module.check_mode:
        process = start(Path(options["file"]), source or reference, reference if source else "")
    return {"before": before, "process": process, "root": room(client)}


def main() -> None:
    """Run the module."""
    run({"source": {"type": "str", "default": ""}, "always": {"type": "bool", "default": False}}, [], begin)


if __name__ == "__main__":
    main()
