# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the engine behind an api_server alive? Only a token is proof, and a time-out alone is none of the contrary.

LMDeploy's server outlives its engine, and its /health may call a dead one healthy. So one token is asked for, and while
the answer is out it is watched whether anything moves: the engine's own counts (/metrics; from LMDeploy 0.9.2 on, when
switched on), and the processor time of its containers. The request stays in flight all the time: it is what a stalled
engine owes.

What LMDeploy's metrics are worth as signs of life:

- ``prompt_tokens_total`` and ``generation_tokens_total`` count tokens, but those of a prompt only with the first token
  generated: they stand still during a long prefill.
- ``num_requests_running`` and ``gpu_cache_usage_perc`` are the engine's scheduler's own. They grow when it takes requests,
  or more blocks for one, into a batch, and say so up to 10 s later. When they shrink, or ``num_requests_waiting`` changes, it
  may be clients that came or gave up, which a dead engine does not prevent.
- ``num_api_requests_*``, ``num_requests_failed`` and the like are the server's, not the engine's.

Nothing of this has to move while one long prompt is worked on. A processor or a GPU that works tells that from an engine
that has gone, but not from one that spins in a collective that will never end. So it buys patience, no more. Processors alone
do not tell: in large steps, a prefill of 131,000 tokens on a H200 took 0.08 of one, and an idle engine 0.05 (docs/gpu.md).
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from .._http import NoAnswer, exchange

