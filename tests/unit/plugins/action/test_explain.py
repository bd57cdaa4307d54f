# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/explain.yml as a person runs it; and that no action lets out what a terminal would obey."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.leaving import harmless_result

ROOT = Path(__file__).parents[4]
ESCAPES = "\x1b]0;owned\x07\x1b]52;c;aGk=\x1b\\\x9b31m\u202e"


def explain(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it outside of the checkout and without an inventory."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_FORCE_COLOR": "false",
        "ANSIBLE_HOME": str(directory / "home"),
    }
    return subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", ROOT / "playbooks" / "explain.yml", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_log_is_explained_without_an_inventory(tmp_path: Path) -> None:
    fixture = ROOT / "tests" / "unit" / "fixtures" / "logs" / "gloo_echo.log"
    text = fixture.read_text(encoding="utf-8").replace("libnvrtc", f"{ESCAPES}libnvrtc")
    (tmp_path / "api.log").write_text(text, encoding="utf-8")
    ran = explain(tmp_path, "-e", "explain_log=api.log")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = ran.stdout.splitlines()
    assert "decisive:" in shown
    assert "  | ImportError: libnvrtc.so.12: cannot open shared object file: No such file or directory" in shown
    assert any(line.startswith("means: The image lacks a library") for line in shown)
    assert any(line.startswith("remedy: Set plan_image") for line in shown)
    assert "node: 10.0.0.11" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", ran.stdout + ran.stderr)


def test_a_file_that_cannot_be_read_is_one_clear_message_with_nothing_for_the_terminal(tmp_path: Path) -> None:
    ran = explain(tmp_path, "-e", f"explain_log='no{ESCAPES}ne.log'")
    output = ran.stdout + ran.stderr
    assert ran.returncode != 0
    assert "explain_log: none.log cannot be read: No such file or directory." in output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", output)


def test_every_action_of_the_collection_lets_its_words_out_at_the_one_place() -> None:
    """Row 66: Ansible prints the message of a failure as it is, and what an action displays."""
    for path in sorted((ROOT / "plugins" / "action").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        runs = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == "run"]
        assert runs, path
        for run in runs:
            assert "harmless_result" in [ast.unparse(each) for each in run.decorator_list], path
        assert "Display" not in text, path
        assert "_display" not in text, path


def test_results_and_errors_are_made_harmless() -> None:
    assert harmless_result(lambda: {"msg": f"a{ESCAPES}b", "seen": [{"x": ESCAPES}], "n": 1})() == {
        "msg": "ab",
        "seen": [{"x": ""}],
        "n": 1,
    }

    def fails(kind: type[Exception]) -> dict[str, object]:
        raise kind(f"a{ESCAPES}b")

    for kind in (AnsibleActionFail, AnsibleConnectionFailure):
        with pytest.raises(kind, match=r"^ab$"):
            harmless_result(fails)(kind)
