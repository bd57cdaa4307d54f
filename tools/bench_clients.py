#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure load generators against the null server: are their numbers right, how much can they drive, at what cost?

    python3 tools/bench_clients.py [NAME ...] [--lmdeploy-script TAG=PATH ...] [--venv NAME=DIR ...] [--write]

Each candidate gets an environment of its own under .cache/clients, made with this machine's pip as it is configured, or
the one that --venv names. LMDeploy's script is not part of this project: it is measured if --lmdeploy-script gives it
(benchmark/profile_restful_api.py of a checkout). All runs are on loopback, and the truth is what the null server itself
stamped in the same run. --write renews the table in docs/benchmark_clients.md. Takes about three minutes a candidate.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.clients import Aiperf  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.clients import Load as RoleLoad  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row  # noqa: E402

CACHE = ROOT / ".cache" / "clients"
DOCUMENT = ROOT / "docs" / "benchmark_clients.md"
NULL_SERVER = ROOT / "programs" / "benchmark" / "null_server.py"
MARKS = ("<!-- table: tools/bench_clients.py --write -->", "<!-- end of table -->")

MODEL = "null-model"
WORDS = ["able", "acid", "also", "area", "army", "away", "baby", "back", "ball", "bank", "base", "bath"]
STEP_S, TTFT_S = 0.02, 0.2
TOLERANCE = 0.03
LIMIT_S = 180  # for one run of a client
STREAMS = (100, 200, 300, 450, 650, 900)  # of 50 tok/s each


@dataclass
class Load:
    """One run: what is asked, and how the server answers it."""

    tokens: list[int]  # each request's output length
    streams: int  # requests in flight
    stream: bool = True
    rate: float | None = None  # requests/s, for a client that has no limit of streams
    step_s: float = STEP_S
    ttft_s: float = TTFT_S
    fail_every: int = 0
    tokens_per_event: int = 1

    def prompts(self) -> list[str]:
        """As many prompts of 64 words as there are requests, the same in every run."""
        draw = random.Random(1)  # noqa: S311  not for secrets
        return [" ".join(draw.choices(WORDS, k=64)) for __ in self.tokens]


@dataclass
class Seen:
    """What a client, or the server, says of a run. Times in seconds."""

    tok_s: float
    ttft: float | None
    tpot: float | None
    requests: int
    failed: int = 0


@dataclass
class Run:
    """A finished run: both views of it and what it cost."""

    client: Seen
    server: Seen
    stamps: list[dict[str, Any]]
    cpu_s: float
    startup_s: float  # from the start of the program to its first request


@dataclass
class Client:
    """A candidate. `prepare` writes its files and gives its command, `read` finds what it reports."""

    name: str
    package: str  # what pip installs
    prepare: Callable[[Client, Load, str, Path], list[str]]
    read: Callable[[Path], Seen]
    licence: str
    released: str
    lengths: str  # whether each request can have its own output length
    records: str
    image: str
    python: str = "3.11"
    env: dict[str, str] = field(default_factory=dict)
    all_at_once: bool = False  # has no limit of streams
    venv: Path = Path()
    script: Path = Path()


# --- the candidates ---------------------------------------------------------------------------------------------------


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the rows as JSON lines; the path again."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def aiperf(client: Client, load: Load, url: str, folder: Path) -> list[str]:
    """The command that the role runs. It writes its records while it runs."""
    rows = zip(load.prompts(), load.tokens)
    data = jsonl(folder / "data.jsonl", [{"prompt": text, "prompt_tokens": 64, "output_tokens": n} for text, n in rows])
    row = Row("row", 64, max(load.tokens), len(load.tokens), concurrency=load.streams, stream=load.stream)
    (folder / "out").mkdir()
    asked = RoleLoad(row, (url,), MODEL, str(folder / "tokenizer"), data, folder / "out", LIMIT_S)
    client.env.update(Aiperf().environment(asked))
    return Aiperf().command(asked)


