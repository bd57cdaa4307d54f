# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that give no answer, through the real play: plan, look and decision of prepare.yml, in one run of ansible-playbook."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lmfleet.lmdeploy.plugins.action.look import ActionModule
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.failure import failure

ROOT = Path(__file__).parents[4]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


def script(file: Path, text: str) -> str:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Host -> its faults, as the play prints them."""
    folder = tmp_path_factory.mktemp("inventory")
    bare = folder / "bin"
    bare.mkdir()
    script(bare / "ip", 'echo \'Option "-json" is unknown, try "ip -help".\' >&2; exit 255')
    ssh: dict[str, Any] = {"ansible_connection": "ssh", "ansible_ssh_common_args": "-F none -o ControlPath=none"}
    closed = {**ssh, "ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts: dict[str, dict[str, Any]] = {
        "no_python": {"ansible_python_interpreter": "/nowhere/python3"},
        "old_python": {
            # What Python 3.6 says of a module of today's ansible-core.
            "ansible_python_interpreter": script(
                folder / "python3.6", "echo 'SyntaxError: future feature annotations is not defined' >&2; exit 1"
            )
        },
        "noisy": {
            "ansible_python_interpreter": script(
                folder / "noisy", "echo 'Killed' >&2; echo 'Shared connection to 10.0.0.3 closed.' >&2; exit 137"
            )
        },
        "no_tmp": {"ansible_remote_tmp": "/proc/nowhere"},
        "no_password": {
            "ansible_become": True,
            "ansible_become_user": "nobody",
            "ansible_become_exe": script(folder / "sudo", "echo 'sudo: a password is required' >&2; exit 1"),
        },
        "old_ip": {
            "ansible_python_interpreter": script(folder / "python", f'PATH={bare}:$PATH exec {sys.executable} "$@"')
        },
        "elsewhere": {},
        "no_sshd": closed,
        "no_jump": {**closed, "ansible_ssh_common_args": "-F none -o ControlPath=none -o ProxyCommand=false"},
        "no_name": {**ssh, "ansible_host": "no-such-host.invalid"},
    }
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "plan_gpus": 8,
        "plan_tp": 8,
    }
    for number, each in enumerate(hosts.values()):
        each["plan_cluster_address"] = f"192.0.2.{100 + number}"
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"lmdeploy_nodes": {"vars": variables, "hosts": hosts}}))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "HOME": str(folder),
    }
    command = [str(PLAYBOOK), "playbooks/prepare.yml", "-i", str(inventory), "--check", "--forks", "16"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed
    assert "Nothing was started. To mend first:" in printed
    lines = [line.strip().removeprefix("- ") for line in printed.splitlines() if line.strip().startswith("- ")]
    faults: dict[str, list[str]] = {name: [] for name in hosts}
    for line in dict.fromkeys(line.replace('\\"', '"') for line in lines):
        for name in hosts:
            if line.startswith(f"{name} ("):
                faults[name].append(line)
    return faults


@pytest.mark.skipif(shutil.which("ssh") is None, reason="has no ssh")
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("no_python", ["gave no answer", "/nowhere/python3", "not found", "set ansible_python_interpreter"]),
        ("old_python", ["gave no answer", "SyntaxError: future feature annotations", "3.9 or newer is needed"]),
        ("noisy", ["gave no answer", "Killed", "no memory left"]),
        ("no_tmp", ["gave no answer", "temporary directory", "df -h"]),
        ("no_password", ["gave no answer", "sudo asks for a password", "--ask-become-pass"]),
        (
            "no_sshd",
            ["cannot be reached: ssh: connect to host 127.0.0.1 port 1: Connection refused", "systemctl status ssh"],
        ),
        ("no_jump", ["cannot be reached", "UNKNOWN port 65535", "The jump host (ProxyJump or ProxyCommand"]),
        ("no_name", ["cannot be reached", "Could not resolve hostname no-such-host.invalid", "correct ansible_host"]),
    ],
)
def test_a_host_without_an_answer_is_one_fault_with_its_own_remedy(
    told: dict[str, list[str]], host: str, words: list[str]
) -> None:
    [fault] = told[host]
    for word in words:
        assert word in fault


def test_a_host_whose_ip_knows_no_json_is_told_what_to_install(told: dict[str, list[str]]) -> None:
    [fault] = [line for line in told["old_ip"] if "iproute2" in line]
    assert 'Option "-json" is unknown' in fault


def test_an_address_that_the_host_does_not_have_is_told_at_the_first_look(told: dict[str, list[str]]) -> None:
    [fault] = [line for line in told["elsewhere"] if "no interface of this host has 192.0.2.106" in line]
    assert "set plan_cluster_address" in fault


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"msg": "no right"}, "no right"),
        (
            {"msg": "MODULE FAILURE", "module_stderr": "Traceback:\n  x\nOSError: full\n"},
            "MODULE FAILURE: OSError: full",
        ),
        ({"msg": "OSError: full.", "module_stderr": "OSError: full"}, "OSError: full."),
        (
            {
                "msg": "FAILED",
                "module_stderr": "Shared connection to h closed.\r\n",
                "module_stdout": "/bin/sh: no python\r\n",
            },
            "FAILED: /bin/sh: no python",
        ),
        (
            {
                "msg": "FAILED",
                "module_stderr": "it is so\nbash: warning: setlocale: LC_ALL: cannot change locale (de_DE)\n",
            },
            "FAILED: it is so",
        ),
        (
            {"exception": "Traceback\nTypeError: 'ABCMeta' object is not subscriptable"},
            "TypeError: 'ABCMeta' object is not subscriptable",
        ),
        ({}, "no answer"),
    ],
)
def test_what_a_module_wrote_beside_its_answer_is_told_without_the_noise(result: dict[str, Any], text: str) -> None:
    assert failure(result) == text


def test_where_sshs_words_were_lost_while_a_module_was_sent_they_are_asked_for() -> None:
    action = ActionModule.__new__(ActionModule)
    refused = "Failed to connect to the host via ssh: ssh: connect to host h port 22: Connection refused"
    lost = "Data could not be sent to remote host 'h'. Make sure this host can be reached over SSH."

    def execute(command: str, sudoable: bool) -> None:
        assert (command, sudoable) == ("true", False)
        raise AnsibleConnectionFailure(refused)

    action._low_level_execute_command = execute
    assert action._why(lost) == refused
    action._low_level_execute_command = lambda *_, **__: {}
    assert action._why(lost) == lost
    del action._low_level_execute_command  # nothing is asked where SSH has said it
    assert action._why(f"{lost[:-1]}: Connection refused") == f"{lost[:-1]}: Connection refused"
