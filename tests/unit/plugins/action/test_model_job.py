# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the model's container is started with, that secrets go by its file alone, and how it is followed to its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action import model_job
from ansible_collections.lmfleet.lmdeploy.plugins.action.model_decide import WORD
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.polling import LOST
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.on_hosts import looked_at, on_hosts
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


GOING = {"stage": "download", "bytes": 1, "total": 2, "rate": 1.0, "left_s": 1}
WHOLE = {"ok": True, "total": 2, "needed": 2, "seconds": 3.0, "aside": []}


def polled(**events: Any) -> dict[str, Any]:
    return {"running": True, "exit_code": None, "events": events, "stderr_tail": ""}


def followed(poll: Callable[[], dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    world = World(bound(nodes()))
    looked_at(world).write(WORD, {"key": "the run's own", "jobs": {"node0": {"program": "download"}}})
    given = {"state": "followed", **arguments}
    return on_hosts(world, model_job, given, lambda host, asked: poll())["node0"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setattr(model_job, "POLL_S", 0.001)


@pytest.mark.usefixtures("quick")
def test_polls_that_ssh_loses_do_not_end_a_download() -> None:
    answers = [*[None] * LOST, polled(progress=GOING), *[None] * LOST, polled(progress=GOING, result=WHOLE)]

    def poll() -> dict[str, Any]:
        answer = answers.pop(0)
        if answer is None:
            raise AnsibleConnectionFailure("Connection reset")
        return answer

    assert followed(poll) == {"changed": True, "model_result": WHOLE}
    assert answers == []


@pytest.mark.usefixtures("quick")
def test_a_host_that_stays_away_is_lost_and_its_download_goes_on() -> None:
    asked = []

    def poll() -> dict[str, Any]:
        asked.append(1)
        raise AnsibleConnectionFailure("Connection reset")

    raised = followed(poll)["raised"]
    assert len(asked) == LOST + 1
    assert "node0 has not answered since " in raised
    assert "goes on there, in the container lmdeploy-model, and a next run keeps what has come" in raised


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("answer", "arguments", "words"),
    [
        ({"failed": True, "msg": "container x is gone"}, {}, "node0: container x is gone"),
        (polled(result={"ok": False, "fault": "no such revision", "aside": []}), {}, "node0: no such revision"),
        (
            {**polled(), "running": False, "exit_code": 137},
            {},
            "node0: the container that brings the model ended with exit code 137",
        ),
        (
            polled(progress=GOING),
            {"timeout": 0},
            "node0: the model did not come within 0 s (model_timeout); last seen: d",
        ),
    ],
)
def test_what_ends_it_is_told_with_its_host(answer: dict[str, Any], arguments: dict[str, Any], words: str) -> None:
    result = followed(lambda: answer, **arguments)
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith(words)