def read_aiperf(folder: Path) -> Seen:
    """Its summary; its inter-token latency is TPOT as defined here."""
    report = json.loads((folder / "out" / "profile_export_aiperf.json").read_text())

    def mean(name: str) -> float | None:
        return report[name]["avg"] if report.get(name) else None

    ttft, tpot = mean("time_to_first_token"), mean("inter_token_latency")
    answered, failed = int(mean("request_count") or 0), int(mean("error_request_count") or 0)
    return Seen(
        mean("output_token_throughput") or 0.0, ttft and ttft / 1000, tpot and tpot / 1000, answered + failed, failed
    )


def guidellm(client: Client, load: Load, url: str, folder: Path) -> list[str]:
    """A column of prompts and one of output lengths."""
    rows = [{"prompt": text, "output_tokens_count": n} for text, n in zip(load.prompts(), load.tokens)]
    data = jsonl(folder / "data.jsonl", rows)
    stream = str(load.stream).lower()
    return [
        f"{client.venv}/bin/guidellm", "run", "--disable-console-interactive",
        "--backend", f"kind=openai_http,target={url},model={MODEL},request_format=/v1/completions,stream={stream}",
        "--profile", f"kind=concurrent,streams={load.streams}",
        "--constraint", f"kind=max_requests,count={len(load.tokens)}",
        "--data", f"kind=json_file,path={data}", "--output", f"kind=json,path={folder / 'out.json'}",
    ]  # fmt: skip


def read_guidellm(folder: Path) -> Seen:
    """Its report; what it calls TPOT has the first token in it, so its inter-token latency is read."""
    metrics = json.loads((folder / "out.json").read_text())["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]

    def mean(name: str, of: str = "successful") -> float | None:
        return (metrics[name][of]["mean"] or None) if metrics.get(name) else None

    ttft, tpot = mean("time_to_first_token_ms"), mean("inter_token_latency_ms")
    return Seen(
        mean("output_tokens_per_second") or 0.0, ttft and ttft / 1000, tpot and tpot / 1000,
        totals["successful"] + totals["errored"], totals["errored"],
    )  # fmt: skip


def sharegpt(load: Load, path: Path, lead: int) -> Path:
    """A ShareGPT file whose answers have the lengths asked for. `lead`: rows that the reader drops at the start."""
    rows = [
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "token " * n}]}
        for text, n in zip(load.prompts(), load.tokens)
    ]
    path.write_text(json.dumps(rows[:1] * lead + rows))
    return path


def inference_perf(client: Client, load: Load, url: str, folder: Path) -> list[str]:
    """Its own file of prompts has to look like ShareGPT; lengths are those of the answers in it."""
    config = {
        "api": {"type": "completion", "streaming": load.stream},
        "data": {"type": "shareGPT", "path": str(sharegpt(load, folder / "data.json", lead=1))},
        "load": {
            "type": "concurrent", "num_workers": 1, "worker_max_concurrency": 100000,
            "stages": [{"num_requests": len(load.tokens), "concurrency_level": load.streams}],
        },
        "server": {"type": "vllm", "model_name": MODEL, "base_url": url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(folder / "tokenizer")},
        "report": {"request_lifecycle": {"per_request": False, "use_server_output_tokens": True}},
        "storage": {"local_storage": {"path": str(folder / "out")}},
    }  # fmt: skip
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    return [f"{client.venv}/bin/inference-perf", "--config_file", str(folder / "config.yml")]


def read_inference_perf(folder: Path) -> Seen:
    """The summary of all stages."""
    report = json.loads((folder / "out" / "summary_lifecycle_metrics.json").read_text())
    done, failed = report["successes"], report["failures"]["count"]

    def mean(name: str) -> float | None:
        return (done["latency"].get(name) or {}).get("mean")

    tok_s = done["throughput"]["output_tokens_per_sec"]
    return Seen(tok_s, mean("time_to_first_token"), mean("time_per_output_token"), done["count"] + failed, failed)


