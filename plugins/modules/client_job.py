#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of a client's job on the head; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: client_job
short_description: Start, ask or remove the container of a client
version_added: 0.1.0
description:
  - What M(lmfleet.lmdeploy.warmup), M(lmfleet.lmdeploy.benchmark_job) and M(lmfleet.lmdeploy.link_test) do on a host, one step a
    call. Use those; this module is not meant for playbooks.
  - The program and its configuration are put into the container as files, so no key shows on a command line.
options:
  state:
    description: >-
      V(started) creates and starts the container, V(polled) reads how far it is, and tells it by SIGURG that somebody asks,
      V(removed) removes it.
    type: str
    choices: [started, polled, removed]
    required: true
  kind:
    description: What it is for, V(warmup) for example. A container without this label of the collection is never touched.
    type: str
    required: true
  name:
    description: The container's name.
    type: str
    required: true
  image:
    description: The image that the client runs in. It must be on the host. Needed for O(state=started).
    type: str
  files:
    description: The program's files, by their names below C(/lmfleet). Needed for O(state=started).
    type: dict
  argv:
    description: What Python is given before the path of the configuration. Needed for O(state=started).
    type: list
    elements: str
  config:
    description: The configuration but for the key. Needed for O(state=started).
    type: dict
  api_key:
    description: The API key of the endpoints.
    type: str
  hidden:
    description: More of O(config), as JSON, which is in the container's file alone and never shown.
    type: str
  mounts:
    description: Bind mounts, each as Docker's own C(source:target) or C(source:target:ro).
    type: list
    elements: str
    default: []
  environment:
    description: The container's environment.
    type: dict
    default: {}
  cpus:
    description: How many cores the client may use; 0 does not limit.
    type: float
    default: 0
  gpus:
    description: Whether it gets the host's GPUs, and what an engine's container has beside them, the host's IPC namespace.
    type: bool
    default: false
  privileged:
    description: Whether the container is privileged. One with O(gpus) that is not gets the single rights that RDMA needs.
    type: bool
    default: false
  owner:
    description:
      - Whose job it is, where there may be one at a time of its O(kind). One that runs already is an interrupted one's if it
        is the same owner's, and is removed; another owner's is left alone, and this one is refused.
    type: str
    default: ""
requirements:
  - Docker SDK for Python >= 5.0.3 (python3-docker)
attributes:
  check_mode:
    description: Not supported; the actions do not call it then.
    support: none
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See how far a warm-up is
  lmfleet.lmdeploy.client_job:
    state: polled
    kind: warmup
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
events:
  description: The client's last event of each kind.
  type: dict
  returned: O(state=polled)
stderr_tail:
  description: The last lines of the container's stderr, once it has ended.
  type: str
  returned: O(state=polled)
"""

import contextlib
import io
import json
import tarfile
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._events import last_events

try:
    import docker
    import docker.errors
    import docker.types

    DOCKER_ERROR = None
except ImportError:
    DOCKER_ERROR = traceback.format_exc()

LABEL = "lmfleet.lmdeploy.job"
OWNER = "lmfleet.lmdeploy.owner"
FOLDER = "/lmfleet"
CONFIG = "config.json"
# Events are small and few: a progress line every second or so, the result last.
LOG_LINES = 1000


def archive(files: dict[str, str]) -> bytes:
    """A tar of the files, for the container's root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(f"{FOLDER[1:]}/{name}")
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def configuration(options: dict[str, Any]) -> str:
    """The client's configuration, with its secrets."""
    hidden = json.loads(options["hidden"] or "{}")
    return json.dumps({**options["config"], "api_key": options["api_key"], **hidden})


def rights(options: dict[str, Any]) -> dict[str, Any]:
    """What Docker is asked for beside, where the job works on GPUs: as for an engine's container."""
    if not options["gpus"]:
        return {"privileged": options["privileged"]}
    found = {
        "privileged": options["privileged"],
        "ipc_mode": "host",
        "device_requests": [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])],
    }
    if not options["privileged"]:
        found["cap_add"] = ["IPC_LOCK"]
        found["ulimits"] = [docker.types.Ulimit(name="memlock", soft=-1, hard=-1)]
        found["devices"] = ["/dev/infiniband:/dev/infiniband"] if Path("/dev/infiniband").exists() else []
    return found


