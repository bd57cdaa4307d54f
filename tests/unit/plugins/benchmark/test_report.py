# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of a report: JSON, CSV, Markdown, plots, the page."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark import page, plots, tables
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.report import build, put, write
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.verdict import COLUMNS, read_reference
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.figures import Series, time_series
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Record, Row
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.benchmark.reports import (
    guide_rows,
    records,
    report_of,
    result,
    run,
)

HOSTILE = '<script>alert("x")</script> & <img src=http://example.invalid/x.png>'
UNSTREAMED = Row("unstreamed", 200, 100, 50, max_batch_size="default", stream=False, concurrency=4, request_rate=2.5)


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """The guide's six rows with few prompts, one limited by the client and one with failed requests."""
    return report_of(*guide_rows(prompts=300))


@pytest.fixture(scope="module")
def series() -> dict[str, Series]:
    return {result(row, of)["key"]: time_series(of, 60) for row, of, __ in guide_rows(prompts=300)}


@pytest.fixture(scope="module")
def guide_page(guide: dict[str, Any], series: dict[str, Series]) -> str:
    return html(guide, series)


def html(report: dict[str, Any], series: dict[str, Series]) -> str:
    """The page, with the plots that it needs."""
    return page.html(report, {theme: plots.draw(report, series, theme) for theme in (plots.LIGHT, plots.DARK)})


