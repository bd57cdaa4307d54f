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

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._image_job import Refused, run, there
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._share import Failed, Link, start


def begin(client: Any, module: AnsibleModule) -> dict[str, Any]:
    """Begin to take the image from the one before, and to give it to the one behind."""
    options, before, process = module.params, there(client, module.params["reference"]), None
    if not module.check_mode:
        giver = (options["before"], options["port"]) if options["before"] else None
        link = Link(Path(options["file"]), options["reference"], options["key"], giver)
        try:
            process = start(link, (options["address"], options["port"]) if options["address"] else None)
        except Failed as error:
            raise Refused(f"{error}: set image_share_port to a free one") from error
    return {"before": before, "process": process}


def main() -> None:
    """Run the module."""
    arguments = {
        "before": {"type": "str", "default": ""},
        "address": {"type": "str", "default": ""},
        "port": {"type": "int", "default": 8731},
        "key": {"type": "str", "no_log": True},
    }
    run(arguments, ["key"], begin)


if __name__ == "__main__":
    main()
