# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both deployments from the artefact that Galaxy has, installed into an empty place, by full names."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from sandbox.hosts import ROOT, URL, Run, Sandbox

from ansible_collections.lmfleet.lmdeploy.tests.artefact import clean_environment, install

pytestmark = pytest.mark.slow
Play = Callable[[Sandbox, str], Run]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Runs a playbook of the installed collection from an empty directory, on the sandbox's inventory."""
    place = tmp_path_factory.mktemp("installed")
    install(place)

    def run(hosts: Sandbox, name: str) -> Run:
        environment = {
            **clean_environment(),
            "LMFLEET_SANDBOX_TOPOLOGY": hosts.topology,
            "LMFLEET_SANDBOX_NODES": str(len(hosts.nodes)),
            "ANSIBLE_COLLECTIONS_PATH": str(place),
            "ANSIBLE_PIPELINING": "1",
        }
        argv = ["ansible-playbook", "-i", str(ROOT / "inventory" / "sandbox"), f"lmfleet.lmdeploy.{name}"]
        began = time.monotonic()
        done = subprocess.run(
            argv, cwd=place, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        print(f"{name}: {time.monotonic() - began:.0f} s, exit code {done.returncode}")
        return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - began)

    return run


def none_changed(run: Run) -> None:
    assert set(run.succeeded().changed.values()) == {0}


def test_tp_is_deployed_from_it_and_the_checkout_finds_nothing_to_change(sandbox: Sandbox, play: Play) -> None:
    play(sandbox, "teardown").succeeded()
    assert f"READY {URL}" in play(sandbox, "deploy_tp16").succeeded().output
    none_changed(play(sandbox, "deploy_tp16"))
    none_changed(sandbox.deploy())


@pytest.mark.dpep
def test_dpep_is_deployed_from_it_and_the_checkout_finds_nothing_to_change(dpep: Sandbox, play: Play) -> None:
    play(dpep, "teardown").succeeded()
    assert "READY http://10.77.0.11:8000" in play(dpep, "deploy_dpep").succeeded().output
    none_changed(dpep.deploy())
