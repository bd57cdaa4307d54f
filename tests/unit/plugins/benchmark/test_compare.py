# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two reports beside each other."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.compare import as_text, compare
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.benchmark.reports import as_before, records, report_of

ROW = Row("one", 200, 100, 300, max_batch_size=64)
UNSTREAMED = Row("two", 200, 100, 300, max_batch_size=64, stream=False)


def report_at(rate: float, *rows: Row, **more: Any) -> dict[str, Any]:
    return report_of(*((row, records(row, rate, slots=64), {}) for row in rows or (ROW,)), **more)


def test_a_report_is_no_regression_of_itself() -> None:
    found = compare(report_at(1000), report_at(1000))
    assert {change.word for change in found.changes} == {"same"}
    assert {change.quantity for change in found.changes} >= {
        "output tok/s",
        "TTFT p99 (ms)",
        "TPOT p50 (ms)",
        "failed (%)",
    }
    assert (found.regressions, found.improvements, found.differs) == ([], [], [])


def test_slower_is_a_regression_of_each_quantity_and_faster_an_improvement() -> None:
    slower = compare(report_at(1000), report_at(500))
    assert {change.quantity for change in slower.changes if change.word == "regression"} == {
        "output tok/s",
        "input tok/s",
        "TTFT p50 (ms)",
        "TTFT p99 (ms)",
        "TPOT p50 (ms)",
        "TPOT p99 (ms)",
    }
    assert slower.regressions[0].startswith("one: output tok/s from 1000 to 500 (-50.0%, noise ")
    assert compare(report_at(500), report_at(1000)).regressions == []
    assert len(compare(report_at(500), report_at(1000)).improvements) == 6


def test_a_change_within_noise_is_the_same() -> None:
    before, after = report_at(1000), report_at(1000)
    after["rows"][0]["figures"]["output_tok_s"] *= 0.91
    for report, noise in ((before, 0.08), (after, 0.06)):
        report["rows"][0]["noise"]["output_tok_s"] = noise
    output = compare(before, after).changes[0]
    assert output.noise == pytest.approx(0.1)
    assert output.word == "same"
    after["rows"][0]["noise"]["output_tok_s"] = 0.0
    assert compare(before, after).changes[0].word == "regression"


def test_the_tolerance_is_the_least_that_counts() -> None:
    before, after = report_at(1000), report_at(1000)
    after["rows"][0]["figures"]["output_tok_s"] *= 0.96
    for report in (before, after):
        report["rows"][0]["noise"]["output_tok_s"] = None
    assert compare(before, after).changes[0].word == "regression"
    assert compare(before, after, tolerance=0.05).changes[0].word == "same"


def test_one_failed_request_is_a_regression() -> None:
    before, after = report_at(1000), report_at(1000)
    after["rows"][0]["figures"]["failed"] = 1
    assert compare(before, after).regressions == ["one: failed (%) from 0 to 0.3333"]
    assert compare(after, before).improvements == ["one: failed (%) from 0.3333 to 0 (-100.0%, noise 0.0%)"]


def test_rows_are_matched_by_what_they_are() -> None:
    renamed = Row("another name", 200, 100, 300, max_batch_size=64)
    other = Row("one", 200, 100, 300, max_batch_size=128)
    found = compare(report_at(1000, ROW, UNSTREAMED), report_at(1000, renamed, other))
    assert {change.row for change in found.changes} == {"another name"}
    assert (found.only_before, found.only_after) == (["two"], ["one"])


def test_what_else_differs_is_named() -> None:
    before, after = report_at(1000), report_at(1000, image="openmmlab/lmdeploy:v0.9.2-cu12", gpu="NVIDIA H200")
    after["rows"][0]["client"] = {**after["rows"][0]["client"], "version": "0.5.0"}
    after["run"]["plan"] = copy.deepcopy(after["run"]["plan"])
    engine = next(each for each in after["run"]["plan"]["services"] if each["service"] == "api")
    engine["command"] += ["--max-batch-size", "512", "--enable-metrics"]
    differs = compare(before, after).differs
    assert "release: 0.8.0 before, 0.9.2 after" in differs
    assert "GPUs: NVIDIA H100 80GB HBM3 before, NVIDIA H200 after" in differs
    assert "--max-batch-size: not set before, 512 after" in differs
    assert "--enable-metrics: not set before, given after" in differs
    assert "one: client: aiperf 0.4.0 before, aiperf 0.5.0 after" in differs
    assert any(line.startswith("image: sha256:") for line in differs)
    assert len(differs) == 6


def test_a_report_of_an_earlier_plan_is_compared_with_one_of_now() -> None:
    before, after = report_at(1000), report_at(1000)
    before["run"] = as_before(before["run"])
    assert "engines" in before["run"]["plan"]
    assert "image" not in before["run"]["plan"]["engines"][0]
    (image,) = compare(before, after).differs
    assert image.startswith("image: openmmlab/lmdeploy@sha256:")
    after["run"]["plan"]["engines"][0]["launcher"] = "native"
    assert "launcher: None before, native after" in compare(before, after).differs


def test_where_nothing_was_answered_there_is_no_ratio() -> None:
    nothing = report_of((ROW, records(ROW, 1000, failing=2), {}))
    found = compare(nothing, report_at(1000))
    output = found.changes[0]
    assert (output.before, output.ratio, output.word) == (0, None, "improvement")
    assert compare(report_at(1000), nothing).changes[0].word == "regression"
    assert "TTFT p50 (ms)" not in {change.quantity for change in found.changes}


def test_the_text_and_the_data_say_the_same() -> None:
    found = compare(report_at(1000, ROW, UNSTREAMED), report_at(500))
    text = as_text(found)
    assert "-50.0%" in text
    assert all(f"  - {line}\n" in text for line in found.regressions)
    assert "Only before:\n  - two\n" in text
    data = json.loads(json.dumps(found.to_json()))
    assert data["regressions"] == found.regressions
    assert len(data["changes"]) == len(found.changes)
    assert "Regressions beyond noise:\n  - none\n" in as_text(compare(report_at(1000), report_at(1000)))
