# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers that end early, and engines that die under a row, by what the clients themselves record.

fixtures/aiperf/FAULT.jsonl is what AIPerf 0.13.0 recorded of two requests for 60 and 61 tokens at the null server, one of
which failed as FAULTS says.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.action.benchmark_job import in_short
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.matrix import is_measured
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.tables import as_text
from ansible_collections.lmfleet.lmdeploy.programs.benchmark import dataset, null_server
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.clients import NO_RECORD, Aiperf, LmdeployScript, Load
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import figures, halted
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import CUT_SHORT, Record, Row
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.runner import run_client
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.script import CutShort, End, NoAnswer
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT

from .reports import guide_rows, records, report_of, result

FIXTURES = Path(__file__).parents[2] / "fixtures" / "aiperf"
# Those of which a part came, as AIPerf tells them from others: it has a record of its own for a connection that broke.
BEGAN = {"abort", "error", "short", "end", "break", "code"}


def load_of(folder: Path, url: str, asked: list[int]) -> Load:
    prompts = folder / "dataset.jsonl"
    dataset.write(prompts, [dataset.Request(f"a b {tokens}", 3, tokens) for tokens in asked], "test", 0)
    row = Row("row", 3, max(asked), len(asked), lengths="fixed")
    return Load(row, (url,), null_server.MODEL, "t", prompts, folder / "client", 60.0)


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.jsonl")), ids=lambda file: file.stem)
def test_aiperfs_records_of_answers_that_failed(file: Path, tmp_path: Path) -> None:
    load = load_of(tmp_path, "http://node0:23333", [60, 61])
    load.folder.mkdir()
    Aiperf().command(load)  # which writes its input
    (load.folder / "profile_export.jsonl").write_text(file.read_text())
    found = Aiperf().outcome(load).records
    failed, whole = sorted(found, key=lambda record: record.error is None)
    assert (whole.error, whole.output_tokens, whole.asked_tokens) == (None, whole.asked_tokens, whole.output_tokens)
    assert {whole.asked_tokens, failed.asked_tokens} == {60, 61}
    assert failed.error is not None
    assert failed.cut == (file.stem in BEGAN)
    seen = figures(found)
    assert (seen.requests, seen.failed, seen.cut_short) == (2, 1, int(file.stem in BEGAN))
    assert (seen.output_tokens, seen.asked_tokens) == (whole.output_tokens, 121)


def test_a_request_that_aiperf_gave_up_without_a_record_has_failed(tmp_path: Path) -> None:
    load = load_of(tmp_path, "http://node0:23333", [60, 61, 62])
    load.folder.mkdir()
    Aiperf().command(load)
    (load.folder / "profile_export.jsonl").write_text((FIXTURES / "short.jsonl").read_text())
    seen = figures(Aiperf().outcome(load).records)
    assert (seen.requests, seen.failed, seen.errors[NO_RECORD]) == (3, 2, 1)


# The parts of LMDeploy's profile_restful_api.py that matter: what it asks aiohttp, what it counts, what it returns.
SCRIPT = """
import argparse, asyncio, json, time, traceback
import aiohttp

def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url")
    parser.add_argument("--dataset-path")
    parser.add_argument("--num-prompts", type=int)
    parser.add_argument("--random-output-len", type=int)
    parser.add_argument("--extra-request-body", type=json.loads)
    return parser.parse_known_args()[0]

async def ask(given, prompt):
    did = {"ttft": 0.0, "itl": [], "tokens": 0, "error": ""}
    body = {"model": "null", "prompt": prompt, "max_tokens": given.random_output_len, "stream": True}
    start = last = time.perf_counter()
    try:
        async with aiohttp.ClientSession() as session:
            async with session.post(
                url=given.base_url + "/v1/completions", json={**body, **given.extra_request_body}
            ) as response:
                if response.status != 200:
                    did["error"] = response.reason
                    return did
                async for line in response.content:
                    line = line.strip()
                    if not line or line == b"data: [DONE]":
                        continue
                    if json.loads(line.removeprefix(b"data: "))["choices"][0]["text"]:
                        now = time.perf_counter()
                        did["itl"].append(now - last) if did["ttft"] else did.update(ttft=now - start)
                        last = now
        did["tokens"] = given.random_output_len
    except Exception:
        did["error"] = traceback.format_exc()
    return did

async def main(given):
    prompts = [turns["conversations"][0]["value"] for turns in json.load(open(given.dataset_path))]
    await ask(given, prompts[0])
    start = time.perf_counter()
    did = await asyncio.gather(*[asyncio.create_task(ask(given, prompt)) for prompt in prompts])
    return {
        "duration": time.perf_counter() - start, "ttfts": [one["ttft"] for one in did], "itls": [one["itl"] for one in did],
        "input_lens": [3 for one in did], "output_lens": [one["tokens"] for one in did],
        "errors": [one["error"] for one in did],
    }

if __name__ == "__main__":
    asyncio.run(main(arguments()))
"""


