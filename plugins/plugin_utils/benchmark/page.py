# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one page of HTML that needs nothing beside it: no network, no script, plots and style inside."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from typing import Any

from ..pages import environment
from . import plots, tables
from .verdict import engine_of, line_of, topology_word

Json = Mapping[str, Any]
# A verdict is a word; its sign only helps the eye, and its class the colour.
SIGNS = {
    "reproduced": ("=", "good"),
    "better": ("▲", "good"),
    "worse": ("▼", "bad"),
    "not comparable": ("≠", "neutral"),
    "no reference": ("–", "neutral"),
}
ALT = {
    "throughput": "Output tokens per second and node by output length, with the reference",
    "ttft": "Percentiles of the time to first token, by row",
    "tpot": "Percentiles of the time per output token, by row",
}


def html(report: Json, images: Mapping[plots.Theme, Mapping[str, bytes]]) -> str:
    """The page; `images` are the plots in both themes."""
    made = environment()
    made.filters.update(
        seconds=tables.seconds, ratio=tables.ratio, batch_size=tables.batch_size, command=_command, words=_words
    )
    run = report["run"]
    return made.get_template("report.html.j2").render(
        run=run,
        plan=run["plan"],
        engine=engine_of(run["plan"]),
        topology=topology_word(run["plan"]),
        rows=report["rows"],
        guide_head=tables.GUIDE_HEAD,
        guide_rows=[tables.guide_row(result, line_of(result, run)) for result in report["rows"]],
        verdict_head=tables.VERDICT_HEAD,
        verdict_rows=[tables.verdict_row(result) for result in report["rows"]],
        signs=SIGNS,
        warnings=list(tables.warnings(report)),
        host_rows=[_host_row(host) for host in run["hosts"]],
        commands=[each for each in run["plan"]["services"] if each["service"] in ("api", "dp")][:1],
        pictures=[_picture(name, alt, images) for name, alt in ALT.items() if name in images[plots.LIGHT]],
        time_pictures=[
            _picture(name, f"{result['row']['name']} by time: output, requests in flight, time to first token", images)
            for result in report["rows"]
            if (name := plots.time_plot_name(result)) in images[plots.LIGHT]
        ],
    )


def _picture(name: str, alt: str, images: Mapping[plots.Theme, Mapping[str, bytes]]) -> dict[str, str]:
    light, dark = (_data_uri(images[theme][name]) for theme in (plots.LIGHT, plots.DARK))
    return {"alt": alt, "light": light, "dark": dark}


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _host_row(host: Json) -> list[str]:
    gpus = [f"{host['gpus'].count(name)} x {name}" for name in dict.fromkeys(host["gpus"])]
    return [host["node"], _words(gpus), _words(host["driver"]), _words(host["links"])]


def _command(words: list[str]) -> str:
    """A command line to paste into a shell, an option a line."""
    quoted = [shlex.quote(word) for word in words]
    return "".join(f" \\\n  {word}" if word.startswith("--") else f" {word}" for word in quoted).strip()


def _words(value: Any) -> str:
    """Any plain data as words for a person."""
    if value in (None, "", [], {}):
        return tables.NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return str(value)
