# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load generators: how each is told what to send, and how what it saw is read.

Runs in the client's image, on the standard library.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .dataset import spread_of
from .records import CUT_SHORT, Record, Row

IN_THE_IMAGE = "/opt/lmdeploy/benchmark/profile_restful_api.py"
RESULT = "result.json"
BROKEN = "ClientPayloadError"  # aiohttp's, of a connection that ended under an answer
NO_RECORD = "the client has left no record of it"
KEY_VARIABLE = "OPENAI_API_KEY"  # where LMDeploy's script looks for it
TQDM = re.compile(r"(\d+)/\d+ \[")


@dataclass(frozen=True)
class Load:
    """What a client is to do: `row`'s requests, made of `dataset` (lines of prompt, prompt_tokens, output_tokens).

    `folder` is the client's own, and empty. `tokenizer` is a name in the Hugging Face cache or a path.
    """

    row: Row
    urls: tuple[str, ...]
    model: str
    tokenizer: str
    dataset: Path
    folder: Path
    timeout_s: float
    seed: int = 0
    api_key: str | None = None


@dataclass(frozen=True)
class Outcome:
    """A record for each request; and where the client alone knows them, the run's seconds and the lengths it drew."""

    records: list[Record]
    duration_s: float | None = None
    dataset: dict[str, Any] | None = None


class ClientError(Exception):
    """The client cannot do what the row asks, or has left nothing that can be read."""


