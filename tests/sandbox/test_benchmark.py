# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark promises, against what the api_server itself stamped in the same run.

Needs the load generator's image (LMFLEET_SANDBOX_CLIENT=1), which scripts/test brings with the sandbox.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sandbox.hosts import SIM, Run, Sandbox

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import figures
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Figures, Record

pytestmark = pytest.mark.benchmark

STAMPS = "/var/lib/lmfleet/lmdeploy/cache/stamps.jsonl"
# Slow, so that what the client and the network take of a time is small beside it.
SLOW_ENGINE = {
    **SIM,
    "LMFLEET_SIM_STEP_S": "0.05",
    "LMFLEET_SIM_PREFILL_TOKENS_PER_S": "500",
    "LMFLEET_SIM_STAMPS": "/root/.cache/stamps.jsonl",
    "LMFLEET_SIM_FAULTS": "refuse@0:100",
}
# Through the proxy, and past it one that is long enough for every hundredth request to fail; with --full all ways.
SHAPE = {"input_len": 200, "output_len": 60, "num_prompts": 6, "concurrency": 3, "lengths": "fixed"}
ROWS = [
    {"name": "proxied", **SHAPE, "target": "url"},
    {"name": "failing", "input_len": 8, "output_len": 8, "num_prompts": 200, "concurrency": 16, "target": "ranks"},
]
OTHER_ROWS = [
    {"name": "direct", **SHAPE, "target": "ranks"},
    {"name": "proxied-whole", **SHAPE, "target": "url", "stream": False},
    {"name": "direct-whole", **SHAPE, "target": "ranks", "stream": False},
]
# A client that counts wrongly is off by far more; one on a busy machine sees a first token later than the server sent it.
WITHIN = 0.15


@dataclass
class Measured:
    """A benchmark's last run, its folder, and the server's stamps."""

    run: Run
    folder: Path
    stamps: list[dict[str, Any]]

    def client(self, row: str) -> dict[str, Any]:
        """The report's entry for a row."""
        report = json.loads((self.folder / "report.json").read_text())
        found: dict[str, Any] = next(entry for entry in report["rows"] if entry["row"]["name"] == row)
        return found

    def server(self, row: str) -> tuple[Figures, int]:
        """What the server did of a row, and how many of its requests it refused."""
        (file,) = self.folder.glob(f"rows/{row}-{'[0-9a-f]' * 8}*.records.jsonl.gz")
        with gzip.open(file, "rt") as lines:
            records = [Record(**json.loads(line)) for line in lines]
        began, ended = min(record.sent for record in records), max(record.done for record in records)
        stamps = [stamp for stamp in measuring(self.stamps) if began - 0.5 < stamp["in"] < ended + 0.5]
        answered = [Record.of_stamp(stamp) for stamp in stamps if stamp["status"] == 200]
        return figures(answered), len(stamps) - len(answered)


def benchmark(sandbox: Sandbox, folder: Path, **variables: Any) -> Run:
    return sandbox.playbook("playbooks/benchmark.yml", **options(folder, **variables))


def options(folder: Path, **variables: Any) -> dict[str, Any]:
    measured = {"benchmark_rows": ROWS, "benchmark_folder": str(folder), "benchmark_expected_tok_s": 200}
    return {"plan_proxy": True, "plan_environment": SLOW_ENGINE, **measured, **variables}


@pytest.fixture(scope="module")
def slow_engine(sandbox: Sandbox) -> Sandbox:
    """A deployment of TP behind the proxy, whose engine is slow, stamps its requests and refuses every hundredth."""
    sandbox.deploy(plan_proxy=True, plan_environment=SLOW_ENGINE).succeeded()
    return sandbox


def stamps_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sandbox.on(0, "cat", STAMPS).splitlines()]


