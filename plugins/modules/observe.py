#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_status
short_description: What one host says about its LMDeploy services
version_added: 0.1.0
description:
  - One look at the host's containers, their new log lines, TCP ports, api_servers and Ray's members.
  - M(lmfleet.lmdeploy.wait) calls it in rounds.
author:
  - lmfleet contributors (@lmfleet)
requirements:
  - Docker SDK for Python 5.0 or newer
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  containers:
    description: Container names, each with the time stamp after which log lines are wanted (empty for all).
    type: dict
    default: {}
  measure:
    description: Measure how much each container has read and holds; takes seconds.
    type: bool
    default: false
  tcp:
    description: Ports to connect to from this host, as C(address:port).
    type: list
    elements: str
    default: []
  http:
    description: Base URLs of api_servers, without C(/v1).
    type: list
    elements: str
    default: []
  proxy:
    description: Base URL of LMDeploy's proxy, when its list is wanted.
    type: str
  ray_container:
    description: The container in which Ray's head runs, when its members are wanted.
    type: str
  ray_address:
    description: Address and port of Ray's head; needed with O(ray_container).
    type: str
  ray_claim:
    description: Ask Ray for this many GPUs at once, and give them back, to see whether an engine would get them.
    type: int
    default: 0
  ray_claim_unless:
    description: Do not, while this container runs, because it holds them.
    type: str
"""

EXAMPLES = r"""
- name: Look at the services of this host
  lmfleet.lmdeploy.service_status:
    containers:
      lmdeploy-ray: ""
    tcp: ["10.0.0.10:6379"]
"""

RETURN = r"""
containers:
  description:
    - By name, C(present), C(status), C(exit_code), C(oom_killed), C(restarts), C(started_at), C(lines), C(cursor).
    - C(up_after_s), the seconds from its start until the last of its servers said that it is up.
  returned: success
  type: dict
tcp:
  description: By C(address:port), an empty string or why it takes no connection.
  returned: success
  type: dict
http:
  description: By URL, C(health) and C(models), or C(error).
  returned: success
  type: dict
proxy:
  description: C(nodes), by URL the models that the proxy has them listed with; or C(error).
  returned: when O(proxy) is given
  type: dict
ray:
  description: C(nodes), each with C(address), C(alive) and C(gpus), and C(given); or C(error).
  returned: when O(ray_container) is given
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _service_status as status

try:
    import docker
except ImportError:
    docker = None


def main() -> None:
    """Ask everything once."""
    module = AnsibleModule(
        argument_spec={
            "containers": {"type": "dict", "default": {}},
            "measure": {"type": "bool", "default": False},
            "tcp": {"type": "list", "elements": "str", "default": []},
            "http": {"type": "list", "elements": "str", "default": []},
            "proxy": {"type": "str"},
            "ray_container": {"type": "str"},
            "ray_address": {"type": "str"},
            "ray_claim": {"type": "int", "default": 0},
            "ray_claim_unless": {"type": "str"},
        },
        required_together=[("ray_container", "ray_address")],
        supports_check_mode=True,
    )
    if docker is None:
        module.fail_json(msg=missing_required_lib("docker (Debian and Ubuntu: apt-get install python3-docker)"))
    try:
        module.exit_json(changed=False, **status.look(docker.from_env(), module.params))
    except docker.errors.DockerException as error:
        module.fail_json(msg=f"Docker on this host does not answer: {error}")


if __name__ == "__main__":
    main()
