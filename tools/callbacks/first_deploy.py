# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback for tools/bench_first.py: notes how long each warm-up took, and each removal of containers, in a file, a line each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_collections.lmfleet.lmdeploy.plugins.callback.brief import read

DOCUMENTATION = """
name: first_deploy
type: aggregate
short_description: Write down warm-ups and removals
description: Only for tools/bench_first.py, which names the file in LMFLEET_FIRST_DEPLOY.
"""


class CallbackModule(CallbackBase):
    """``first_deploy``."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "first_deploy"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task ended."""
        told, __, task = read(result)
        action = str(task.action).rpartition(".")[2]
        if action == "warmup" and "seconds" in told:
            self._note({"warmup": told["seconds"]})
        elif action == "act" and task.args.get("act") == "remove" and told.get("changed"):
            self._note({"removed": True})

    def _note(self, what: dict[str, Any]) -> None:
        with Path(os.environ["LMFLEET_FIRST_DEPLOY"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")
