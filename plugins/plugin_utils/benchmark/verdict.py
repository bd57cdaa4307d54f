# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a row reproduces what was published for it.

``data/deepseek_v3_throughput.csv`` has the figures of LMDeploy's own DeepSeekV3 benchmarking guide (InternLM/lmdeploy,
docs/en/benchmark/deepseekv3.md, first in its pull request 3265): tokens per second and node. A file of one's own may
stand in for it, with the same columns; the CSV of a report is one. What the guide's tables leave unsaid is UNSAID; a
report's CSV says it in columns of its own.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..releases import DATA
from .matrix import own_batch_size

REFERENCE = DATA / "deepseek_v3_throughput.csv"
COLUMNS = (
    "lmdeploy_version",
    "commit",
    "nodes",
    "topology",
    "max_batch_size",
    "num_prompts",
    "input_len",
    "output_len",
    "input_tok_s_per_node",
    "output_tok_s_per_node",
)
UNSAID = {
    "model": "deepseek-ai/DeepSeek-V3",
    "gpu": "NVIDIA H100 or H800",
    "lengths": "uniform",
    "request_rate": "unlimited",
    "concurrency": "unlimited",
    "target": "url",
}
# What has to be equal, and how the verdict calls it. Rows are told apart by the first three: without them, no reference.
ROW = {"input_len": "input length", "output_len": "output length", "num_prompts": "number of prompts"}
WORKLOAD = {
    "topology": "topology",
    "nodes": "number of nodes",
    "max_batch_size": "max batch size",
    "lengths": "drawing of lengths",
    "request_rate": "request rate",
    "concurrency": "concurrency",
    "target": "target",
}
# V3.2 has another attention, and the distilled models are others altogether.
V3_SHAPED = re.compile(r"DeepSeek-(V3|R1)(?!\.2|.*(distill|simulated))", re.IGNORECASE)
HOPPER_80GB = re.compile(r"\bH[18]00\b")

Line = Mapping[str, str]


class BadReference(ValueError):
    """A reference file cannot be used; says which and why."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a row is beside its line of the reference.

    `word`: reproduced, better, worse, not comparable or no reference; `why` are sentences. The ratios are this row's
    tokens per second over the line's, known wherever the line has the same workload; `interval` is where the output's
    lies if the row is reproduced.
    """

    word: str
    why: list[str]
    reference: dict[str, str] | None
    ratio_input: float | None
    ratio_output: float | None
    interval: tuple[float, float]


# The reference -------------------------------------------------------------------------------------------------------


def read_reference(file: Path = REFERENCE) -> list[dict[str, str]]:
    """Return the lines of a reference file, with every key of COLUMNS and UNSAID; raise BadReference."""
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise BadReference(f"{file} has no column {', '.join(missing)}: it needs {', '.join(COLUMNS)}.")
        lines = [{column: value or "" for column, value in line.items() if column} for line in reader]
    for number, line in enumerate(lines, 2):
        for column in ("input_tok_s_per_node", "output_tok_s_per_node"):
            if not _is_number(line[column]):
                raise BadReference(f"{file}, line {number}: {column} is {line[column]!r}, not a number above 0.")
    return [{**line, **{key: line.get(key) or value for key, value in UNSAID.items()}} for line in lines]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None and float(text) > 0


def batch_size_of(line: Line) -> str:
    """The max batch size of a line, where it says Default its release's own."""
    if line["max_batch_size"] != "Default":
        return line["max_batch_size"]
    return str(own_batch_size(line["lmdeploy_version"]))


# What was measured, in the words of the reference --------------------------------------------------------------------


def engine_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The first engine of a plan (as plain data), for all are alike.

    In reports of plans before format 2, topology, launcher and image were the plan's own: they are the engine's here too.
    """
    return {**{key: plan[key] for key in ("topology", "launcher", "image") if key in plan}, **plan["engines"][0]}


def topology_word(plan: Mapping[str, Any]) -> str:
    """``TP16``, ``DP32+EP32``, or ``2 x TP16`` for replicas of an engine."""
    engine = engine_of(plan)
    parts = [f"{size.upper()}{engine[size]}" for size in ("tp", "dp", "ep") if engine[size] > 1]
    count = len(plan["engines"])
    return (f"{count} x " if count > 1 else "") + ("+".join(parts) or "TP1")


def line_of(result: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
    """A row's result as a line of a reference file."""
    row, figures, nodes = result["row"], result["figures"], result["nodes"]
    plan = run["plan"]
    names = {name for host in run["hosts"] for name in host["gpus"]}
    return {
        "lmdeploy_version": f"v{engine_of(plan)['image']['release'] or 'unknown'}",
        "commit": "",
        "nodes": str(nodes),
        "topology": topology_word(plan),
        "max_batch_size": str(result["max_batch_size"]["effective"] or "unknown"),
        "num_prompts": str(row["num_prompts"]),
        "input_len": str(row["input_len"]),
        "output_len": str(row["output_len"]),
        "input_tok_s_per_node": f"{figures['input_tok_s'] / nodes:.2f}",
        "output_tok_s_per_node": f"{figures['output_tok_s'] / nodes:.2f}",
        "model": plan["model"],
        "gpu": " and ".join(sorted(names)) or "unknown",
        "lengths": row["lengths"],
        "request_rate": _limit(row["request_rate"], "/s"),
        "concurrency": _limit(row["concurrency"]),
        "target": row["target"],
    }


