# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in the client's container on the head: `python3 -m PACKAGE.runner CONFIG.json`.

`dataset` makes a row's prompts, in the engine's image, for only its tokenizer counts as the server does. `certify` has the
client drive the null server. `row` has it send the prompts, and leaves one record for each request in `records.jsonl.gz`.
Progress and the result are events on stdout; the client's own output is in `client.log`. The exit code is 0 with a
result, 2 without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gzip
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..events import emit
from . import certificate, dataset
from .clients import Client, ClientError, Load, Outcome, client_named
from .figures import figures
from .records import Figures, Record, Row

DATASET = "dataset.jsonl"
POLL_S = 1.0
LOG_LINES = 15
STAMPS_S, STAMPS_BYTES = 60.0, 1 << 28


class RunError(Exception):
    """The stage cannot go on; the message says why."""


@dataclasses.dataclass(frozen=True)
class Ran:
    """A client that has ended: what it saw, its command line, and the CPU seconds of its processes."""

    outcome: Outcome
    command: list[str]
    cpu_s: float

    @property
    def figures(self) -> Figures:
        """What it saw comes to, over its own duration where it alone knows that."""
        return figures(self.outcome.records, self.outcome.duration_s)


def run_client(client: Client, load: Load, progress: Callable[[int, float], None]) -> Ran:
    """Have the client send the load. Raises RunError.

    `progress` is told how many requests have ended, and the seconds since the start.
    """
    faults = list(client.faults(load.row, load.urls))
    if faults:
        raise RunError(f"the client {client.name} cannot send {load.row.name}: {'; '.join(faults)}")
    shutil.rmtree(load.folder, ignore_errors=True)
    load.folder.mkdir(parents=True)
    log, command = load.folder / "client.log", client.command(load)
    before, began = _cpu_s(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **client.environment(load)},
        )
        while True:
            try:
                process.wait(POLL_S)
                break
            except subprocess.TimeoutExpired:
                progress(client.finished(load), time.monotonic() - began)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise RunError(f"the client {client.name} ended with exit code {process.returncode}:\n{tail}")
    return Ran(client.outcome(load), command, _cpu_s() - before)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def null_server() -> Iterator[str]:
    """A null server in a process of its own; its URL."""
    timing = [str(certificate.STEP_S), str(certificate.TTFT_S)]
    command = [sys.executable, "-m", f"{__package__}.null_server", "0", *timing]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101  (a pipe, as asked for)
        listening = server.stdout.readline()
        if not listening:
            raise RunError("the null server did not start")
        try:
            yield f"http://127.0.0.1:{json.loads(listening)['port']}"
        finally:
            server.communicate()  # closes its stdin, at which it ends


def stamps_of(url: str) -> list[dict[str, Any]]:
    """What the null server did, its warm-up requests included."""
    found: list[dict[str, Any]] = json.loads(fetched(f"{url}/stamps", STAMPS_S, STAMPS_BYTES))
    return found


def fetched(url: str, deadline_s: float, limit_bytes: int) -> bytes:
    """The body of an answer, which has come in so many seconds and is no longer than that. Raises RunError.

    A socket's own time-out begins again with every byte: so at the deadline the connection is shut.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=deadline_s)
    end = threading.Event()
    try:
        connection.connect()

        def shut() -> None:
            end.set()
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(deadline_s, shut)
        timer.daemon = True
        timer.start()
        try:
            connection.request("GET", parts.path)
            body = connection.getresponse().read(limit_bytes + 1)
        finally:
            timer.cancel()
    except (OSError, http.client.HTTPException) as error:
        why = (
            f"not within {deadline_s:g} s"
            if end.is_set() or isinstance(error, socket.timeout)
            else str(error) or type(error).__name__
        )
        raise RunError(f"no answer from {url}: {why}") from None
    finally:
        connection.close()
    if end.is_set() or len(body) > limit_bytes:
        raise RunError(f"no whole answer from {url} within {deadline_s:g} s and {limit_bytes} bytes")
    return body


def make_dataset(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Stage `dataset`: its summary. Raises DatasetError."""
    row, seed = Row(**config["row"]), config["seed"]
    emit({"event": "progress", "line": f"{row.name}: making {row.num_prompts} prompts", "seconds": 0.0})
    tokenizer = dataset.load_tokenizer(config["tokenizer"])
    if config["sharegpt"]:
        requests = dataset.sharegpt(config["sharegpt"], tokenizer, row.num_prompts, seed)
        return {"dataset": dataset.write(folder / DATASET, requests, "sharegpt", seed)}
    lengths = dataset.draw(row.lengths, row.input_len, row.output_len, row.num_prompts, seed)
    requests = dataset.random_prompts(tokenizer, lengths, seed)
    return {"dataset": dataset.write(folder / DATASET, requests, "random", seed)}


