# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible makes of a failure in the converge role's tasks, on the control node alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = """
[all:vars]
ansible_connection=local
ansible_python_interpreter={python}
[lmdeploy_nodes]
node0 plan_cluster_address=10.0.0.10
node1 plan_cluster_address=10.0.0.11
"""
PLAY = """
- ansible.builtin.import_playbook: lmfleet.lmdeploy.make_plan
- hosts: lmfleet_planned
  gather_facts: false
  strategy: linear
  any_errors_fatal: true
  tasks:
    - ansible.builtin.include_role:
        name: lmfleet.lmdeploy.converge
        tasks_from: guarded
      vars:
        converge_try_links: false
        converge_decision:
          rounds: []
          read_token: [node1]
          prove: false
    - ansible.builtin.debug:
        msg: IT WENT ON
"""


def test_what_fails_on_one_host_is_noted_and_all_hosts_stand_together_again(tmp_path: Path) -> None:
    """The token that is to be read on node1 is not there; what is told of it is not hidden with the token."""
    (tmp_path / "inventory").write_text(INVENTORY.format(python=sys.executable), encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml"]
    environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    token = "/var/lib/lmfleet/lmdeploy/secrets/ray_token"
    assert f"The upgrade failed: node1 (10.0.0.11): {token}, from which" in text
    assert "Nothing was rolled back: the hosts have no record of an earlier plan." in text
    assert "IT WENT ON" not in text
