# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a teardown removes of a host: the deployment's containers by their labels, and directories that somebody has typed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._collect import JOB, owned_by

from .look import engine_of, home_path, hub_of
from .observed import DEPLOYMENT
from .planning.types import HF_CACHE, Node, Plan
from .releases import did_you_mean

VARIABLE = "teardown_caches"
# An engine goes before the Ray that it runs on.
_ORDER = ("gateway", "api", "dp", "proxy", "ray")
_ENDED = ("exited", "dead")
Listed = Mapping[str, Any]  # a container, as Docker lists it


def own(listed: Sequence[Listed], plan_name: str) -> list[Listed]:
    """The deployment's containers of all that a host has, in the order of their removal.

    Those of its jobs come first, which an interrupted run has left; one of a job that has no owner counts when it has ended.
    """
    found = []
    for each in listed:
        labels = each.get("Labels") or {}
        job = JOB in labels and (owned_by(labels, plan_name) or (not _owner(labels) and each.get("State") in _ENDED))
        if labels.get(DEPLOYMENT) == plan_name or job:
            found.append(each)
    return sorted(found, key=lambda each: (_rank(each), name_of(each)))


def _owner(labels: Mapping[str, str]) -> str:
    return labels.get("lmfleet.lmdeploy.owner") or ""


def _rank(each: Listed) -> int:
    service = (each.get("Labels") or {}).get("lmfleet.lmdeploy.service")
    return _ORDER.index(service) if service in _ORDER else -1


def name_of(each: Listed) -> str:
    """The name of a listed container; a link of another one to it is no name of its own."""
    names = [str(name).lstrip("/") for name in each.get("Names") or ()]
    return next((name for name in names if "/" not in name), str(each.get("Id", ""))[:12])


# ---- directories


def removable(plan: Plan, node: Node) -> dict[str, str]:
    """Directory on the node -> what is in it, of all that a teardown can be told to remove."""
    home = home_path(plan, node)
    planned = [path for service in plan.services_on(node.name) for path in service.directories]
    found = dict.fromkeys(planned, "compiled kernels")
    if f"{home}/ray" in found:
        found[f"{home}/ray"] = "Ray's sessions"
    found[f"{home}/benchmark"], found[f"{home}/logs"] = "results of benchmarks", "logs of former containers"
    model = model_directory(plan, node)
    return {**found, **({model: "the model"} if model else {})}


def model_directory(plan: Plan, node: Node) -> str | None:
    """Where the node has the model; None where the plan does not say."""
    if not plan.model.startswith("/"):
        if hub_of(plan, node) != f"{HF_CACHE}/hub":
            return None
        return f"{node.hf_home}/hub/models--{plan.model.replace('/', '--')}"
    inside = PurePosixPath(plan.model)
    mounts = [each for each in engine_of(plan, node).mounts if PurePosixPath(each.target) in (inside, *inside.parents)]
    if not mounts:
        return None
    mount = max(mounts, key=lambda each: len(each.target))
    return str(PurePosixPath(mount.source) / inside.relative_to(mount.target))


def wrong_paths(plan: Plan, typed: Sequence[str]) -> list[str]:
    """Why paths that were typed are not removed, one sentence for each; nothing where all of them are planned."""
    known = {path: what for node in plan.nodes for path, what in removable(plan, node).items()}
    offer = ", ".join(f"{path} ({what})" for path, what in known.items())
    return [
        f"{VARIABLE} has {path!r}, which this deployment does not keep{did_you_mean(path, list(known))}. It keeps {offer}. "
        "Type one of these as it stands here."
        for path in dict.fromkeys(typed)
        if path not in known
    ]


def users(listed: Sequence[Listed], plan_name: str, path: str) -> list[str]:
    """The running containers of others that have ``path``, a part of it, or what it is part of, mounted."""
    mine = {each.get("Id") for each in own(listed, plan_name)}
    found = []
    for each in listed:
        if each.get("State") not in ("running", "paused", "restarting") or each.get("Id") in mine:
            continue
        sources = [str(mount["Source"]) for mount in each.get("Mounts") or () if mount.get("Source")]
        if any(_overlap(source, path) for source in sources):
            found.append(name_of(each))
    return sorted(found)


def _overlap(first: str, second: str) -> bool:
    one, other = PurePosixPath(first), PurePosixPath(second)
    if str(one) == "/":  # node exporters and the like have all of the host
        return False
    return one == other or one in other.parents or other in one.parents