def start(client: Any, options: dict[str, Any]) -> None:
    """Create and start the container, and clear away ended ones of jobs that were interrupted."""
    kind, owner = options["kind"], options["owner"]
    for other in client.containers.list(all=True, filters={"label": f"{LABEL}={kind}"}):
        if other.status in ("exited", "dead") or (owner and other.labels.get(OWNER) == owner):
            other.remove(force=True)
        elif owner:
            raise ValueError(
                f"{other.name} is at work there already, for {other.labels.get(OWNER)}: wait until it has ended, or, if nobody "
                f"waits for it any more, docker rm -f {other.name}"
            )
    container = client.containers.create(
        options["image"],
        entrypoint=["python3"],
        command=[*options["argv"], f"{FOLDER}/{CONFIG}"],
        name=options["name"],
        labels={LABEL: kind, OWNER: owner},
        network_mode="host",
        user="0",
        working_dir=FOLDER,
        volumes=options["mounts"],
        environment=options["environment"],
        nano_cpus=int(options["cpus"] * 1e9) or None,
        **rights(options),
        # The events are read from the log, so it must be one that can be read, whatever the daemon's default is.
        log_config=docker.types.LogConfig(type="json-file"),
    )
    try:
        container.put_archive("/", archive({**options["files"], CONFIG: configuration(options)}))
        container.start()
    except docker.errors.DockerException:
        container.remove(force=True)
        raise


def own_container(client: Any, kind: str, name: str) -> Any:
    """The job's container of that name, or None."""
    try:
        container = client.containers.get(name)
    except docker.errors.NotFound:
        return None
    if container.labels.get(LABEL) != kind:
        raise ValueError(f"container {name} is not this job's (it has no label {LABEL}={kind}), so it is left alone")
    return container


def poll(client: Any, kind: str, name: str) -> dict[str, Any]:
    """How far the client is."""
    container = own_container(client, kind, name)
    if container is None:
        raise ValueError(f"container {name} is gone: something removed it while its job ran")
    running = container.status in ("created", "running")  # before the log, so that an ended client's log is whole
    if running:
        with contextlib.suppress(docker.errors.APIError):  # it ends at this moment
            container.kill("SIGURG")  # for programs/watched.py; without it, nothing comes of that signal
    log = container.logs(stdout=True, stderr=False, tail=LOG_LINES).decode(errors="replace")
    tail = "" if running else container.logs(stdout=False, stderr=True, tail=20).decode(errors="replace").strip()
    code = None if running else container.attrs["State"]["ExitCode"]
    return {"running": running, "exit_code": code, "events": last_events(log), "stderr_tail": tail}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "polled", "removed"], "required": True},
            "kind": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "image": {"type": "str"},
            "files": {"type": "dict"},
            "argv": {"type": "list", "elements": "str"},
            "config": {"type": "dict"},
            "api_key": {"type": "str", "no_log": True},
            "hidden": {"type": "str", "no_log": True},
            "mounts": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}},
            "cpus": {"type": "float", "default": 0},
            "gpus": {"type": "bool", "default": False},
            "privileged": {"type": "bool", "default": False},
            "owner": {"type": "str", "default": ""},
        },
        required_if=[("state", "started", ["image", "files", "argv", "config"])],
    )
    options = module.params
    if DOCKER_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib("docker", reason="for Docker: apt-get install python3-docker there"),
            exception=DOCKER_ERROR,
        )
    result: dict[str, Any] = {}
    try:
        client = docker.DockerClient.from_env(version="auto", timeout=60)
        if options["state"] == "started":
            start(client, options)
        elif options["state"] == "polled":
            result = poll(client, options["kind"], options["name"])
        else:
            container = own_container(client, options["kind"], options["name"])
            if container is not None:
                container.remove(force=True)
    except docker.errors.ImageNotFound:
        module.fail_json(msg=f"the image {options['image']} is not on this host: pull it first (role image)")
    except (docker.errors.DockerException, OSError, ValueError) as error:
        module.fail_json(msg=f"Docker on this host: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
