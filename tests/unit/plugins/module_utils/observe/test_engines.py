# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on what a probe saw, and probes of a null server over real sockets."""

from __future__ import annotations

from itertools import count
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import (
    Answer,
    EngineProbe,
    Observations,
    Patience,
    Reading,
    State,
    decide,
    read_answer,
    read_metrics,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

LIMITS = Patience(timeout_s=20, stall_s=30, patience_s=300)
seconds = st.floats(0, 1000)
cpu = st.none() | st.floats(0, 1000)
gauges = st.dictionaries(
    st.sampled_from(["num_requests_running", "gpu_cache_usage_perc"]), st.integers(0, 2).map(float)
)
readings = st.lists(st.builds(Reading, seconds, st.none() | st.integers(0, 2).map(float), gauges, cpu), max_size=6).map(
    lambda found: sorted(found, key=lambda reading: reading.at_s)
)


@given(seconds, readings, st.builds(Patience, st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0.1, 500)))
def test_silence_is_death_only_when_nothing_moved_for_long_enough(
    waited: float, seen: list[Reading], patience: Patience
) -> None:
    verdict = decide(Observations(waited, None, seen), patience)
    counted = [reading for reading in seen if reading.tokens is not None]
    if waited < patience.timeout_s:
        assert verdict is None
    elif len({reading.tokens for reading in counted}) > 1:
        assert verdict is not None
        assert verdict.state is State.BUSY
    elif not counted:
        assert verdict is not None
        assert verdict.state is State.UNKNOWN
    elif waited < patience.timeout_s + patience.stall_s:
        assert verdict is None or verdict.state is State.BUSY
    elif waited >= patience.longest_s:
        assert verdict is not None
    if verdict is not None and verdict.state is State.DEAD:
        assert waited >= patience.timeout_s + patience.stall_s
        assert counted[-1].at_s - counted[0].at_s >= patience.stall_s


def watched(
    until: float, cores: float | None, move: Callable[[float], dict[str, float]] = lambda at: {}
) -> Observations:
    """A probe without a token whose readings come every two seconds; `move` gives the gauges."""
    return Observations(
        until,
        None,
        [
            Reading(at, 7.0, move(at), None if cores is None else at * cores)
            for at in map(float, range(0, int(until) + 1, 2))
        ],
    )


@given(seconds, readings)
def test_who_does_not_wait_never_calls_silence_death(waited: float, seen: list[Reading]) -> None:
    hasty = Patience(timeout_s=5, stall_s=0)
    verdict = decide(Observations(waited, None, seen), hasty)
    assert hasty.longest_s == 5
    if waited < 5:
        assert verdict is None
    else:
        assert verdict is not None
        assert verdict.state in (State.BUSY, State.UNKNOWN)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (watched(50, cores=0.05), State.DEAD),
        (watched(48, cores=0.05), None),
        (watched(50, cores=2.0), None),  # a long prefill, or a hang that spins
        (watched(318, cores=2.0), None),
        (watched(320, cores=2.0), State.DEAD),
        (watched(318, cores=None), None),
        (watched(320, cores=None), State.DEAD),
        (watched(20, 0.0, lambda at: {"gpu_cache_usage_perc": at / 100}), State.BUSY),  # chunks of a prompt
        (watched(20, 0.0, lambda at: {"num_requests_running": float(at > 16)}), State.BUSY),
        # The probe's own request, of which the gauges may tell 10 s later (docs/gpu.md, the hang in a collective).
        (watched(50, 0.0, lambda at: {"num_requests_running": float(at > 10)}), State.DEAD),
        (watched(50, 0.0, lambda at: {"num_requests_running": float(at < 10)}), State.DEAD),  # a client gave up
    ],
)
def test_patience_depends_on_what_can_be_known(seen: Observations, state: State | None) -> None:
    verdict = decide(seen, LIMITS)
    assert (verdict and verdict.state) == state


