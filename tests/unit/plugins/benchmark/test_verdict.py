# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: each thing that makes a row not comparable is found and said, and nothing else is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark import report
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.tables import csv_text
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.verdict import (
    COLUMNS,
    BadReference,
    Verdict,
    batch_size_of,
    line_of,
    read_reference,
    topology_word,
    verdict,
)
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.benchmark.reports import (
    as_before,
    records,
    report_of,
    result,
    run,
)

IMAGE = "openmmlab/lmdeploy:v0.7.2-cu12"
GUIDE = Row("guide", 2048, 1024, 10000, max_batch_size=1024)
PUBLISHED = 905.46  # output tok/s per node of that row with v0.7.2


def measured(row: Row = GUIDE, share: float = 1.0, **more: Any) -> dict[str, Any]:
    """A result of `row` with `share` of what was published; fewer records than prompts do, for the rate is what counts."""
    of = records(dataclasses.replace(row, num_prompts=500), 2 * PUBLISHED * share)
    found = result(row, of, **more)
    found["figures"]["input_tok_s"] = 2 * 1812.15 * share
    return found


def verdict_of(found: dict[str, Any] | None = None, *, other_release: bool = False, **more: Any) -> Verdict:
    return verdict(found or measured(), run(**{"image": IMAGE, **more}), read_reference(), other_release=other_release)


@pytest.mark.parametrize(
    ("share", "word"),
    [(1.0, "reproduced"), (1.049, "reproduced"), (0.951, "reproduced"), (1.06, "better"), (0.94, "worse")],
)
def test_the_word_is_where_the_output_lies(share: float, word: str) -> None:
    found = verdict_of(measured(share=share))
    assert found.word == word
    assert found.ratio_output == pytest.approx(share)
    assert found.ratio_input == pytest.approx(share)
    assert found.reference is not None
    assert found.reference["commit"] == "1e77ed2"
    assert found.why == [f"Output is {PUBLISHED * share:.2f} tok/s per node; the reference has 905.46."]


def test_another_input_rate_is_said_and_changes_no_word() -> None:
    found = measured()
    found["figures"]["input_tok_s"] *= 0.9
    given = verdict_of(found)
    assert given.word == "reproduced"
    assert "Input is 1630.94 tok/s per node; the reference has 1812.15" in given.why[1]


def row_with(**more: Any) -> dict[str, Any]:
    return measured(dataclasses.replace(GUIDE, **more))


# What differs, and what has to be said of it.
Cases = list[tuple[dict[str, Any], dict[str, Any], str]]
WORKLOADS: Cases = [
    (row_with(max_batch_size=256), {}, "The max batch size is 256; the reference has 1024."),
    (row_with(lengths="fixed"), {}, "The drawing of lengths is fixed; the reference has uniform."),
    (row_with(request_rate=4.0), {}, "The request rate is 4/s; the reference has unlimited."),
    (row_with(concurrency=64), {}, "The concurrency is 64; the reference has unlimited."),
    (row_with(target="ranks"), {}, "The target is ranks; the reference has url."),
    (measured(nodes=1), {}, "The number of nodes is 1; the reference has 2."),
    (
        measured(max_batch_size={"asked": None, "effective": None}),
        {},
        "The max batch size is unknown; the reference has 1024.",
    ),
]
OTHERS: Cases = [
    (measured(), {"gpu": "NVIDIA H200"}, "The GPU is NVIDIA H200; the reference has NVIDIA H100 or H800."),
    (measured(), {"gpu": "lmfleet simulated H100"}, "A simulator was measured; the reference has GPUs."),
    (measured(), {"image_labels": {"lmfleet.simulator": "true"}}, "A simulator was measured; the reference has GPUs."),
    (
        measured(limited_by_client=True),
        {},
        "The client was the limit: 1811 tok/s went through it; it is certified up to 3987.",
    ),
]


