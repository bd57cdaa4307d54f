# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A report as text, as Markdown in the form of LMDeploy's guide, and as CSV that begins as a reference file does."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import halted

from ..text import columns
from .verdict import COLUMNS, UNSAID, is_simulated, line_of

Json = Mapping[str, Any]

GUIDE_HEAD = (
    "max bsz",
    "prompt no",
    "input-len",
    "output-len",
    "per node input token thr (tok/s)",
    "per node output token thr (tok/s)",
)
GUIDE_COLUMNS = ("num_prompts", "input_len", "output_len", "input_tok_s_per_node", "output_tok_s_per_node")
VERDICT_HEAD = ("row", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "failed", "output to reference", "verdict")
SPREADS = ("ttft_s", "tpot_s", "latency_s")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
NONE = "–"


# How values are written ----------------------------------------------------------------------------------------------


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it, three significant digits: ``38.2 ms``, ``2.31 s``, ``14 min``, ``3.2 h``."""
    if value is None:
        return NONE
    for above, size, unit in ((7200, 3600, "h"), (120, 60, "min"), (0.9995, 1, "s")):
        if value >= above:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1000:.3g} ms"


def ratio(value: float | None) -> str:
    """A ratio with two digits after the point."""
    return NONE if value is None else f"{value:.2f}"


def statistic(figures: Json, spread: str, name: str) -> str:
    """One statistic of a spread of `figures`; a dash where nothing was streamed."""
    return seconds(figures[spread] and figures[spread][name])


def failed(figures: Json) -> str:
    """How many of how many requests failed."""
    return f"{figures['failed']} of {figures['requests']}"


def batch_size(result: Json) -> str:
    """The max batch size as asked for, and what that was where it was a default."""
    asked, effective = result["max_batch_size"]["asked"], result["max_batch_size"]["effective"]
    number = "unknown" if effective is None else str(effective)
    return f"Default ({number})" if asked == "default" else number


def short_image(reference: str) -> str:
    """What tells an image from others: 12 digits of its id or of its digest, or its tag."""
    name, __, digest = reference.rpartition("@")
    exact = digest.startswith("sha256:")
    return digest[: len("sha256:") + 12] if exact else (name or digest).rpartition("/")[2]


def warnings(report: Json) -> Iterator[str]:
    """What a reader has to know before any number."""
    if is_simulated(report["run"]):
        yield "A simulator was measured. No figure here says anything of a GPU."
    for result in report["rows"]:
        name, figures, certificate = result["row"]["name"], result["figures"], result["certificate"]
        if not certificate["ok"]:
            yield f"{name}: the client is not certified. {' '.join(certificate['faults'])}"
        if result["limited_by_client"]:
            yield f"{name}: the client was the limit; the deployment may be faster than these figures."
        if figures["failed"]:
            first = next(iter(figures["errors"]), "no reason given")
            yield f"{name}: {failed(figures)} requests failed, most of them with: {first}"
        if figures.get("cut_short"):
            yield f"{name}: {cut_short(result)}"
        if reason := halted(figures):
            yield f"{name}: the engine did not live to the end of the row ({reason}). The next run measures it again."


def cut_short(result: Json) -> str:
    """How many answers ended before their last token, and who saw that."""
    figures, client = result["figures"], result["client"]
    asked = figures.get("asked_tokens")
    whole = (
        f" Whole answers have {figures['output_tokens']} of the {asked} tokens that were asked for." if asked else ""
    )
    return (
        f"{figures['cut_short']} of {figures['requests']} answers were cut short, as {client['name']} "
        f"{client['version']} recorded them; they count as failed.{whole}"
    )


# Text ----------------------------------------------------------------------------------------------------------------


def as_text(report: Json) -> str:
    """The report on one screen: warnings, a line for each row, and the reasons for each verdict."""
    if not report["rows"]:
        return "No row has been measured."
    rows = [["ROW", "INPUT", "OUTPUT", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "FAILED", "RATIO", "VERDICT"]]
    for result in report["rows"]:
        line = line_of(result, report["run"])
        name, *others = verdict_row(result)
        rows.append([name, line["input_tok_s_per_node"], line["output_tok_s_per_node"], *others])
    said = [f"WARNING {warning}" for warning in warnings(report)]
    note = "Input and output in tokens per second and node; the ratio is the output's to the reference."
    return "\n".join([*said, *columns(rows), note, *reasons(report)])


def reasons(report: Json) -> list[str]:
    """Each row's verdict and why, a line each."""
    return [
        f"{result['row']['name']}: {result['verdict']['word']}. {' '.join(result['verdict']['why'])}"
        for result in report["rows"]
    ]


# Markdown ------------------------------------------------------------------------------------------------------------


def markdown(report: Json) -> str:
    """The report's warnings, its two tables, and the reasons for each verdict."""
    run = report["run"]
    lines = [line_of(result, run) for result in report["rows"]]
    parts = ["# Benchmark", ""]
    if said := [f"> - {warning}" for warning in warnings(report)]:
        parts += ["> Read this first:", ">", *said, ""]
    if lines:
        nodes = f"{lines[0]['nodes']} node" + ("" if lines[0]["nodes"] == "1" else "s")
        parts += [
            f"## {lines[0]['lmdeploy_version']} + `{short_image(run['image'])}`",
            "",
            f"{nodes}, {lines[0]['topology']}",
            "",
        ]
    parts += [*table(GUIDE_HEAD, [guide_row(result, line) for result, line in zip(report["rows"], lines)]), ""]
    parts += [*table(VERDICT_HEAD, [verdict_row(result) for result in report["rows"]]), ""]
    parts += [f"- {reason}" for reason in reasons(report)]
    return "\n".join(parts) + "\n"


def guide_row(result: Json, line: Mapping[str, str]) -> list[str]:
    """A row of the guide's own table."""
    return [batch_size(result), *(line[column] for column in GUIDE_COLUMNS)]


def verdict_row(result: Json) -> list[str]:
    """A row of the second table: what users of the service feel, and what the row is beside the reference."""
    figures, verdict = result["figures"], result["verdict"]
    times = [statistic(figures, spread, name) for spread in ("ttft_s", "tpot_s") for name in ("p50", "p99")]
    return [result["row"]["name"], *times, failed(figures), ratio(verdict["ratio_output"]), verdict["word"]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose cells stand below each other, all but the first column to the right."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells)]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(cells[0]), line(rule), *map(line, cells[1:])]


# CSV -----------------------------------------------------------------------------------------------------------------


def csv_text(report: Json) -> str:
    """One line per row, times in seconds. It can serve as a reference file for a later report."""
    records = [dict(_csv_line(result, report["run"])) for result in report["rows"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0] if records else [*COLUMNS, *UNSAID], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _csv_line(result: Json, run: Json) -> Iterator[tuple[str, Any]]:
    row, figures, verdict = result["row"], result["figures"], result["verdict"]
    yield from line_of(result, run).items()
    yield from (
        ("row", row["name"]),
        ("stream", row["stream"]),
        ("image", run["image"]),
        ("started", result["started"]),
    )
    yield from ((key, figures[key]) for key in ("requests", "failed", "duration_s", "input_tokens", "output_tokens"))
    for spread in SPREADS:
        for name in STATISTICS:
            yield f"{spread.removesuffix('_s')}_{name}_s", (figures[spread] or {}).get(name)
    yield from ((key, verdict[key]) for key in ("ratio_input", "ratio_output"))
    yield from (("verdict", verdict["word"]), ("why", " ".join(verdict["why"])))
    yield from (("client_certified", result["certificate"]["ok"]), ("limited_by_client", result["limited_by_client"]))
