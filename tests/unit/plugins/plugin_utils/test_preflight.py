# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules found, as data, as lines and as a page."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.preflight import as_table, counted, errors_of, report_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.preflight_page import html
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.judging import judged
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.registry import RULES
from ansible_collections.lmfleet.lmdeploy.tests.unit.page import Page
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, gpu_details, with_gpus

WAIVERS = {"node0": {"docker.log-driver": "read elsewhere"}}


def broken() -> World:
    """A world with something of each state."""
    world = with_gpus(World(bound(nodes(3, plan_tp=8))))
    host0, host1 = world.answers["node0"], world.answers["node1"]
    host0["docker_settings"]["log_driver"] = "none"
    host1["host"]["gpus"]["listing"] = "GPU 0: <b>H100</b>\n"
    host1["host"]["gpus"]["details"][3] = gpu_details(3, nvlinks_down=2)
    host1["host"]["kernel"]["xids"] = None
    world.answers["node2"]["host"]["kernel"]["xids"] = None
    world.answers["node2"]["docker"] = {
        "error": "Docker <script>alert(1)</script> is away: start it.",
        "kind": "socket",
    }
    world.no_model("node1")
    return world


def report(world: World) -> dict[str, Any]:
    made = report_of(world.plan, judged(world.plan, world.hosts, WAIVERS), "2026-11-24T22:25:00Z")
    return dict(json.loads(json.dumps(made)))


def test_errors_come_first_then_what_is_waived_then_warnings() -> None:
    found = report(broken())
    states = [(each["state"], each["host"], each["rule"]) for each in found["findings"]]
    assert states == [
        ("error", "node1", "gpu.count"),
        ("error", "node2", "docker.answers"),
        ("error", "", "model.whole"),
        ("waived", "node0", "docker.log-driver"),
        ("warning", "node1", "nvlink.down"),
    ]
    assert errors_of(found) == ["gpu.count on node1", "docker.answers on node2", "model.whole on node1"]
    assert found["counts"]["error"] == 3
    assert sum(found["counts"].values()) == sum(len(rule["states"]) for rule in found["rules"])
    assert [rule["id"] for rule in found["rules"]] == [rule.id for rule in RULES]
    assert all(
        rule["why"].keys() >= {host for host, state in rule["states"].items() if state == "unknown"}
        for rule in found["rules"]
    )


def test_the_table_says_host_rule_and_state_once_and_the_rest_below_it() -> None:
    lines = as_table(report(broken()))
    assert re.fullmatch(r"HOST +RULE +STATE +WHAT IS WRONG, AND WHAT TO DO", lines[0])
    column = lines[0].index("WHAT")
    assert lines[1].startswith("node1 ")
    assert lines[1][column:].startswith("nvidia-smi -L lists 1 of the 8 GPUs")  # no second "node1 (...):"
    model = next(line for line in lines if "model.whole" in line)
    assert model.startswith("all hosts  model.whole")
    after = lines[lines.index(model) + 1]
    assert after.strip() == "node1: config.json is missing."
    assert after.startswith(" " * column)
    assert any(line.strip() == "Waived: read elsewhere" for line in lines)
    assert "not checked on node1, node2: the kernel's log could not be read (gpu.xid)" in lines
    assert lines[-1] == counted(report(broken())["counts"])
    assert lines[-1].startswith("3 errors, 1 warning, ")


def test_on_good_hosts_one_line_is_left() -> None:
    world = with_gpus(World(bound(nodes())))
    [line] = as_table(report(world))
    assert re.fullmatch(r"0 errors, 0 warnings, 0 unknown, 0 waived, \d+ ok, \d+ not needed", line)
    assert "Nothing was found." in html(report(world))


def test_a_host_that_is_away_is_one_line_of_unknown_rules() -> None:
    world = with_gpus(World(bound(nodes())))
    world.answers["node1"] = {"unreachable": "gone"}
    lines = [line for line in as_table(report(world)) if line.startswith("not checked on node1:")]
    assert len(lines) == 1
    assert re.search(r"it gave no answer \(docker\.answers, .* and \d+ more\)$", lines[0])


def test_the_page_needs_nothing_beside_it_and_shows_what_hosts_wrote_as_text() -> None:
    text = html(report(broken()))
    page = Page(text)
    assert page.stands_alone
    assert "http" not in text
    assert "Docker <script>alert(1)</script> is away: start it." in page.text
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in text
    assert "Waived: read elsewhere" in page.text
    assert "the kernel's log could not be read" in page.text
    for rule in RULES:
        assert rule.id in page.text
    # Each rule's state on each host, and of all together.
    assert page.tags.count("th") == 2 + 3 + 1
    assert page.tags.count("td") == len(RULES) * (2 + 3 + 1)
