# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that do not heal by themselves: what a person is told, and that one deploy puts all back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from sandbox.faults import (
    API_SERVER,
    EITHER,
    Trial,
    counts,
    cut_off,
    docker_kill,
    failed,
    is_steady,
    kill,
    ledger,
    log_since,
    needs_a_deploy,
    told,
    wait,
)
from sandbox.hosts import GPUS, PROXY, RANKS, URL, Run, Sandbox

pytestmark = pytest.mark.faults
STATE = "/var/lib/lmfleet"
ON_NODE1 = f"missing: the node (10.77.0.12, {GPUS} GPUs)"


def plays_of(hosts: Sandbox) -> Callable[[str], Run]:
    return lambda name: hosts.deploy() if name == "deploy" else hosts.playbook(f"playbooks/{name}.yml")


# ---- docker kill: Docker's own word that a container is to stay down

KILLED = {
    "docker kill of the api_server's container": (0, "lmdeploy-api", "node0: replace lmdeploy-api: it has ended"),
    "docker kill of Ray's head": (0, "lmdeploy-ray", "lmdeploy-ray on node0 has ended"),
    "docker kill of a Ray worker's container": (1, "lmdeploy-ray", "lmdeploy-ray on node1 has ended"),
}


@pytest.mark.parametrize("name", KILLED)
def test_a_container_of_tp_that_docker_killed_is_told_and_one_deploy_puts_all_back(
    deployed: Sandbox, name: str
) -> None:
    node, container, why = KILLED[name]
    trial = Trial(deployed, name, [URL])

    def is_down() -> bool:
        """Its engine is dead, was ended for that, and waits for the Ray that is gone."""
        if container == "lmdeploy-api":
            return bool(failed(trial.seen[URL], trial.done))
        return "waits for Ray" in log_since(deployed, 0, "lmdeploy-api", trial.struck)

    needs_a_deploy(
        trial,
        docker_kill(node, container),
        is_down,
        ["lmdeploy: down", f"node{node} {container} exited (137)"],
        [f"{why} with exit code 137"],
        plays_of(deployed),
    )


@pytest.mark.dpep
def test_ranks_that_docker_killed_are_told_and_one_deploy_puts_the_group_back(ranks: Sandbox) -> None:
    trial = Trial(ranks, "docker kill of a host's ranks", RANKS, proxy=PROXY)

    def all_are_down() -> bool:
        events = ledger(ranks, trial.struck)
        return all(any(each["event"] == "end" for each in events[f"node{node}"]) for node in (0, 2, 3))

    needs_a_deploy(
        trial,
        docker_kill(1, "lmdeploy-dp"),
        all_are_down,
        ["lmdeploy: down", "node1 lmdeploy-dp exited (137)"],
        ["lmdeploy-dp on node1 has ended with exit code 137"],
        plays_of(ranks),
    )


# ---- a host that is gone


def test_a_host_that_is_cut_off_for_good_is_named_and_the_engine_comes_back_with_it(deployed: Sandbox) -> None:
    trial = Trial(deployed, "the worker's host, cut off until somebody gives the network back", [URL])
    with trial.under_load():
        trial.struck = time.time()
        with cut_off(deployed, 1):
            wait(
                lambda: ON_NODE1 in log_since(deployed, 0, "lmdeploy-api", trial.struck),
                lambda: f"{log_since(deployed, 0, 'lmdeploy-api', trial.struck)[-2000:]}\n{told(trial.seen, deployed)}",
            )
            deployed.playbook("playbooks/status.yml").says("lmdeploy: down", "node1 (10.77.0.12) cannot be reached")
            deployed.deploy().failed_with(
                "node1 (10.77.0.12) cannot be reached", f"Ray would count 1 of 2 nodes and {GPUS} of {2 * GPUS} GPUs"
            )
        trial.struck = trial.done = time.time()  # from here on it heals
        trial.back(EITHER)
    trial.keep("the network; nothing else")


# ---- a full disk


@pytest.fixture
def small_disk(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A deployment whose head has its state, kernel caches and Ray's files on a small disk of their own."""
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    sandbox.on(0, "mkdir", "-p", STATE)
    sandbox.on(0, "mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", STATE)
    try:
        sandbox.deploy().succeeded()
        yield sandbox
    finally:
        sandbox.playbook("playbooks/teardown.yml")
        sandbox.on(0, "umount", "-l", STATE)


def fill(hosts: Sandbox) -> None:
    left = hosts.on(
        0, "sh", "-c", f"dd if=/dev/zero of={STATE}/fill bs=64k 2>/dev/null; df --output=avail {STATE} | tail -n 1"
    )
    assert int(left) == 0, f"{left} KiB are left on {STATE}"


def test_a_full_disk_ends_no_engine_and_one_that_cannot_start_on_it_says_so(small_disk: Sandbox) -> None:
    """What serves needs no disk. A start may, for Ray and the loader write: then it is down until there is space again.

    Where it gave up meanwhile, it comes with a deploy. Its ledger tells nothing of that: it is on that disk.
    """
    trial = Trial(small_disk, "the api_server, kill -9, with the disk of its state full", [URL])
    person = ""
    with trial.under_load():
        full = time.time()
        fill(small_disk)
        time.sleep(30)
        assert counts(failed(trial.seen[URL], full)) == {}
        trial.strike(kill(0, API_SERVER))

        def gave_up() -> bool:
            return "Exited (0)" in small_disk.on(0, "docker", "ps", "-a", "--filter", "name=lmdeploy-api")

        def serves() -> bool:
            asked = trial.seen[URL]
            return bool(failed(asked, trial.done)) and is_steady(asked, trial.done, time.time(), 10)

        ends = time.monotonic() + 300
        while time.monotonic() < ends and not (gave_up() or serves()):
            time.sleep(1)
        ended, served = gave_up(), serves()
        print(log_since(small_disk, 0, "lmdeploy-api", trial.struck)[-3000:])
        if not served:
            person = "some space"
            status = small_disk.playbook("playbooks/status.yml").says("lmdeploy: down")
            small_disk.playbook("playbooks/preflight.yml").says(f"{STATE} (plan_state_dir) has 0.0 GiB free")
        if ended:
            assert "GAVE UP" in log_since(small_disk, 0, "lmdeploy-api", trial.struck)
            status.says("node0 lmdeploy-api exited (0)")
        small_disk.on(0, "rm", f"{STATE}/fill")
        if ended:
            person = f"some space, and one deploy, {small_disk.deploy().succeeded().seconds:.0f} s"
        wait(
            serves, lambda: f"{told(trial.seen, small_disk)}\n{log_since(small_disk, 0, 'lmdeploy-api', full)[-3000:]}"
        )
    trial.keep(person)
