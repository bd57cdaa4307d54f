# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes the proxy's list true. The real proxy of each release is asked in the sandbox (molecule/dpep, tests/sandbox)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import (
    Changes,
    ProxyError,
    ProxyList,
    changes,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer
from ansible_collections.lmfleet.lmdeploy.tests.unit.proxy import StandIn

A, B, STRANGER = "http://10.0.0.10:23333", "http://10.0.0.11:23343", "http://10.0.0.99:23333"
MODEL = "deepseek-ai/DeepSeek-V3"
UP: dict[str, Any] = {"health": 200, "models": [MODEL]}
REFUSED: dict[str, Any] = {"error": "[Errno 111] Connection refused"}
COLLECTIONS = Path(__file__).parents[4] / "collections"


def found(listed: dict[str, list[str]], a: dict[str, Any], b: dict[str, Any]) -> Changes:
    return changes([A, B], listed, {A: a, B: b}, MODEL)


def test_a_list_that_is_right_is_left_alone() -> None:
    assert found({A: [MODEL], B: [MODEL]}, UP, UP) == Changes({}, {})
    assert found({}, REFUSED, REFUSED) == Changes({}, {})


def test_live_ranks_that_the_proxy_forgot_are_added_again() -> None:
    assert found({B: [MODEL]}, UP, UP) == Changes({A: "it answers, but was not listed"}, {})
    assert found({A: ["llama"], B: [MODEL]}, UP, UP) == Changes({A: "it was listed with llama"}, {})


def test_what_is_gone_or_not_of_the_plan_is_removed() -> None:
    listed = {A: [MODEL], B: [MODEL], STRANGER: [MODEL]}
    assert found(listed, UP, REFUSED) == Changes({}, {B: "nothing listens there", STRANGER: "it is not of the plan"})
    assert found({A: [MODEL]}, {"health": 200, "models": ["llama"]}, REFUSED).remove == {A: "it serves llama"}


@pytest.mark.parametrize(
    "error", ["timed out", "HTTP 503 from http://10.0.0.10:23333/health", "[Errno 104] Connection reset by peer"]
)
def test_a_rank_that_may_live_is_left_as_it_is(error: str) -> None:
    assert found({A: [MODEL]}, {"error": error}, REFUSED) == Changes({}, {})
    assert found({}, {"error": error}, REFUSED) == Changes({}, {})


@pytest.fixture(params=[True, False], ids=["0.8.0", "later"])
def proxy(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with StandIn(query=request.param).serving() as server:
        yield server


@pytest.fixture
def ranks() -> Iterator[list[str]]:
    with NullServer(2) as server:
        yield [endpoint.url for endpoint in server.endpoints]


@pytest.fixture
def gone() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def run(tmp_path: Path, url: str, nodes: list[str], **more: Any) -> dict[str, Any]:
    """The module as Ansible runs it: a program of its own."""
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"url": url, "nodes": nodes, "model": "null", **more}}))
    ended = subprocess.run(
        [sys.executable, "-m", "ansible_collections.lmfleet.lmdeploy.plugins.modules.proxy_nodes", str(arguments)],
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        check=False,
    )
    assert ended.stdout, ended.stderr.decode()
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def test_the_list_is_put_right_once(proxy: StandIn, ranks: list[str], gone: str, tmp_path: Path) -> None:
    proxy.nodes = {url: {"models": ["null"]} for url in (STRANGER, gone)}
    nodes = [*ranks, gone]
    planned = run(tmp_path, proxy.url, nodes, _ansible_check_mode=True)
    assert sorted(proxy.nodes) == sorted([STRANGER, gone])
    done = run(tmp_path, proxy.url, nodes)
    assert sorted(proxy.nodes) == sorted(ranks)
    for result in (planned, done):
        assert result["changed"]
        assert result["removed"] == {STRANGER: "it is not of the plan", gone: "nothing listens there"}
        assert result["added"] == dict.fromkeys(ranks, "it answers, but was not listed")
        assert result["listed"] == sorted(ranks)
        assert result["diff"] == {
            "before": "".join(f"{url} null\n" for url in sorted([STRANGER, gone])),
            "after": "".join(f"{url} null\n" for url in sorted(ranks)),
        }
    again = run(tmp_path, proxy.url, nodes)
    assert not again["changed"]
    assert again["msg"] == "nothing had to be changed"


def test_36_what_has_to_be_listed_and_is_not_fails_with_its_reason(
    proxy: StandIn, ranks: list[str], gone: str, tmp_path: Path
) -> None:
    done = run(tmp_path, proxy.url, [*ranks, gone], expected=ranks)
    assert done["changed"]
    assert sorted(proxy.nodes) == sorted(ranks)
    result = run(tmp_path, proxy.url, [*ranks, gone], expected=[*ranks, gone])
    assert result["failed"]
    assert f"does not list {gone} ([Errno 111] Connection refused), so no request gets there" in result["msg"]
    assert f"curl {gone}/health" in result["msg"]


def test_the_key_is_sent_and_not_shown(proxy: StandIn, ranks: list[str], tmp_path: Path) -> None:
    result = run(tmp_path, proxy.url, ranks, api_key="not-for-everyone")
    assert proxy.keys == {"Bearer not-for-everyone"}
    assert "not-for-everyone" not in json.dumps(result)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Failed to add, please check the input url.", "/nodes/add answered Failed to add"),
        ("Added successfully", "said that it had changed its list, but"),
    ],
)
def test_a_change_that_did_not_happen_is_an_error(
    proxy: StandIn, ranks: list[str], tmp_path: Path, answer: str, said: str
) -> None:
    proxy.broken = answer
    result = run(tmp_path, proxy.url, ranks)
    assert result["failed"]
    assert said in result["msg"]
    assert proxy.url in result["msg"]
    assert "docker logs" in result["msg"]


def test_a_proxy_that_does_not_answer_is_an_error_with_its_url(gone: str) -> None:
    with pytest.raises(ProxyError, match=rf"no answer from {gone}/nodes/status: .*refused"):
        ProxyList(gone).read()


def test_a_proxy_that_hangs_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ProxyError, match=r"no answer from .*timed out"):
            ProxyList(url, timeout_s=0.2).read()
        assert time.monotonic() - began < 30


def test_what_is_no_proxy_is_an_error(ranks: list[str]) -> None:
    with pytest.raises(ProxyError, match=r"/nodes/status answered HTTP 404"):
        ProxyList(ranks[0]).read()
