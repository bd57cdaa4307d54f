# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines come back by themselves: what is struck under a steady load, how long tokens stay away, and that no person is needed.

Each test prints a row of docs/reliability.md, and adds it to the file that LMFLEET_RELIABILITY names.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet
from sandbox.faults import (
    API_SERVER,
    EITHER,
    ENGINE,
    LIVES,
    PROXY_SERVER,
    STARTS,
    Strike,
    Trial,
    comes_back,
    cut,
    docker_restarted,
    freeze,
    kill,
    reboot,
    told,
    wait,
    while_loading,
)
from sandbox.hosts import GPUS, PROXY, RANKS, URL, Sandbox

WORKER = "ray::RayWorkerWrapper"


def engine_of(rank: int) -> str:
    """The process of a rank that has its server, and its engine's process as a child."""
    return f"rank.py --engine {rank} "


def marked(names: Iterable[str], but: str) -> list[ParameterSet]:
    """The names of faults, all but one of which are for ``scripts/test --faults`` alone."""
    return [pytest.param(name, marks=[] if name == but else [pytest.mark.faults]) for name in names]


# By the fault's name: the strike, and what becomes of the engine.
TP: dict[str, tuple[Strike, str]] = {
    "a Ray worker, kill -9": (kill(1, WORKER), STARTS),
    "the api_server, kill -9": (kill(0, API_SERVER), STARTS),
    "the engine's process, kill -9": (kill(0, "-x", ENGINE), STARTS),
    "the worker's raylet, kill -9": (kill(1, "raylet/raylet"), STARTS),
    "the GCS, kill -9": (kill(0, "gcs_server"), STARTS),
    "the api_server, kill -9, and again while it loads": (
        while_loading(0, kill(0, API_SERVER), kill(0, API_SERVER)),
        STARTS,
    ),
    "the api_server hangs (SIGSTOP)": (freeze(0, API_SERVER), STARTS),
    "the engine's process hangs (SIGSTOP)": (freeze(0, "-x", ENGINE), STARTS),
    "a Ray worker hangs (SIGSTOP)": (freeze(1, "-o", "-f", WORKER), STARTS),
    "the worker's Docker engine, restarted": (docker_restarted(1), STARTS),
    "the head's Docker engine, restarted": (docker_restarted(0), STARTS),
    "the worker's host, off and on": (reboot(1), STARTS),
    "the head's host, off and on": (reboot(0), STARTS),
    "all hosts, off and on": (reboot(0, 1), STARTS),
    "the worker's host, cut off the network for 10 s": (cut(1, 10), EITHER),
    "the worker's host, cut off the network for 60 s": (cut(1, 60), EITHER),
}


# One of them is in every run of scripts/test.
@pytest.mark.parametrize("name", marked(TP, "the api_server, kill -9"))
def test_a_tp_engine_comes_back(deployed: Sandbox, name: str) -> None:
    comes_back(Trial(deployed, name, [URL]), *TP[name])


@pytest.mark.slow
def test_a_status_tells_how_often_and_why_an_engine_was_started_again(deployed: Sandbox) -> None:
    name = "the api_server, kill -9"
    comes_back(Trial(deployed, name, [URL]), *TP[name])
    deployed.playbook("playbooks/status.yml").succeeded().says("was started again", "ended with signal SIGKILL")
    before = deployed.containers()
    deployed.deploy().succeeded()
    assert deployed.containers() == before  # it serves, and is left alone


@pytest.mark.slow
def test_an_engine_that_crashes_at_every_start_stays_down_and_says_so(deployed: Sandbox) -> None:
    """Its model is gone, as where a file system was not mounted after a reboot."""
    deployed.deploy(plan_restarts=2).succeeded()
    hub = "/srv/huggingface/hub"
    for node in deployed.nodes:
        deployed.on(node, "mv", hub, f"{hub}.away")
    try:
        kill(0, API_SERVER)(deployed)
        wait(
            lambda: "Exited (0)" in deployed.on(0, "docker", "ps", "-a", "--filter", "name=lmdeploy-api"),
            lambda: told({}, deployed),
        )
        log = deployed.on(0, "docker", "logs", "--tail", "3", "lmdeploy-api")
        status = deployed.playbook("playbooks/status.yml", plan_restarts=2)
    finally:
        for node in deployed.nodes:
            deployed.on(node, "mv", f"{hub}.away", hub)
    assert "GAVE UP: 2 starts in a row gave no token" in log
    status.says("GAVE UP: 2 starts in a row gave no token")
    run = deployed.deploy(plan_restarts=2).succeeded()
    run.says("lmdeploy-api: it gave up: 2 starts in a row gave no token")


DP: dict[str, tuple[Strike, str]] = {
    "a rank's engine, kill -9": (kill(1, engine_of(GPUS)), STARTS),
    "a rank's program, kill -9": (kill(2, r"-u /opt/lmfleet/rank.py --first-rank"), STARTS),
    "a torchrun agent, kill -9": (kill(1, "bin/torchrun --nnodes"), STARTS),
    "a rank's engine, kill -9, and another host's while all load": (
        while_loading(2, kill(1, engine_of(GPUS)), kill(2, engine_of(2 * GPUS))),
        STARTS,
    ),
    "a rank's server hangs (SIGSTOP)": (freeze(1, engine_of(GPUS)), STARTS),
    "a rank's engine hangs (SIGSTOP)": (freeze(1, "-o", "-x", ENGINE), STARTS),
    "a worker's host, off and on": (reboot(3), STARTS),
    "the head's host, off and on": (reboot(0), STARTS),
    "all hosts, off and on": (reboot(0, 1, 2, 3), STARTS),
    "a worker's host, cut off the network for 10 s": (cut(1, 10), EITHER),
    "a worker's host, cut off the network for 60 s": (cut(1, 60), EITHER),
}


@pytest.mark.slow
@pytest.mark.dpep
@pytest.mark.parametrize("name", marked(DP, "a rank's engine, kill -9"))
def test_a_group_of_ranks_comes_back(ranks: Sandbox, name: str) -> None:
    comes_back(Trial(ranks, name, RANKS, proxy=PROXY), *DP[name])


@pytest.mark.faults
@pytest.mark.dpep
def test_a_proxy_that_was_killed_comes_back_with_its_list_and_no_rank_is_touched(ranks: Sandbox) -> None:
    comes_back(Trial(ranks, "the proxy, kill -9", [], spared=RANKS, proxy=PROXY), kill(0, PROXY_SERVER), LIVES)
