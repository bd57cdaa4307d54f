# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's plots, as PNG. Narrow with large letters: they are read on a phone too.

Colours are after Okabe and Ito, so that the colour-blind can tell them apart; nothing is said by colour alone.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import Series
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row

from .tables import seconds
from .verdict import line_of

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
except ImportError as error:
    missing: ImportError | None = error
else:
    missing = None

WIDTH_IN = 4.0
DPI = 220
# Ticks: a microsecond to ten days.
DURATIONS_S = (
    *(step * 10**power for power in range(-6, 0) for step in (1, 2, 5)),
    *(1, 2, 5, 10, 30),
    *(60 * step for step in (1, 2, 5, 10, 30)),
    *(3600 * step for step in (1, 2, 5, 10, 24, 48, 96, 240)),
)
Json = Mapping[str, Any]


class MissingMatplotlib(ImportError):
    """Nothing can be drawn, because matplotlib is not installed where Ansible runs; says what to do."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a page, light or dark."""

    background: str
    text: str
    faint: str
    ours: Sequence[str]
    theirs: Sequence[str]


LIGHT = Theme("#ffffff", "#1c2330", "#d9dee6", ("#0072B2", "#009E73", "#CC79A7"), ("#D55E00", "#8a6d00", "#6b7280"))
DARK = Theme("#161b22", "#e6e9ee", "#353d49", ("#56B4E9", "#2fc79a", "#e29cc4"), ("#f0863a", "#f0e442", "#9aa4b2"))


def require() -> None:
    """Raise MissingMatplotlib where nothing can be drawn: better before a benchmark of hours than after it."""
    if missing is not None:
        raise MissingMatplotlib(
            f"the report's plots and page need matplotlib on the control node, and it cannot be imported ({missing}): "
            "install what requirements/control.txt lists into the Python that runs Ansible."
        ) from missing


def draw(report: Json, series: Mapping[str, Series], theme: Theme) -> dict[str, bytes]:
    """Every plot, name -> PNG: ``throughput``, ``ttft``, ``tpot``, and ``time-<row>`` by the row's key in `series`.

    Raises MissingMatplotlib.
    """
    require()
    with rc_context(_style(theme)):
        return {name: _png(figure) for name, figure in _figures(report, series, theme)}


def _figures(report: Json, series: Mapping[str, Series], theme: Theme) -> Iterator[tuple[str, Figure]]:
    if report["rows"]:
        yield "throughput", _throughput(report, theme)
    for spread, title in (("ttft_s", "Time to first token"), ("tpot_s", "Time per output token")):
        streamed = [result for result in report["rows"] if result["figures"][spread]]
        if streamed:
            yield spread.removesuffix("_s"), _percentiles(streamed, spread, title, theme)
    for result in report["rows"]:
        if result["key"] in series:
            yield time_plot_name(result), _by_time(result["row"]["name"], series[result["key"]], theme)


def time_plot_name(result: Json) -> str:
    """The name of the row's plot by time, fit for a file."""
    return f"time-{re.sub(r'[^A-Za-z0-9._-]', '_', result['row']['name'])}-{result['key']}"


def _style(theme: Theme) -> Any:
    return {
        "figure.facecolor": theme.background,
        "figure.dpi": DPI,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.text,
        "axes.titlecolor": theme.text,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.faint,
        "grid.linewidth": 0.6,
        "text.color": theme.text,
        "text.parse_math": False,
        "xtick.color": theme.text,
        "ytick.color": theme.text,
        "xtick.major.size": 0,
        "xtick.major.pad": 6,
        "ytick.major.size": 0,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 2,
        "lines.markersize": 7,
    }


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


# Throughput ----------------------------------------------------------------------------------------------------------


def _throughput(report: Json, theme: Theme) -> Figure:
    """Output tok/s per node by output length: a line for what else is equal, and one for each release of the reference."""
    ours = _by_settings(report)
    measured = [line for lines in ours.values() for line in lines]
    published = _by_release(line for line in report["reference"] if _is_beside(line, measured))
    doubtful = [line for line in measured if line["doubtful"]]
    figure = Figure(figsize=(WIDTH_IN, 3 + 0.2 * (len(ours) + len(published) + bool(doubtful))), layout="constrained")
    axes = figure.subplots()
    for (label, lines), colour, marker in zip(ours.items(), itertools.cycle(theme.ours), itertools.cycle("ovPX")):
        axes.plot(*_points(lines), "-", marker=marker, color=colour, label=label, zorder=3)
    for (label, lines), colour, marker in zip(published.items(), itertools.cycle(theme.theirs), itertools.cycle("sD^")):
        axes.plot(*_points(lines), "--", marker=marker, markersize=5, linewidth=1.3, color=colour, label=label)
    if doubtful:
        ring: dict[str, Any] = {
            "markerfacecolor": "none",
            "markeredgecolor": theme.text,
            "markeredgewidth": 1.5,
            "markersize": 12,
        }
        axes.plot(*_points(doubtful), "o", label="client-limited, or with failures", zorder=4, **ring)
    lengths = sorted({int(line["output_len"]) for lines in (*ours.values(), *published.values()) for line in lines})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [_short(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, __: f"{value:,.0f}"))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1))
    axes.set_xlabel("output length (tokens)")
    axes.set_title("Output tokens per second and node")
    figure.legend(loc="outside lower left")
    return figure


def _is_beside(published: Json, measured: Sequence[Json]) -> bool:
    """Whether a line of the reference has an input length that was measured, and an output length between those."""
    lengths = [int(line["output_len"]) for line in measured if line["input_len"] == published["input_len"]]
    return bool(lengths) and min(lengths) <= int(published["output_len"]) <= max(lengths)


