# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes the proxy's list true. The real proxy of each release is asked in the sandbox (molecule/dpep, tests/sandbox)."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import (
    Changes,
    ProxyError,
    ProxyList,
    changes,
)

A, B, STRANGER = "http://10.0.0.10:23333", "http://10.0.0.11:23343", "http://10.0.0.99:23333"
MODEL = "deepseek-ai/DeepSeek-V3"
UP: dict[str, Any] = {"health": 200, "models": [MODEL]}
REFUSED: dict[str, Any] = {"error": "Connection refused"}
SLOW: dict[str, Any] = {"error": "timed out"}


def found(listed: dict[str, list[str]], a: dict[str, Any], b: dict[str, Any]) -> Changes:
    return changes([A, B], listed, {A: a, B: b}, MODEL)


def test_a_list_that_is_right_is_left_alone() -> None:
    assert found({A: [MODEL], B: [MODEL]}, UP, UP) == Changes({}, {})
    assert found({}, REFUSED, REFUSED) == Changes({}, {})


def test_live_ranks_that_the_proxy_forgot_are_added_again() -> None:
    assert found({B: [MODEL]}, UP, UP) == Changes({A: "it answers, but was not listed"}, {})
    assert found({A: ["llama"], B: [MODEL]}, UP, UP) == Changes({A: "it was listed with llama"}, {})


def test_what_is_gone_or_not_of_the_plan_is_removed() -> None:
    listed = {A: [MODEL], B: [MODEL], STRANGER: [MODEL]}
    assert found(listed, UP, REFUSED) == Changes({}, {B: "Connection refused", STRANGER: "it is not of the plan"})
    assert found({A: [MODEL]}, {"health": 200, "models": ["llama"]}, REFUSED).remove == {A: "it serves llama"}


def test_a_rank_that_only_times_out_is_left_as_it_is() -> None:
    assert found({A: [MODEL]}, SLOW, SLOW) == Changes({}, {})


def test_a_proxy_that_does_not_answer_is_an_error_with_its_url() -> None:
    with pytest.raises(ProxyError, match=r"no answer from http://127\.0\.0\.1:9/nodes/status: .*refused"):
        ProxyList("http://127.0.0.1:9").read()