def evalscope(client: Client, load: Load, url: str, folder: Path) -> list[str]:
    """Whole request bodies, a line each."""
    rows = [{"prompt": text, "max_tokens": n, "ignore_eos": True} for text, n in zip(load.prompts(), load.tokens)]
    data = jsonl(folder / "data.jsonl", rows)
    return [
        f"{client.venv}/bin/evalscope", "perf", "--url", f"{url}/v1/completions", "--api", "openai", "--model", MODEL,
        "--dataset", "line_by_line", "--dataset-path", str(data), "--tokenizer-path", str(folder / "tokenizer"),
        "--number", str(len(rows)), "--parallel", str(load.streams), "--stream" if load.stream else "--no-stream",
        "--no-test-connection", "--outputs-dir", str(folder / "out"), "--no-timestamp",
    ]  # fmt: skip


def read_evalscope(folder: Path) -> Seen:
    """The summary beside its database of requests."""
    report = json.loads(next((folder / "out").rglob("benchmark_summary.json")).read_text())
    ttft, tpot = report.get("Avg TTFT (ms)"), report.get("Avg TPOT (ms)")
    return Seen(
        report["Output Throughput (tok/s)"], ttft and ttft / 1000, tpot and tpot / 1000,
        report["Total Requests"], report["Failed Requests"],
    )  # fmt: skip


def lmdeploy(client: Client, load: Load, url: str, folder: Path) -> list[str]:
    """All requests at once or at Poisson times: it has no limit of requests in flight."""
    data = ["--dataset-name", "sharegpt"]
    if min(load.tokens) < 4:  # which it leaves out of a ShareGPT file
        length = str(max(load.tokens))
        data = ["--dataset-name", "random", "--random-input-len", "64"]
        data += ["--random-output-len", length, "--random-range-ratio", "1"]
    chosen = ["--model-path", str(folder / "tokenizer")] if "--model-path" in client.script.read_text() else []
    return [
        f"{client.venv}/bin/python", str(client.script), "--backend", "lmdeploy", "--base-url", url, "--model", MODEL,
        *chosen, "--tokenizer", str(folder / "tokenizer"),
        *data, "--dataset-path", str(sharegpt(load, folder / "data.json", lead=0)),
        "--num-prompts", str(len(load.tokens)), *([] if load.stream else ["--disable-stream"]),
        *(["--request-rate", str(load.rate)] if load.rate else []),
        "--disable-warmup", "--disable-tqdm", "--output-file", str(folder / "out.csv"),
    ]  # fmt: skip


def read_lmdeploy(folder: Path) -> Seen:
    """The line of its CSV; how many were asked for is known from us alone."""
    names, values = (folder / "out.csv").read_text().splitlines()
    report = dict(zip(names.split(","), values.split(",")))
    asked = int((folder / "asked").read_text())
    return Seen(
        float(report["output_throughput"]), float(report["mean_ttft_ms"]) / 1000, float(report["mean_tpot_ms"]) / 1000,
        asked, asked - int(report["completed"]),
    )  # fmt: skip


CLIENTS = [
    Client(
        "aiperf", "aiperf==0.13.0", aiperf, read_aiperf, "Apache-2.0", "2026-09", "yes", "JSONL, as they come",
        "`nvcr.io/nvidia/ai-dynamo/aiperf`",
        env={"HF_HUB_OFFLINE": ""},  # set to anything, it takes a tokenizer's folder for the name of a repository
    ),
    Client(
        "guidellm", "guidellm==0.8.1", guidellm, read_guidellm, "Apache-2.0", "2026-10", "yes", "JSON, at the end",
        "`ghcr.io/vllm-project/guidellm`",
        env={"GUIDELLM__MAX_WORKER_PROCESSES": "1"},  # more of them only get in each other's way on two cores
    ),
    Client(
        "evalscope", "evalscope[perf]==1.14.1", evalscope, read_evalscope, "Apache-2.0", "2026-10", "yes",
        "SQLite, as they come", "none found",
    ),
    Client(
        "inference-perf", "inference-perf==0.7.0", inference_perf, read_inference_perf, "Apache-2.0", "2026-09",
        "as a ShareGPT file", "JSON, at the end", "`quay.io/inference-perf/inference-perf`", python="3.12",
    ),
]  # fmt: skip