def _by_release(reference: Iterable[Json]) -> dict[str, list[Json]]:
    """The reference's lines by release, the newest first."""
    found: dict[str, list[Json]] = {}
    for line in reversed(list(reference)):
        found.setdefault(f"reference {line['lmdeploy_version']}", []).append(line)
    return found


def _by_settings(report: Json) -> dict[str, list[Json]]:
    """The rows by what else than output length, prompts and batch size they have: that is a line of the plot."""
    found: dict[Row, list[Json]] = {}
    for result in report["rows"]:
        row = Row(**result["row"])
        settings = dataclasses.replace(row, name="", output_len=0, num_prompts=0, max_batch_size=None)
        doubtful = result["limited_by_client"] or result["figures"]["failed"] > 0
        found.setdefault(settings, []).append(
            {**line_of(result, report["run"]), "name": row.name, "doubtful": doubtful}
        )
    return {_label(settings, lines, list(found)): lines for settings, lines in found.items()}


def _label(settings: Row, lines: Sequence[Json], all_settings: Sequence[Row]) -> str:
    """A lone row's name, or what tells these settings from the others; the input length where there are no others."""
    if len(lines) == 1:
        return textwrap.shorten(lines[0]["name"], 40, placeholder="...")
    words = {
        "input_len": f"input {settings.input_len}",
        "request_rate": "no rate" if settings.request_rate is None else f"{settings.request_rate:g}/s",
        "concurrency": "no limit" if settings.concurrency is None else f"{settings.concurrency} at once",
        "lengths": settings.lengths,
        "stream": "streamed" if settings.stream else "not streamed",
        "target": settings.target,
    }
    told = [word for key, word in words.items() if len({getattr(each, key) for each in all_settings}) > 1]
    return ", ".join(["this run", *(told or [words["input_len"]])])


def _points(lines: Iterable[Json]) -> tuple[list[int], list[float]]:
    points = sorted((int(line["output_len"]), float(line["output_tok_s_per_node"])) for line in lines)
    return [x for x, __ in points], [y for __, y in points]


def _short(length: int) -> str:
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)


# Percentiles ---------------------------------------------------------------------------------------------------------


def _percentiles(results: Sequence[Json], spread: str, title: str, theme: Theme) -> Figure:
    """A line per row from the median to the 99th percentile, with a mark for each percentile."""
    figure = Figure(figsize=(WIDTH_IN, 1.7 + 0.42 * len(results)), layout="constrained")
    axes = figure.subplots()
    places = range(len(results))
    values = {name: [result["figures"][spread][name] for result in results] for name in ("p50", "p90", "p95", "p99")}
    axes.hlines(places, values["p50"], values["p99"], color=theme.faint, linewidth=6, zorder=1)
    for (name, found), marker, colour in zip(values.items(), "oDs|", (*theme.ours, theme.text)):
        axes.plot(
            found, places, marker, color=colour, label=name, markersize=11 if marker == "|" else 7, markeredgewidth=2
        )
    axes.set_yticks(places, [textwrap.fill(result["row"]["name"], 18) for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    _scale(axes, [value for found in values.values() for value in found])
    axes.set_title(title)
    figure.legend(loc="outside lower left", ncols=4, columnspacing=1.2, handletextpad=0.3)
    return figure


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of durations, in steps that a person would choose."""
    low = max((tick for tick in DURATIONS_S if tick <= min(values)), default=DURATIONS_S[0])
    high = min((tick for tick in DURATIONS_S if tick >= max(values) and tick > low), default=DURATIONS_S[-1])
    inside = [tick for tick in DURATIONS_S if low <= tick <= high]
    ticks = inside[:: math.ceil(len(inside) / 6)]
    axes.set_xscale("log")
    axes.set_xlim(low / 1.1, high * 1.1)
    axes.set_xticks(ticks, [seconds(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


# By time -------------------------------------------------------------------------------------------------------------


def _by_time(name: str, series: Series, theme: Theme) -> Figure:
    """Two or three small plots over one time axis: without a stream there is no first token."""
    times, unit = _in_one_unit(series.times)
    known = [(time, wait) for time, wait in zip(times, series.ttft_s) if wait is not None]
    figure = Figure(figsize=(WIDTH_IN, 4.8 if known else 3.4), layout="constrained")
    figure.suptitle(textwrap.fill(name, 40), x=0.02, horizontalalignment="left", weight="bold", size=11)
    panels = figure.subplots(3 if known else 2, sharex=True)
    title = {"weight": "normal", "size": 10}
    panels[0].fill_between(times, series.output_tok_s, color=theme.ours[0], alpha=0.25, linewidth=0)
    panels[0].plot(times, series.output_tok_s, color=theme.ours[0])
    panels[0].set_title("Output tok/s, all nodes", title)
    panels[1].plot(times, series.in_flight, color=theme.theirs[0])
    panels[1].set_title("Requests in flight", title)
    if known:
        waits, wait_unit = _in_one_unit([wait for __, wait in known])
        panels[2].plot([time for time, __ in known], waits, ".", color=theme.ours[1])
        panels[2].set_title(f"Time to first token ({wait_unit}, mean)", title)
    panels[-1].set_xlabel(f"{unit} since the first request")
    for axes in panels:
        axes.set_ylim(0, axes.get_ylim()[1] if axes.dataLim.y1 > 0 else 1)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, __: f"{value:,.6g}"))
    return figure


def _in_one_unit(durations_s: Sequence[float]) -> tuple[list[float], str]:
    """`durations_s` in the unit that suits the longest of them, and its name."""
    longest = max(durations_s, default=0.0)
    units = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    size, unit = next((each for each in units if longest >= 2 * each[0]), (0.001, "ms") if longest < 1 else units[-1])
    return [duration / size for duration in durations_s], unit
