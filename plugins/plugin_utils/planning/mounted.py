# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a mount of the containers has what options of api_server name; what hosts alone can tell is in ``rules/model.py``."""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence

from ..releases import chat_templates, did_you_mean
from .inputs import HIDES, NOT_KEPT, Inputs, in_container, is_under
from .paths import A_FILE, REPOSITORIES, TEMPLATE, Named, named, values_of
from .types import HF_CACHE, KERNEL_CACHES
from .values import quoted

WHAT = "plan_api_server_options"


def faults(inputs: Inputs, release: str | None, arguments: Sequence[str]) -> Iterator[str]:
    """What ``arguments`` name and no container has; a template's name too, where the release does not know it."""
    yield from _template_faults(release, arguments)
    adapters = [value for option, value in values_of(arguments) if option == "--adapters"]
    names = [value.partition("=")[0] for value in adapters if "=" in value]
    if len(adapters) > 1 and len(names) < len(adapters):
        yield f"{WHAT}: adapters are several, and LMDeploy takes each as NAME=PATH then: give every one a name."
    elif len(set(names)) < len(names):
        yield f"{WHAT}: adapters have one name twice, and LMDeploy takes each name once: rename one of them."
    targets = [HF_CACHE, *KERNEL_CACHES.values(), *(mount.target for mount in inputs.extra_mounts)]
    for each in named(arguments):
        path = each.path
        if not path.startswith("/"):
            or_id = ", or the id of a repository in the cache" if each.option in REPOSITORIES else ""
            yield (
                f"{WHAT}: {each.key} is {quoted(path)}, which LMDeploy would look for in the image's working directory: give the "
                f"absolute path that it has in the containers{or_id}."
            )
        elif not any(is_under(path, target) for target in targets):
            yield f"{WHAT}: {each.key} is {quoted(path)}, a path that no container would see: {_remedy(inputs, each)}."


def _template_faults(release: str | None, arguments: Sequence[str]) -> Iterator[str]:
    known = chat_templates(release)
    for option, name in values_of(arguments):
        if option != TEMPLATE or A_FILE.search(name) or known is None or name in known:
            continue
        if not known:
            yield (
                f"{WHAT}: chat_template is {quoted(name)}, and LMDeploy {release} ends with an ImportError at a template's name: "
                "give the absolute path of a JSON file in the containers, or take it out."
            )
        else:
            yield (
                f"{WHAT}: chat_template is {quoted(name)}, which is no template of LMDeploy {release}{did_you_mean(name, known)}: "
                f"give one of {', '.join(known)}; or the absolute path of a JSON file in the containers."
            )


def _remedy(inputs: Inputs, each: Named) -> str:
    """The path to give, or the mount to add."""
    homes = {node.hf_home for node in inputs.nodes}
    mounts: list[Mapping[str, str]] = [dataclasses.asdict(mount) for mount in inputs.extra_mounts]
    mounts += [{"source": home, "target": HF_CACHE} for home in homes if len(homes) == 1]
    inside = in_container(each.path, mounts)
    if inside:
        return f"its mount has it at {inside} there, so set {each.key} to that"
    path = posixpath.normpath(each.path)
    folder = path if each.kind == "directory" else posixpath.dirname(path)
    if (
        folder in HIDES
        or folder == "/root"
        or folder.startswith(tuple(f"{place}/" for place in (*NOT_KEPT, "/etc", "/usr")))
    ):
        return (
            "put it into a directory of its own on every host, such as /data/lmdeploy, and mount that "
            "with plan_extra_mounts"
        )
    mount = f"{{source: {json.dumps(folder)}, target: {json.dumps(folder)}}}"
    return f"add {mount} to plan_extra_mounts, if every host has it there, or put it below a target that is mounted"
