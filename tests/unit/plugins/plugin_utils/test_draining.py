# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When an engine has no requests any more."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import GONE, NO_METRICS
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.draining import BLIND_S, LATE_S, Drain

NONE, ONE, BLIND, ENDED = {"requests": 0}, {"requests": 1}, {"error": NO_METRICS}, {"error": GONE}


def ends(ranks: dict[str, Any], after_s: float, deadline_s: float = 300) -> str:
    """How it ended; empty where it did not."""
    drain = Drain(deadline_s)
    drain.take(ranks, after_s)
    return drain.news if drain.ended else ""


def test_gauges_say_nothing_of_the_time_before_they_were_set_anew() -> None:
    assert ends({"a": NONE}, LATE_S - 1) == ""
    assert ends({"a": NONE}, LATE_S) == "no request runs there any more"
    assert ends({"a": NONE, "b": ONE}, LATE_S) == ""


def test_what_still_runs_at_the_deadline_is_said() -> None:
    assert ends({"a": ONE, "b": {"requests": 4}}, 299) == ""
    assert (
        ends({"a": ONE, "b": {"requests": 4}}, 300)
        == "after 300 s 5 requests still run or wait there, and are cut off now"
    )
    assert ends({"a": NONE}, 5, deadline_s=5) == "no request runs there any more"


@pytest.mark.parametrize("ranks", [{"a": BLIND}, {"a": NONE, "b": BLIND}, {"a": {"error": "timed out"}}])
def test_where_nobody_can_count_it_is_said_and_a_while_is_waited(ranks: dict[str, Any]) -> None:
    assert ends(ranks, BLIND_S - 1) == ""
    assert ends(ranks, BLIND_S).startswith("nobody knows whether requests run there (")
    assert ends(ranks, 10, deadline_s=10).startswith("after 10 s nobody knows whether requests run there (")


def test_one_that_cannot_be_counted_does_not_hide_those_that_run() -> None:
    assert ends({"a": BLIND, "b": ONE}, BLIND_S) == ""


def test_what_is_gone_has_nothing_left_to_do() -> None:
    assert ends({"a": ENDED}, 0) == "nothing listens there"
    assert ends({"a": ENDED, "b": ONE}, LATE_S) == ""


def test_meanwhile_it_is_said_how_many_there_are() -> None:
    drain = Drain(300)
    drain.take({"a": {"requests": 7}}, 2)
    assert (drain.ended, drain.news) == (False, "7 requests run or wait there")
    drain.take({"a": NONE}, 4)
    assert (drain.ended, drain.news) == (False, "")
