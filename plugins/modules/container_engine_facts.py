#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Engine on a host; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_engine_facts
short_description: What of Docker Engine is on a host, whether it runs, and with what
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.container_engine) decides by. It needs neither Docker nor its SDK, and does not start a Docker that is
    stopped.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  config:
    description: Docker's configuration file.
    type: path
    default: /etc/docker/daemon.json
  pending:
    description: The file in which the role keeps what waits for a restart.
    type: path
    required: true
  repositories:
    description: Words in the addresses of package repositories, by names.
    type: dict
    default: {}
  ours:
    description: What the names of the role's own files of repositories begin with.
    type: str
    default: lmfleet-
"""

EXAMPLES = r"""
- name: Look at Docker
  lmfleet.lmdeploy.container_engine_facts:
    pending: /var/lib/lmfleet/container_engine.json
"""

RETURN = r"""
engine:
  description:
    - The system (C(os), C(systemd)), the paths of C(programs), whether the Docker SDK for Python is there (C(sdk)), the files of
      C(repositories), the text of Docker's configuration (C(config)), what waits for a restart (C(pending)).
    - C(dockerd) is the daemon's process, C(arguments) its command line or the one that systemd has for it; C(containers) are those
      that run, with the deployment that they belong to, and none where C(unanswered) says why Docker did not tell.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._container_engine import facts


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "pending": {"type": "path", "required": True},
            "repositories": {"type": "dict", "default": {}},
            "ours": {"type": "str", "default": "lmfleet-"},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        engine = facts(options["config"], options["pending"], options["repositories"], options["ours"])
    except OSError as error:
        module.fail_json(msg=f"{error}: run the play as root (ansible_user: root, or ansible_become: true)")
    module.exit_json(changed=False, engine=engine)


if __name__ == "__main__":
    main()
