# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import csv
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.matrix import (
    PRESETS,
    MatrixError,
    batches,
    effective_batch_size,
    option_changes,
    rows_of,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.verdict import REFERENCE
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

ROW = {"input_len": 8, "output_len": 4, "num_prompts": 10}


@pytest.mark.parametrize(
    ("preset", "topology", "release"),
    [("guide_two_nodes", "TP16", "v0.7.2"), ("guide_four_nodes", "DP32+EP32", "v0.7.2")],
)
def test_the_guides_presets_are_the_lines_of_its_tables(preset: str, topology: str, release: str) -> None:
    keys = ("input_len", "output_len", "num_prompts", "max_batch_size")
    with REFERENCE.open(encoding="utf-8") as file:
        published = [
            tuple(line[key].lower() for key in keys)
            for line in csv.DictReader(file)
            if (line["topology"], line["lmdeploy_version"]) == (topology, release)
        ]
    assert [tuple(str(getattr(row, key)) for key in keys) for row in rows_of(preset, [])] == published


def test_every_preset_is_a_matrix() -> None:
    for preset in PRESETS:
        rows = rows_of(preset, [])
        assert len({row.name for row in rows}) == len(rows)


def test_own_rows_stand_in_for_the_preset() -> None:
    (row,) = rows_of("quick", [{**ROW, "concurrency": 2, "stream": False, "target": "ranks", "lengths": "fixed"}])
    assert row.name == "in8-out4-n10-conc2-fixed-whole-ranks"
    assert rows_of("quick", [{**ROW, "name": "mine"}])[0].name == "mine"


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"input_len": 0}, "row 1: input_len is 0"),
        ({"num_prompts": True}, "row 1: num_prompts is True"),
        ({"concurrency": -1}, "row 1: concurrency is -1"),
        ({"request_rate": 0}, "row 1: request_rate is 0"),
        ({"max_batch_size": "most"}, "row 1: max_batch_size is 'most'"),
        ({"lengths": "zipf"}, "row 1: value of lengths must be one of: uniform, fixed, got: zipf"),
        ({"target": "proxy"}, "row 1: value of target must be one of: url, ranks, got: proxy"),
        ({"stream": "soon"}, "row 1: argument 'stream' is of type .*str.*bool"),
        ({"name": "a/b"}, "row 1: name is 'a/b'"),
        ({"output_lens": 3}, r"row 1: output_lens is no key of a row \(did you mean output_len\?\)"),
    ],
)
def test_a_wrong_row_is_refused(wrong: dict[str, Any], fault: str) -> None:
    with pytest.raises(MatrixError, match=fault):
        rows_of("quick", [{**ROW, **wrong}])


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(MatrixError) as refused:
        rows_of("quick", [{"input_len": 1}, {**ROW, "lengths": "zipf", "concurrency": 0}, ROW, ROW])
    assert refused.value.faults == [
        "benchmark_rows, row 1: missing required arguments: output_len",
        "benchmark_rows, row 1: missing required arguments: num_prompts",
        "benchmark_rows, row 2: concurrency is 0, it must be a whole number of 1 or more",
        "benchmark_rows, row 2: value of lengths must be one of: uniform, fixed, got: zipf",
        "benchmark_rows: two rows are called in8-out4-n10",
    ]


def test_values_come_in_their_types_and_null_is_left_out() -> None:
    (row,) = rows_of("quick", [{**ROW, "input_len": "8", "stream": "no", "request_rate": 2, "concurrency": None}])
    assert (row.input_len, row.stream, row.request_rate, row.concurrency) == (8, False, 2.0, None)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(MatrixError, match="benchmark_preset is 'slow'; there are quick, guide_two_nodes"):
        rows_of("slow", [])


def test_an_engine_is_started_once_for_each_max_batch_size_and_what_is_deployed_comes_first() -> None:
    sizes: list[Any] = [512, None, "default", 512]
    rows = rows_of("quick", [{**ROW, "name": f"row{n}", "max_batch_size": size} for n, size in enumerate(sizes)])
    assert [(size, [row.name for row in of_size]) for size, of_size in batches(rows)] == [
        (None, ["row1"]),
        (512, ["row0", "row3"]),
        ("default", ["row2"]),
    ]
    assert [option_changes(size) for size in (None, 512, "default")] == [
        {},
        {"max_batch_size": 512},
        {"max_batch_size": None},
    ]


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({"plan_api_server_options": {"max-batch-size": 64}}, 64),
        ({"plan_image": "openmmlab/lmdeploy:v0.18.0-cu12.8"}, 1024),
        ({"plan_image": "openmmlab/lmdeploy:v0.9.2-cu12"}, 512),
        ({"plan_image": "example.org/own:latest"}, None),
        ({"plan_topology": "dpep"}, 512),
    ],
)
def test_the_max_batch_size_of_a_plan_is_recorded_as_what_it_is(variables: dict[str, Any], size: int | None) -> None:
    assert effective_batch_size(plan_of(nodes(2, **variables))) == size
