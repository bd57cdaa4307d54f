# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages have a reader type is there, and is tried (tests/sandbox/test_pages.py), or it is said why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.tests.pages import HOW, PAGES, ROOT, Command, commands, how

ALL = [command for page in PAGES for command in commands(page)]
# What playbooks take beside the variables of roles.
OF_PLAYBOOKS = {"plan_show", "plan_file"}


def known_variables() -> set[str]:
    """The variables of all roles, and those that playbooks read."""
    found = set(OF_PLAYBOOKS)
    for specs in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(specs.read_text(encoding="utf-8"))["argument_specs"].values():
            found |= set(entry.get("options", {}))
    for playbook in (ROOT / "playbooks").glob("*.yml"):
        found |= set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", playbook.read_text(encoding="utf-8")))
    return found


def test_many_are_found() -> None:
    assert len(ALL) > 100
    assert {command.page for command in ALL} >= {"README.md", "docs/runbook.md", "docs/dpep.md", "docs/closure.md"}


@pytest.mark.parametrize(
    "command", [each for each in ALL if each.playbook], ids=lambda each: f"{each.page}: {each.text[:60]}"
)
def test_a_pages_playbook_is_there_and_takes_what_it_is_given(command: Command) -> None:
    assert (ROOT / command.playbook).is_file()
    assert set(command.extra) <= known_variables()


def test_every_rule_of_how_commands_are_tried_is_of_use() -> None:
    texts = [command.bare for command in ALL]
    firsts = {next(n for n, (pattern, __) in enumerate(HOW) if re.search(pattern, text)) for text in texts}
    assert firsts == set(range(len(HOW)))


def test_a_test_that_tries_a_command_is_there() -> None:
    named = {way for __, way in HOW if way.endswith(".py")}
    tests = {path.name for path in Path(ROOT, "tests").rglob("test_*.py")}
    assert named <= tests
    assert {how(command) for command in ALL} >= {"tp", "dpep"}
