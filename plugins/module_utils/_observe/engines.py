# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the engine behind an api_server alive? Only a token is proof, and a time-out alone is none of the contrary.

LMDeploy's server outlives its engine, and its /health may call a dead one healthy. So one token is asked for, and while
the answer is out the engine's own counters (/metrics; from LMDeploy 0.9.2 on, when switched on) tell a busy engine from
a dead one. They are read beside the request, which stays in flight all the time: it is what a stalled engine owes.
"""

from __future__ import annotations

import concurrent.futures
import enum
import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Both count tokens since the server started, under these names in LMDeploy 0.9.2 to 0.18.
COUNTERS = re.compile(
    r"^lmdeploy:(?:prompt|generation)_tokens_total(?:\{[^\n]*\})?[ \t]+([0-9.eE+]+)(?:[ \t]+-?[0-9]+)?[ \t]*$",
    re.MULTILINE,
)
METRICS_TIMEOUT_S = 5.0
# Cluster addresses: a proxy of the host's environment has no business here.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class State(str, enum.Enum):
    """What an engine is found to be, the worst first."""

    DEAD = "dead"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    LOADING = "loading"
    BUSY = "busy"
    ALIVE = "alive"


@dataclass(frozen=True)
class Verdict:
    """A state, and why."""

    state: State
    reason: str


@dataclass(frozen=True)
class Answer:
    """What became of the one token asked for.

    `status` is the HTTP status, or None when no HTTP answer came; `detail` says what was wrong; `token` tells whether a
    token came; `health` is what /health said, which is asked only after an engine error.
    """

    status: int | None
    token: bool
    detail: str = ""
    health: str | None = None


@dataclass(frozen=True)
class Reading:
    """The engine's tokens so far, `at_s` seconds after the probe began."""

    at_s: float
    tokens: float


@dataclass
class Observations:
    """All that a probe has seen after `waited_s` seconds; `answer` is None while the request is out."""

    waited_s: float = 0.0
    answer: Answer | None = None
    readings: list[Reading] = field(default_factory=list)


def decide(seen: Observations, timeout_s: float, stall_s: float) -> Verdict | None:
    """The verdict on what was seen, or None: keep watching.

    Dead is said of an engine error, or of no token and no progress in any counter for at least `stall_s` seconds, the
    time allowed for the token (`timeout_s`) being over as well. Without readings a missing answer stays unknown.
    """
    if seen.answer is not None:
        return _judge(seen.answer)
    if seen.waited_s < timeout_s:
        return None
    waited = f"no token within {seen.waited_s:.0f} s"
    if len({reading.tokens for reading in seen.readings}) > 1:
        return Verdict(State.BUSY, f"{waited}, but the engine's token counters move")
    if not seen.readings:
        return Verdict(State.UNKNOWN, f"{waited}, and no token counters at /metrics to tell busy from dead")
    if seen.waited_s < timeout_s + stall_s:
        return None
    watched = seen.readings[-1].at_s - seen.readings[0].at_s
    if watched < stall_s:
        return Verdict(State.UNKNOWN, f"{waited}, and /metrics could be read for {watched:.0f} s of that only")
    return Verdict(
        State.DEAD, f"no token and no progress: {waited}, and its token counters stood still for {watched:.0f} s"
    )


def _judge(answer: Answer) -> Verdict:
    """The verdict on an answer."""
    if answer.token:
        return Verdict(State.ALIVE, "a token came")
    if answer.status is None:
        return Verdict(State.UNREACHABLE, answer.detail)
    said = f"HTTP {answer.status}: {answer.detail}"
    if answer.status == 429:
        return Verdict(State.BUSY, said)
    if 400 <= answer.status < 500:
        return Verdict(State.UNKNOWN, f"the request was refused, so nothing is known of the engine: {said}")
    if answer.health in ("initializing", "sleeping"):
        return Verdict(State.LOADING, f"{said} (/health: {answer.health})")
    return Verdict(State.DEAD, f"engine error: {said}")


