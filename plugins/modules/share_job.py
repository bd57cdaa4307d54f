#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's part of giving an image from host to host; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: share_job
short_description: Start, poll or end one host's part of giving an image from host to host
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.image_share) does on each host. The part is a process of its own, which ends itself where nobody has
    polled it for five minutes.
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
    description: V(started) begins it, V(polled) says how far it is, V(removed) ends it and removes its file.
    type: str
    choices: [started, polled, removed]
    required: true
  reference:
    description: The image to have.
    type: str
  before:
    description: Address of the host that gives it. Empty for the first one, which has it.
    type: str
    default: ""
  address:
    description: Address to give it at. Empty for the last one.
    type: str
    default: ""
  port:
    description: TCP port on which it is given.
    type: int
    default: 8731
  key:
    description: The run's own key; whoever does not have it is given nothing.
    type: str
  file:
    description: The file to which it writes how far it is.
    type: path
    required: true
  process:
    description: What O(state=started) returned as such.
    type: dict
"""

EXAMPLES = r"""
- name: See how far it is
  lmfleet.lmdeploy.share_job:
    state: polled
    file: /var/lib/lmfleet/pulls/1a2b3c4d.json
    process: {pid: 4711, started: "123456"}
"""

RETURN = r"""
before:
  description: The id of the image that was there, if any.
  type: str
  returned: O(state=started)
process:
  description: The process; none in check mode.
  type: dict
  returned: O(state=started)
summary:
  description: How far it is, in bytes, with the rate and the seconds that are left, where they are known.
  type: dict
  returned: O(state=polled)
result:
  description: Once it has ended, whether it went well, the image's id, or the error.
  type: dict
  returned: O(state=polled)
"""

import contextlib
import json
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._pull import poll, remove
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._share import Failed, Link, start

try:
    import docker
    import docker.errors
except ImportError:
    DOCKER_ERROR: str | None = traceback.format_exc()
else:
    DOCKER_ERROR = None


def there(reference: str) -> str | None:
    """The id of the image of that reference, if it is there."""
    try:
        with contextlib.closing(docker.from_env(version="auto", timeout=60)) as client:
            found: str = client.images.get(reference).id
    except docker.errors.NotFound:
        return None
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "polled", "removed"], "required": True},
            "reference": {"type": "str"},
            "before": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 8731},
            "key": {"type": "str", "no_log": True},
            "file": {"type": "path", "required": True},
            "process": {"type": "dict"},
        },
        required_if=[
            ("state", "started", ["reference", "key"]),
            ("state", "polled", ["process"]),
            ("state", "removed", ["process"]),
        ],
        supports_check_mode=True,
    )
    options = module.params
    if DOCKER_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib("docker", reason="install python3-docker on this host"), exception=DOCKER_ERROR
        )
    file, result = Path(options["file"]), {}
    try:
        if options["state"] == "started":
            before = there(options["reference"])
            process: dict[str, Any] | None = None
            if not module.check_mode:
                giver = (options["before"], options["port"]) if options["before"] else None
                link = Link(file, options["reference"], options["key"], giver)
                process = start(link, (options["address"], options["port"]) if options["address"] else None)
            result = {"before": before, "process": process}
        elif options["state"] == "polled":
            result = poll(file, options["process"])
        else:
            remove(file, options["process"])
    except Failed as error:
        module.fail_json(msg=f"{error}: set image_share_port to a free one")
    except (docker.errors.DockerException, OSError, json.JSONDecodeError) as error:
        module.fail_json(msg=f"Docker on this host: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
