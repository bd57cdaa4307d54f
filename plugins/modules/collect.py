#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin module over _collect; the action plugin of the same name says what to ask."""

from __future__ import annotations

DOCUMENTATION = r"""
module: collect
short_description: Read the logs and states of one host, for an archive
version_added: 0.1.0
description:
  - Reads what a person needs who asks why a deployment failed. The logs of every container of the deployment, running or not,
    with C(docker inspect); what the deployment keeps below O(state_dir), but for its secrets; Docker's and the kernel's log
    lines; C(nvidia-smi); versions.
  - Makes nothing on the host. Everything is asked side by side, with an end to each part; what cannot be read is named.
  - Secrets are taken out before anything leaves the host, the values of the deployment's own wherever they stand, and what looks
    like one.
  - As a task it is an action that takes O(deployment), O(state_dir), O(secrets) and O(hf_homes) from the plan of the run, keeps
    what was read for M(lmfleet.lmdeploy.logs), and does not fail where a host does not answer.
author:
  - lmfleet contributors (@lmfleet)
requirements:
  - Docker SDK for Python 5.0 or newer
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  deployment:
    description: Its name.
    type: str
  state_dir:
    description: The deployment's own directory on the host.
    type: path
  secrets:
    description: Files with secrets, whose values are taken out.
    type: list
    elements: path
    default: []
  hf_homes:
    description: Directories in which huggingface_hub keeps its token.
    type: list
    elements: path
    default: []
  last_mb:
    description: MB of the end of each log.
    type: float
    default: 4
  first_mb:
    description: MB of the beginning of each log, which has why a start failed.
    type: float
    default: 1
  total_mb:
    description: MB of all files together, before they are packed. What has no room is named.
    type: float
    default: 64
  hours:
    description: Hours of Docker's and the kernel's log lines, at most 5000 lines of each.
    type: float
    default: 24
  limit_s:
    description: Seconds that reading may take.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Read every host
  lmfleet.lmdeploy.collect:
    hours: 2
"""

RETURN = r"""
containers:
  description: Each container's C(name), C(service), C(engine), C(status), C(exit_code), C(oom_killed), C(restarts), C(started_at),
    C(finished_at), C(error) (Docker's) and C(log) (its file in the archive, or empty).
  returned: by the module
  type: list
  elements: dict
files:
  description: The files in the archive, each with C(path), C(bytes) and C(left_out), which is 0 where it is whole.
  returned: by the module
  type: list
  elements: dict
unread:
  description: What could not be read, each with C(what) and C(why).
  returned: by the module
  type: list
  elements: dict
archive:
  description: The files, as the base64 of a tar.gz.
  returned: by the module
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._collect import collect

SPEC = {
    "deployment": {"type": "str"},
    "state_dir": {"type": "path"},
    "secrets": {"type": "list", "elements": "path", "default": [], "no_log": False},  # their names
    "hf_homes": {"type": "list", "elements": "path", "default": []},
    "last_mb": {"type": "float", "default": 4},
    "first_mb": {"type": "float", "default": 1},
    "total_mb": {"type": "float", "default": 64},
    "hours": {"type": "float", "default": 24},
    "limit_s": {"type": "float", "default": 60},
}


def main() -> None:
    """Read once."""
    module = AnsibleModule(
        argument_spec=SPEC, required_together=[("deployment", "state_dir")], supports_check_mode=True
    )
    if not module.params["deployment"]:
        module.fail_json(msg="deployment and state_dir are missing: the action of this name takes them from the plan")
    module.exit_json(changed=False, **collect(None, module.params))


if __name__ == "__main__":
    main()
