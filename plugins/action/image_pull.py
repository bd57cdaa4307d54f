# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls an image, and shows how far it is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.detached import DetachedAction
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.docker_errors import image_remedy, may_pass
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.images import mirrored, no_room, pull_line
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result


class ActionModule(DetachedAction):
    """``lmfleet.lmdeploy.image_pull``; documented in plugins/modules/image_pull.py."""

    _supports_check_mode = True
    _module = "lmfleet.lmdeploy.pull_job"

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Pull it where it is needed; a failure says what to do first, and whether another try may help."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, options = self.validate_argument_spec(
            {
                "name": {"type": "str", "required": True},
                "mirror": {"type": "str", "default": ""},
                "pull": {"type": "str", "choices": ["missing", "always"], "default": "missing"},
                "state_dir": {"type": "path", "required": True},
                "stall": {"type": "float", "default": 900},
            }
        )
        name = options["name"]
        try:
            source = mirrored(name, options["mirror"])
        except ValueError as error:
            return {"failed": True, "changed": False, "msg": str(error), "transient": False}
        self._file = f"{options['state_dir']}/pulls/{uuid.uuid4().hex[:8]}.json"
        # A check asks no registry whether it has a newer image: it takes the one that is there for it.
        begun = self._job(
            "started",
            reference=name,
            source=source,
            always=options["pull"] == "always" and not self._task.check_mode,
        )
        if bad(begun):
            return self._failed(begun, source or name, str(begun.get("msg")))
        if begun["process"] is None:
            missing = begun["before"] is None
            return {"changed": missing, "msg": f"would pull {source or name}" if missing else f"{name} is there"}
        last = self._to_its_end(
            begun["process"],
            f"the pull of {name}",
            pull_line,
            self._trouble(options["stall"], begun["root"]),
        )
        if bad(last):
            return self._failed(last, source or name, str(last.get("msg")))
        return {"changed": last["image"] != begun["before"], "image": last["image"]}

    def _trouble(self, stall_s: float, root: dict[str, Any]) -> Callable[[Mapping[str, Any], float], str]:
        """Why a pull is given up: no room for its layers, or a registry that sends nothing any more."""
        lines, moved = -1, time.monotonic()

        def trouble(summary: Mapping[str, Any], now: float) -> str:
            nonlocal lines, moved
            full = no_room(summary, root)
            if full:
                return full
            if summary["lines"] != lines:
                lines, moved = summary["lines"], now
            elif now - moved > stall_s:
                return (
                    f"Docker got nothing for {stall_s:.0f} s (image_pull_stall), which counts as i/o timeout; last seen: "
                    f"{pull_line(summary)}"
                )
            return ""

        return trouble

    def _failed(self, outcome: dict[str, Any], reference: str, text: str) -> dict[str, Any]:
        said = f"Error pulling image {reference}: {text.strip().rstrip('.')}"
        repeated: dict[str, Any] = {key: outcome[key] for key in ("unreachable", "exception") if key in outcome}
        return {
            **repeated,
            "failed": True,
            "changed": False,
            "msg": f"{said}: {image_remedy(said)}.",
            "transient": may_pass(said),
        }
