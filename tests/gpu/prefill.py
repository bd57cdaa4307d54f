# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How is an engine that is gone told from one in a long prefill: what moves in each, second by second.

Everything is read once a second: the server's metrics, the processor time of every process of the service, the GPU by
nvidia-smi, /health. Meanwhile the engine does nothing, answers short requests, works on the longest prompt that its
session takes (beside short ones, and alone), is stopped (SIGSTOP: a hang), and is stopped while another program spins on
the GPU, as a collective does that never ends. With two GPUs also a real one: TP 2, of which one worker is stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu.deployment import get
from gpu.processes import command_of, members

SAMPLE = re.compile(r"^lmdeploy:(\w+)(\{[^\n]*\})?[ \t]+([0-9.eE+-]+)[ \t]*$", re.MULTILINE)
GPU = ("utilization.gpu", "utilization.memory", "memory.used", "power.draw", "clocks.sm")
TICKS = os.sysconf("SC_CLK_TCK")
STEP_S = 1.0
METRICS_BYTES = 1 << 20

SPIN = """
import torch
torch.cuda.init()
print("spins", flush=True)
while True:
    torch.cuda._sleep(2_000_000_000)
    torch.cuda.synchronize()
"""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was seen at one moment: ``values`` by series, ``/health`` and the phase that it was in."""

    at_s: float
    phase: str
    values: dict[str, float]
    health: str


def metrics_of(text: str) -> dict[str, float]:
    """Every sample of LMDeploy's, but for the buckets of histograms, by name; labels are left out, and sums made."""
    found: dict[str, float] = {}
    for name, __, value in SAMPLE.findall(text):
        if not name.endswith("_bucket"):
            with contextlib.suppress(ValueError):
                found[f"metric {name}"] = found.get(f"metric {name}", 0.0) + float(value)
    return found


def cpu_of(services: Sequence[str]) -> dict[str, float]:
    """Seconds of processor time by the name of the process, and of all of them."""
    found: dict[str, float] = {}
    for pid in [pid for service in services for pid in members(service)]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, __, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
            used = sum(int(field) for field in rest.split()[11:13]) / TICKS
            name = f"cpu {head.partition('(')[2]}"
            found[name] = found.get(name, 0.0) + used
            found["cpu of all"] = found.get("cpu of all", 0.0) + used
    return found


def gpu_of() -> dict[str, float]:
    """What nvidia-smi says of each GPU."""
    if shutil.which("nvidia-smi") is None:
        return {}
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(GPU)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    found = {}
    for number, line in enumerate(done.stdout.splitlines()):
        for name, value in zip(GPU, line.split(",")):
            with contextlib.suppress(ValueError):
                found[f"gpu{number} {name}"] = float(value)
    return found


class Sampler:
    """Reads once a second, from its making to ``stop``."""

    def __init__(self, url: str, services: Sequence[str]) -> None:
        self.phase, self.readings = "", list[Reading]()
        self._url, self._services, self._over = url, services, threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        following = time.monotonic()
        while not self._over.wait(max(following - time.monotonic(), 0.0)):
            following += STEP_S
            phase, at_s = self.phase, time.monotonic() - self._began
            values = {
                **metrics_of(get(f"{self._url}/metrics", 2.0, METRICS_BYTES)),
                **cpu_of(self._services),
                **gpu_of(),
            }
            self.readings.append(Reading(round(at_s, 2), phase, values, get(f"{self._url}/health", 2.0)))

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        self.phase = phase
        try:
            yield
        finally:
            self.phase = ""

    def stop(self) -> list[Reading]:
        self._over.set()
        self._thread.join(30)
        return self.readings


@dataclasses.dataclass(frozen=True)
class Moved:
    """How a series moved in a phase: by how much in all, in how many of its seconds, and the longest it stood still."""

    least: float
    most: float
    by: float
    moved: int
    of: int
    still_s: float

    def __str__(self) -> str:
        return f"{self.by:+.4g} ({self.least:.4g}..{self.most:.4g}), {self.moved}/{self.of}, still {self.still_s:.0f} s"