def measuring(stamps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the client, which has a name, as the proxy has that some come through.

    A look at the hosts asks each endpoint for one token, and the proxy; the supervisor of an idle engine does as well.
    """
    return [each for each in stamps if each["agent"].startswith("aiperf") or (each["agent"] and each["tokens"] != 1)]


@pytest.fixture(scope="module")
def measured(slow_engine: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("benchmark")
    run = benchmark(slow_engine, folder).succeeded()
    return Measured(run, folder, stamps_of(slow_engine))


def test_the_figures_are_what_the_server_did(measured: Measured) -> None:
    the_figures_are_what_the_server_did(measured, "proxied")


def the_figures_are_what_the_server_did(measured: Measured, row: str) -> None:
    seen, (did, refused) = measured.client(row)["figures"], measured.server(row)
    assert (seen["failed"], seen["requests"]) == (refused, did.requests + refused)
    assert (seen["input_tokens"], seen["output_tokens"]) == (did.input_tokens, did.output_tokens)
    truth = {"output_tok_s": did.output_tok_s, "latency": mean(dataclasses.asdict(did)["latency_s"])}
    ours = {"output_tok_s": seen["output_tok_s"], "latency": mean(seen["latency_s"])}
    if "whole" not in row:
        truth |= {key: mean(dataclasses.asdict(did)[key]) for key in ("ttft_s", "tpot_s")}
        ours |= {key: mean(seen[key]) for key in ("ttft_s", "tpot_s")}
    print({key: round(ours[key] / truth[key], 4) for key in truth})
    assert ours == pytest.approx(truth, rel=WITHIN)


def mean(spread: dict[str, float]) -> float:
    return spread["mean"]


def test_failures_are_reported_and_make_nothing_faster(measured: Measured) -> None:
    seen, (did, refused) = measured.client("failing")["figures"], measured.server("failing")
    # Two, unless the hundredth of all requests was a probe.
    assert seen["failed"] == refused
    assert refused in (1, 2)
    assert list(seen["errors"].values()) == [refused]
    assert "was to be refused" in next(iter(seen["errors"]))
    assert seen["output_tokens"] == did.output_tokens
    assert seen["output_tok_s"] == pytest.approx(did.output_tok_s, rel=WITHIN)
    assert f"{refused} of 200 requests FAILED" in measured.run.text
    assert f"failing: {refused} of 200 requests failed" in measured.run.text
    assert f"{refused} of 200" in (measured.folder / "report.md").read_text()


def test_what_was_measured_is_not_measured_again(measured: Measured, slow_engine: Sandbox) -> None:
    before = slow_engine.containers()
    run = benchmark(slow_engine, measured.folder).succeeded()
    assert set(run.changed.values()) == {0}
    assert measuring(stamps_of(slow_engine)) == measuring(measured.stamps)
    assert slow_engine.containers() == before


@pytest.mark.slow
def test_an_interrupted_benchmark_goes_on_at_the_row_where_it_was(slow_engine: Sandbox, tmp_path: Path) -> None:
    rows = {"benchmark_rows": OTHER_ROWS}
    run = slow_engine.begin("playbooks/benchmark.yml", **options(tmp_path, **rows))
    run.until(r"proxied-whole: [1-9]\d* of 6")
    other = slow_engine.deploy(
        plan_proxy=True, plan_environment=SLOW_ENGINE, plan_api_server_options={"max_batch_size": 8}
    )
    other.failed_with("is in use", "benchmark.yml", "This run has changed nothing")
    run.kill()
    (first,) = tmp_path.glob("rows/*.json")
    written = first.stat().st_mtime_ns
    done = benchmark(slow_engine, tmp_path, **rows).succeeded()
    assert "3 rows, 1 measured already" in done.text
    assert first.stat().st_mtime_ns == written
    measured = Measured(done, tmp_path, stamps_of(slow_engine))
    for row in OTHER_ROWS:
        the_figures_are_what_the_server_did(measured, str(row["name"]))


@pytest.mark.slow
def test_a_client_that_is_too_slow_is_refused_before_a_request_is_sent(slow_engine: Sandbox, tmp_path: Path) -> None:
    before = measuring(stamps_of(slow_engine))
    run = benchmark(slow_engine, tmp_path, benchmark_client_cpus=0.4, benchmark_expected_tok_s=2000)
    run.failed_with("The client aiperf cannot drive 4000 tokens/s on node0", "benchmark_client_cpus")
    assert not list(tmp_path.glob("rows/*"))
    assert measuring(stamps_of(slow_engine)) == before
