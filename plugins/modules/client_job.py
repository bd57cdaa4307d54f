#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of a warm-up on the head; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: warmup_job
short_description: Start, ask or remove a warm-up's container
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.warmup) does on the head, one step a call. Use that; this module is not meant for playbooks.
  - The client and its configuration are put into the container as files, so no key shows on a command line.
options:
  state:
    description: V(started) creates and starts the container, V(polled) reads how far it is, V(removed) removes it.
    type: str
    choices: [started, polled, removed]
    required: true
  name:
    description: The container's name. A container without this collection's label is never touched.
    type: str
    required: true
  image:
    description: The image that the client runs in. It must be on the host. Needed for O(state=started).
    type: str
  config:
    description: The client's configuration but for the key. Needed for O(state=started).
    type: dict
  api_key:
    description: The API key of the endpoints.
    type: str
requirements:
  - Docker SDK for Python >= 5.0.3 (python3-docker)
attributes:
  check_mode:
    description: Not supported; M(lmfleet.lmdeploy.warmup) does not call it then.
    support: none
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See how far a warm-up is
  lmfleet.lmdeploy.warmup_job:
    state: polled
    name: lmfleet-warmup-1a2b3c4d
"""

RETURN = r"""
running:
  description: Whether the client still runs.
  type: bool
  returned: O(state=polled)
exit_code:
  description: The client's exit code, once it has ended.
  type: int
  returned: O(state=polled)
progress:
  description: The client's last progress event.
  type: dict
  returned: O(state=polled)
result:
  description: The client's result event, once there is one.
  type: dict
  returned: O(state=polled)
stderr_tail:
  description: The last lines of the container's stderr, once it has ended.
  type: str
  returned: O(state=polled)
"""

import io
import json
import tarfile
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _warmup

try:
    import docker
    import docker.errors
    import docker.types

    DOCKER_ERROR = None
except ImportError:
    DOCKER_ERROR = traceback.format_exc()

LABEL = "lmfleet.lmdeploy.job"
FOLDER = "lmfleet-warmup"


def archive(config: dict[str, Any]) -> bytes:
    """A tar of the client and its configuration, for the container's root."""
    spec = _warmup.__spec__
    # By the loader, not by the file: on the host the module may lie inside a zip.
    source: str = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in (("warmup.py", source), ("config.json", json.dumps(config))):
            data = text.encode()
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def start(client: Any, name: str, image: str, config: dict[str, Any]) -> None:
    """Create and start the container, and clear away ended ones of warm-ups that were interrupted."""
    for old in client.containers.list(all=True, filters={"label": f"{LABEL}=warmup", "status": "exited"}):
        old.remove()
    container = client.containers.create(
        image,
        entrypoint=["python3"],
        command=[f"/{FOLDER}/warmup.py", f"/{FOLDER}/config.json"],
        name=name,
        labels={LABEL: "warmup"},
        network_mode="host",
        user="0",
        # The events are read from the log, so it must be one that can be read, whatever the daemon's default is.
        log_config=docker.types.LogConfig(type="json-file"),
    )
    try:
        container.put_archive("/", archive(config))
        container.start()
    except docker.errors.DockerException:
        container.remove(force=True)
        raise


def own_container(client: Any, name: str) -> Any:
    """The warm-up's container of that name, or None."""
    try:
        container = client.containers.get(name)
    except docker.errors.NotFound:
        return None
    if container.labels.get(LABEL) != "warmup":
        raise ValueError(f"container {name} is no warm-up's (it has no label {LABEL}=warmup), so it is left alone")
    return container


def poll(client: Any, name: str) -> dict[str, Any]:
    """How far the client is."""
    container = own_container(client, name)
    if container is None:
        raise ValueError(f"container {name} is gone: something removed it while the warm-up ran")
    running = container.status in ("created", "running")  # before the log, so that an ended client's log is whole
    progress, result = _warmup.read_events(container.logs(stdout=True, stderr=False).decode(errors="replace"))
    tail = "" if running else container.logs(stdout=False, stderr=True, tail=20).decode(errors="replace").strip()
    code = None if running else container.attrs["State"]["ExitCode"]
    return {"running": running, "exit_code": code, "progress": progress, "result": result, "stderr_tail": tail}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "polled", "removed"], "required": True},
            "name": {"type": "str", "required": True},
            "image": {"type": "str"},
            "config": {"type": "dict"},
            "api_key": {"type": "str", "no_log": True},
        },
        required_if=[("state", "started", ["image", "config"])],
    )
    options = module.params
    if DOCKER_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib("docker", reason="install python3-docker on this host"), exception=DOCKER_ERROR
        )
    result: dict[str, Any] = {}
    try:
        client = docker.DockerClient.from_env(version="auto", timeout=60)
        if options["state"] == "started":
            start(client, options["name"], options["image"], {**options["config"], "api_key": options["api_key"]})
        elif options["state"] == "polled":
            result = poll(client, options["name"])
        else:
            container = own_container(client, options["name"])
            if container is not None:
                container.remove(force=True)
    except docker.errors.ImageNotFound:
        module.fail_json(msg=f"the image {options['image']} is not on this host: pull it first (role image)")
    except (docker.errors.DockerException, OSError, ValueError) as error:
        module.fail_json(msg=f"Docker on this host: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
