# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: whether they are there, what one said that it holds, and whether its registry has a newer one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import parallel

PASSING = re.compile(r"timed out|ended with -\d+")


def image_facts(client: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """``{"id", "digests", "answer"}`` of ``asked["reference"]``; ``id`` and ``answer`` None where they are not there.

    ``unanswered`` says why an answer that was kept is none.

    With ``ask_registry`` also ``current``: whether the registry has this very image under the reference; None, and why in
    ``registry_error``, where it cannot be asked. ``registry_reference`` is that of a mirror.
    """
    import docker

    reference, folder = asked["reference"], Path(asked["state_dir"])
    source = asked.get("registry_reference") or reference
    try:
        attrs = client.images.get(reference).attrs
    except docker.errors.NotFound:
        attrs = {}
    digests = attrs.get("RepoDigests") or []
    answer: dict[str, Any] = {
        "id": attrs.get("Id"),
        "digests": digests,
        "answer": kept_answer(folder, attrs["Id"]) if attrs else None,
    }
    errors = passing_errors(_file(folder, attrs["Id"]) or {}) if attrs else []
    if errors:
        answer["unanswered"] = "; ".join(errors)
    if asked.get("ask_registry"):
        try:
            theirs = client.images.get_registry_data(source, auth_config=_credentials(folder, source)).id
            answer["current"] = any(digest.endswith(f"@{theirs}") for digest in digests)
        except (docker.errors.DockerException, OSError) as error:  # requests' own errors are OSErrors
            answer["current"] = None
            answer["registry_error"] = f"the registry could not be asked for {source}: {_said(error)}"
    return answer


def kept_answer(folder: Path, image: str) -> dict[str, Any] | None:
    """What the image said of itself when it was asked last, or None: it has to be asked.

    An answer that a time-out cut short was true of a slow moment, not of the image, which has to be asked again.
    """
    answer = _file(folder, image)
    return None if answer is None or passing_errors(answer) else answer


def passing_errors(answer: Mapping[str, Any]) -> list[str]:
    """What went wrong when an image was asked, and is not the image's doing: a time-out, or a signal that ended it."""
    return [str(error) for error in answer.get("errors") or [] if PASSING.search(str(error))]


def _file(folder: Path, image: str) -> dict[str, Any] | None:
    try:
        answer = json.loads((folder / "images" / f"{image.replace(':', '-')}.json").read_bytes())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def present(client: Any, ids: Iterable[str]) -> dict[str, bool]:
    """Id -> whether the host has that image."""
    import docker

    def has(image: str) -> bool:
        try:
            client.images.get(image)
        except docker.errors.NotFound:
            return False
        return True

    return parallel.each(has, ids)


def _credentials(folder: Path, reference: str) -> dict[str, Any] | None:
    """The login that the role ``image`` keeps, in the form that Docker wants; None: as nobody."""
    import docker

    file = folder / "docker" / "config.json"
    if not file.exists():
        return None
    registry, __ = docker.auth.resolve_repository_name(reference)
    found: dict[str, Any] | None = docker.auth.load_config(config_path=str(file)).resolve_authconfig(registry)
    return found


def _said(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)