def lmdeploy_client(tag: str, script: str) -> Client:
    """LMDeploy's script of that tag."""
    return Client(
        f"lmdeploy {tag}", "aiohttp numpy pybase64 pillow requests tqdm transformers", lmdeploy, read_lmdeploy,
        "Apache-2.0", "with LMDeploy", "as a ShareGPT file, from 4", "none", "LMDeploy's own", all_at_once=True,
        script=Path(script).resolve(),
    )  # fmt: skip


# --- the measurement --------------------------------------------------------------------------------------------------


def tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, so that nothing has to be fetched and each word of a prompt or answer is a token."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "token", *WORDS])}
    folder.mkdir()
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "model_max_length": 1000000}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(vocabulary)}))


def truth(stamps: list[dict[str, Any]]) -> Seen:
    """The server's own view of what it served."""
    done = [stamp for stamp in stamps if stamp["last"]]
    seconds = max(stamp["last"] for stamp in done) - min(stamp["in"] for stamp in done)
    tpots = [(stamp["last"] - stamp["first"]) / (stamp["tokens"] - 1) for stamp in done if stamp["tokens"] > 1]
    ttft = fmean(stamp["first"] - stamp["in"] for stamp in done)
    return Seen(sum(stamp["tokens"] for stamp in done) / seconds, ttft, fmean(tpots) if tpots else None, len(stamps))