def certify(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Stage `certify`: the certificate."""
    client = client_named(config["client"])
    asked = float(config["asked_tok_s"])
    row = certificate.workload(asked, client.limits_concurrency)
    made = folder / "certificate.jsonl"
    # The null server counts words, and has no cache that would know them.
    prompt = dataset.Request(" ".join(["token"] * row.input_len), row.input_len, row.output_len)
    dataset.write(made, [prompt] * row.num_prompts, "certificate", 0)
    began = time.monotonic()

    def progress(ended: int, seconds: float) -> None:
        said = f"certifying {client.name} at {asked:.0f} tokens/s: {ended} of {row.num_prompts} requests"
        emit({"event": "progress", "line": said, "seconds": round(seconds, 1)})

    progress(0, 0.0)
    with null_server() as url:
        load = _load(config, row, (url,), "null", made, folder)
        ran = run_client(client, load, progress)
        # A client may ask once or twice before it begins.
        stamps = [stamp for stamp in stamps_of(url) if stamp["last"] is not None][-row.num_prompts :]
    server = figures([Record.of_stamp(stamp) for stamp in stamps])
    verdict = certificate.certify(asked, ran.figures, server, ran.cpu_s, time.monotonic() - began)
    return {"version": client.version(), "certificate": dataclasses.asdict(verdict)}


def measure(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Stage `row`: what came of it."""
    client, row = client_named(config["client"]), Row(**config["row"])

    def progress(ended: int, seconds: float) -> None:
        emit({"event": "progress", "line": progress_line(row, ended, seconds), "seconds": round(seconds, 1)})

    load = _load(config, row, tuple(config["urls"]), config["model"], folder / DATASET, folder)
    ran = run_client(client, load, progress)
    with gzip.open(folder / "records.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(dataclasses.asdict(record)) + "\n" for record in ran.outcome.records)
    return {
        "version": client.version(),
        "dataset": ran.outcome.dataset,
        "figures": dataclasses.asdict(ran.figures),
        "command": ran.command,
        "cpu_s": round(ran.cpu_s, 2),
    }


def progress_line(row: Row, ended: int, seconds: float) -> str:
    """How far a row is, and how long the rest takes if it goes on so."""
    line = f"{row.name}: {ended} of {row.num_prompts} requests"
    if not ended:
        return line
    left = round(seconds * (row.num_prompts - ended) / ended)
    return f"{line}, about {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


def _load(config: Mapping[str, Any], row: Row, urls: tuple[str, ...], model: str, prompts: Path, folder: Path) -> Load:
    return Load(
        row=row,
        urls=urls,
        model=model,
        tokenizer=config["tokenizer"],
        dataset=prompts,
        folder=folder / "client",
        timeout_s=float(config["request_timeout_s"]),
        seed=config["seed"],
        api_key=config["api_key"],
    )


STAGES = {"dataset": make_dataset, "certify": certify, "row": measure}


def main(path: str) -> int:
    """Run the stage that the JSON file describes; the exit code."""
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    # Every request holds a socket, and 1024 is a common soft limit.
    __, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(config["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    began = time.time()
    started = datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")
    try:
        result = STAGES[config["stage"]](config, folder)
    except (RunError, ClientError, dataset.DatasetError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    emit({"event": "result", "started": started, "seconds": round(time.time() - began, 1), **result})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
