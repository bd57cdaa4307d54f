# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the containers of a host would find single files, along links as they would follow them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import parallel
from .view import DanglingError, LeavesMountsError, Mount, NotAFileError, View

LONGEST = 4 << 20  # bytes of a file whose JSON is read


def inside(asked: Mapping[str, Any]) -> dict[str, str]:
    """What keeps a container from reading each path; empty text where nothing does.

    ``asked`` has ``mounts`` (each ``source`` and ``target``) and ``paths``, by path in the container its kind: "file",
    "json" or "directory".
    """
    view = View([Mount(each["source"], each["target"]) for each in asked.get("mounts") or []])
    kinds = asked.get("paths") or {}
    return parallel.each(lambda path: _wrong(view, path, str(kinds[path])), list(kinds))


def _wrong(view: View, path: str, kind: str) -> str:
    where = view.on_host(path) or path
    try:
        if kind == "directory":
            view.names(path)
            return ""
        with view.open(path) as file:
            content = file.read(LONGEST + 1 if kind == "json" else 1)
    except LeavesMountsError as left:
        return (
            f"{left.link} is a link to {left.inside}, which no mount has there: add {{source: {left.mount.source}, "
            f"target: {left.mount.target}}} to plan_extra_mounts"
        )
    except DanglingError as link:
        return f"{link.link} is a link to {link.target}, which does not exist: put the file there, or correct the link"
    except NotAFileError as other:
        return f"{where} is {other.kind}: correct the path"
    except FileNotFoundError:
        return f"{where} does not exist: put it there, or correct the path"
    except NotADirectoryError:
        return f"a directory of {where} is a file: correct the path"
    except OSError as error:
        return f"{where} cannot be read ({error.strerror}): see `ls -ld {where}`"
    if kind != "json":
        return ""
    if len(content) > LONGEST:
        return f"{where} has more than {LONGEST >> 20} MiB: it is not such a file"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return f"{where} is no JSON, as LMDeploy wants it: correct the file"
    return "" if isinstance(found, dict) else f"{where} holds no JSON object ({{...}}): correct the file"
