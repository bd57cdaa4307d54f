# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What engines tell of their starts, read as node_exporter and Prometheus read it."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.lmfleet.lmdeploy.programs.starts import KEPT, Starts

API = {"service": "api"}


def told(path: Path) -> dict[str, float]:
    """The samples of a service's text file, all of which are labelled with it."""
    families = list(text_string_to_metric_families(path.with_suffix(".prom").read_text()))
    assert all(family.documentation and family.type in ("counter", "gauge") for family in families)
    samples = [sample for family in families for sample in family.samples]
    assert all(sample.labels == API for sample in samples)
    return {sample.name.removeprefix("lmfleet_engine_"): sample.value for sample in samples}


def test_a_formation_a_restart_and_giving_up_are_told(tmp_path: Path) -> None:
    path, now = tmp_path / "api.jsonl", itertools.count(1000.0, 10.0)
    starts = Starts(path, clock=lambda: next(now))
    starts.note("start", "the container was made", new=True)
    assert told(path) == {"formations_total": 1, "restarts_total": 0, "gave_up": 0, "start_time_seconds": 1000}
    starts.note("proven", "a token")
    assert told(path)["ready_seconds"] == 10
    starts.note("end", "it was killed")
    starts.note("start", "it was killed")
    # How long the last start took says nothing of this one.
    assert told(path) == {"formations_total": 1, "restarts_total": 1, "gave_up": 0, "start_time_seconds": 1030}
    starts.note("gave up", "1 start in a row gave no token")
    assert told(path)["gave_up"] == 1
    starts.note("start", "the container was made", new=True)
    assert told(path) == {"formations_total": 2, "restarts_total": 1, "gave_up": 0, "start_time_seconds": 1050}


def test_a_counter_never_falls_by_what_is_not_kept_any_more(tmp_path: Path) -> None:
    path = tmp_path / "api.jsonl"
    Starts(path, clock=lambda: 1.0).note("start", "the container was made", new=True)
    for count in range(1, KEPT + 20):
        Starts(path, clock=lambda: 2.0).note("start", "again")  # each by another container's supervisor
        if count in (1, KEPT - 2, KEPT - 1, KEPT, KEPT + 19):
            assert (told(path)["formations_total"], told(path)["restarts_total"]) == (1, count)


def test_a_ledger_of_an_earlier_version_and_a_broken_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "api.jsonl"
    lines = [{"at": 1.0, "event": "start", "new": True}, {"at": 2.0, "event": "start"}, {"at": "?", "event": "proven"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"event": "start", "restarts": "many"}\n{"ev')
    Starts(path, clock=lambda: 5.0).note("end", "it was killed")
    assert told(path) == {"formations_total": 1, "restarts_total": 2, "gave_up": 0, "start_time_seconds": 2}


def test_node_exporter_may_read_it_whatever_the_container_creates_files_with(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Starts(tmp_path / "api.jsonl", clock=lambda: 5.0).note("start", "again")
    finally:
        os.umask(before)
    assert (tmp_path / "api.prom").stat().st_mode & 0o777 == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["api.jsonl", "api.prom"]
