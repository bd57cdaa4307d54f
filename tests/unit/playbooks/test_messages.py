# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says when its task fails: where, what, and what to do. On the control node alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = """
[all:vars]
ansible_connection=local
ansible_python_interpreter={python}
plan_state_dir={folder}/state
[lmdeploy_nodes]
node0 plan_cluster_address=10.0.0.10
node1 plan_cluster_address=10.0.0.11
"""


def failing(word: str, role: str, part: str, **variables: Any) -> dict[str, Any]:
    """A part of a role that has to fail; its message is shown after that word."""
    include = {
        "ansible.builtin.include_role": {"name": f"lmfleet.lmdeploy.{role}", "tasks_from": part},
        "vars": variables,
    }
    told = {"ansible.builtin.debug": {"msg": f"{word}: {{{{ ansible_failed_result.msg }}}}"}}
    return {"when": "inventory_hostname == 'node1'", "block": [include], "rescue": [told]}


def test_a_role_that_fails_says_where_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and listens not
        port = closed.getsockname()[1]
        play = [
            {"ansible.builtin.import_playbook": "lmfleet.lmdeploy.make_plan"},
            {
                "hosts": "lmfleet_planned",
                "gather_facts": False,
                "tasks": [
                    failing("TOKEN", "converge", "token", __converge_holders=["node1"]),
                    failing(
                        "PROXY",
                        "proxy",
                        "wait",
                        proxy_url=f"http://127.0.0.1:{port}",
                        proxy_timeout=1,
                        preflight_decision={"deployment": "lmdeploy"},
                    ),
                    failing(
                        "DOCKER",
                        "container_engine",
                        "apply",
                        container_engine_restart_command="cat /nowhere",
                        __container_engine={"apply": {"restart": True, "reload": False, "told": "", "later": []}},
                    ),
                ],
            },
        ]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(play), encoding="utf-8")
        (tmp_path / "inventory").write_text(INVENTORY.format(python=sys.executable, folder=tmp_path), encoding="utf-8")
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory", "play.yml"]
        environment = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, done.stdout + done.stderr
    token = f"{tmp_path}/state/lmdeploy/secrets/ray_token"
    assert f"TOKEN: node1 (10.0.0.11): {token}, from which" in text
    assert f"Run ls -l {token} on node1" in text
    assert f"PROXY: The proxy does not answer at http://127.0.0.1:{port} after 1 s" in text
    assert "See why: docker logs lmdeploy-proxy, on node1 (127.0.0.1). If it says" in text
    assert "DOCKER: node1: cat /nowhere failed, or took more than 300 s: cat: /nowhere: No such file" in text
    assert "See journalctl -u docker on that host" in text
