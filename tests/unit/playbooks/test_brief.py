# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a run with the callback ``lmfleet.lmdeploy.brief``, by each ansible-core that is tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PLAY = """
- name: A play
  hosts: node0, node1
  gather_facts: false
  tasks:
    - name: Find all as it should be
      ansible.builtin.command: "true"
      changed_when: false
    - name: Change a thing
      ansible.builtin.command: "true"
      changed_when: inventory_hostname == 'node1'
    - name: Take a failure into account
      ansible.builtin.command: "false"
      changed_when: false
      ignore_errors: true
    - name: Say it
      ansible.builtin.debug:
        msg: READY at node0
      run_once: true
"""
EXPLAIN = """
    - name: Explain a log
      lmfleet.lmdeploy.explain:
        file: /nowhere
      when: inventory_hostname == 'node0'
"""
COMMAND = """
    - name: Run what fails
      ansible.builtin.command: "false"
      changed_when: false
"""


def ran(tmp_path: Path, play: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a play on two hosts that are this one, and what it printed."""
    (tmp_path / "play.yml").write_text(play, encoding="utf-8")
    (tmp_path / "inventory").write_text(
        "".join(f"node{n} ansible_connection=local ansible_python_interpreter={sys.executable}\n" for n in (0, 1)),
        encoding="utf-8",
    )
    environment = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "lmfleet.lmdeploy.brief",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml", *arguments]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_line_for_each_step_that_changed_something_and_what_a_task_says(tmp_path: Path) -> None:
    code, text = ran(tmp_path, PLAY)
    assert code == 0
    without_time = [re.sub(r"^ +\d+ s  ", "", line) for line in text.splitlines()]
    assert without_time == ["Change a thing: node1", "READY at node0", "changes: node1 1"]


def test_of_this_collections_failure_the_message_and_of_others_everything(tmp_path: Path) -> None:
    code, text = ran(tmp_path, PLAY + EXPLAIN)
    assert code == 2
    assert "FAILED  Explain a log: node0\nexplain_log: /nowhere cannot be read: No such file or directory.\n" in text
    assert "[ERROR]" not in text
    assert "PLAY RECAP" in text
    code, text = ran(tmp_path, PLAY + COMMAND)
    assert code == 2
    assert "TASK [Run what fails]" in text
    assert "non-zero return code" in text
    assert "Take a failure into account" not in text


def test_with_v_it_is_the_default(tmp_path: Path) -> None:
    __, text = ran(tmp_path, PLAY, "-v")
    assert all(f"TASK [{name}]" in text for name in ("Find all as it should be", "Change a thing", "Say it"))
    assert "PLAY [A play]" in text
