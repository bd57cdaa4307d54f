# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The warm-up client against a null server: real sockets, the real openai client, no engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.action.warmup import ARGUMENT_SPEC, REMEDIES, failure_message
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._events import last_events
from ansible_collections.lmfleet.lmdeploy.plugins.modules.warmup import DOCUMENTATION
from ansible_collections.lmfleet.lmdeploy.programs import warmup
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT

SHORT = {"name": "short", "prompt_tokens": 16, "max_tokens": 8, "requests": 1}
LONG = {"name": "long", "prompt_tokens": 200, "max_tokens": 4, "requests": 1}
BURST = {"name": "burst", "prompt_tokens": 16, "max_tokens": 3, "requests": 4}


PATIENCE_S = 600  # whatever is busy on the machine; what shall time out says so


@pytest.fixture(autouse=True)
def time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(warmup, "CONNECT_TIMEOUT_S", PATIENCE_S)


def raw_config(urls: list[str], *shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A configuration for these URLs: rank N is node<N>'s."""
    endpoints = [{"rank": rank, "node": f"node{rank}", "url": url} for rank, url in enumerate(urls)]
    return {
        "endpoints": endpoints,
        "model": "null",
        "shapes": list(shapes or (SHORT,)),
        "timeout_s": PATIENCE_S,
        **more,
    }


def run(config: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Warm up in this process; (result, progress events)."""
    events: list[dict[str, Any]] = []
    ok = asyncio.run(warmup.warm_up(warmup.Config.from_mapping(config), events.append))
    assert events[-1]["event"] == "result"
    assert events[-1]["ok"] is ok
    return events[-1], events[:-1]


def run_server(server: NullServer, *shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return run(raw_config([endpoint.url for endpoint in server.endpoints], *shapes, **more))[0]


def test_every_rank_answers_every_shape() -> None:
    with NullServer(3) as server:
        result = run_server(server, SHORT, LONG, BURST)
    assert result["ok"]
    for rank, endpoint in enumerate(result["endpoints"]):
        assert (endpoint["rank"], endpoint["node"], endpoint["error"]) == (rank, f"node{rank}", None)
        assert [(s["name"], s["requests"], s["completion_tokens"]) for s in endpoint["shapes"]] == [
            ("short", 1, 8),
            ("long", 1, 4),
            ("burst", 4, 12),
        ]
        assert all(len(s["ttft_s"]) == len(s["total_s"]) == s["requests"] for s in endpoint["shapes"])
        assert all(0 < ttft <= total for s in endpoint["shapes"] for ttft, total in zip(s["ttft_s"], s["total_s"]))


def test_no_rank_waits_for_another_ranks_answer() -> None:
    """LMDeploy 0.8.0 answers no rank before every rank was asked; 64 is more than a default pool's threads."""
    with NullServer(64, hold=64) as server:
        assert run_server(server)["ok"]


def test_a_shapes_requests_are_all_in_flight_at_once() -> None:
    with NullServer(4, hold=600) as server:  # which answers none of them before it has them all
        assert run_server(server, {**BURST, "requests": 150})["ok"]
    assert [endpoint.most_in_flight for endpoint in server.endpoints] == [150] * 4


def test_progress_counts_up_to_every_request() -> None:
    with NullServer(2) as server:
        __, progress = run(raw_config([e.url for e in server.endpoints], SHORT, BURST))
    assert [(p["shape"], p["done"], p["of"]) for p in progress] == [
        *(("short", done, 2) for done in range(3)),
        *(("burst", done, 8) for done in range(9)),
    ]


def test_prompts_differ_from_the_first_words_on_and_come_again_with_the_seed() -> None:
    with NullServer(2) as server:
        run_server(server, SHORT, LONG, BURST)
        first = [body["prompt"] for endpoint in server.endpoints for body in endpoint.bodies]
        for endpoint in server.endpoints:
            endpoint.bodies.clear()
        run_server(server, SHORT, LONG, BURST)
        second = [body["prompt"] for endpoint in server.endpoints for body in endpoint.bodies]
    assert len({" ".join(text.split()[:8]) for text in first}) == len(first) == 12
    assert sorted(first) == sorted(second)
    assert {len(text.split()) for text in first} == {16, 199, 15}  # the server counts one more than the words


def test_a_servers_count_makes_the_next_prompts_exact() -> None:
    """The null server counts a token more than there are words, as a tokenizer does that begins every text with one."""
    with NullServer(2) as server:
        result = run_server(server, SHORT, LONG, BURST)
    for endpoint in result["endpoints"]:
        assert [shape["prompt_tokens"] for shape in endpoint["shapes"]] == [[17], [200], [16]]


def test_words_for_a_length_by_what_was_counted() -> None:
    tokenization = warmup.Tokenization()
    assert tokenization.words(100) == 100
    tokenization.learn(64, 0)  # a server without usage
    assert tokenization.words(100) == 100
    tokenization.learn(64, 65)
    assert (tokenization.words(100), tokenization.words(1)) == (99, 1)
    tokenization.learn(1000, 1469)  # one and a half tokens a word
    assert tokenization.words(3000) == 2021


def test_a_request_streams_counts_by_usage_and_ignores_eos() -> None:
    with NullServer(1, usage_each=True) as server:
        result = run_server(server, api_key="hush")
        body, headers = server.endpoints[0].bodies[0], server.endpoints[0].headers[0]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert body["max_tokens"] == 8
    assert headers["authorization"] == "Bearer hush"
    assert result["endpoints"][0]["shapes"][0]["completion_tokens"] == 8


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with NullServer(1) as server:
        assert run_server(server)["ok"]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_passing_fault_is_retried(status: int) -> None:
    with NullServer(2) as server:
        server.endpoints[1].fail_first, server.endpoints[1].status = 2, status
        assert run_server(server)["ok"]
    assert [len(endpoint.bodies) for endpoint in server.endpoints] == [1, 3]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refused_request_is_final(status: int) -> None:
    with NullServer(1, mode="status", status=status) as server:
        shape = run_server(server)["endpoints"][0]["shapes"][0]
    assert (shape["kind"], len(server.endpoints[0].bodies)) == ("request", 1)
    assert shape["error"] == f"HTTP {status}: The inference engine is unavailable."


@pytest.mark.parametrize(
    ("mode", "kind", "error"),
    [
        ("status", "engine", "HTTP 503: The inference engine is unavailable. (tried 2 times)"),
        ("stream_error", "engine", "HTTP 503: The inference engine is unavailable. (tried 2 times)"),
        ("finish_error", "engine", "finish_reason=error: internal error happened (tried 2 times)"),
        ("empty", "engine", "the stream ended without a generated token in its usage (tried 2 times)"),
        ("break", "connection", "peer closed connection"),
    ],
)
def test_a_dead_rank_is_named_and_fails_the_warm_up(mode: str, kind: str, error: str) -> None:
    with NullServer(3) as server:
        server.endpoints[1].mode = mode
        result = run_server(server, SHORT, LONG, retries=1)
    assert not result["ok"]
    assert [endpoint["ok"] for endpoint in result["endpoints"]] == [True, False, True]
    failed = result["endpoints"][1]
    assert (failed["rank"], failed["node"], failed["url"]) == (1, "node1", server.endpoints[1].url)
    assert [(s["name"], s["ok"], s["kind"]) for s in failed["shapes"]] == [("short", False, kind)]
    assert failed["error"].startswith("short: ")
    assert error in failed["error"]
    assert all(len(e["shapes"]) == 1 for e in result["endpoints"]), "the next shape was sent though one had failed"


def test_67_an_answer_without_an_end_is_given_up_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "ANSWER_BYTES", 100_000)
    for mode in ("endless", "endless_error"):
        with NullServer(1, mode=mode) as server:
            shape = run_server(server, retries=0, timeout_s=30)["endpoints"][0]["shapes"][0]
            assert (shape["kind"], shape["error"]) == ("engine", "the answer is longer than 100000 bytes")
            # Some more was on its way.
            assert server.endpoints[0].sent < 50_000_000


def test_67_an_answer_that_drips_ends_at_the_time_out() -> None:
    with NullServer(1, mode="drip") as server:
        result = run_server(server, timeout_s=0.5)
    assert [endpoint["error"] for endpoint in result["endpoints"]] == ["short: no answer within 0.5 s"]


def test_a_refused_connection_says_so() -> None:
    with NullServer(1) as gone:
        pass
    result, __ = run(raw_config([gone.endpoints[0].url], retries=0))
    shape = result["endpoints"][0]["shapes"][0]
    assert shape["kind"] == "connection"
    assert "onnect" in shape["error"]


def test_a_silent_rank_ends_at_the_time_out() -> None:
    with NullServer(1, mode="hang") as server:
        result = run_server(server, timeout_s=1)
    assert [endpoint["error"] for endpoint in result["endpoints"]] == ["short: no answer within 1 s"]


def test_ranks_that_wait_for_a_dead_one_are_given_up_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "GRACE_S", 0.3)
    with NullServer(2) as server:
        server.endpoints[0].mode, server.endpoints[1].mode = "status", "hang"
        result = run_server(server, retries=0)
    assert [endpoint["shapes"][0]["kind"] for endpoint in result["endpoints"]] == ["engine", "timeout"]


