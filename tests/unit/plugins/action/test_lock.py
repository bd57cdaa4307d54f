# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of ansible-playbook against one deployment: one at a time, and none that is dead in the way of another."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.action.lock import ARGUMENT_SPEC
from ansible_collections.lmfleet.lmdeploy.plugins.modules import lock as module
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.lock import account
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT

SAID = ("type", "choices", "default", "required")
FILLED_IN = {"me", "gone"}

# A shell gives its background jobs an ignored SIGINT, and nohup a SIGHUP: here they do what they do to a run at a terminal.
AT_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "ansible", "playbook", *sys.argv[1:]])
"""


def said(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: rule[key] for key in SAID if key in rule} for name, rule in options.items()}


def test_what_is_documented_is_what_is_taken() -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert said({name: rule for name, rule in documented.items() if name not in FILLED_IN}) == said(ARGUMENT_SPEC)
    assert said(documented["me"]["suboptions"]) == said(module.RUN_SPEC)
    for name in FILLED_IN:
        assert "Filled in by the action plugin" in documented[name]["description"]


class Deployment:
    """A deployment whose head is this machine."""

    def __init__(self, folder: Path) -> None:
        self.lock = folder / "state" / "lock.json"
        self.end = folder / "end"  # a run that waits ends when this is there
        self._folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, *tasks: dict[str, Any], name: str = "deploy.yml", hosts: str = "head,", flags: str = ""
    ) -> subprocess.Popen[str]:
        playbook = self._folder / name
        play = {"hosts": "all", "gather_facts": False, "connection": "local", "tasks": [*tasks]}
        playbook.write_text(json.dumps([play]), encoding="utf-8")
        argv = [str(playbook), "-i", hosts, "-e", f"ansible_python_interpreter={sys.executable}", *flags.split()]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "TZ": "UTC"}
        with (self._folder / f"{len(self._started)}.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", AT_A_TERMINAL, *argv],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, *tasks: dict[str, Any], **given: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*tasks, **given)
        status = process.wait()
        return status, (self._folder / f"{len(self._started) - 1}.log").read_text(encoding="utf-8")

    def ask(self, state: str = "taken", **options: Any) -> dict[str, Any]:
        return {"lmfleet.lmdeploy.lock": {"path": str(self.lock), "deployment": "tp16", "state": state, **options}}

    def until_end(self) -> dict[str, Any]:
        loop = f"until [ -e {self.end} ]; do sleep 0.1; done"
        return {"name": "work", "ansible.builtin.command": {"argv": ["sh", "-c", loop]}}

    def working(self) -> subprocess.Popen[str]:
        """A run that has the lock, and works."""
        mark = self._folder / "working"
        touch = {"ansible.builtin.command": {"argv": ["touch", str(mark)]}}
        process = self.start(self.ask(), touch, self.until_end(), self.ask("released"))
        while not mark.exists():
            assert process.poll() is None, (self._folder / f"{len(self._started) - 1}.log").read_text(encoding="utf-8")
            time.sleep(0.05)
        mark.unlink()
        return process

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.lock.read_text(encoding="utf-8"))
        return content

    def change(self, **content: Any) -> None:
        self.lock.write_text(json.dumps({**self.content(), **content}), encoding="utf-8")

    def close(self) -> None:
        self.end.touch()  # workers outlive a run that was killed
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    yield made
    made.close()


def one_line(output: str) -> str:
    return " ".join(output.split())


def test_a_second_run_is_refused_and_goes_on_when_the_first_has_ended(deployment: Deployment) -> None:
    first = deployment.working()
    held = deployment.content()
    assert (held["pid"], held["what"], held["released"]) == (first.pid, "deploy.yml", "")
    change = {"ansible.builtin.copy": {"content": "x", "dest": str(deployment.lock.with_name("changed"))}}
    status, output = deployment.run(deployment.ask(), change, name="teardown.yml")
    assert status == 2
    since = held["since"].partition("T")[2].partition("+")[0]
    who = f"deploy.yml, run by {held['who']} from {platform.node()} (process {first.pid} there), since {since} UTC ("
    assert f"The deployment tp16 is in use: {who}" in one_line(output)
    assert f"converge_break_lock={held['run']}" in output
    assert not deployment.lock.with_name("changed").exists()
    assert deployment.content() == held

    deployment.end.touch()
    assert first.wait() == 0
    status, output = deployment.run(deployment.ask(), change)
    assert status == 0, output
    assert "taken over" not in output
    assert deployment.content()["serial"] > held["serial"]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_after_a_kill_ctrl_c_or_a_lost_terminal_the_next_run_goes_on_at_once(
    by: signal.Signals, deployment: Deployment
) -> None:
    first = deployment.working()
    status, output = deployment.run(deployment.ask())
    assert status == 2, output
    first.send_signal(by)
    assert first.wait() != 0
    assert not deployment.content()["released"]
    status, output = deployment.run(deployment.ask(), deployment.ask("released"))
    assert status == 0, output
    told = f"the lock was taken over from a run that has not released it: deploy.yml, run by {account()} from "
    assert told in one_line(output).replace(f"{os.environ.get('SUDO_USER', '')} as ", "")
    assert "its process on this control node has ended" in one_line(output)


def test_all_workers_of_a_run_have_the_one_lock(deployment: Deployment) -> None:
    look = {**deployment.ask("seen"), "register": "look"}
    expected = deployment.ask(expected_serial="{{ look.serial }}")
    status, output = deployment.run(look, expected, deployment.ask("kept"), deployment.ask("released"), hosts="a,b,c,d")
    assert status == 0, output
    assert output.count("changed=0") == 4
    assert deployment.content()["released"]


def test_a_run_from_elsewhere_that_is_known_to_be_dead_is_broken_by_its_name_only(deployment: Deployment) -> None:
    deployment.run(deployment.ask())
    deployment.change(control="laptop9", machine="another", who="bob", run="bobs-run")
    status, output = deployment.run(deployment.ask(break_run="alices-run"))
    assert status == 2
    assert "run by bob from laptop9" in one_line(output)
    assert "converge_break_lock is alices-run, but the lock is now that of bobs-run" in one_line(output)
    status, output = deployment.run(deployment.ask(break_run="bobs-run"))
    assert status == 0
    assert "run by bob from laptop9" in one_line(output)
    assert "its run was declared dead" in one_line(output)


def test_a_run_that_lost_the_lock_stops_at_its_next_step(deployment: Deployment) -> None:
    first = deployment.start(
        deployment.ask(), deployment.until_end(), deployment.ask("kept"), {"ansible.builtin.ping": {}}
    )
    while not deployment.lock.exists():
        assert first.poll() is None
        time.sleep(0.05)
    assert deployment.run(deployment.ask(break_run=deployment.content()["run"]), name="other.yml")[0] == 0
    deployment.end.touch()
    assert first.wait() == 2
    output = (deployment.lock.parents[1] / "0.log").read_text(encoding="utf-8")
    assert "This run no longer has the lock of the deployment tp16: it was taken over by other.yml" in one_line(output)
    assert "ansible.builtin.ping" not in output


def test_a_run_between_look_and_lock_is_told(deployment: Deployment) -> None:
    deployment.run(deployment.ask(), deployment.ask("released"), name="other.yml")
    status, output = deployment.run(deployment.ask(expected_serial=0))
    assert status == 2
    assert "Another run was at the deployment tp16 after this one had looked at its hosts" in one_line(output)
    assert "other.yml, run by" in output


def test_check_mode_tells_and_changes_nothing(deployment: Deployment) -> None:
    every = [deployment.ask(state) for state in ("seen", "taken", "kept", "released")]
    assert deployment.run(*every, flags="--check")[0] == 0
    assert not deployment.lock.parent.exists()
    deployment.run(deployment.ask())
    look = {**deployment.ask("seen"), "register": "look"}
    refused = {"ansible.builtin.assert": {"that": "look.refused == '' and look.serial > 0 and not look.held"}}
    assert deployment.run(look, refused)[0] == 0  # of a run that has ended
    deployment.change(machine="another")
    refused = {"ansible.builtin.assert": {"that": "look.refused == 'held' and look.serial == -1"}}
    status, output = deployment.run(look, refused)
    assert status == 0, output
    before = deployment.lock.read_bytes()
    status, output = deployment.run(*every, flags="--check")
    assert status == 0, output
    assert "a run would be refused now: The deployment tp16 is in use" in one_line(output)
    assert deployment.lock.read_bytes() == before


def test_what_is_no_lock_is_put_aside_and_told(deployment: Deployment) -> None:
    deployment.lock.parent.mkdir()
    deployment.lock.write_text("{", encoding="utf-8")
    status, output = deployment.run(deployment.ask())
    assert status == 0
    assert f"wasputasideas{deployment.lock}.broken" in "".join(output.split())  # 2.16 breaks lines within words
    assert Path(f"{deployment.lock}.broken").read_text(encoding="utf-8") == "{"


def test_a_task_can_say_neither_who_it_is_nor_who_has_ended(deployment: Deployment) -> None:
    wrong: list[dict[str, Any]] = [{"me": {}}, {"gone": "x"}, {"lease_s": 0}]
    for option in wrong:
        assert deployment.run(deployment.ask(**option))[0] == 2
    assert not deployment.lock.exists()


def test_a_file_that_cannot_be_used_is_named(deployment: Deployment) -> None:
    deployment.lock.mkdir(parents=True)
    status, output = deployment.run(deployment.ask())
    assert status == 2
    assert f"The lock {deployment.lock} could not be used: [Errno 21] Is a directory" in one_line(output)