# Since 0.9.2; both count tokens since the server started.
COUNTERS = ("prompt_tokens_total", "generation_tokens_total")
GAUGES = ("num_requests_running", "gpu_cache_usage_perc")
_SAMPLE = re.compile(
    r"^lmdeploy:(?P<name>\w+)(?P<labels>\{[^\n]*\})?[ \t]+(?P<value>[0-9.eE+-]+)(?:[ \t]+-?[0-9]+)?[ \t]*$",
    re.MULTILINE,
)
METRICS_TIMEOUT_S = 5.0
ANSWER_BYTES = 1 << 20
# LMDeploy sets its gauges once in 10 s, so that long after the probe's own request was taken in they may still tell of it; what
# moves later is not its doing.
SETTLE_S = 15.0
# Processors at work, of all of an engine's containers together: more than the event loops of idle ones take. Too low only
# makes it wait for `patience_s`.
WORKING = 0.3


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
    """What was seen `at_s` seconds after the probe began.

    `tokens` so far, None without counters; `gauges` of the scheduler by their labels; `cpu_s`, the processor time of the
    engine's containers so far, None where it is not measured; `gpus_work`, whether a GPU of the host does, None where there
    is none to ask.
    """

    at_s: float
    tokens: float | None
    gauges: Mapping[str, float] = field(default_factory=dict)
    cpu_s: float | None = None
    gpus_work: bool | None = None


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds.

    `timeout_s`: for the token, before anything else is asked. `stall_s`: beyond that, without progress, when processors
    and GPUs are idle; 0: nothing is waited for beyond `timeout_s`, and silence alone is never called dead. `patience_s`: beyond
    `timeout_s`, without progress, when they work or nobody measures them.
    """

    timeout_s: float = 20.0
    stall_s: float = 30.0
    patience_s: float = 300.0

    @property
    def longest_s(self) -> float:
        """When there is a verdict at the latest, but for the time of one reading."""
        return self.timeout_s + (max(self.stall_s, self.patience_s) if self.stall_s else 0.0)


@dataclass
class Observations:
    """All that a probe has seen after `waited_s` seconds; `answer` is None while the request is out."""

    waited_s: float = 0.0
    answer: Answer | None = None
    readings: list[Reading] = field(default_factory=list)


def decide(seen: Observations, patience: Patience) -> Verdict | None:
    """The verdict on what was seen, or None: keep watching.

    Dead is said of an engine error, or of no token and no progress of any kind for as long as `patience` says. Without
    token counters a missing answer stays unknown: there is nothing that could have moved.
    """
    if seen.answer is not None:
        return _judge(seen.answer)
    if seen.waited_s < patience.timeout_s:
        return None
    waited = f"no token within {seen.waited_s:.0f} s"
    counted = [reading for reading in seen.readings if reading.tokens is not None]
    if len({reading.tokens for reading in counted}) > 1:
        return Verdict(State.BUSY, f"{waited}, but the engine's token counters move")
    if _scheduled(counted):
        return Verdict(State.BUSY, f"{waited}, but the engine's scheduler takes in more work")
    if not counted:
        return Verdict(State.UNKNOWN, f"{waited}, and no token counters at /metrics to tell busy from dead")
    if not patience.stall_s:
        return Verdict(State.UNKNOWN, f"{waited}, and it was not watched for longer, to tell busy from dead")
    since_s = counted[-1].at_s - patience.stall_s
    cores = _cores(since_s, seen.readings)
    gpus = {reading.gpus_work for reading in seen.readings if reading.at_s >= since_s} - {None}
    idle = cores is not None and cores < WORKING and True not in gpus
    needed = patience.stall_s if idle else max(patience.stall_s, patience.patience_s)
    if seen.waited_s < patience.timeout_s + needed:
        return None
    watched = counted[-1].at_s - counted[0].at_s
    if watched < patience.stall_s:
        return Verdict(State.UNKNOWN, f"{waited}, and /metrics could be read for {watched:.0f} s of that only")
    processors = "" if cores is None else f", with {cores:.1f} processors at work in its containers"
    if gpus:
        processors += f"{' and' if processors else ', with'} {'GPUs at work' if True in gpus else 'idle GPUs'}"
    return Verdict(
        State.DEAD,
        f"no token and no progress: {waited}, and its token counters and its scheduler stood still for {watched:.0f} s"
        f"{processors}",
    )


def _scheduled(readings: Iterable[Reading]) -> bool:
    """Whether one of the scheduler's gauges grew, once the probe's own request was in."""
    settled = [reading.gauges for reading in readings if reading.at_s >= SETTLE_S]
    return any(
        later.get(name, value) > value for now, later in zip(settled, settled[1:]) for name, value in now.items()
    )


def _cores(since_s: float, readings: Iterable[Reading]) -> float | None:
    """Processors at work on the average from `since_s`, or a little before, to the last reading; None if not measured."""
    measured = [(reading.at_s, reading.cpu_s) for reading in readings if reading.cpu_s is not None]
    if not measured:
        return None
    before = [each for each in measured if each[0] <= since_s]
    (start_s, start_cpu), (end_s, end_cpu) = before[-1] if before else measured[0], measured[-1]
    return max(end_cpu - start_cpu, 0.0) / (end_s - start_s) if end_s > start_s else None


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


def read_metrics(text: str) -> tuple[float | None, dict[str, float]]:
    """(the sum of all token counters, or None without any; the scheduler's gauges by name and labels) of a Prometheus text."""
    tokens: float | None = None
    gauges = {}
    for sample in _SAMPLE.finditer(text):
        with contextlib.suppress(ValueError):
            if sample["name"] in COUNTERS:
                tokens = (tokens or 0.0) + float(sample["value"])
            elif sample["name"] in GAUGES:
                gauges[sample["name"] + (sample["labels"] or "")] = float(sample["value"])
    return tokens, gauges


def read_answer(status: int, body: bytes) -> Answer:
    """What an answer to a request for a token says; LMDeploy 0.8 gives an engine error as 200 with a finish_reason."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        return Answer(status, token=False, detail=text.strip()[:300] or "no body")
    if status != 200:
        inner = data.get("error", data)
        message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        return Answer(status, token=False, detail=str(message or text)[:300])
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Answer(status, token=False, detail=_said_instead(data, text))
    reason, usage = choices[0].get("finish_reason"), data.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if reason in ("error", "abort") or not isinstance(tokens, (int, float)) or tokens < 1:
        said = str(choices[0].get("text") or "no text")[:300]
        return Answer(status, token=False, detail=f"no token, finish_reason={reason}: {said}")
    return Answer(status, token=True)


def _said_instead(data: Mapping[str, Any], text: str) -> str:
    """What an answer of status 200 says in place of a completion.

    LMDeploy's proxy answers so while it cannot reach a rank (``error_code``), and hands on the errors of its ranks without
    their status.
    """
    if "error_code" in data:
        return f"the proxy gave no answer of a rank (error_code {data['error_code']}: {str(data.get('text'))[:200]})"
    error = data.get("error", data)
    if isinstance(error, dict) and "message" in error:
        return f"no token, but the error {error.get('code')}: {str(error['message'])[:300]}"
    return f"no token, but {text.strip()[:300]}"


@dataclass
class EngineProbe:
    """One probe of the api_server at `url` (no /v1); see `Patience` for the seconds.

    `cpu_s` gives the processor time that the engine's containers have used so far, in seconds, or None; `gpus_work` whether a
    GPU of the host works, or None.
    """

    url: str
    model: str
    api_key: str | None = None  # of a gateway of this host, whose certificate is taken as it is
    patience: Patience = field(default_factory=Patience)
    interval_s: float = 2.0
    cpu_s: Callable[[], float | None] | None = None
    gpus_work: Callable[[], bool | None] | None = None

    def run(self) -> Verdict:
        """Ask for a token and watch what moves until there is a verdict."""
        began = time.monotonic()
        seen = Observations()
        asker = threading.Thread(target=self._ask_into, args=(seen,), daemon=True)
        asker.start()
        while True:
            reading = self._read(began) if asker.is_alive() else None
            seen.waited_s = time.monotonic() - began
            if reading is not None:
                seen.readings.append(reading)
            verdict = decide(seen, self.patience)
            if verdict is not None:
                return verdict
            asker.join(self.interval_s)

    def _read(self, began: float) -> Reading:
        tokens, gauges = read_metrics(self._get("/metrics") or "")
        cpu_s = self.cpu_s() if self.cpu_s else None
        at_s = time.monotonic() - began
        # Not for every token: nvidia-smi takes its time.
        ask = self.gpus_work if at_s > self.patience.timeout_s else None
        return Reading(at_s, tokens, gauges, cpu_s, ask() if ask else None)

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
        try:
            # Longer than anyone waits for it: decide() is the only judge of time.
            reply = exchange(
                f"{self.url.rstrip('/')}/v1/completions",
                json.dumps(body).encode(),
                headers,
                deadline_s=self.patience.longest_s + 60,
                limit_bytes=ANSWER_BYTES,
                verified=not self.api_key,
            )
        except NoAnswer as error:
            return Answer(None, token=False, detail=f"no HTTP answer from {self.url}: {error}")
        return read_answer(reply.status, reply.body)

    def _get(self, path: str) -> str | None:
        try:
            return exchange(f"{self.url.rstrip('/')}{path}", deadline_s=METRICS_TIMEOUT_S).text
        except NoAnswer:
            return None

    def _health(self) -> str | None:
        try:
            data = json.loads(self._get("/health") or "")
        except (ValueError, RecursionError):
            return None
        return str(data["status"]) if isinstance(data, dict) and "status" in data else None
