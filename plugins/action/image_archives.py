# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees that archives of images are on the control node, and have room on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.images import archive_fault, is_archive, is_packed
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.image_archives``; documented in plugins/modules/image_archives.py."""

    _supports_check_mode = True

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find them, and compare their sizes with the host's disks. Fails with all that is wrong."""
        super().run(tmp, task_vars)
        __, options = self.validate_argument_spec(
            {
                "archives": {"type": "list", "elements": "str", "required": True},
                "state_dir": {"type": "path", "required": True},
            }
        )
        paths: list[Path] = []
        found: list[tuple[int, bool]] = []
        faults: list[str] = []
        for name in options["archives"]:
            try:
                path = Path(self._find_needle("files", name))
            except AnsibleError:
                faults.append(
                    f"image_archive: there is no {name} on the control node: put it there, or correct its path."
                )
                continue
            head = _head(path)
            if not is_archive(head):
                faults.append(
                    f"image_archive: {path} is no archive of docker save: make it again (docker save -o ARCHIVE IMAGE)."
                )
                continue
            paths.append(path)
            found.append((path.stat().st_size, is_packed(head)))
        if not faults:
            faults += self._no_room(found, options["state_dir"], task_vars or {})
        if faults:
            return {"failed": True, "changed": False, "msg": "\n  - ".join(["To mend first:", *faults])}
        return {"changed": False, "paths": list(map(str, paths))}

    def _no_room(self, found: list[tuple[int, bool]], state_dir: str, task_vars: dict[str, Any]) -> list[str]:
        seen = self._execute_module(
            "lmfleet.lmdeploy.observe",
            {"host": True, "host_disks": [state_dir], "docker_settings": True},
            task_vars=task_vars,
        )
        if bad(seen):
            return [str(seen.get("msg"))]
        disks = (seen.get("host") or {}).get("disks") or {}
        root = (seen.get("docker_settings") or {}).get("root_dir") or ""
        fault = archive_fault(found, disks.get(state_dir), disks.get(root), (state_dir, root))
        return [fault] if fault else []


def _head(path: Path) -> bytes:
    """How a file begins; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""