def test_as_a_program_its_log_gives_the_events_whatever_else_is_in_it(tmp_path: Path) -> None:
    with NullServer(2) as server:
        server.endpoints[1].mode = "finish_error"
        file = tmp_path / "config.json"
        file.write_text(json.dumps(raw_config([e.url for e in server.endpoints], SHORT, retries=0)))
        command = [sys.executable, "-m", warmup.__name__, str(file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    events = last_events("==== CUDA ====\nno newline here: " + done.stdout + '{"event": "progr')
    progress = events["progress"]
    assert (progress["done"], progress["failed"], progress["of"]) == (2, 1, 2)
    assert [endpoint["ok"] for endpoint in events["result"]["endpoints"]] == [True, False]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"endpoints": []}, "endpoints is empty"),
        ({"shapes": []}, "shapes is empty"),
        ({"model": ""}, "model is empty"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"shapes": [{**SHORT, "requests": 0}]}, "shape short: requests is 0"),
        ({"shapes": [SHORT, SHORT]}, "shape short is given more than once"),
        (
            {"endpoints": [{"rank": 0, "node": "a", "url": "10.0.0.1:1"}]},
            "rank 0: url '10.0.0.1:1' must start with http://",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        warmup.Config.from_mapping({**raw_config(["http://127.0.0.1:1"]), **change})


def test_as_a_program_a_wrong_configuration_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**raw_config(["http://127.0.0.1:1"]), "unknown": 1}))
    assert warmup.main(str(file)) == 2
    assert "unknown" in capsys.readouterr().err


