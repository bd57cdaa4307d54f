# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses the GPUs: the running containers that were given some, be they of this deployment or of anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import containers

VARIABLE = "NVIDIA_VISIBLE_DEVICES"
CDI = "nvidia.com/gpu="
NONE = ("", "void", "none")
ALL = "all"


def gpu_users(client: Any) -> list[dict[str, Any]]:
    """``{"name", "image", "deployment", "gpus"}`` of each, sorted by name; see RETURN of M(observe)."""
    names = [name.lstrip("/") for each in client.containers.list(sparse=True) for name in each.attrs["Names"][:1]]
    found = [
        (name, each.attrs, gpus_of(each.attrs))
        for name, each in containers.inspected(client, names).items()
        if containers.is_running(each)
    ]
    return [
        {
            "name": name,
            "image": str((attrs.get("Config") or {}).get("Image") or ""),
            "deployment": ((attrs.get("Config") or {}).get("Labels") or {}).get(containers.DEPLOYMENT_LABEL, ""),
            "gpus": gpus,
        }
        for name, attrs, gpus in sorted(found, key=lambda entry: entry[0])
        if gpus
    ]


def gpus_of(attrs: Mapping[str, Any]) -> str | list[str]:
    """``all``, or the indices and UUIDs of the GPUs that a container was given, out of what Docker says on inspection.

    A container that was asked for a number of them gets the first ones. A privileged one that asked for none sees all of
    them and is not counted: node exporters and the like are.
    """
    host, config = attrs.get("HostConfig") or {}, attrs.get("Config") or {}
    found: list[str] = []
    for request in host.get("DeviceRequests") or []:
        kinds = {kind for group in request.get("Capabilities") or [] for kind in group or []}
        devices = [str(each) for each in request.get("DeviceIDs") or []]
        if request.get("Driver") == "cdi":
            found += [each.partition(CDI)[2] for each in devices if each.startswith(CDI)]
        elif kinds & {"gpu", "nvidia"} or request.get("Driver") == "nvidia":
            count = request.get("Count") or 0
            found += devices or ([ALL] if count < 0 else [str(index) for index in range(count)])
    if not found and host.get("Runtime") == "nvidia":
        variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
        found = [each for each in variables.get(VARIABLE, "").split(",") if each not in NONE]
    for device in host.get("Devices") or []:
        index = str(device.get("PathOnHost", "")).partition("/dev/nvidia")[2]
        found += [index] if index.isdecimal() else []
    return ALL if ALL in found else list(dict.fromkeys(found))
