# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a client that takes too long, or ends without a result: where it was, and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import LIMITED_BY, ClientAction

ROOT = Path(__file__).resolve().parents[4]


class Client(ClientAction):
    """An action that runs nothing but a client."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        raise NotImplementedError


def told(kind: str, polled: dict[str, Any], monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """The message of a client on node1 that may take no time, and of which this is seen."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(folder))
    action = Client.__new__(Client)
    action._execute_module = lambda module_name, module_args, **_: polled if module_args["state"] == "polled" else {}
    started: dict[str, Any] = {"files": {}, "argv": [], "image": "a/b:1"}
    ended = action.run_client(
        kind, "c", 0, lambda event: str(event["line"]), {"inventory_hostname": "node1"}, **started
    )
    assert ended["failed"]
    return str(ended["msg"])


@pytest.mark.parametrize("kind", LIMITED_BY)
def test_a_client_that_takes_too_long_names_the_variable(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_work = {"running": True, "events": {"progress": {"line": "row 1", "seconds": 3.0}}}
    text = told(kind, at_work, monkeypatch, tmp_path)
    assert text.startswith(
        f"{kind}: the client on node1 was still at work after 0 s, and was removed; last seen: row 1."
    )
    variable = re.search(r"a larger (\w+) \(-e\)", text)
    assert variable
    specs = (
        ROOT / "roles" / variable[1].rpartition("_timeout")[0].removesuffix("_row") / "meta/argument_specs.yml"
    ).read_text()
    assert variable[1] in yaml.safe_load(specs)["argument_specs"]["main"]["options"]
    assert "playbooks/status.yml" in text
    assert "last seen: nothing." in told(kind, {"running": True, "events": {}}, monkeypatch, tmp_path)


def test_a_client_that_ended_without_a_result_names_host_image_and_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = {"running": False, "events": {}, "exit_code": 137, "stderr_tail": "MemoryError"}
    text = told("warm-up", ended, monkeypatch, tmp_path)
    head = "warm-up: the client on node1 ended with exit code 137 and without a result, in image a/b:1:\nMemoryError\n"
    assert text.startswith(head)
    assert "then run again. Exit code 137 is a kill: by the kernel for lack of memory" in text