@pytest.mark.parametrize(
    ("gpus", "state"),
    [((None,), State.DEAD), ((False,), State.DEAD), ((True,), None), ((None, False, True, False), None)],
)
def test_55_a_gpu_at_work_is_no_hang_though_the_processors_do_next_to_nothing(
    gpus: tuple[bool | None, ...], state: State | None
) -> None:
    # A prefill in steps of 8192 tokens on a H200: 0.08 to 0.14 processors, no counter and no gauge moves (docs/gpu.md).
    seen = [Reading(float(at), 7.0, {}, 0.1 * at, gpus[at // 2 % len(gpus)]) for at in range(0, 53, 2)]
    verdict = decide(Observations(52.0, None, seen), Patience(20.0, 30.0, 300.0))
    assert (verdict.state if verdict else None) == state


def test_processors_that_come_to_rest_are_idle_from_then_on() -> None:
    used = [Reading(float(at), 7.0, {}, float(min(at, 60))) for at in range(0, 91, 2)]
    assert decide(Observations(80.0, None, used[:41]), LIMITS) is None
    verdict = decide(Observations(90.0, None, used), LIMITS)
    assert verdict is not None
    assert verdict.state is State.DEAD
    assert "0.0 processors" in verdict.reason


@given(readings, seconds, st.integers(500, 599), st.sampled_from([None, "healthy", "unhealthy"]))
def test_an_engine_error_is_death_whatever_health_and_the_counters_say(
    seen: list[Reading], waited: float, status: int, health: str | None
) -> None:
    verdict = decide(Observations(waited, Answer(status, token=False, detail="x", health=health), seen), LIMITS)
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
    verdict = decide(Observations(0.1, answer), LIMITS)
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
    ("body", "detail"),
    [
        # LMDeploy's proxy, while it cannot reach a rank.
        (
            b'{"error_code": 10402, "text": "Failed to get response after a period of time"}',
            "the proxy gave no answer of a rank (error_code 10402: Failed to get response after a period of time)",
        ),
        # What a rank answered with status 503; the proxy hands it on with 200.
        (b'{"message": "unavailable", "code": 503, "object": "error"}', "no token, but the error 503: unavailable"),
        (b'{"error": {"message": "unavailable", "code": 503}}', "no token, but the error 503: unavailable"),
        (b'{"choices": null}', 'no token, but {"choices": null}'),
        (b'{"choices": {}}', 'no token, but {"choices": {}}'),
        (b'{"choices": [null], "usage": {"completion_tokens": 1}}', "no token, but"),
        (b'{"choices": [{}], "usage": [1]}', "no token, finish_reason=None: no text"),
        (b'{"choices": [{}], "usage": {"completion_tokens": null}}', "no token, finish_reason=None: no text"),
        (
            b'{"choices": [{"finish_reason": "abort"}], "usage": {"completion_tokens": 3}}',
            "no token, finish_reason=abort",
        ),
        (b"[" * 100_000, "["),
    ],
)
def test_37_a_status_200_without_a_token_is_an_engine_error_and_says_what_came(body: bytes, detail: str) -> None:
    answer = read_answer(200, body)
    assert not answer.token
    assert answer.detail.startswith(detail)
    verdict = decide(Observations(1.0, answer), Patience())
    assert verdict is not None
    assert verdict.state == State.DEAD


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
    assert read_metrics(text)[0] == tokens


def test_the_schedulers_own_gauges_are_read_and_no_others() -> None:
    text = (
        '# HELP lmdeploy:num_requests_running x\nlmdeploy:num_requests_running{engine="0"} 3.0\n'
        'lmdeploy:num_requests_waiting{engine="0"} 4.0\nlmdeploy:num_api_requests_routed{engine="0"} 5.0\n'
        'lmdeploy:gpu_cache_usage_perc{engine="0"} 1.5e-05\n'
    )
    assert read_metrics(text)[1] == {
        'num_requests_running{engine="0"}': 3.0,
        'gpu_cache_usage_perc{engine="0"}': 1.5e-05,
    }


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


def test_working_processors_buy_patience_and_no_more() -> None:
    used = count(0.0, 1.0)
    with NullServer(1, mode="hang") as server:
        verdict = probe(server.endpoints[0].url, cpu_s=lambda: next(used), patience_s=3.0)
        impatient = probe(server.endpoints[0].url, cpu_s=lambda: 5.0, patience_s=600.0)
    assert verdict.state is State.DEAD
    assert "processors at work" in verdict.reason
    assert impatient.state is State.DEAD


def probe(url: str, patience_s: float = 1.0, **more: Any) -> Any:
    return EngineProbe(url, "null", patience=Patience(2.5, 1.0, patience_s), interval_s=0.1, **more).run()
