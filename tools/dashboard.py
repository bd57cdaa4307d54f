#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write plugins/plugin_utils/data/dashboard.json, Grafana's dashboard, from plugins/plugin_utils/monitoring/panels.py.

With --check nothing is written, and the exit status is 1 if the file is not what would be written. Needs grafana-foundation-sdk
(requirements/dev.txt); who uses the collection needs the file alone.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import TooltipDisplayMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.files import DASHBOARD  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.monitoring.panels import (  # noqa: E402
    ROWS,
    Panel,
)
from ansible_collections.lmfleet.lmdeploy.tools.doc_pages import command_line, written  # noqa: E402  (its path first)

COLUMNS, HEIGHT = 24, 8
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def text() -> str:
    """The whole dashboard, as Grafana's JSON."""
    made = (
        dashboard.Dashboard("LMDeploy")
        .uid("lmfleet-lmdeploy")
        .tags(["lmdeploy"])
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name, query in (
        ("deployment", "label_values(up, deployment)"),
        ("engine", 'label_values(up{deployment=~"$deployment"}, engine)'),
    ):
        made = made.with_variable(
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(query)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for title, panels in ROWS.items():
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(graph(panel, COLUMNS // min(len(panels), 4)))
    return JSONEncoder(indent=1, sort_keys=True).encode(made.build()) + "\n"


def graph(panel: Panel, width: int) -> timeseries.Panel:
    """One panel."""
    made = timeseries.Panel().title(panel.title).unit(panel.unit).datasource(SOURCE).span(width).height(HEIGHT).min(0)
    made = made.legend(common.VizLegendOptions().show_legend(True)).tooltip(
        common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
    )
    since = f"LMDeploy {panel.since} and later." if panel.since else ""
    if panel.about or since:
        made = made.description(" ".join(filter(None, (panel.about, since))))
    for letter, query in zip(string.ascii_uppercase, panel.queries):
        made = made.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .ref_id(letter)
            .datasource(SOURCE)
            .range()
        )
    return made


def main() -> int:
    """Write it, or check it."""
    return written(command_line(__doc__, str(DASHBOARD)).parse_args(), text())


if __name__ == "__main__":
    sys.exit(main())
