# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The completion through the public URL, as the module of its name asks for it: a status 200 is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT

MODULE = "ansible_collections.lmfleet.lmdeploy.plugins.modules.completion"


def asked(url: str, **more: Any) -> dict[str, Any]:
    arguments = {"ANSIBLE_MODULE_ARGS": {"url": url, "model": "null", **more}}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections"), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", MODULE],
        check=False,
        capture_output=True,
        text=True,
        input=json.dumps(arguments),
        env=environment,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_tokens_are_a_completion() -> None:
    with NullServer(1) as server:
        url = server.endpoints[0].url
        result = asked(url, api_key="not-for-everyone")
        assert server.endpoints[0].bodies[0]["messages"][0]["role"] == "user"
        assert server.endpoints[0].headers[0]["authorization"] == "Bearer not-for-everyone"
        assert asked(url, _ansible_check_mode=True)["skipped"]
        assert len(server.endpoints[0].bodies) == 1
    assert "not-for-everyone" not in json.dumps(result)
    assert result["msg"].startswith(f"{url}/v1/chat/completions gave a chat completion in ")


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("proxy", "HTTP 200, the proxy gave no answer of a rank (error_code 10402: Failed to get response"),
        ("finish_error", "HTTP 200, no token, finish_reason=error: internal error happened"),
        ("status", "HTTP 503, The inference engine is unavailable."),
        ("drip", "timed out after 0.5 s"),
        ("endless", "the answer is longer than 1048576 bytes"),
    ],
)
def test_37_and_67_whatever_comes_in_their_place_is_none(mode: str, why: str) -> None:
    with NullServer(1, mode=mode) as server:
        result = asked(server.endpoints[0].url, timeout=0.5 if mode == "drip" else 60)
    assert result["failed"]
    assert result["msg"].startswith(
        f"No chat completion came from {server.endpoints[0].url}/v1/chat/completions: {why}"
    )
    assert "Run the playbook again" in result["msg"]
    assert "To see what each rank answers: ansible-playbook playbooks/warmup.yml." in result["msg"]
