# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin: decides which host gets the model from where, out of the run's plan and what was seen."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result, tell
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.steps import image_chain
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.transfer import Wanted, decide_transfer

STOPPED = "The model was not brought. To mend first:"
WORD = "model jobs"


class ActionModule(ActionBase):
    """``lmfleet.lmdeploy.model_decide``; documented in plugins/modules/model_decide.py."""

    _supports_check_mode = True
    _requires_connection = False

    @harmless_result
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Decide, and keep each host's job for M(model_job)."""
        super().run(tmp, task_vars)
        __, arguments = self.validate_argument_spec(
            {
                "source": {"type": "str", "choices": ["present", "hub", "modelscope"], "default": "present"},
                "strategy": {"type": "str", "choices": ["each", "fanout"], "default": "each"},
                "endpoint": {"type": "str", "default": ""},
                "port": {"type": "int", "default": 8730},
                "limit": {"type": "float", "default": 0},
                "verify": {"type": "bool", "default": False},
                "verified": {"type": "bool", "default": False},
            }
        )
        verified = arguments.pop("verified")
        run = Run()
        plan, hosts = run.plan, run.hosts()
        wanted = Wanted(**{**arguments, "limit": arguments["limit"] * 1e6})
        found = decide_transfer(plan, hosts, wanted, verified=verified)
        if found.faults:
            raise AnsibleActionFail("\n  - ".join([STOPPED, *found.faults]))
        run.write(
            WORD,
            {
                "key": secrets.token_hex(16),
                "jobs": {name: dataclasses.asdict(job) for name, job in found.jobs.items()},
            },
        )
        for line in found.lines:
            tell(f"  {line}")
        lacking = [name for name in found.jobs if hosts[name].image_id is None]
        return {
            "changed": False,
            "hosts": list(found.jobs),
            "downloads": any(job.program == "download" for job in found.jobs.values()),
            "lines": found.lines,
            "image": plan.engines[0].image.reference,
            "image_needed_on": lacking,
            "image_chain": image_chain(plan, lacking, [name for name, host in hosts.items() if host.image_id]),
        }
