# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports for tests, from a small queue in place of an engine. As a program: writes one, with the guide's two-node rows.

PYTHONPATH=collections:tests python tests/unit/plugins/benchmark/reports.py FOLDER
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark import report
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.verdict import read_reference
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import figures
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record, Row
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

H100 = "NVIDIA H100 80GB HBM3"
START = 1764000000.0


def run(image: str = "openmmlab/lmdeploy:v0.8.0-cu12", gpu: str = H100, **more: Any) -> dict[str, Any]:
    """The run over two nodes of eight GPUs with TP16."""
    seen = Observations(image_id=f"sha256:{hashlib.sha256(image.encode()).hexdigest()}")
    plan = plan_of(nodes(2, plan_image=image), seen).to_json()
    hosts = [
        {"node": node["name"], "gpus": [gpu] * node["gpus"], "driver": "570.133.20", "links": {"mlx5_0": "400 Gb/s"}}
        for node in plan["nodes"]
    ]
    made = "2025-11-24T16:00:00+00:00"
    return {
        "plan": plan,
        "image": seen.image_id,
        "image_labels": {},
        "hosts": hosts,
        "made": made,
        "collection": "0.1.0",
        **more,
    }


def as_before(of: Mapping[str, Any]) -> dict[str, Any]:
    """A run as it was written before plans had a format: topology, launcher and image were the plan's, not the engines'."""
    plan = {key: value for key, value in of["plan"].items() if key not in ("format", "bound")}
    first = plan["engines"][0]
    moved = {key: first[key] for key in ("topology", "launcher")}
    image = {**first["image"], "run": f"openmmlab/lmdeploy@{first['image']['id']}", "word": None}
    image.pop("id")
    kept = ("name", "head", "nodes", "gpus", "tp", "dp", "ep")
    plan["engines"] = [{key: each[key] for key in kept} for each in plan["engines"]]
    return {**of, "plan": {**plan, **moved, "image": image}, "image": image["run"]}


def records(row: Row, output_tok_s: float, *, slots: int = 64, failing: float = 0.0, seed: int = 0) -> list[Record]:
    """What a queue with `slots` places makes of `row`; its clock is set so that `output_tok_s` come out of it."""
    rng = random.Random(seed)
    free = [0.0] * slots
    drawn = []
    for __ in range(row.num_prompts):
        inputs, outputs = rng.randint(1, row.input_len), rng.randint(1, row.output_len)
        begin = heapq.heappop(free)
        first = begin + (1 + inputs / 400) * rng.uniform(0.7, 1.3)
        done = first + (outputs - 1) * rng.uniform(0.9, 1.1)
        heapq.heappush(free, done)
        drawn.append((first, done, inputs, outputs))
    scale = sum(each[3] for each in drawn) / output_tok_s / max(each[1] for each in drawn)
    return [
        Record(sent=START, done=START + done * scale, error="HTTP 500: Internal Server Error")
        if rng.random() < failing
        else Record(START, START + done * scale, START + first * scale if row.stream else None, inputs, outputs)
        for first, done, inputs, outputs in drawn
    ]


def result(row: Row, of: Sequence[Record], **more: Any) -> dict[str, Any]:
    """A row's result as the runner writes it; `more` stands in for what a test is about."""
    found = dataclasses.asdict(figures(of))
    answered = [record for record in of if record.error is None]
    key = hashlib.sha256(repr(row).encode()).hexdigest()[:12]
    asked = row.max_batch_size
    return {
        "format": 1,
        "key": key,
        "row": dataclasses.asdict(row),
        "started": "2025-11-24T16:00:00+00:00",
        "seconds": found["duration_s"] + 12,
        "figures": found,
        "nodes": 2,
        "dataset": {
            "kind": "random",
            "seed": 0,
            "digest": key * 2,
            "input": _lengths([record.prompt_tokens or 0 for record in answered]),
            "output": _lengths([record.output_tokens or 0 for record in answered]),
        },
        "client": {
            "name": "aiperf",
            "version": "0.4.0",
            "image": "lmfleet/client:1",
            "command": ["aiperf", "profile", "--url", "http://10.0.0.10:23333", "--streaming"],
            "cpu_s": 41.5,
        },
        "certificate": {
            "ok": True,
            "faults": [],
            "asked_tok_s": 4000.0,
            "reached_tok_s": 3987.0,
            "client": found,
            "server": found,
            "cpu_s_per_1000_events": 0.021,
            "seconds": 30.0,
        },
        "limited_by_client": False,
        "max_batch_size": {"asked": asked, "effective": 512 if asked in (None, "default") else asked},
        "time_to_ready_s": 812.0,
        "records": f"{row.name}-{key}.jsonl.gz",
        **more,
    }


def _lengths(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {"min": 0, "mean": 0.0, "max": 0, "total": 0}
    return {"min": min(values), "mean": round(sum(values) / len(values), 1), "max": max(values), "total": sum(values)}


def report_of(*rows: tuple[Row, Sequence[Record], Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A report of (row, its records, what differs in its result); `more` goes to the run."""
    results = [result(row, of, **differing) for row, of, differing in rows]
    by_row = {each["key"]: row[1] for each, row in zip(results, rows)}
    return report.build(run(**more), results, by_row, read_reference())


def guide_rows(share: float = 1.0, prompts: int | None = None) -> list[tuple[Row, list[Record], dict[str, Any]]]:
    """The six rows of the guide for v0.7.2 on two nodes, at `share` of its output; the last two are doubtful.

    With `prompts`, so many in place of the guide's own: quicker, and then nothing matches the reference.
    """
    found: list[tuple[Row, list[Record], dict[str, Any]]] = []
    for line in read_reference():
        if line["commit"] != "1e77ed2":
            continue
        row = Row(
            name=f"in{line['input_len']}-out{line['output_len']}",
            input_len=int(line["input_len"]),
            output_len=int(line["output_len"]),
            num_prompts=prompts or int(line["num_prompts"]),
            max_batch_size=int(line["max_batch_size"]),
        )
        rate = float(line["output_tok_s_per_node"]) * 2 * share
        of = records(row, rate, slots=256, failing=0.01 if row.output_len == 32768 else 0.0)
        found.append((row, of, {"limited_by_client": row.output_len == 16384}))
    return found


def main(folder: Path) -> None:
    """Write a report that looks like a real one."""
    rows = guide_rows(share=1.02)
    found = report_of(*rows, image="openmmlab/lmdeploy:v0.7.2-cu12")
    report.write(found, {result(row, of)["key"]: of for row, of, __ in rows}, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
