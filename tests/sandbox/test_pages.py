# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of README and docs/, as they are written there: only the inventory and the head's address are the sandbox's.

tests/pages.py says which of them are tried here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from sandbox.hosts import ROOT, Sandbox

from ansible_collections.lmfleet.lmdeploy.tests.pages import PAGES, Command, commands, how

pytestmark = pytest.mark.slow
HEAD = "10.77.0.11"


def planned(way: str) -> list[Command]:
    """What is tried on one topology, each once."""
    found = {c.bare: c for page in PAGES for c in commands(page) if how(c) == way}
    return list(found.values())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root as the checkout's, into which the commands write what they write."""
    for each in ROOT.iterdir():
        if not each.name.startswith("."):
            (tmp_path / each.name).symlink_to(each)
    return tmp_path


def typed(hosts: Sandbox, command: Command, place: Path) -> None:
    """Run it as it is written: Docker's on every host, of which one has the container, the others on the control node."""
    text = re.sub(r"10\.0\.0\.10\b|\bHEAD\b", HEAD, command.text)
    text = re.sub(r"-i (four_nodes|my_inventory)\b", "-i inventory/sandbox", text)
    text = re.sub(r"\bDIR\b", str(place / "given"), text).replace("api.log", str(place / "api.log"))
    text = re.sub(r"^curl", "curl --fail --silent --noproxy '*'", text.replace("/tmp/case", str(place / "case")))
    if text.startswith("docker "):
        argvs = [["docker", "exec", f"lmfleet-sandbox-node{node}", "sh", "-c", text] for node in hosts.nodes]
        if ">" in text and "|" not in text:  # on the host, and from there to the control node
            argvs = [["sh", "-c", f"docker exec lmfleet-sandbox-node0 {text}"]]
    elif text.startswith("ansible-playbook") and "-i " not in text:
        argvs = [["bash", "-c", text.replace("ansible-playbook", "ansible-playbook -i inventory/sandbox", 1)]]
    elif text.startswith("scripts/status") and "-i " not in text:
        argvs = [["bash", "-c", text.replace("scripts/status", "scripts/status -i inventory/sandbox", 1)]]
    else:
        argvs = [["bash", "-c", text]]
    done = [
        subprocess.run(argv, cwd=place, env=hosts.environment, capture_output=True, text=True, timeout=900, check=False)
        for argv in argvs
    ]
    print(f"{command.page}: {shlex.join(argvs[0])}: {[each.returncode for each in done]}")
    assert any(each.returncode == 0 for each in done), "\n".join(
        each.stdout[-3000:] + each.stderr[-2000:] for each in done
    )


def test_the_commands_of_the_pages_do_what_they_say_on_tp(deployed: Sandbox, place: Path) -> None:
    for command in planned("tp"):
        typed(deployed, command, place)


@pytest.mark.dpep
def test_the_commands_of_the_pages_do_what_they_say_on_dpep(ranks: Sandbox, place: Path) -> None:
    for command in planned("dpep"):
        typed(ranks, command, place)
