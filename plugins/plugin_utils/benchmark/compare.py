# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two reports of the same rows: what became slower or faster beyond noise, and what else differs between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row

from ..text import columns
from .verdict import engine_of, topology_word

ENGINE_SERVICES = ("api", "dp")
Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is compared: where it lies in a row's figures and in its noise, and what its number means."""

    name: str
    path: tuple[str, ...]
    noise: tuple[str, ...]
    scale: float = 1.0
    more_is_better: bool = False


QUANTITIES = (
    Quantity("output tok/s", ("output_tok_s",), ("output_tok_s",), more_is_better=True),
    Quantity("input tok/s", ("input_tok_s",), ("output_tok_s",), more_is_better=True),
    Quantity("TTFT p50 (ms)", ("ttft_s", "p50"), ("ttft_s", "p50"), scale=1000),
    Quantity("TTFT p99 (ms)", ("ttft_s", "p99"), ("ttft_s", "p99"), scale=1000),
    Quantity("TPOT p50 (ms)", ("tpot_s", "p50"), ("tpot_s", "p50"), scale=1000),
    Quantity("TPOT p99 (ms)", ("tpot_s", "p99"), ("tpot_s", "p99"), scale=1000),
)


@dataclasses.dataclass(frozen=True)
class Change:
    """One quantity of one row: `word` is regression, improvement or same.

    `ratio` is after over before, None where there was nothing before; the change is beyond noise where it is further
    than `noise` from 1.
    """

    row: str
    quantity: str
    before: float
    after: float
    ratio: float | None
    noise: float
    word: str

    def __str__(self) -> str:
        change = "" if self.ratio is None else f" ({self.ratio - 1:+.1%}, noise {self.noise:.1%})"
        return f"{self.row}: {self.quantity} from {_number(self.before)} to {_number(self.after)}{change}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two reports are beside each other. `differs` names what else is not the same: a cause, or a caveat.

    `only_before` and `only_after` are names of rows that the other report has not.
    """

    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    differs: list[str]

    @property
    def regressions(self) -> list[str]:
        """Each a line for a person; empty where nothing became worse beyond noise."""
        return [str(change) for change in self.changes if change.word == "regression"]

    @property
    def improvements(self) -> list[str]:
        """As `regressions`, of what became better."""
        return [str(change) for change in self.changes if change.word == "improvement"]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        lists = {"regressions": self.regressions, "improvements": self.improvements}
        return {"format": 1, **dataclasses.asdict(self), **lists}


def compare(before: Json, after: Json, tolerance: float = 0.03) -> Comparison:
    """Compare two reports, row by row. `tolerance` is the least relative change that counts, however quiet the rows.

    Rows are the same if all their settings are, whatever they are called.
    """
    old, new = ({_settings(row): row for row in report["rows"]} for report in (before, after))
    both = [(old[key], new[key]) for key in old if key in new]
    return Comparison(
        changes=[change for pair in both for change in _changes(*pair, tolerance)],
        only_before=[row["row"]["name"] for key, row in old.items() if key not in new],
        only_after=[row["row"]["name"] for key, row in new.items() if key not in old],
        differs=[
            *_differing(_deployment(before), _deployment(after)),
            *(f"{pair[1]['row']['name']}: {line}" for pair in both for line in _differing(*map(_measurement, pair))),
        ],
    )


def as_text(comparison: Comparison) -> str:
    """The comparison as a table for a person."""
    head = ("ROW", "QUANTITY", "BEFORE", "AFTER", "CHANGE", "NOISE", "VERDICT")
    rows = [
        (
            change.row,
            change.quantity,
            _number(change.before),
            _number(change.after),
            "" if change.ratio is None else f"{change.ratio - 1:+.1%}",
            f"{change.noise:.1%}",
            change.word,
        )
        for change in comparison.changes
    ]
    lists = {
        "Only before": comparison.only_before,
        "Only after": comparison.only_after,
        "What else differs": comparison.differs,
        "Regressions beyond noise": comparison.regressions or ["none"],
    }
    notes = [
        line
        for title, lines in lists.items()
        if lines
        for line in ("", f"{title}:", *(f"  - {each}" for each in lines))
    ]
    return "\n".join([*columns([head, *rows]), *notes]) + "\n"


# Changes -------------------------------------------------------------------------------------------------------------


def _settings(result: Json) -> Row:
    return dataclasses.replace(Row(**result["row"]), name="")


def _changes(before: Json, after: Json, tolerance: float) -> Iterator[Change]:
    name = after["row"]["name"]
    for quantity in QUANTITIES:
        old, new = (_at(result["figures"], quantity.path) for result in (before, after))
        if old is None or new is None:
            continue
        own = (_at(result["noise"], quantity.noise) or 0.0 for result in (before, after))
        noise = max(tolerance, math.hypot(*own))
        word = _word(old, new, noise, quantity.more_is_better)
        ratio = new / old if old else None
        yield Change(name, quantity.name, old * quantity.scale, new * quantity.scale, ratio, noise, word)
    # A failed request is never noise.
    old, new = (result["figures"]["failed"] / max(1, result["figures"]["requests"]) for result in (before, after))
    word = _word(old, new, 0.0, more_is_better=False)
    yield Change(name, "failed (%)", old * 100, new * 100, new / old if old else None, 0.0, word)


def _word(before: float, after: float, noise: float, more_is_better: bool) -> str:
    if abs(after - before) <= noise * before:
        return "same"
    return "improvement" if (after > before) == more_is_better else "regression"


def _at(data: Any, path: tuple[str, ...]) -> float | None:
    """What lies at `path`; None where the path ends early."""
    for key in path:
        if data is None:
            return None
        data = data[key]
    return None if data is None else float(data)


def _number(value: float) -> str:
    """Four significant digits, none of a whole number lost."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


# What else differs ---------------------------------------------------------------------------------------------------


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{key}: {before.get(key, 'not set')} before, {after.get(key, 'not set')} after"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _deployment(report: Json) -> dict[str, str]:
    """What is deployed, by what one would call it: everything that may make it faster or slower."""
    run = report["run"]
    plan = run["plan"]
    engine = engine_of(plan)
    service = next((each for each in plan["services"] if each["service"] in ENGINE_SERVICES), None)
    return {
        "image": str(run["image"]),
        "release": str(engine["image"]["release"]),
        "model": f"{plan['model']} ({plan['model_revision']})",
        "topology": topology_word(plan),
        "launcher": str(engine["launcher"]),
        "nodes": str(len(plan["nodes"])),
        "GPUs": ", ".join(sorted({name for host in run["hosts"] for name in host["gpus"]})),
        "driver": ", ".join(sorted({str(host["driver"]) for host in run["hosts"]})),
        "collection": str(run["collection"]),
        **(_options(service["command"]) if service else {}),
        **(service["environment"] if service else {}),
    }


def _options(command: list[str]) -> dict[str, str]:
    """The options of a command line, each with its value; a flag's is ``given``."""
    found: dict[str, str] = {}
    option = ""
    for word in command:
        if word.startswith("--"):
            option, __, value = word.partition("=")
            found[option] = value or "given"
        elif option:
            found[option] = word if found[option] == "given" else f"{found[option]} {word}"
    return found


def _measurement(result: Json) -> dict[str, str]:
    """How a row was measured: what may differ though its settings are the same."""
    client, data = result["client"], result["dataset"]
    return {
        "client": f"{client['name']} {client['version']}",
        "max batch size": str(result["max_batch_size"]["effective"]),
        "data set": f"{data['kind']} {data['digest']}",
        "limited by the client": "yes" if result["limited_by_client"] else "no",
    }