def what_moved(readings: Sequence[Reading]) -> dict[str, dict[str, Moved]]:
    """Series -> phase -> how it moved; of processor time the difference is what counts, so it is given by the second."""
    found: dict[str, dict[str, Moved]] = {}
    for phase in dict.fromkeys(each.phase for each in readings if each.phase):
        mine = [each for each in readings if each.phase == phase]
        for series in dict.fromkeys(name for each in mine for name in each.values):
            points = [(each.at_s, each.values[series]) for each in mine if series in each.values]
            if series.startswith("cpu "):  # to processors at work
                points = [(b[0], (b[1] - a[1]) / (b[0] - a[0])) for a, b in zip(points, points[1:]) if b[0] > a[0]]
            if len(points) < 2:
                continue
            values = [value for __, value in points]
            still = longest = 0.0
            for before, after in zip(points, points[1:]):
                still = still + after[0] - before[0] if after[1] == before[1] else 0.0
                longest = max(longest, still)
            moved = sum(after != before for before, after in zip(values, values[1:]))
            found.setdefault(series, {})[phase] = Moved(
                min(values), max(values), values[-1] - values[0], moved, len(values) - 1, longest
            )
    return found


def table(moved: Mapping[str, Mapping[str, Moved]], phases: Sequence[str]) -> str:
    """One line for each series that moved in any phase."""
    lines = [f"{'series':44} " + " | ".join(f"{phase:38}" for phase in phases)]
    for series in sorted(moved):
        if any(each.moved for each in moved[series].values()) or series.startswith(("cpu of", "gpu")):
            cells = [str(moved[series][phase]) if phase in moved[series] else "-" for phase in phases]
            lines.append(f"{series:44} " + " | ".join(f"{cell:38}" for cell in cells))
    return "\n".join([*lines, ""])


class Asker:
    """One request; when it was answered, and by what."""

    def __init__(self, url: str, model: str, prompt: str, max_tokens: int, timeout_s: float) -> None:
        self.said, self.first_s, self.seconds = "", 0.0, 0.0
        self._arguments = (url, model, prompt, max_tokens, timeout_s)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        import openai

        url, model, prompt, max_tokens, timeout_s = self._arguments
        began = time.monotonic()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=timeout_s) as client:
            try:
                body: Any = {"ignore_eos": True}
                stream = client.completions.create(
                    model=model, prompt=prompt, max_tokens=max_tokens, stream=True, extra_body=body
                )
                for __ in stream:
                    self.first_s = self.first_s or time.monotonic() - began
                self.said = "answered"
            except openai.OpenAIError as error:
                self.said = f"{type(error).__name__}: {error}"[:300]
        self.seconds = time.monotonic() - began

    def told(self) -> dict[str, Any]:
        return {"said": self.said or "no answer yet", "first_s": round(self.first_s, 2), "s": round(self.seconds, 2)}


class Shorts:
    """Short requests one after another, while it is there."""

    def __init__(self, url: str, model: str) -> None:
        self.seconds: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, model), daemon=True)
        self._thread.start()

    def _run(self, url: str, model: str) -> None:
        while not self._over.is_set():
            one = Asker(url, model, "one two three", 32, 600)
            one.thread.join()
            self.seconds.append(round(one.seconds, 2))

    def stop(self) -> dict[str, Any]:
        self._over.set()
        self._thread.join(600)
        return {"requests": len(self.seconds), "slowest_s": max(self.seconds, default=0.0)}


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Processes that hang: stopped, and let go on in the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def spinning(gpu: int) -> Iterator[str]:
    """A program whose kernels never leave the GPU."""
    with subprocess.Popen(
        [sys.executable, "-c", SPIN],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)},
    ) as spin:
        try:
            assert spin.stdout is not None
            yield spin.stdout.readline().decode().strip() or "it did not start"
        finally:
            spin.kill()


def described(pids: Sequence[int]) -> list[str]:
    return [f"{pid} {command_of(pid)}"[:200] for pid in pids]


def hang(
    sampler: Sampler, phase: str, seconds: float, ask: Callable[[], Asker], probe: Callable[[], Any]
) -> dict[str, Any]:
    """What a hang looks like for so long, with a request out, and what the engine probe says of it."""
    with sampler.during(phase):
        began, out = time.monotonic(), ask()
        verdict = probe()
        time.sleep(max(seconds - (time.monotonic() - began), 0.0))
        return {"request": out.told(), "probe": verdict}