@contextmanager
def faulty_server(fault: str) -> Iterator[str]:
    """A null server whose every second completion fails so."""
    command = [sys.executable, null_server.__file__, "0", "0.001", "0.001", "2", "1", fault]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        server.communicate()


@pytest.mark.parametrize("fault", ["status", "proxy", "abort", "short", "end", "break", "code"])
def test_lmdeploys_script_counts_them_too(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "collections"))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with faulty_server(fault) as url:  # its first completion is the script's own trial
        ran = run_client(LmdeployScript(str(script)), load_of(tmp_path, url, [20] * 4), lambda *_: None)
    seen = ran.figures
    assert (seen.requests, seen.failed, seen.cut_short) == (4, 2, 2 if fault in BEGAN else 0)
    assert (seen.output_tokens, seen.asked_tokens) == (40, 80)
    assert all(record.sent <= record.done for record in ran.outcome.records)
    (error,) = seen.errors
    assert error.startswith(CUT_SHORT) == (fault in BEGAN - {"break"})
    if fault in ("proxy", "code"):
        assert "10402" in error


def test_what_is_in_the_text_of_an_answer_ends_nothing() -> None:
    end = End(asked=2)
    said = {"choices": [{"text": '{"finish_reason": "abort", "completion_tokens": 9}', "finish_reason": None}]}
    assert end.see(b"data: " + json.dumps(said).encode() + b"\n")
    assert (end.finish, end.tokens) == ("", None)
    last = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}'
    assert end.see(last)
    assert not end.see(b'data: {"choices": [], "usage": {"completion_tokens": 2}}')
    end.check()
    with pytest.raises(CutShort, match="finish_reason error"):
        dataclasses.replace(end, finish="error").check()
    with pytest.raises(NoAnswer, match="HTTP 200, but"):
        End(asked=2).see(b'{"error_code": 10402}')


# ---- whole rows


ROW, ANSWERED, __ = guide_rows(prompts=200)[0]


def died(share: float) -> list[Record]:
    """The row's records, had its engine died when so much of its time was over; who waited then is told so at once."""
    began, ended = min(r.sent for r in ANSWERED), max(r.done for r in ANSWERED)
    moment = began + share * (ended - began)
    return [
        record if record.done < moment else dataclasses.replace(record, done=moment + 1, error="HTTP 503", cut=True)
        for record in ANSWERED
    ]


def test_an_engine_that_dies_under_a_row_leaves_it_unmeasured(tmp_path: Path) -> None:
    for share in (0.1, 0.5, 0.9):
        seen = result(ROW, died(share))
        assert halted(seen["figures"])
        (tmp_path / "row.json").write_text(json.dumps(seen))
        assert not is_measured(tmp_path / "row.json")
    assert re.match(r"the last \d of 200 requests all failed, for \d s to", halted(result(ROW, died(0.97))["figures"]))


def test_single_failures_are_part_of_a_measurement(tmp_path: Path) -> None:
    for of in (ANSWERED, records(ROW, 4000.0, failing=0.02, seed=3)):
        seen = result(ROW, of)
        assert halted(seen["figures"]) == ""
        (tmp_path / "row.json").write_text(json.dumps(seen))
        assert is_measured(tmp_path / "row.json")
    # Those that time out end after all others.
    end = max(record.done for record in ANSWERED)
    late = [dataclasses.replace(record, done=end + 60, error="time-out") for record in ANSWERED[:2]]
    assert halted(dataclasses.asdict(figures([*late, *ANSWERED[2:]]))) == ""


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"figures": {"requests": 2, "failed": 0}}'])
def test_a_file_that_is_no_result_measures_nothing(content: str, tmp_path: Path) -> None:
    assert not is_measured(tmp_path / "missing.json")
    (tmp_path / "row.json").write_text(content)
    assert not is_measured(tmp_path / "row.json")


def test_answers_cut_after_a_few_tokens_are_not_reproduced_at_any_rate() -> None:
    """Six in a hundred of the tokens asked for, at the rate of the reference."""
    row, of, __ = guide_rows(prompts=None)[0]
    cut = [
        dataclasses.replace(record, asked_tokens=16 * (record.output_tokens or 0)).compared()
        for record in of[: row.num_prompts]
    ]
    told = report_of((row, cut, {}), image="openmmlab/lmdeploy:v0.7.2-cu12")
    (line,) = told["rows"]
    assert line["verdict"]["word"] == "not comparable"
    assert line["figures"]["output_tokens"] == 0
    text = as_text(told)
    count = row.num_prompts
    assert f"{count} of {count} answers were cut short, as aiperf 0.4.0 recorded them; they count as failed." in text
    assert "The next run measures it again." in text
    assert f"{count} answers CUT SHORT" in in_short(line["figures"])
    good = report_of((row, of, {}), image="openmmlab/lmdeploy:v0.7.2-cu12")
    assert good["rows"][0]["verdict"]["word"] == "reproduced"
    assert "cut short" not in as_text(good)