class Client(Protocol):
    """A load generator."""

    name: str
    limits_concurrency: bool

    def version(self) -> str:
        """What it is, exactly. Raises ClientError where it is not in this image."""

    def faults(self, row: Row, urls: tuple[str, ...]) -> Iterable[str]:
        """Why it cannot send a row, one sentence each."""

    def command(self, load: Load) -> list[str]:
        """The argument vector, whose files it writes; the key is in neither, but in the environment."""

    def environment(self, load: Load) -> dict[str, str]:
        """What its process gets on top of this one's."""

    def finished(self, load: Load) -> int:
        """How many requests have ended by now."""

    def outcome(self, load: Load) -> Outcome:
        """What it saw, once it has ended. Raises ClientError."""


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file that may still be written to, or not be there yet."""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)
    except FileNotFoundError:
        return


class LineCount:
    """How many lines a growing file has, read on from where it was: a record with a thousand latencies is a long line."""

    def __init__(self) -> None:
        self._read = 0
        self._lines = 0

    def of(self, path: Path) -> int:
        """The lines by now; none where there is no file yet."""
        try:
            with path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return 0
        self._read += len(new)
        self._lines += new.count(b"\n")
        return self._lines


class Aiperf:
    """NVIDIA's AIPerf. It sends our prompts as they are, and writes a record when a request has ended."""

    name = "aiperf"
    limits_concurrency = True

    def __init__(self) -> None:
        self._ended = LineCount()

    def version(self) -> str:
        """The version, or the digest, of what is run; raises ClientError where there is none."""
        try:
            done = subprocess.run(["aiperf", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
        except (OSError, subprocess.CalledProcessError) as error:
            raise ClientError(f"aiperf is not in this image: {error}") from None
        return done.stdout.strip().split()[-1]

    def faults(self, row: Row, urls: tuple[str, ...]) -> Iterable[str]:  # noqa: ARG002  (it can send any)
        """Why it cannot send a row."""
        return ()

    def command(self, load: Load) -> list[str]:
        """The argument vector for a load."""
        row = load.row
        rows = load.folder / "input.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for line in lines_of(load.dataset):
                file.write(json.dumps({"text": line["prompt"], "output_length": line["output_tokens"]}) + "\n")
        pace = ["--concurrency", str(row.concurrency or row.num_prompts)]
        if row.request_rate is not None:
            pace = ["--request-rate", str(row.request_rate), "--arrival-pattern", "poisson"]
            pace += ["--concurrency", str(row.concurrency)] if row.concurrency else []
        key = ["--config", str(_aiperf_key_file(load, rows))] if load.api_key else []
        return [
            *("aiperf", "profile", *key, "--model", load.model, "--endpoint-type", "completions"),
            *(word for url in load.urls for word in ("--url", url)),
            *(["--streaming"] if row.stream else []),
            *("--use-server-token-count", "--use-legacy-max-tokens", "--tokenizer", load.tokenizer),
            *("--input-file", str(rows), "--custom-dataset-type", "single-turn"),
            *(
                "--dataset-sampling-strategy",
                "sequential",
                "--extra-inputs",
                json.dumps({"ignore_eos": True, "temperature": 0.0}),
            ),
            *("--request-count", str(row.num_prompts), *pace, "--random-seed", str(load.seed)),
            *("--request-timeout-seconds", str(load.timeout_s), "--output-artifact-dir", str(load.folder)),
            *("--ui", "none", "--no-gpu-telemetry", "--no-server-metrics"),
        ]

    def environment(self, load: Load) -> dict[str, str]:
        """What it gets on top of the environment."""
        # Its own limit is 2500 connections, 65000 at most; and each request in flight holds one.
        limit = {"AIPERF_HTTP_CONNECTION_LIMIT": str(min(max(2500, load.row.num_prompts), 65000))}
        return {**limit, **({KEY_VARIABLE: load.api_key} if load.api_key else {})}

    def finished(self, load: Load) -> int:
        """How many requests have ended so far."""
        return self._ended.of(load.folder / "profile_export.jsonl")

    def outcome(self, load: Load) -> Outcome:
        """What became of every request; raises ClientError where nothing did."""
        asked = [line["output_length"] for line in lines_of(load.folder / "input.jsonl")]
        found = [_aiperf_record(line, asked) for line in lines_of(load.folder / "profile_export.jsonl")]
        if not found:
            raise ClientError("aiperf has left no record of a request")
        # It writes none of a request that it gave up, as when it was told to end.
        missing = load.row.num_prompts - len(found)
        began, ended = min(record.sent for record in found), max(record.done for record in found)
        return Outcome([*found, *[Record(began, ended, error=NO_RECORD)] * missing])


def _aiperf_key_file(load: Load, rows: Path) -> Path:
    """A configuration that takes the key from the environment: `--api-key` would show it on a command line.

    As a header, for AIPerf makes a number of an `api_key` that looks like one. The file has to name data and a phase too. The
    command line goes over both, but takes nothing away: so the phase has no limit that the row has not.
    """
    row, file = load.row, load.folder / "key.json"
    pace = {"type": "concurrency", "concurrency": row.num_prompts}
    if row.request_rate is not None:
        pace = {"type": "poisson", "rate": row.request_rate}
    configuration = {
        "endpoint": {"headers": {"Authorization": f"Bearer ${{{KEY_VARIABLE}}}"}},
        "datasets": [{"name": "rows", "type": "file", "path": str(rows)}],
        "phases": [{"name": "profiling", "requests": row.num_prompts, **pace}],
    }
    file.write_text(json.dumps({"benchmark": configuration}), encoding="utf-8")  # JSON is YAML
    return file


def _aiperf_record(line: dict[str, Any], asked: Sequence[int]) -> Record:
    """A line of its ``profile_export.jsonl``. It calls an answer good that began, however it ended.

    ``asked`` are the output lengths of the dataset, which it goes through in order: a session is a line of it.
    """
    about, metrics = line["metadata"], line.get("metrics") or {}
    start = about["request_start_ns"] / 1e9
    # Its clock starts before the connection is opened: the request is sent when that, and the body, are through.
    sent = start + metrics.get("http_req_sending", {"value": 0.0})["value"] / 1e3
    ttft = metrics.get("time_to_first_token")
    # To the last event with text. The request itself ends later, with the usage and the stream's end.
    latency = metrics.get("request_latency")
    error = line.get("error")
    tokens = {
        key: metrics[f"usage_{key}"]["value"]
        for key in ("prompt_tokens", "completion_tokens")
        if f"usage_{key}" in metrics
    }
    return Record(
        sent=sent,
        done=about["request_end_ns"] / 1e9 if latency is None else start + latency["value"] / 1e3,
        first=None if ttft is None else start + ttft["value"] / 1e3,
        prompt_tokens=tokens.get("prompt_tokens"),
        output_tokens=tokens.get("completion_tokens"),
        error=None if error is None else f"{error.get('code') or error.get('type')}: {error.get('message')}",
        asked_tokens=asked[about["session_num"] % len(asked)],
        cut=error is not None and error.get("type") == BROKEN,
    ).compared()


class LmdeployScript:
    """LMDeploy's own benchmark/profile_restful_api.py, which the guide's tables were made with.

    It draws its lengths and texts itself, from a ShareGPT file; it sends to one URL, and cannot limit what is in flight.
    """

    name = "lmdeploy"
    limits_concurrency = False

    def __init__(self, script: str | None) -> None:
        self.script = Path(script or IN_THE_IMAGE)

    def version(self) -> str:
        """The version, or the digest, of what is run; raises ClientError where there is none."""
        if not self.script.is_file():
            raise ClientError(
                f"{self.script} is not in this image: give LMDeploy's benchmark/profile_restful_api.py of the deployed release "
                "as benchmark_client_script"
            )
        return f"sha256:{hashlib.sha256(self.script.read_bytes()).hexdigest()[:12]}"

    def faults(self, row: Row, urls: tuple[str, ...]) -> Iterable[str]:
        """Why it cannot send a row."""
        if len(urls) > 1:
            yield "it knows one URL only: set target: url"
        if row.concurrency is not None:
            yield "it cannot limit concurrency: leave it out"
        if row.request_rate is not None:
            yield "it does not record when a request was sent: leave request_rate out"
        if not row.stream:
            yield "without streaming it makes up the number of tokens: set stream: true"

    def command(self, load: Load) -> list[str]:
        """The argument vector for a load."""
        row = load.row
        texts = load.folder / "texts.json"
        turns = [[{"value": line["prompt"]}, {"value": ""}] for line in lines_of(load.dataset)]
        texts.write_text(json.dumps([{"conversations": turn} for turn in turns]), encoding="utf-8")
        return [
            *(sys.executable, "-m", f"{__package__}.script", str(self.script), str(load.folder / RESULT)),
            *(
                "--backend",
                "lmdeploy",
                "--base-url",
                load.urls[0],
                "--model",
                load.model,
                "--tokenizer",
                load.tokenizer,
            ),
            *("--dataset-name", "random", "--dataset-path", str(texts), "--num-prompts", str(row.num_prompts)),
            *("--random-input-len", str(row.input_len), "--random-output-len", str(row.output_len)),
            *("--random-range-ratio", "1.0" if row.lengths == "fixed" else "0.0", "--seed", str(load.seed)),
            *("--output-file", str(load.folder / "summary.csv")),
            # For the count of the tokens that came, see script.py: its own count is what was asked for.
            *("--extra-request-body", json.dumps({"stream_options": {"include_usage": True}})),
        ]

    def environment(self, load: Load) -> dict[str, str]:
        """What it gets on top of the environment."""
        return {KEY_VARIABLE: load.api_key or "none"}

    def finished(self, load: Load) -> int:
        """How many requests have ended so far."""
        seen = TQDM.findall((load.folder / "client.log").read_text(errors="replace"))
        return int(seen[-1]) if seen else 0

    def outcome(self, load: Load) -> Outcome:
        """What became of every request; raises ClientError where nothing did."""
        try:
            said = json.loads((load.folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ClientError(f"LMDeploy's script has left no result: {error}") from None
        ends = said["ends"]
        began = min((end["sent"] for end in ends if end["sent"]), default=time.time() - said["duration"])
        lists = zip(said["ttfts"], said["itls"], said["input_lens"], said["output_lens"], said["errors"], ends)
        records = [
            Record(
                sent=began,
                done=began + ttft + sum(gaps) if not error or end["done"] is None else end["done"],
                first=None if error else began + ttft,
                prompt_tokens=prompt_tokens,
                output_tokens=end["tokens"] if error or end["tokens"] is not None else output_tokens,
                error=_last_line(error),
                asked_tokens=end["asked"],
                cut=CUT_SHORT in error or BROKEN in error,
            ).compared()
            for ttft, gaps, prompt_tokens, output_tokens, error, end in lists
        ]
        drawn = {"kind": "random, drawn by the script", "seed": load.seed, "digest": self.version()}
        lengths = {"input": spread_of(said["input_lens"]), "output": spread_of(said["output_lens"])}
        return Outcome(records, said["duration"], {**drawn, **lengths})


def _last_line(error: str) -> str | None:
    """What a traceback, or a message, ends with; of one of our own without its name."""
    lines = error.strip().splitlines()
    return lines[-1].removeprefix("CutShort: ").removeprefix("NoAnswer: ") if lines else None


def client_named(config: Mapping[str, Any]) -> Client:
    """The client that a configuration (`name`, `script`) asks for."""
    return LmdeployScript(config["script"]) if config["name"] == LmdeployScript.name else Aiperf()