class Page(HTMLParser):
    """A page's tags, its visible text, and whatever it would load."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        loading = ("src", "href", "srcset", "action", "data", "poster", "background", "style")
        self.loads += [value or "" for name, value in attrs if name in loading or name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.loads += re.findall(r"(?:url\(|@import)[^;]*", data)
        else:
            self.text += data


# The page ------------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_beside_it(guide_page: str) -> None:
    found = Page(guide_page)
    assert len(found.loads) == 2 * 9  # nine plots, light and dark
    assert all(load.startswith("data:image/png;base64,iVBOR") for load in found.loads)
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(found.tags)


def test_the_page_says_what_was_measured_and_how_it_went(guide: dict[str, Any], guide_page: str) -> None:
    text = " ".join(Page(guide_page).text.split())
    for each in guide["rows"]:
        assert each["dataset"]["digest"] in text
        assert each["verdict"]["word"] in text
        assert each["records"] in text
    assert guide["run"]["image"] in text
    assert "8 x NVIDIA H100 80GB HBM3" in text
    assert "lmdeploy serve api_server" in text
    assert "passed: 3987 of 4000 tok/s" in text


def test_the_page_warns_first(guide_page: str) -> None:
    text = Page(guide_page).text
    for warning in (
        "in2048-out16384: the client was the limit",
        "in2048-out32768: 4 of 300 requests failed, most of them with: HTTP 500: Internal Server Error",
    ):
        assert 0 < text.find(warning) < text.find("What was measured")
    assert "simulator" not in text


def test_what_others_wrote_is_escaped() -> None:
    row = Row(HOSTILE, 200, 100, 50)
    of = [*records(row, 1000.0, slots=8), Record(sent=0.0, done=1.0, error=HOSTILE)]
    found = report_of((row, of, {"records": HOSTILE}), image_labels={"lmfleet.simulator": "true"})
    found["run"]["hosts"][0].update(node=HOSTILE, gpus=[HOSTILE], driver=HOSTILE)
    found["run"]["plan"]["served_model_name"] = HOSTILE
    found["rows"][0]["client"]["command"].append(HOSTILE)
    parsed = Page(html(found, {found["rows"][0]["key"]: time_series(of, 10)}))
    assert {"script", "b"}.isdisjoint(parsed.tags)
    assert all(load.startswith("data:image/png;base64,iVBOR") for load in parsed.loads)
    assert parsed.text.count(HOSTILE) >= 8
    assert "A simulator was measured." in parsed.text


def test_a_report_of_nothing_and_one_without_answers_have_a_page() -> None:
    row = Row("failed", 200, 100, 50)
    for found in (report_of(), report_of((row, records(row, 1000.0, failing=2), {}), (UNSTREAMED, [], {}))):
        assert "What was measured" in Page(html(found, {})).text


# Plots ---------------------------------------------------------------------------------------------------------------


def test_every_plot_is_there_and_wide_enough(guide: dict[str, Any], series: dict[str, Series]) -> None:
    for theme in (plots.LIGHT, plots.DARK):
        images = plots.draw(guide, series, theme)
        times = {f"time-{each['row']['name']}-{each['key']}" for each in guide["rows"]}
        assert images.keys() == {"throughput", "ttft", "tpot"} | times
        for image in images.values():
            assert image[:8] == b"\x89PNG\r\n\x1a\n"
            width, height = struct.unpack(">II", image[16:24])
            assert width == 880
            assert height >= 600


def test_what_was_not_streamed_has_no_latency_plot() -> None:
    of = records(UNSTREAMED, 500.0, slots=4)
    found = report_of((UNSTREAMED, of, {}))
    names = plots.draw(found, {found["rows"][0]["key"]: time_series(of, 10)}, plots.LIGHT).keys()
    assert names == {"throughput", f"time-unstreamed-{found['rows'][0]['key']}"}


def test_the_throughput_plot_has_the_reference_beside_the_run(guide: dict[str, Any]) -> None:
    figures = dict(plots._figures(guide, {}, plots.LIGHT))
    labels = [text.get_text() for text in figures["throughput"].legends[0].get_texts()]
    assert labels == [
        "this run, input 2048",
        "reference v0.7.3",
        "reference v0.7.2",
        "reference v0.7.1",
        "client-limited, or with failures",
    ]
    lines: dict[str, Any] = {str(line.get_label()): line for line in figures["throughput"].axes[0].lines}
    assert list(lines["reference v0.7.2"].get_xdata()) == [1024, 2048, 4096, 8192, 16384, 32768]
    assert list(lines["client-limited, or with failures"].get_xdata()) == [16384, 32768]


@pytest.mark.parametrize("value", [2e-6, 0.0012, 0.02, 0.99, 1.0, 119.0, 7300.0, 5e5])
def test_an_axis_of_durations_has_its_values_on_it(value: float) -> None:
    found = report_of(*guide_rows(prompts=20)[:1])
    found["rows"][0]["figures"]["ttft_s"] = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), value)
    axes = dict(plots._figures(found, {}, plots.LIGHT))["ttft"].axes[0]
    low, high = axes.get_xlim()
    assert low <= value <= high
    assert len(axes.get_xticks()) >= 2


# Tables --------------------------------------------------------------------------------------------------------------


def test_the_guides_table_is_made_as_the_guide_has_it() -> None:
    """From the guide's own figures comes the guide's own row."""
    row, of, differing = guide_rows()[4]
    found = report_of((row, of, {**differing, "limited_by_client": False}))
    text = tables.markdown(found)
    section = text.index("## v0.8.0 + `sha256:")
    assert text.index("\n2 nodes, TP16\n") > section
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert cells[0] == [
        "max bsz",
        "prompt no",
        "input-len",
        "output-len",
        "per node input token thr (tok/s)",
        "per node output token thr (tok/s)",
    ]
    assert cells[2][:4] == ["1024", "2000", "2048", "16384"]
    assert float(cells[2][5]) == pytest.approx(386.53)
    assert "not comparable. LMDeploy is v0.8.0; the reference has v0.7.2." in text


def test_markdown_warns_first(guide: dict[str, Any]) -> None:
    text = tables.markdown(guide)
    assert text.index("in2048-out16384: the client was the limit") < text.index("max bsz")
    assert "Read this first" not in tables.markdown(report_of(*guide_rows(prompts=20)[:1]))


def test_text_has_a_line_for_each_row_after_the_warnings(guide: dict[str, Any]) -> None:
    lines = tables.as_text(guide).splitlines()
    assert [line.startswith("WARNING ") for line in lines[:3]] == [True, True, False]
    assert lines[2].startswith("ROW  ")
    first = guide["rows"][0]
    assert lines[3].split()[:3] == [
        "in2048-out1024",
        f"{first['figures']['input_tok_s'] / 2:.2f}",
        f"{first['figures']['output_tok_s'] / 2:.2f}",
    ]
    assert lines[3].endswith("no reference")
    assert lines[-1].startswith("in2048-out32768: no reference. The reference has no line with 300 prompts")


def test_a_default_batch_size_is_written_as_what_it_was() -> None:
    found = report_of((UNSTREAMED, records(UNSTREAMED, 500.0), {}))
    assert "| Default (512) |" in tables.markdown(found)
    assert next(csv.DictReader(io.StringIO(tables.csv_text(found))))["max_batch_size"] == "512"


def test_csv_begins_with_the_references_columns(guide: dict[str, Any]) -> None:
    text = tables.csv_text(guide)
    assert text.startswith(",".join(COLUMNS) + ",")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["output_len"] for line in lines] == ["1024", "2048", "4096", "8192", "16384", "32768"]
    last, figures = lines[-1], guide["rows"][-1]["figures"]
    assert float(last["output_tok_s_per_node"]) == pytest.approx(figures["output_tok_s"] / 2, abs=0.005)
    assert float(last["ttft_p99_s"]) == figures["ttft_s"]["p99"]
    assert (last["failed"], last["verdict"]) == ("4", "no reference")
    assert tables.csv_text(report_of()).startswith(",".join(COLUMNS))


@given(st.lists(st.lists(st.text(alphabet="a|b", max_size=6), min_size=3, max_size=3), max_size=4))
def test_a_tables_lines_are_equally_long_and_keep_every_cell(rows: list[list[str]]) -> None:
    lines = tables.table(["x", "yy", "zzz"], rows)
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[2:] == rows


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 ms"),
        (0.0382, "38.2 ms"),
        (0.9999, "1 s"),
        (2.314, "2.31 s"),
        (119.9, "120 s"),
        (840.0, "14 min"),
        (11520.0, "3.2 h"),
    ],
)
def test_durations_are_in_the_unit_that_suits_them(value: float | None, text: str) -> None:
    assert tables.seconds(value) == text


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    rows = guide_rows(prompts=20)[:2]
    results = [result(row, of, **more) for row, of, more in rows]
    by_row = {each["key"]: row[1] for each, row in zip(results, rows)}
    found = build(run(), results, by_row, read_reference())
    write(found, by_row, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")} == {
        "report.json",
        "report.csv",
        "report.md",
        "report.html",
        *(f"plots/{name}.png" for name in ("throughput", "ttft", "tpot")),
        *(f"plots/time-{each['row']['name']}-{each['key']}.png" for each in results),
    }
    assert found["rows"][0]["noise"]["ttft_s"].keys() == {"mean", "p50", "p99"}


def test_a_row_without_records_has_no_noise() -> None:
    row = Row("lost", 200, 100, 50)
    found = build(run(), [result(row, records(row, 1000.0))], {}, [])
    assert found["rows"][0]["noise"] == {"output_tok_s": None, "ttft_s": None, "tpot_s": None}


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    put(file, "old")
    put(file, "new")
    assert file.read_text(encoding="utf-8") == "new"
    assert file.stat().st_mode & 0o777 == 0o644
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        put(tmp_path / "folder", b"x")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "report.json"]


def test_without_matplotlib_the_data_is_written_and_the_remedy_said(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report_of()), encoding="utf-8")
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "sys.modules['matplotlib'] = None\n"
        "from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.benchmark.report import write\n"
        "write(json.loads(Path('report.json').read_text()), {}, Path('written'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "install what requirements/control.txt lists" in done.stderr.splitlines()[-1]
    assert "MissingMatplotlib" in done.stderr.splitlines()[-1]
    assert {file.name for file in (tmp_path / "written").iterdir()} == {"report.json", "report.csv", "report.md"}


@pytest.mark.parametrize(
    ("image", "short"),
    [
        (f"sha256:{'ab' * 32}", "sha256:abababababab"),
        (f"openmmlab/lmdeploy@sha256:{'ab' * 32}", "sha256:abababababab"),
        ("example.org:5000/openmmlab/lmdeploy:v0.8.0-cu12", "lmdeploy:v0.8.0-cu12"),
    ],
)
def test_an_image_is_told_from_others_in_a_few_digits(image: str, short: str) -> None:
    assert tables.short_image(image) == short
