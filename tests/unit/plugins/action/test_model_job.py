# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the model's container is started with, and that secrets go by its file alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants

from ansible_collections.lmfleet.lmdeploy.plugins.action import model_job
from ansible_collections.lmfleet.lmdeploy.plugins.action.model_decide import WORD
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound

PROXY = "http://anna:planted-password@proxy.example.com:3128"


def started(program: str, monkeypatch: pytest.MonkeyPatch, folder: Path, **variables: Any) -> dict[str, Any]:
    """What M(client_job) is asked for."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(folder))
    job = {"program": program, "directory": "/cache", "mount": "/cache:/cache", "config": {"repo": "a/b"}}
    looked_at(World(bound(nodes()))).write(WORD, {"key": "the run's own", "jobs": {"node0": job}})
    asked: dict[str, Any] = {}

    def execute(module_name: str, module_args: dict[str, Any], **__: Any) -> dict[str, Any]:
        asked[module_name] = module_args
        return {}

    action = model_job.ActionModule.__new__(model_job.ActionModule)
    action._task = SimpleNamespace(args={"state": "started"}, check_mode=False, async_val=0, _uuid="task", action="x")
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
    action._templar = SimpleNamespace(template=lambda value: value)
    action._execute_module = execute
    assert action.run(task_vars={"inventory_hostname": "node0", **variables})["changed"]
    found: dict[str, Any] = asked["lmfleet.lmdeploy.client_job"]
    return found


def test_token_and_proxy_of_a_download_are_in_what_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {
        "model_hub_token": "planted-token",
        "model_hub_environment": {"HTTPS_PROXY": PROXY, "HF_HUB_ETAG_TIMEOUT": 30},
    }
    asked = started("download", monkeypatch, tmp_path, **given)
    assert asked["api_key"] == "planted-token"
    hidden = json.loads(asked["hidden"])
    assert hidden == {"environment": {"HTTPS_PROXY": PROXY, "HF_HUB_ETAG_TIMEOUT": "30"}}
    shown = {name: value for name, value in asked.items() if name not in ("api_key", "hidden")}
    assert "planted" not in json.dumps(shown)


def test_what_goes_from_host_to_host_gets_none_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = started("fanout", monkeypatch, tmp_path, model_hub_token="planted-token")
    assert asked["api_key"] == "the run's own"
    assert "planted" not in json.dumps(asked)