def is_simulated(run: Mapping[str, Any]) -> bool:
    """Whether a simulator was measured, by the image's labels or the GPUs' names."""
    labels = run.get("image_labels") or {}
    names = [*labels, *(name for host in run["hosts"] for name in host["gpus"])]
    return any(re.search("simulat", name, re.IGNORECASE) for name in names)


def _limit(value: float | None, unit: str = "") -> str:
    return "unlimited" if value is None else f"{value:g}{unit}"


# The verdict ---------------------------------------------------------------------------------------------------------


def verdict(
    result: Mapping[str, Any],
    run: Mapping[str, Any],
    reference_lines: Sequence[Line],
    tolerance: float = 0.05,
    other_release: bool = False,
) -> Verdict:
    """Compare a row's result with what was published.

    `tolerance` is relative: 0.05 takes 95 % to 105 % of the published output tok/s for reproduced. With `other_release`
    another release of LMDeploy is named, and is no hindrance.
    """
    interval = (1 - tolerance, 1 + tolerance)
    ours = line_of(result, run)
    line = _nearest(ours, reference_lines)
    if line is None:
        row = f"{ours['num_prompts']} prompts, input length {ours['input_len']} and output length {ours['output_len']}"
        return Verdict("no reference", [f"The reference has no line with {row}."], None, None, None, interval)
    workload = list(_differences(ours, line, WORKLOAD))
    release = list(_other_release(ours, line))
    hindrances = [*workload, *_other_engine(ours, line), *_unfit(result, run), *([] if other_release else release)]
    ratio_input, ratio_output = (
        result["figures"][f"{side}_tok_s"] / result["nodes"] / float(line[f"{side}_tok_s_per_node"])
        for side in ("input", "output")
    )
    return Verdict(
        word="not comparable" if hindrances else _word(ratio_output, interval),
        why=hindrances or [*release, *_comparison(ours, line, ratio_input, ratio_output, tolerance)],
        reference=dict(line),
        ratio_input=None if workload else ratio_input,
        ratio_output=None if workload else ratio_output,
        interval=interval,
    )


def _word(ratio: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return "worse" if ratio < low else "better" if ratio > high else "reproduced"


def _nearest(ours: Line, lines: Sequence[Line]) -> Line | None:
    """The line with the fewest differences of those for the same row; of several, that of the newest release."""
    same_row = [line for line in lines if not any(_differences(ours, line, ROW))]

    def distance(line: Line) -> tuple[int, int, list[int]]:
        differences = [*_differences(ours, line, WORKLOAD), *_other_engine(ours, line)]
        age = [-int(number) for number in re.findall(r"\d+", line["lmdeploy_version"])]
        return len(differences), len([*_other_release(ours, line)]), age

    return min(same_row, key=distance, default=None)


def _differences(ours: Line, line: Line, keys: Mapping[str, str]) -> Iterator[str]:
    theirs = {**line, "max_batch_size": batch_size_of(line)}
    for key, name in keys.items():
        if ours[key] != theirs[key]:
            yield f"The {name} is {ours[key]}; the reference has {theirs[key]}."


def _other_engine(ours: Line, line: Line) -> Iterator[str]:
    """What else makes it another thing: the model and the GPUs, each up to its kind."""
    if not _same_kind(V3_SHAPED, [ours["model"]], line["model"]):
        yield f"The model is {ours['model']}; the reference has {line['model']}."
    if not _same_kind(HOPPER_80GB, ours["gpu"].split(" and "), line["gpu"]):
        yield f"The GPU is {ours['gpu']}; the reference has {line['gpu']}."


def _same_kind(kind: re.Pattern[str], ours: Sequence[str], theirs: str) -> bool:
    return {*ours} == {theirs} or all(map(kind.search, [*ours, theirs]))


def _other_release(ours: Line, line: Line) -> Iterator[str]:
    run, published = ours["lmdeploy_version"], line["lmdeploy_version"]
    if run.partition("+")[0] != published.partition("+")[0]:
        yield f"LMDeploy is {run}; the reference has {published}."


def _unfit(result: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    """What makes a measurement unfit to stand beside any other."""
    figures, certificate = result["figures"], result["certificate"]
    if is_simulated(run):
        yield "A simulator was measured; the reference has GPUs."
    if figures["failed"]:
        cut = figures.get("cut_short", 0)
        yield (
            f"{figures['failed']} of {figures['requests']} requests failed"
            + (f", {cut} of them with an answer that was cut short." if cut else ".")
        )
    if not certificate["ok"]:
        yield f"The client is not certified: {'; '.join(certificate['faults']) or 'no reason given'}."
    if result["limited_by_client"]:
        yield (
            f"The client was the limit: {figures['output_tok_s']:.0f} tok/s went through it; "
            f"it is certified up to {certificate['reached_tok_s']:.0f}."
        )


def _comparison(ours: Line, line: Line, ratio_input: float, ratio_output: float, tolerance: float) -> Iterator[str]:
    output = "output_tok_s_per_node"
    yield f"Output is {ours[output]} tok/s per node; the reference has {line[output]}."
    if abs(ratio_input - ratio_output) > tolerance * ratio_output:  # only the lengths bind the two
        inputs = "input_tok_s_per_node"
        yield f"Input is {ours[inputs]} tok/s per node; the reference has {line[inputs]}: other lengths were drawn."