@pytest.mark.parametrize(("found", "more", "reason"), WORKLOADS)
def test_another_workload_is_not_comparable_and_has_no_ratio(
    found: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    given = verdict_of(found, **more)
    assert (given.word, given.why) == ("not comparable", [reason])
    assert (given.ratio_input, given.ratio_output) == (None, None)


@pytest.mark.parametrize(("found", "more", "reason"), OTHERS)
def test_the_same_workload_elsewhere_is_not_comparable_and_has_a_ratio(
    found: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    given = verdict_of(found, **more)
    assert (given.word, given.why) == ("not comparable", [reason])
    assert given.ratio_output == pytest.approx(1)


def test_failures_and_a_failed_certificate_are_each_said() -> None:
    found = measured()
    found["figures"]["failed"] = 3
    found["certificate"].update(ok=False, faults=["TTFT is off by 12 %"])
    assert verdict_of(found).why == [
        "3 of 500 requests failed.",
        "The client is not certified: TTFT is off by 12 %.",
    ]


@pytest.mark.parametrize(
    ("model", "same"),
    [
        ("deepseek-ai/DeepSeek-V3-0324", True),
        ("deepseek-ai/DeepSeek-V3.1", True),
        ("/models/DeepSeek-R1-0528", True),
        ("deepseek-ai/DeepSeek-V3.2-Exp", False),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", False),
        ("lmfleet/DeepSeek-V3-simulated", False),
        ("Qwen/Qwen3-235B-A22B", False),
    ],
)
def test_models_of_the_same_shape_are_comparable(model: str, same: bool) -> None:
    of = run(IMAGE)
    of["plan"]["model"] = model
    given = verdict(measured(), of, read_reference())
    assert given.word == ("reproduced" if same else "not comparable")
    if not same:
        assert given.why == [f"The model is {model}; the reference has deepseek-ai/DeepSeek-V3."]


def test_another_release_is_comparable_only_when_asked_for() -> None:
    newer = "openmmlab/lmdeploy:v0.18.0-cu12.8"
    reason = "LMDeploy is v0.18.0; the reference has v0.7.2."
    assert (verdict_of(image=newer).word, verdict_of(image=newer).why) == ("not comparable", [reason])
    asked = verdict_of(measured(share=1.5), image=newer, other_release=True)
    assert (asked.word, asked.why[0]) == ("better", reason)


def test_of_several_lines_its_own_release_is_taken_then_the_newest() -> None:
    row = dataclasses.replace(GUIDE, output_len=2048)
    for image, release in ((IMAGE, "v0.7.2"), ("openmmlab/lmdeploy:v0.18.0-cu12.8", "v0.7.3")):
        given = verdict_of(measured(row), image=image)
        assert given.reference is not None
        assert given.reference["lmdeploy_version"] == release


def test_a_row_that_nobody_published_has_no_reference() -> None:
    given = verdict_of(measured(dataclasses.replace(GUIDE, num_prompts=100)))
    assert given.word == "no reference"
    assert given.why == ["The reference has no line with 100 prompts, input length 2048 and output length 1024."]
    assert (given.reference, given.ratio_output) == (None, None)


def test_default_is_what_the_release_had() -> None:
    assert [
        batch_size_of({"max_batch_size": size, "lmdeploy_version": release})
        for size, release in (("Default", "v0.7.2"), ("Default", "v0.15.0"), ("Default", "v0.18.0"), ("256", "v0.7.2"))
    ] == ["512", "1024", "1024", "256"]


def test_the_guides_four_nodes() -> None:
    plan = plan_of(nodes(4, plan_image=IMAGE, plan_topology="dpep"), topology="dpep").to_json()
    hosts = [
        {"node": node["name"], "gpus": ["NVIDIA H800"] * 8, "driver": "1", "links": None} for node in plan["nodes"]
    ]
    row = Row("wide", 2048, 8192, 2000, max_batch_size="default")
    found = result(row, records(dataclasses.replace(row, num_prompts=100), 4 * 2002.58), nodes=4)
    given = verdict(found, run(IMAGE, plan=plan, hosts=hosts), read_reference())
    assert topology_word(plan) == "DP32+EP32"
    assert given.word == "reproduced"


def test_a_run_of_an_earlier_plan_is_the_same_line() -> None:
    assert line_of(measured(), as_before(run(IMAGE))) == line_of(measured(), run(IMAGE))


def test_a_report_is_a_reference_for_the_next(tmp_path: Path) -> None:
    """Whatever was measured: a row is itself again, on its own GPUs, with its own settings."""
    row = Row("own", 300, 200, 40, max_batch_size=64, request_rate=2.5, concurrency=8, lengths="fixed", target="ranks")
    of = records(row, 500.0, slots=8)
    first = report_of((row, of, {}), gpu="NVIDIA H200")
    assert first["rows"][0]["verdict"]["word"] == "no reference"
    own = tmp_path / "own.csv"
    report.put(own, csv_text(first))
    given = verdict(result(row, of), run(gpu="NVIDIA H200"), read_reference(own))
    assert given.word == "reproduced"
    assert given.ratio_output == pytest.approx(1, abs=1e-3)
    assert verdict(result(row, of), run(gpu="NVIDIA H100 80GB HBM3"), read_reference(own)).word == "not comparable"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nodes,topology\n2,TP16\n", "has no column lmdeploy_version, commit, max_batch_size"),
        (
            f"{','.join(COLUMNS)}\nv1,,2,TP16,64,10,1,1,0,5\n",
            "line 2: input_tok_s_per_node is '0', not a number above 0",
        ),
        (f"{','.join(COLUMNS)}\nv1,,2,TP16,64,10,1,1,5,fast\n", "line 2: output_tok_s_per_node is 'fast'"),
        (f"{','.join(COLUMNS)}\nv1,,2\n", "line 2: input_tok_s_per_node is ''"),
    ],
)
def test_a_bad_reference_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "reference.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadReference, match=message):
        read_reference(file)