def run(client: Client, load: Load) -> Run:
    """Start a null server, run the client against it once, stop both. Raises RuntimeError with the end of its log."""
    with tempfile.TemporaryDirectory(prefix="bench-clients-") as name:
        folder = Path(name)
        tokenizer(folder / "tokenizer")
        (folder / "asked").write_text(str(len(load.tokens)))
        settings = [load.step_s, load.ttft_s, load.fail_every, load.tokens_per_event]
        with subprocess.Popen(
            [sys.executable, str(NULL_SERVER), "0", *map(str, settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            assert server.stdout  # noqa: S101  for the type checker
            port = json.loads(server.stdout.readline())["port"]
            command = client.prepare(client, load, f"http://127.0.0.1:{port}", folder)
            # With no way out to a hub, a client that would look there fails at once instead of measuring its time-outs.
            path = f"{client.venv}/bin:{os.environ['PATH']}"
            env = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none", **client.env}
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
            with (folder / "log").open("w") as log:
                ended = subprocess.run(
                    command, cwd=folder, env=env, stdout=log, stderr=log, timeout=LIMIT_S, check=False
                )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)  # the server is not among them: it still runs
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/stamps")
            stamps = json.loads(connection.getresponse().read())
            server.communicate()
        try:
            seen = client.read(folder)
        except (OSError, KeyError, TypeError, ValueError, StopIteration) as error:
            end = (folder / "log").read_text()[-3000:]
            raise RuntimeError(f"{client.name} (exit {ended.returncode}) left no results: {error!r}\n{end}") from error
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Run(seen, truth(stamps), stamps, cpu_s, min(stamp["in"] for stamp in stamps) - started)


def ratio(client: float | None, server: float | None) -> str:
    """What the client says, over what the server stamped."""
    return f"{client / server:.3f}" if client is not None and server else "-"


def measure(client: Client) -> dict[str, str]:
    """All runs of one candidate, as a row of the table."""
    row = {"client": client.name, "version": version(client)}
    draw = random.Random(2)  # noqa: S311  not for secrets
    lengths = [draw.randint(4, 200) for __ in range(120)]
    light = Load(lengths, streams=40, rate=18.0 if client.all_at_once else None)

    start = run(client, Load([4], streams=1))
    row["start-up s"] = f"{start.startup_s:.1f}"

    def show(kind: str, load: Load) -> Run:
        done = run(client, load)
        row[f"{kind} throughput"] = ratio(done.client.tok_s, done.server.tok_s)
        if load.stream:
            row[f"{kind} TTFT"] = ratio(done.client.ttft, done.server.ttft)
            row[f"{kind} TPOT"] = ratio(done.client.tpot, done.server.tpot)
        says(client, f"{kind}: client {done.client}, server {done.server}")
        return done

    show("streamed", light)
    show("whole", replace(light, stream=False))
    hard = show("hard", replace(light, tokens=lengths * 3, fail_every=100, tokens_per_event=2))
    row["failures seen"] = f"{hard.client.failed} of {hard.client.requests}"
    short = run(client, Load([1] * 1500, streams=50, step_s=0.001, ttft_s=0.0))
    row["requests/s"] = f"{min(short.client.tok_s, short.server.tok_s):.0f}"  # a token each
    row["events/s"], row["CPU s / 1000 events"] = ramp(client, start.cpu_s)
    return row


def held(stamps: list[dict[str, Any]], streams: int) -> float:
    """The share of its streams that a client kept in flight while it had requests left to send."""
    arrivals = sorted(stamp["in"] for stamp in stamps)
    begin, end = arrivals[streams - 1], arrivals[-1]
    busy = sum(max(0.0, min(stamp["last"], end) - max(stamp["in"], begin)) for stamp in stamps)
    return float(busy / (end - begin) / streams)


def ramp(client: Client, start_cpu_s: float) -> tuple[str, str]:
    """More streams of 50 tok/s, until the client does not keep them in flight or reports another throughput.

    Or until the server itself comes late, as both share the machine. Gives the token events/s before that, and their
    cost.
    """
    best, cost = 0, "-"
    draw = random.Random(3)  # noqa: S311  not for secrets
    for streams in STREAMS:
        tokens = [draw.randint(50, 250) for __ in range(3 * streams)]
        seconds = TTFT_S + (fmean(tokens) - 1) * STEP_S  # of a request
        rate = streams / seconds if client.all_at_once else None
        for __ in range(2):  # a disturbed run gets a second chance
            done = run(client, Load(tokens, streams, rate=rate))
            reached = done.client.tok_s / done.server.tok_s
            kept = held(done.stamps, streams) if rate is None else 1.0
            step = median((stamp["last"] - stamp["first"]) / (stamp["tokens"] - 1) for stamp in done.stamps)
            says(
                client, f"{streams} streams: {reached:.3f}, held {kept:.3f}, step {step:.4f} s, CPU {done.cpu_s:.1f} s"
            )
            late = step > STEP_S * (1 + TOLERANCE)
            good = not late and abs(1 - reached) <= TOLERANCE and kept >= 1 - TOLERANCE
            if good:
                break
        if not good:
            return f"{best}, then the {'server' if late else 'client'} is late", cost
        best = round(streams * fmean(tokens) / seconds)
        events = sum(stamp["tokens"] for stamp in done.stamps)
        cost = f"{max(0.0, done.cpu_s - start_cpu_s) / events * 1000:.3f}"
    return f"{best} or more", cost


def says(client: Client, what: str) -> None:
    """Progress, on stderr."""
    print(f"{client.name}: {what}", file=sys.stderr, flush=True)


# --- the environments and the table -----------------------------------------------------------------------------------


def install(client: Client) -> None:
    """Make the candidate's environment where there is none. Raises RuntimeError where this machine cannot."""
    if client.venv != Path():
        return
    client.venv = CACHE / client.name.split()[0]
    if (client.venv / "made").exists():
        return
    least = tuple(map(int, client.python.split(".")))
    python = sys.executable if sys.version_info >= least else shutil.which(f"python{client.python}")
    if not python:
        raise RuntimeError(f"needs Python {client.python}, which is not on PATH")
    subprocess.run([python, "-m", "venv", "--clear", str(client.venv)], check=True)
    subprocess.run([f"{client.venv}/bin/pip", "install", "--quiet", *client.package.split()], check=True)
    (client.venv / "made").touch()


def version(client: Client) -> str:
    """The installed version; for a script, the name it was given."""
    package, __, __ = client.package.partition("==")
    if client.script != Path():
        return client.name.split()[-1]
    show = [f"{client.venv}/bin/pip", "show", package.partition("[")[0]]
    lines = subprocess.run(show, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Version:"))


def size(client: Client) -> str:
    """The environment's size on disk, its own Python aside."""
    files = (path for path in client.venv.rglob("*") if path.is_file() and not path.is_symlink())
    return f"{sum(path.stat().st_size for path in files) / 2**30:.1f} GiB"


COLUMNS = (
    "streamed throughput", "streamed TTFT", "streamed TPOT", "whole throughput", "hard throughput", "hard TTFT",
    "hard TPOT", "failures seen", "events/s", "requests/s", "CPU s / 1000 events", "start-up s", "installed", "version",
    "released", "licence", "own lengths", "records", "image",
)  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    """Candidates as columns: there are more properties than candidates."""
    names = [row["client"] for row in rows]
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    cores = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    lines = [
        f"Measured {today} on {cores} that client and null server share; Python {platform.python_version()}.",
        "",
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    lines += [f"| {column} | " + " | ".join(row.get(column, "-") for row in rows) + " |" for column in COLUMNS]
    return "\n".join(lines)


def main() -> int:
    """Measure the candidates that were named, or all, and print the table."""
    parser = argparse.ArgumentParser(description="Measure load generators against the null server.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="candidates to measure (all)")
    parser.add_argument(
        "--lmdeploy-script",
        action="append",
        default=[],
        metavar="TAG=PATH",
        help="profile_restful_api.py of that tag of LMDeploy; may be given again",
    )
    parser.add_argument(
        "--venv", action="append", default=[], metavar="NAME=DIR", help="an environment to use as it is"
    )
    parser.add_argument("--write", action="store_true", help=f"renew the table in {DOCUMENT.relative_to(ROOT)}")
    asked = parser.parse_args()
    clients = CLIENTS + [lmdeploy_client(*each.split("=", 1)) for each in asked.lmdeploy_script]
    given = dict(each.split("=", 1) for each in asked.venv)
    known = {client.name.split()[0] for client in clients}
    if unknown := (set(asked.names) | set(given)) - known:
        parser.error(f"no such candidate: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    rows: list[dict[str, str]] = []
    failed, made = False, "Nothing was measured."
    for client in clients:
        name = client.name.split()[0]
        if asked.names and name not in asked.names:
            continue
        client.venv = Path(given.get(name, ""))
        try:
            install(client)
            row = measure(client)
        except (RuntimeError, subprocess.SubprocessError) as error:
            print(f"{client.name}: not measured: {error}", file=sys.stderr)
            failed = True
            continue
        row.update({
            "installed": size(client), "released": client.released, "licence": client.licence,
            "own lengths": client.lengths, "records": client.records, "image": client.image,
        })  # fmt: skip
        rows.append(row)
        made = table(rows)
        if not asked.lmdeploy_script:
            made += "\n\nLMDeploy's own script was not given (--lmdeploy-script), so it was not measured."
        if asked.write:  # after each candidate: an interrupted run leaves what it has
            before, __, rest = DOCUMENT.read_text().partition(MARKS[0])
            DOCUMENT.write_text(f"{before}{MARKS[0]}\n{made}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")
    print(made)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
