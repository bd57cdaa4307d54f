# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives an image from host to host, and shows how far it is."""

from __future__ import annotations

import uuid
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.detached import DetachedAction
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.images import share_line
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import bad
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run

BY_DIGEST = (
    "image_share: {name} names a digest, and an image that came by docker load has none: set plan_image to a tag, or "
    "leave image_share out"
)


class ActionModule(DetachedAction):
    """``lmfleet.lmdeploy.image_share``; documented in plugins/modules/image_share.py."""

    _supports_check_mode = True
    _module = "lmfleet.lmdeploy.share_job"

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """This host's part of the chain, to its end."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        __, options = self.validate_argument_spec(
            {
                "name": {"type": "str", "required": True},
                "chain": {"type": "list", "elements": "dict", "required": True},
                "port": {"type": "int", "default": 8731},
                "state_dir": {"type": "path", "required": True},
            }
        )
        name, chain = options["name"], options["chain"]
        host = str(self._vars.get("inventory_hostname", ""))
        place = next((number for number, each in enumerate(chain) if each["name"] == host), None)
        if place is None:
            return {"changed": False, "skipped": True, "msg": f"{host} is not in the chain"}
        if "@" in name:
            return {"failed": True, "changed": False, "msg": BY_DIGEST.format(name=name)}
        self._file = f"{options['state_dir']}/pulls/{uuid.uuid4().hex[:8]}.json"
        before = chain[place - 1]["address"] if place else ""
        begun = self._job(
            "started",
            reference=name,
            before=before,
            address=chain[place]["address"] if place + 1 < len(chain) else "",
            port=options["port"],
            key=Run().secret("image_share"),
        )
        if bad(begun):
            return self._failed(begun, name)
        if begun["process"] is None:
            giver = chain[0]["name"]
            return {"changed": place > 0, "msg": f"would get {name} from {giver}" if place else f"would give {name}"}
        last = self._to_its_end(begun["process"], f"the transfer of {name}", share_line)
        if bad(last):
            return self._failed(last, name)
        return {"changed": last["image"] != begun["before"], "image": last["image"]}

    def _failed(self, outcome: dict[str, Any], name: str) -> dict[str, Any]:
        repeated: dict[str, Any] = {key: outcome[key] for key in ("unreachable", "exception") if key in outcome}
        said = str(outcome.get("msg")).strip().rstrip(".")
        remedy = (
            "Run again: hosts that have it by now do not get it again; without image_share each host pulls it itself"
        )
        return {
            **repeated,
            "failed": True,
            "changed": False,
            "msg": f"{name} was not copied from host to host: {said}. {remedy}.",
        }
