# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook and its SSH connection, whose ssh is cut off for one poll of a client, against a stand-in for dockerd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT

# Runs what it is given here. Each module is one call, thanks to pipelining; the third one ends as where the network is away.
SSH = """#!/bin/sh
for command; do :; done
case $command in
*python*)
    echo call >>"$0.calls"
    if [ "$(wc -l <"$0.calls")" -eq 3 ]; then
        echo "kex_exchange_identification: Connection closed by remote host" >&2
        exit 255
    fi ;;
esac
exec sh -c "$command"
"""
EVENTS = b"""\
{"event": "progress", "shape": "prefill", "done": 1, "failed": 0, "of": 1, "seconds": 1.0}
{"event": "result", "ok": true, "seconds": 1.0, "endpoints": [{"rank": 0}]}
"""
TASK = {
    "lmfleet.lmdeploy.warmup": {
        "endpoints": [{"rank": 0, "node": "gpu0", "url": "http://192.0.2.1:23333"}],
        "model": "a/b",
        "image": "x:1",
        "shapes": [{"name": "prefill", "prompt_tokens": 8, "max_tokens": 1}],
    }
}


class Ended(dict[str, bytes]):
    """Logs of clients that have ended as soon as they were asked for once."""

    daemon: Dockerd

    def get(self, name: str, __: Any = None) -> Any:
        self.daemon.containers[name]["State"]["Status"] = "exited"
        return EVENTS


def test_a_warm_up_outlives_a_poll_that_ssh_loses(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o700)
    variables = {
        "ansible_connection": "ssh",
        "ansible_ssh_executable": str(ssh),
        "ansible_pipelining": True,
        "ansible_python_interpreter": sys.executable,
    }
    play = {"hosts": "all", "gather_facts": False, "vars": variables, "tasks": [TASK]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    with Dockerd(tmp_path / "d.sock", images={"x:1": {"Id": "sha256:1"}}, logs=Ended()) as daemon:
        daemon.logs.daemon = daemon  # type: ignore[attr-defined]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HOME": str(tmp_path),
            "DOCKER_HOST": daemon.host,
        }
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "gpu0,", "play.yml"]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert daemon.containers == {}
    assert (tmp_path / "ssh.calls").read_text().count("call") == 5, "start, poll, a lost poll, poll, removal"