def without_descriptions(options: dict[str, Any]) -> dict[str, Any]:
    """Documented options as an argument spec."""
    return {
        name: {
            **{key: value for key, value in option.items() if key not in ("description", "suboptions")},
            **({"options": without_descriptions(option["suboptions"])} if "suboptions" in option else {}),
        }
        for name, option in options.items()
    }


def test_without_shapes_the_measured_ones_are_sent_as_far_as_they_fit_a_session() -> None:
    shapes = warmup.measured_shapes()
    assert {shape.prompt_tokens for shape in shapes} >= {10, 11, 1023, 1024, 8191, 8192}
    assert max(shape.requests for shape in shapes) == 64
    fitting = warmup.measured_shapes(session_len=2048)
    assert {shape.name for shape in shapes} - {shape.name for shape in fitting} == {
        f"1x{tokens + more}" for tokens in (2047, 3000, 4095, 6000, 8191) for more in (0, 1)
    }


def test_the_actions_options_are_the_documented_ones() -> None:
    spec = json.loads(json.dumps(ARGUMENT_SPEC))
    del spec["api_key"]["no_log"]
    assert spec == without_descriptions(yaml.safe_load(DOCUMENTATION)["options"])


def test_the_roles_defaults_are_the_actions() -> None:
    role = Path(__file__).parents[3] / "roles" / "warmup" / "defaults" / "main.yml"
    defaults = yaml.safe_load(role.read_text(encoding="utf-8"))
    own = {"warmup_public_url"}  # for the role's own completion, after the action
    assert set(defaults) - own == {f"warmup_{name}" for name in ARGUMENT_SPEC}
    given = {name: option["default"] for name, option in ARGUMENT_SPEC.items() if "default" in option}
    assert {name: defaults[f"warmup_{name}"] for name in given} == given


def test_the_result_is_the_last_event_when_one_of_many_requests_fails() -> None:
    for __ in range(12):  # a request that ends in the loop's turn after the failed one was told after the result
        with NullServer(2) as server:
            server.endpoints[1].mode = "status"
            assert not run_server(server, {**SHORT, "requests": 32}, retries=0)["ok"]


def test_a_failure_names_rank_node_url_shape_reason_and_remedy() -> None:
    with NullServer(2) as server:
        server.endpoints[1].mode = "status"
        message = failure_message(run_server(server, retries=0))
    head, titles, row, remedy = message.splitlines()
    assert head == "warm-up: 1 of 2 ranks failed"
    assert titles.split() == ["rank", "node", "url", "shape", "reason"]
    cells = ["1", "node1", server.endpoints[1].url, "short", "HTTP 503: The inference engine is unavailable."]
    assert row.split(maxsplit=4) == cells
    assert remedy.startswith("The engine is dead or failing")
    assert "-e warmup_timeout=1200" in REMEDIES["timeout"]
    assert f"it is {ARGUMENT_SPEC['timeout']['default']} s unless" in REMEDIES["timeout"]
