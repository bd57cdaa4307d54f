# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix of a benchmark: rows from a preset or as given, what is wrong with them, and the engines that they need."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.clients import Client
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import halted
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row

from ..planning.types import Plan
from ..releases import at_least, did_you_mean

DEFAULT = "default"  # a max batch size: the release's own
GUIDE_INPUT_LEN = 2048
GUIDE_OUTPUT_LENS = (1024, 2048, 4096, 8192, 16384, 32768)


# A row's keys, as the module benchmark_matrix documents them.
ROW_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "input_len": {"type": "int", "required": True},
    "output_len": {"type": "int", "required": True},
    "num_prompts": {"type": "int", "required": True},
    "max_batch_size": {"type": "raw"},
    "request_rate": {"type": "float"},
    "concurrency": {"type": "int"},
    "lengths": {"type": "str", "choices": ["uniform", "fixed"], "default": "uniform"},
    "stream": {"type": "bool", "default": True},
    "target": {"type": "str", "choices": ["url", "ranks"], "default": "url"},
}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


# What their values must be besides.
MUST_BE: dict[str, tuple[Callable[[Any], object], str]] = {
    **dict.fromkeys(("input_len", "output_len", "num_prompts", "concurrency"), (_whole, "a whole number of 1 or more")),
    "name": (re.compile(r"[\w.-]*\w[\w.-]*").fullmatch, "made of letters, digits, '-', '_' and '.'"),
    "max_batch_size": (lambda size: size == DEFAULT or _whole(size), f"a whole number of 1 or more, or {DEFAULT}"),
    "request_rate": (lambda rate: rate > 0, "a number above 0 (requests per second)"),
}


class MatrixError(ValueError):
    """The matrix is wrong; `faults` lists every reason."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        listed = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(self.faults, 1))
        super().__init__(f"The benchmark was refused before a request was sent: {count}.\n{listed}")


def _guide(prompts: Mapping[int, int], batch_sizes: Mapping[int, int | str]) -> list[dict[str, Any]]:
    return [
        {
            "input_len": GUIDE_INPUT_LEN,
            "output_len": output_len,
            "num_prompts": prompts.get(output_len, prompts[0]),
            "max_batch_size": batch_sizes.get(output_len, batch_sizes[0]),
        }
        for output_len in GUIDE_OUTPUT_LENS
    ]


# The guide's tables of v0.7.2, and one of a few minutes.
PRESETS: dict[str, list[dict[str, Any]]] = {
    "quick": [
        {"input_len": 1024, "output_len": 256, "num_prompts": 200, "concurrency": 32},
        {"input_len": 1024, "output_len": 256, "num_prompts": 400, "concurrency": 128},
    ],
    "guide_two_nodes": _guide({0: 10000, 16384: 2000, 32768: 2000}, {0: 1024}),
    "guide_four_nodes": _guide({0: 2000}, {0: DEFAULT}),
}


def rows_of(preset: str, given: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows as given, or the preset's where none are. Raises MatrixError with every fault."""
    if not given and preset not in PRESETS:
        raise MatrixError([f"benchmark_preset is {preset!r}; there are {', '.join(PRESETS)}. Or give benchmark_rows"])
    rows: list[Row] = []
    faults: list[str] = []
    for number, raw in enumerate(given or PRESETS[preset], 1):
        values, wrong = _read(raw)
        faults += [f"benchmark_rows, row {number}: {fault}" for fault in wrong]
        if not wrong:
            row = Row(**values)
            rows.append(dataclasses.replace(row, name=row.name or _name(row)))
    names = [row.name for row in rows]
    faults += [f"benchmark_rows: two rows are called {name}" for name in sorted(set(names)) if names.count(name) > 1]
    if faults:
        raise MatrixError(faults)
    return rows


def refuse_what_it_cannot_send(client: Client, rows: Sequence[Row], urls: Mapping[str, Sequence[str]]) -> None:
    """Raise MatrixError with every row that the client cannot send; ``urls`` has those of each target."""
    faults = [
        f"benchmark_rows, {row.name}: {client.name} (benchmark_client) cannot send it: {fault}"
        for row in rows
        for fault in client.faults(row, tuple(urls[row.target]))
    ]
    if faults:
        raise MatrixError(faults)


def _name(row: Row) -> str:
    """What tells a row from the others, in words that a file name may have."""
    parts = [f"in{row.input_len}", f"out{row.output_len}", f"n{row.num_prompts}"]
    parts += [f"bs-{row.max_batch_size}"] if row.max_batch_size is not None else []
    parts += [f"rate{row.request_rate:g}"] if row.request_rate is not None else []
    parts += [f"conc{row.concurrency}"] if row.concurrency is not None else []
    parts += [row.lengths] if row.lengths != "uniform" else []
    parts += [] if row.stream else ["whole"]
    parts += [row.target] if row.target != "url" else []
    return "-".join(parts)


def _read(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A row's values with types and defaults applied, and what is wrong with them; null is as good as left out."""
    given = {key: value for key, value in raw.items() if value is not None}
    unknown = sorted(set(given) - set(ROW_SPEC))
    faults = [f"{key} is no key of a row{did_you_mean(key, ROW_SPEC)}" for key in unknown]
    values: dict[str, Any] = {}
    for key, rule in ROW_SPEC.items():
        read = ArgumentSpecValidator({key: rule}).validate({key: given[key]} if key in given else {})
        value = values[key] = read.validated_parameters.get(key)
        faults += read.error_messages
        fits, wanted = MUST_BE.get(key, (None, ""))
        if fits and value is not None and not read.error_messages and not fits(value):
            faults.append(f"{key} is {value!r}, it must be {wanted}")
    return values, faults


def batches(rows: Sequence[Row]) -> list[tuple[int | str | None, list[Row]]]:
    """The rows by max batch size, those for what is deployed first, else in the order given: an engine is started once for each."""
    sizes = list(dict.fromkeys(row.max_batch_size for row in rows))
    sizes.sort(key=lambda size: size is not None)
    return [(size, [row for row in rows if row.max_batch_size == size]) for size in sizes]


def is_measured(result: Path) -> bool:
    """Whether a row's result is there, of a run that its engine lived through.

    A result without ``cut_short`` was made when answers that were cut short counted as whole.
    """
    try:
        figures = json.loads(result.read_text(encoding="utf-8"))["figures"]
        return "cut_short" in figures and not halted(figures)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def option_changes(size: int | str | None) -> dict[str, Any]:
    """What a row's max batch size changes in the plan's api_server options; null takes an option out."""
    if size is None:
        return {}
    return {"max_batch_size": None if size == DEFAULT else size}


def effective_batch_size(plan: Plan) -> int | None:
    """The max batch size of a plan's engines: as the command line gives it, else the release's own on Hopper GPUs.

    None where neither is known.
    """
    engine = plan.engines[0]
    given = engine.option("max-batch-size")
    if given is not None:
        return int(given)
    release = engine.image.release
    return None if release is None else own_batch_size(release)


def own_batch_size(release: str) -> int:
    """A release's own max batch size on Hopper GPUs, where none is given."""
    return 1024 if at_least(release, "0.15.0") else 512
