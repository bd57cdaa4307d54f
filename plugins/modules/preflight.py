#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check that a host can run its services, before anything starts
version_added: 0.1.0
description:
  - Checks the number of GPUs, Docker and its Python SDK, that the planned container names are free or ours, and that the
    planned ports are free.
  - Reports every fault instead of failing at the first, so that all hosts can be reported at once.
author:
  - lmfleet contributors (@lmfleet)
requirements:
  - iproute2
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  deployment:
    description: Name of the deployment.
    type: str
    required: true
  gpus:
    description: GPUs that the host has to have; counted where C(nvidia-smi) is installed.
    type: int
    default: 0
  services:
    description: The services planned for this host, each with C(name) and C(listens).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Check this host
  lmfleet.lmdeploy.preflight:
    deployment: lmdeploy
    services:
      - name: lmdeploy-api
        listens: [23333]
"""

RETURN = r"""
faults:
  description: What has to be mended on this host, one sentence each; empty when it is fit.
  returned: success
  type: list
  elements: str
interfaces:
  description: By interface, its IPv4 addresses.
  returned: success
  type: dict
source:
  description: The host's own address on its default route, empty where it has none.
  returned: success
  type: str
hardware:
  description: The names of the C(gpus) and their C(driver), where C(nvidia-smi) is installed, and the C(links) with their speeds.
  returned: success
  type: dict
docker:
  description: Version of the Docker engine.
  returned: when Docker answers
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _preflight as preflight

try:
    import docker
except ImportError:
    docker = None

NO_IP = "the command ip is missing, which tells the interface of the cluster address: apt-get install iproute2."
NO_SDK = "the Docker SDK for Python is missing: apt-get install python3-docker (Debian, Ubuntu), or pip install docker."
NO_DOCKER = "Docker does not answer ({error}): install and start it (systemctl enable --now docker)."


def main() -> None:
    """Check everything once."""
    module = AnsibleModule(
        argument_spec={
            "deployment": {"type": "str", "required": True},
            "gpus": {"type": "int", "default": 0},
            "services": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    hardware: dict[str, Any] = {"gpus": [], "driver": None, "links": preflight.link_speeds()}
    result: dict[str, Any] = {
        "changed": False,
        "interfaces": {},
        "source": preflight.source_address(),
        "hardware": hardware,
        "faults": [],
    }
    if module.get_bin_path("ip"):
        __, addresses, __ = module.run_command(["ip", "-json", "-4", "address"], check_rc=True)
        result["interfaces"] = preflight.interfaces(addresses)
    else:
        result["faults"] += [NO_IP]
    if module.get_bin_path("nvidia-smi"):
        __, listing, __ = module.run_command(["nvidia-smi", "-L"])
        result["faults"] += preflight.gpu_faults(module.params["gpus"], listing)
        __, query, __ = module.run_command(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
        hardware["gpus"], hardware["driver"] = preflight.gpus(query)
    if docker is None:
        result["faults"] += [NO_SDK]
        module.exit_json(**result)
    deployment, services = module.params["deployment"], module.params["services"]
    planned = {service["name"] for service in services}
    try:
        client = docker.from_env()
        version = client.version()
        everything = {c.name: c for c in client.containers.list(all=True, ignore_removed=True)}
    except docker.errors.DockerException as error:
        result["faults"] += [NO_DOCKER.format(error=error)]
        module.exit_json(**result)
    containers = {name: container for name, container in everything.items() if name in planned}
    running = {name for name, container in containers.items() if container.status == "running"}
    module.exit_json(
        **{
            **result,
            "docker": version["Version"],
            "faults": [
                *result["faults"],
                *preflight.docker_faults(version["ApiVersion"]),
                *preflight.container_faults({name: c.labels for name, c in containers.items()}, deployment),
                *preflight.leftover_faults({name: c.labels for name, c in everything.items()}, deployment, planned),
                *preflight.port_faults(services, running, preflight.listening_ports(preflight.read_tcp_tables())),
            ],
        }
    )


if __name__ == "__main__":
    main()
