# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the rules, and the program's own check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.registry import RULES

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "rules_doc.py"


def test_the_page_in_the_tree_has_every_rule_once() -> None:
    page = (ROOT / "docs" / "preflight.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9]+\.[a-z0-9-]+)` \|", page, re.MULTILINE)
    assert rows == [rule.id for rule in RULES]
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("| `")}
    assert len(widths) == 1


def test_its_check_tells_an_old_page_from_a_new_one(tmp_path: Path) -> None:
    def check(output: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TOOL), "--check", "--output", str(output)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert check(ROOT / "docs" / "preflight.md").returncode == 0
    (tmp_path / "page.md").write_text("old")
    answer = check(tmp_path / "page.md")
    assert answer.returncode == 1
    assert "out of date: run tools/rules_doc.py" in answer.stdout
