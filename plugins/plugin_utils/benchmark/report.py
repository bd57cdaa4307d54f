# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: everything that a benchmark found, as data, and the files that are made of it. On the control node alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _files
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import noise, time_series
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record

from . import page, plots
from .tables import csv_text, markdown
from .verdict import Line, topology_word, verdict

FORMAT = 1
BINS = 60
Json = Mapping[str, Any]
Records = Mapping[str, Sequence[Record]]


def build(
    run: Json,
    row_results: Sequence[Json],
    records_by_row: Records,
    reference_lines: Sequence[Line],
    tolerance: float = 0.05,
    other_release: bool = False,
) -> dict[str, Any]:
    """Return the report: `run`, the rows with their noise and verdict, and the reference of the same topology.

    `records_by_row` goes by the rows' ``key``; a row without records has no noise. `tolerance` and `other_release` are
    those of the verdict.
    """
    topology, nodes = topology_word(run["plan"]), str(len(run["plan"]["nodes"]))
    return {
        "format": FORMAT,
        "run": dict(run),
        "rows": [
            {
                **result,
                "noise": dataclasses.asdict(noise(records_by_row.get(result["key"], ()))),
                "verdict": dataclasses.asdict(verdict(result, run, reference_lines, tolerance, other_release)),
            }
            for result in row_results
        ],
        "reference": [dict(line) for line in reference_lines if (line["topology"], line["nodes"]) == (topology, nodes)],
    }


def write(report: Json, records_by_row: Records, folder: Path) -> None:
    """Write ``report.json``, ``.csv``, ``.md`` and ``.html`` and ``plots/*.png`` into `folder`, each as a whole.

    What needs no matplotlib is written first: without it, MissingMatplotlib comes after the data is safe.
    """
    put(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    put(folder / "report.csv", csv_text(report))
    put(folder / "report.md", markdown(report))
    series = {key: time_series(records, BINS) for key, records in records_by_row.items() if records}
    images = {theme: plots.draw(report, series, theme) for theme in (plots.LIGHT, plots.DARK)}
    for name, image in images[plots.LIGHT].items():
        put(folder / "plots" / f"{name}.png", image)
    put(folder / "report.html", page.html(report, images))


def put(file: Path, content: str | bytes) -> None:
    """Write `file` atomically: whoever reads it finds the old content or the new one. Its folder is made if missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    _files.write(file, data, _files.READABLE)
