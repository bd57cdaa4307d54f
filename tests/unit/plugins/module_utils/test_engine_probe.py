# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on what a probe saw, and probes of a null server over real sockets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._engine_probe import (
    Answer,
    EngineProbe,
    Observations,
    Reading,
    State,
    count_tokens,
    decide,
    read_answer,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

seconds = st.floats(0, 1000)
readings = st.lists(st.builds(Reading, seconds, st.integers(0, 3).map(float)), max_size=6).map(
    lambda found: sorted(found, key=lambda reading: reading.at_s)
)


@given(seconds, readings, st.floats(0.1, 100), st.floats(0.1, 100))
def test_silence_is_death_only_with_counters_that_stood_still_long_enough(
    waited: float, seen: list[Reading], timeout: float, stall: float
) -> None:
    verdict = decide(Observations(waited, None, seen), timeout, stall)
    if waited < timeout:
        assert verdict is None
    elif len({reading.tokens for reading in seen}) > 1:
        assert verdict is not None
        assert verdict.state is State.BUSY
    elif not seen:
        assert verdict is not None
        assert verdict.state is State.UNKNOWN
    elif waited < timeout + stall:
        assert verdict is None
    else:
        assert verdict is not None
        long_enough = seen[-1].at_s - seen[0].at_s >= stall
        assert verdict.state is (State.DEAD if long_enough else State.UNKNOWN)


@given(readings, seconds, st.integers(500, 599), st.sampled_from([None, "healthy", "unhealthy"]))
def test_an_engine_error_is_death_whatever_health_and_the_counters_say(
    seen: list[Reading], waited: float, status: int, health: str | None
) -> None:
    verdict = decide(Observations(waited, Answer(status, token=False, detail="x", health=health), seen), 20, 30)
    assert verdict is not None
    assert verdict.state is State.DEAD


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(200, token=True), State.ALIVE),
        (Answer(200, token=False, detail="finish_reason=error"), State.DEAD),
        (Answer(429, token=False), State.BUSY),
        (Answer(401, token=False), State.UNKNOWN),
        (Answer(404, token=False), State.UNKNOWN),
        (Answer(503, token=False, health="initializing"), State.LOADING),
        (Answer(503, token=False, health="sleeping"), State.LOADING),
        (Answer(None, token=False, detail="refused"), State.UNREACHABLE),
    ],
)
def test_an_answer_is_judged(answer: Answer, state: State) -> None:
    verdict = decide(Observations(0.1, answer), 20, 30)
    assert verdict is not None
    assert verdict.state is state


@pytest.mark.parametrize(
    ("body", "token", "detail"),
    [
        (b'{"choices": [{"text": "a", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}', True, ""),
        (b'{"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}', True, ""),
        (b'{"choices": [{"text": "bad", "finish_reason": "error"}], "usage": {"completion_tokens": 1}}', False, "bad"),
        (b'{"choices": [], "usage": null}', False, "no token"),
        (b"<html>", False, "<html>"),
        (b"", False, "no body"),
    ],
)  # fmt: skip
def test_a_200_is_a_token_only_with_one_in_it(body: bytes, token: bool, detail: str) -> None:
    answer = read_answer(200, body)
    assert answer.token is token
    assert detail in answer.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"message": "gone", "code": 503}',
        b'{"error": {"message": "gone"}}',
        b'{"error": "gone"}',
        b'{"detail": "gone"}',
    ],
)
def test_an_errors_message_is_found(body: bytes) -> None:
    assert read_answer(503, body) == Answer(503, token=False, detail="gone")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", None),
        ("lmdeploy:num_requests_running 3.0\n# TYPE lmdeploy:generation_tokens_total counter\n", None),
        ('lmdeploy:generation_tokens_total{engine="0",model_name="a b"} 5.0\n', 5.0),
        (
            'lmdeploy:prompt_tokens_total{engine="0"} 1e+06\nlmdeploy:generation_tokens_total{dp="1"} 2.0 17000000\n',
            1000002.0,
        ),
        ("lmdeploy:request_generation_tokens_sum 9.0\nlmdeploy:iteration_tokens_total_sum 9.0\n", None),
    ],
)
def test_the_token_counters_are_summed(text: str, tokens: float | None) -> None:
    assert count_tokens(text) == tokens


@pytest.mark.parametrize(
    ("behaviour", "state", "reason"),
    [
        ({}, State.ALIVE, "token"),
        ({"delay_s": 0.6}, State.ALIVE, "token"),
        ({"fail_first": 1}, State.ALIVE, "token"),
        ({"mode": "status"}, State.DEAD, "HTTP 503: The inference engine is unavailable."),
        ({"mode": "status", "health": "initializing"}, State.LOADING, "initializing"),
        ({"mode": "status", "status": 404}, State.UNKNOWN, "HTTP 404"),
        ({"mode": "finish_error"}, State.DEAD, "internal error happened"),
        ({"mode": "hang", "counts": True}, State.BUSY, "counters move"),
        ({"mode": "hang", "metrics": False}, State.UNKNOWN, "no token counters"),
        ({"mode": "hang"}, State.DEAD, "no token and no progress"),
    ],
)
def test_a_probe_of(behaviour: dict[str, Any], state: State, reason: str) -> None:
    with NullServer(1, **behaviour) as server:
        # An answer ends the probe, however late it comes on a busy machine; only silence takes its time.
        patience_s = 1.0 if behaviour.get("mode") == "hang" else 60.0
        verdict = probe(server.endpoints[0].url, patience_s)
    assert (verdict.state, reason in verdict.reason) == (state, True), verdict


def test_a_probe_of_nothing_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with NullServer(1) as gone:
        pass
    verdict = probe(gone.endpoints[0].url)
    assert verdict.state is State.UNREACHABLE
    assert "refused" in verdict.reason


def test_a_probe_sends_the_key_and_asks_for_one_token() -> None:
    with NullServer(1) as server:
        EngineProbe(server.endpoints[0].url, "null", api_key="hush").run()
        endpoint = server.endpoints[0]
    assert endpoint.bodies == [{"model": "null", "prompt": "ping", "max_tokens": 1, "ignore_eos": True}]
    assert endpoint.headers[0]["authorization"] == "Bearer hush"


def probe(url: str, patience_s: float = 60.0) -> Any:
    return EngineProbe(url, "null", timeout_s=2.5 * patience_s, stall_s=patience_s, interval_s=0.1).run()