def count_tokens(metrics: str) -> float | None:
    """The sum of all token counters in a Prometheus text, or None when it has none."""
    values = COUNTERS.findall(metrics)
    return sum(map(float, values)) if values else None


def read_answer(status: int, body: bytes) -> Answer:
    """What an answer to a request for a token says; LMDeploy 0.8 gives an engine error as 200 with a finish_reason."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return Answer(status, token=False, detail=text.strip()[:300] or "no body")
    if status != 200:
        inner = data.get("error", data)
        message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        return Answer(status, token=False, detail=str(message or text)[:300])
    choices: list[dict[str, Any]] = data.get("choices") or [{}]
    reason = choices[0].get("finish_reason")
    if reason in ("error", "abort") or (data.get("usage") or {}).get("completion_tokens", 0) < 1:
        return Answer(
            status, token=False, detail=f"no token, finish_reason={reason}: {choices[0].get('text') or 'no text'}"
        )
    return Answer(status, token=True)


@dataclass
class EngineProbe:
    """One probe of the api_server at `url` (no /v1); see `decide` for the seconds."""

    url: str
    model: str
    api_key: str | None = None
    timeout_s: float = 20.0
    stall_s: float = 30.0
    interval_s: float = 2.0

    def run(self) -> Verdict:
        """Ask for a token and watch the counters until there is a verdict: `timeout_s + stall_s`, or little more."""
        began = time.monotonic()
        seen = Observations()
        asker = threading.Thread(target=self._ask_into, args=(seen,), daemon=True)
        asker.start()
        while True:
            tokens = self._tokens() if asker.is_alive() else None
            seen.waited_s = time.monotonic() - began
            if tokens is not None:
                seen.readings.append(Reading(seen.waited_s, tokens))
            verdict = decide(seen, self.timeout_s, self.stall_s)
            if verdict is not None:
                return verdict
            asker.join(self.interval_s)

    def _ask_into(self, seen: Observations) -> None:
        answer = self._ask()
        if answer.status is not None and (answer.status >= 500 or (answer.status == 200 and not answer.token)):
            time.sleep(1)  # one error may be a passing one
            answer = self._ask()
            if answer.status is not None and not answer.token:
                answer = Answer(answer.status, token=False, detail=answer.detail, health=self._health())
        seen.answer = answer

    def _ask(self) -> Answer:
        body = {"model": self.model, "prompt": "ping", "max_tokens": 1, "ignore_eos": True}
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/v1/completions", json.dumps(body).encode(), headers)  # noqa: S310
        try:
            # Longer than anyone waits for it: decide() is the only judge of time.
            with OPENER.open(request, timeout=self.timeout_s + self.stall_s + 60) as reply:
                return read_answer(reply.status, reply.read())
        except urllib.error.HTTPError as error:
            return read_answer(error.code, error.read())
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no URL
            cause = getattr(error, "reason", error)
            return Answer(None, token=False, detail=f"no HTTP answer from {self.url}: {cause or type(error).__name__}")

    def _get(self, path: str) -> str | None:
        try:
            with OPENER.open(f"{self.url.rstrip('/')}{path}", timeout=METRICS_TIMEOUT_S) as reply:
                return str(reply.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            return error.read().decode(errors="replace")
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def _tokens(self) -> float | None:
        return count_tokens(self._get("/metrics") or "")

    def _health(self) -> str | None:
        try:
            data = json.loads(self._get("/health") or "")
        except ValueError:
            return None
        return str(data["status"]) if isinstance(data, dict) and "status" in data else None


def probe_all(probes: Iterable[EngineProbe]) -> dict[str, Verdict]:
    """URL -> verdict of each engine, all asked at once: a rank may not answer before its peers have been asked."""
    asked = list(probes)
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(len(asked), 1)) as pool:
        return dict(zip((probe.url for probe in asked), pool.map(EngineProbe.run, asked)))


def worst(verdicts: Mapping[str, Verdict]) -> str:
    """The URL of the engine that is worst off."""
    order = list(State)
    return min(verdicts, key=lambda url: order.index(verdicts[url].state))
