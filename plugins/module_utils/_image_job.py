# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules share that have an image brought by a process of its own: it is begun, asked after, and removed."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ._pull import poll, remove

try:
    import docker
    import docker.errors
except ImportError:
    DOCKER_ERROR: str | None = traceback.format_exc()
else:
    DOCKER_ERROR = None


class Refused(Exception):
    """The process cannot be begun; the text says why, and what to do."""


def there(client: Any, reference: str) -> str | None:
    """The id of the image of that reference, if it is there."""
    try:
        found: str = client.images.get(reference).id
    except docker.errors.NotFound:
        return None
    return found


def run(
    arguments: Mapping[str, Any], needs: Sequence[str], begin: Callable[[Any, AnsibleModule], dict[str, Any]]
) -> None:
    """Run a module with these arguments beside its ``state``, of which ``needs`` are for V(started) alone.

    ``begin`` is given a ``docker.client``, and gives what V(started) returns.
    """
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "polled", "removed"], "required": True},
            "reference": {"type": "str"},
            "file": {"type": "path", "required": True},
            "process": {"type": "dict"},
            **arguments,
        },
        required_if=[
            ("state", "started", ["reference", *needs]),
            ("state", "polled", ["process"]),
            ("state", "removed", ["process"]),
        ],
        supports_check_mode=True,
    )
    if DOCKER_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib("docker", reason="for Docker: apt-get install python3-docker there"),
            exception=DOCKER_ERROR,
        )
    state, file, process = module.params["state"], Path(module.params["file"]), module.params["process"]
    result: dict[str, Any] = {}
    try:
        if state == "started":
            with contextlib.closing(docker.from_env(version="auto", timeout=60)) as client:
                result = begin(client, module)
        elif state == "polled":
            result = poll(file, process)
        else:
            remove(file, process)
    except Refused as error:
        module.fail_json(msg=str(error))
    except (docker.errors.DockerException, OSError, json.JSONDecodeError) as error:
        module.fail_json(msg=f"Docker on this host: {error}")
    module.exit_json(changed=False, **result)
