# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two TP replicas behind one proxy, one of them struck: the other one serves on without one failed request.

That is asked for at its own URL. What clients see through LMDeploy's proxy, which goes on sending requests to the dead one, is
counted, and no more: see docs/reliability.md.
"""

from __future__ import annotations

import pytest
from sandbox.faults import (
    API_SERVER,
    LIVES,
    PROXY_SERVER,
    STARTS,
    Strike,
    Trial,
    comes_back,
    docker_kill,
    freeze,
    kill,
    needs_a_deploy,
    reboot,
)
from sandbox.hosts import PROXY, URL
from sandbox.replicas import OTHER, Replicas

pytestmark = pytest.mark.faults


@pytest.fixture
def replicas(pair: Replicas) -> Replicas:
    """Both of them up, whatever the test before has left."""
    pair.play("deploy").succeeded()
    return pair


STRUCK: dict[str, Strike] = {
    "a replica's api_server, kill -9": kill(1, API_SERVER),
    "a replica's api_server hangs (SIGSTOP)": freeze(1, API_SERVER),
    "a replica's host, off and on": reboot(1),
}


def trial(replicas: Replicas, fault: str, urls: list[str], spared: list[str]) -> Trial:
    return Trial(replicas.sandbox, fault, urls, spared=spared, proxy=PROXY, topology="replicas")


@pytest.mark.parametrize("name", STRUCK)
def test_the_other_replica_serves_on(replicas: Replicas, name: str) -> None:
    comes_back(trial(replicas, name, [OTHER], [URL]), STRUCK[name], STARTS)


def test_a_proxy_that_was_killed_comes_back_with_its_list(replicas: Replicas) -> None:
    comes_back(trial(replicas, "the proxy, kill -9", [], [URL, OTHER]), kill(0, PROXY_SERVER), LIVES)


def test_a_proxy_that_docker_killed_is_told_and_one_deploy_puts_it_back(replicas: Replicas) -> None:
    struck = trial(replicas, "docker kill of the proxy", [], [URL, OTHER])
    needs_a_deploy(
        struck,
        docker_kill(0, "lmdeploy-proxy"),
        lambda: any(not each.good for each in struck.seen[PROXY][-1:]),
        ["lmdeploy: degraded", "node0 lmdeploy-proxy exited (137)"],
        ["node0: replace lmdeploy-proxy: it has ended with exit code 137"],
        replicas.play,
    )
