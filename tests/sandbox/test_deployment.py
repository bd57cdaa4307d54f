# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the deployment promises, on real hosts: real SSH, Docker, Ray and LMDeploy."""

from __future__ import annotations

import concurrent.futures
import datetime
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from sandbox.hosts import GPUS, SIM, URL, Sandbox

API, HEAD, WORKER = "node0/lmdeploy-api", "node0/lmdeploy-ray", "node1/lmdeploy-ray"


@pytest.mark.slow
def test_a_second_run_changes_nothing(deployed: Sandbox) -> None:
    before = deployed.containers()
    assert set(before) == {API, HEAD, WORKER}
    run = deployed.deploy().succeeded()
    assert set(run.changed.values()) == {0}
    assert deployed.containers() == before
    check = deployed.deploy("--check", "--diff").succeeded()
    assert set(check.changed.values()) == {0}


def test_a_missing_shard_stops_the_play_before_anything_starts(sandbox: Sandbox) -> None:
    shard = sandbox.on(1, "sh", "-c", "ls /srv/huggingface/hub/*/snapshots/*/model-00002*").strip()
    sandbox.on(1, "mv", shard, "/tmp/shard")
    try:
        run = sandbox.deploy()
    finally:
        sandbox.on(1, "mv", "/tmp/shard", shard)
    run.failed_with("node1", "model-00002")


@pytest.mark.slow
def test_one_option_replaces_the_api_and_nothing_else(deployed: Sandbox) -> None:
    before = deployed.containers()
    run = deployed.deploy("--diff", plan_api_server_options={"max_batch_size": 2}).succeeded()
    after = deployed.containers()
    assert {name for name in after if after[name] != before[name]} == {API}
    assert (run.changed["node0"], run.changed["node1"]) == (2, 0)  # taken down, and started
    assert "node0: replace lmdeploy-api: it is to change: command with --max-batch-size 2" in run.text
    assert "lmdeploy serves now, and answers nothing while it is started again; its last start took" in run.text


@pytest.mark.slow
def test_a_busy_engine_is_left_alone(sandbox: Sandbox) -> None:
    """All slots taken by long requests: two run, the others wait."""
    slots = {"plan_api_server_options": {"max_batch_size": 2}}
    sandbox.deploy(**slots).succeeded()
    before = sandbox.containers()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        long = [pool.submit(sandbox.chat, 4000, 400) for __ in range(6)]
        time.sleep(3)
        run = sandbox.deploy(**slots).succeeded()
        assert not any(request.done() for request in long), "the engine was not busy for all of the run"
        assert set(run.changed.values()) == {0}
        assert sandbox.containers() == before
        sandbox.on(0, "docker", "kill", "lmdeploy-api")  # ends the long requests


@pytest.mark.slow
def test_a_worker_container_removed_by_hand_comes_back_with_its_group(there: Sandbox) -> None:
    before = there.containers()
    there.on(1, "docker", "rm", "--force", "lmdeploy-ray")
    run = there.deploy().succeeded()
    after = there.containers()
    assert set(after) == {API, HEAD, WORKER}
    assert {name for name in after if after[name] != before[name]} == {API, HEAD, WORKER}
    assert "node0: replace lmdeploy-api: lmdeploy-ray on node1 does not exist" in run.text
    assert run.changed["node1"] == 1  # started; there was nothing to take down
    assert there.chat()["usage"]["completion_tokens"] == 8


ALONE = {
    "plan_restarts": 0
}  # nothing starts an engine again by itself; that it does otherwise is shown in test_healing.py


def a_dead_engine_alone_is_replaced(sandbox: Sandbox, before: dict[str, tuple[str, str]]) -> None:
    run = sandbox.deploy(**ALONE).succeeded()
    assert f"node0: replace lmdeploy-api: {URL} is dead though its container runs" in run.text
    after = sandbox.containers()
    assert {name for name in after if after[name] != before[name]} == {API}
    assert sandbox.chat()["usage"]["completion_tokens"] == 8


@pytest.mark.slow
def test_a_killed_ray_worker_is_found_and_mended(deployed: Sandbox) -> None:
    deployed.deploy(**ALONE).succeeded()
    before = deployed.containers()
    deployed.on(1, "pkill", "-9", "-f", "ray::RayWorkerWrapper")
    with urllib.request.urlopen(f"{URL}/health", timeout=10) as health:
        assert health.status == 200, "LMDeploy itself has noticed, so this proves nothing any more"
    warmup = deployed.playbook("playbooks/warmup.yml", **ALONE)
    warmup.failed_with("node0", URL, "dead", "deploy")
    a_dead_engine_alone_is_replaced(deployed, before)


@pytest.mark.slow
def test_a_worker_killed_under_load_ends_all_answers_until_the_engine_is_replaced(deployed: Sandbox) -> None:
    """Its request hangs, as on GPUs (docs/gpu.md), or gets 503 where Ray was asking just that worker."""
    deployed.deploy(**ALONE).succeeded()
    before = deployed.containers()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(deployed.chat, 4000, 20)
        time.sleep(3)
        deployed.on(1, "pkill", "-9", "-f", "ray::RayWorkerWrapper")
        error = running.exception()
    print(f"the request that was running: {error!r}")
    assert isinstance(error, TimeoutError) or (isinstance(error, urllib.error.HTTPError) and error.code >= 500)
    a_dead_engine_alone_is_replaced(deployed, before)


@pytest.mark.slow
def test_a_crash_at_load_fails_at_once_with_the_engines_own_error(deployed: Sandbox) -> None:
    began = time.time()
    run = deployed.deploy(plan_environment={**SIM, "LMFLEET_SIM_FAULTS": f"crash_at_load@{2 * GPUS - 1}"})
    run.failed_with(
        "node0 (10.77.0.11): lmdeploy-api",
        "RuntimeError: lmfleet simulator",
        "The failure is on node1",
    )
    finished = deployed.on(0, "docker", "inspect", "--format", "{{.State.FinishedAt}}", "lmdeploy-api").strip()
    ended = datetime.datetime.fromisoformat(f"{finished[:19]}+00:00").timestamp()
    print(f"the engine's container ended {began + run.seconds - ended:.0f} s before the play did")


@pytest.mark.slow
def test_an_engine_whose_start_was_lost_is_started_once_more_and_no_more(there: Sandbox) -> None:
    lost = "/var/lib/lmfleet/lmdeploy/cache/lmfleet-sim-lost-starts-0"
    there.on(0, "rm", "-f", lost)
    run = there.deploy(plan_environment={**SIM, "LMFLEET_SIM_FAULTS": "lose_start@0:3"})
    run.failed_with("node0 (10.77.0.11): lmdeploy-api", "EOFError", "a race at the start of LMDeploy 0.18")
    assert run.text.count("It is started once more.") == 1
    assert there.on(0, "cat", lost) == "2"
    before = there.containers()
    # The third start is lost too, the fourth is not.
    run = there.deploy(plan_environment={**SIM, "LMFLEET_SIM_FAULTS": "lose_start@0:3"}).succeeded()
    assert run.text.count("It is started once more.") == 1
    after = there.containers()
    assert {name for name in after if after[name] != before[name]} == {API}
    run = there.deploy(plan_environment={**SIM, "LMFLEET_SIM_FAULTS": "lose_start@0:3"}).succeeded()
    assert set(run.changed.values()) == {0}


@pytest.mark.slow
def test_a_blocked_way_to_rays_port_is_named(there: Sandbox) -> None:
    rule = ("OUTPUT", "-p", "tcp", "-d", "10.77.0.11", "--dport", "6379", "-j", "DROP")
    there.on(1, "docker", "rm", "--force", "lmdeploy-ray")
    there.on(1, "iptables", "-A", *rule)
    try:
        run = there.deploy(converge_try_links=False)  # else it is named before anything is started: test_links.py
    finally:
        there.on(1, "iptables", "-D", *rule)
    run.failed_with(
        "node1 (10.77.0.12) cannot reach Ray's head at 10.77.0.11:6379", f"Ray is missing node1 and its {GPUS} GPUs"
    )
    print(f"told after {run.seconds:.0f} s")


@pytest.mark.slow
def test_a_host_that_is_off_is_named(there: Sandbox) -> None:
    there.power(1, on=False)
    try:
        run = there.deploy()
    finally:
        there.power(1, on=True)
    run.failed_with(
        "node1 (10.77.0.12) cannot be reached", f"Ray would count 1 of 2 nodes and {GPUS} of {2 * GPUS} GPUs"
    )
    print(f"told after {run.seconds:.0f} s")


def test_a_container_of_somebody_else_is_left_alone(sandbox: Sandbox) -> None:
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    image = sandbox.on(0, "docker", "images", "--format", "{{.ID}}").split()[0]
    sandbox.on(0, "docker", "create", "--name", "lmdeploy-api", image, "true")
    try:
        run = sandbox.deploy()
        run.failed_with(
            "node0 (10.77.0.11)", "a container lmdeploy-api exists that the deployment lmdeploy did not make"
        )
        sandbox.playbook("playbooks/teardown.yml").succeeded()
        assert list(sandbox.containers()) == [API]
    finally:
        sandbox.on(0, "docker", "rm", "lmdeploy-api")


@pytest.mark.slow
def test_check_mode_on_an_empty_sandbox_tells_and_does_nothing(sandbox: Sandbox) -> None:
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    for node in (0, 1):
        sandbox.on(node, "sh", "-c", "docker image rm --force $(docker images --quiet) && rm -rf /var/lib/lmfleet")
    run = sandbox.deploy("--check", "--diff").succeeded()
    assert run.changed["node0"] > 0
    assert run.changed["node1"] > 0
    assert sandbox.containers() == {}
    for node in (0, 1):
        assert sandbox.on(node, "docker", "images", "--quiet") == ""
        assert "No such file" in sandbox.on(node, "sh", "-c", "ls /var/lib/lmfleet 2>&1 || true")
    sandbox.deploy().succeeded()


@pytest.mark.slow
def test_two_replicas_stand_behind_one_proxy(sandbox: Sandbox, tmp_path: Path) -> None:
    groups = tmp_path / "replicas.yml"
    groups.write_text("left: {hosts: {node0: {}}}\nright: {hosts: {node1: {}}}\n")
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    arguments, replicas = ("-i", str(groups)), ["left", "right"]
    try:
        run = sandbox.deploy(*arguments, plan_replicas=replicas).succeeded()
        assert "READY http://10.77.0.11:8000" in run.output
        before = sandbox.containers()
        assert set(before) == {HEAD, API, WORKER, "node1/lmdeploy-api", "node0/lmdeploy-proxy"}
        with urllib.request.urlopen("http://10.77.0.11:8000/nodes/status", timeout=10) as status:
            assert sorted(json.load(status)) == [URL, URL.replace(".11:", ".12:")]
        again = sandbox.deploy(*arguments, plan_replicas=replicas).succeeded()
        assert set(again.changed.values()) == {0}
        assert sandbox.containers() == before
        # One replica's engine dies: it is replaced, and the other one is left alone.
        sandbox.on(1, "pkill", "-9", "-f", "ray::RayWorkerWrapper")
        sandbox.deploy(*arguments, plan_replicas=replicas).succeeded()
        after = sandbox.containers()
        assert {name for name in after if after[name] != before[name]} == {"node1/lmdeploy-api"}
    finally:
        sandbox.playbook("playbooks/teardown.yml", *arguments).succeeded()


def services(sandbox: Sandbox) -> dict[str, tuple[str, str]]:
    """The containers of the deployment itself; a warm-up that the first run has begun meanwhile is none."""
    return {name: each for name, each in sandbox.containers().items() if "/lmdeploy-" in name}


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_is_refused_and_changes_nothing(serving: Sandbox) -> None:
    first = serving.begin(plan_api_server_options={"max_batch_size": 8})
    first.until(r"TASK .*Wait until the engine answers|s {2}node0: lmdeploy-api")
    before = services(serving)
    second = serving.deploy(plan_api_server_options={"max_batch_size": 4})
    second.failed_with("is in use", "deploy_tp16.yml", "last sign of life", "This run has changed nothing")
    assert services(serving) == before
    first.end().succeeded()
    assert set(serving.deploy(plan_api_server_options={"max_batch_size": 8}).succeeded().changed.values()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "size"),  # another size than the test before has left
    [
        (r"TASK .*Look at every host", 16),
        (r"TASK .*Take down what is replaced", 32),
        (r"s {2}node0: lmdeploy-api: connected to Ray", 16),
        (r"warm-up: ", 32),
    ],
    ids=["look", "start", "wait", "warm-up"],
)
def test_after_ctrl_c_the_next_run_goes_on_at_once(serving: Sandbox, phase: str, size: int) -> None:
    changed: dict[str, Any] = {"plan_api_server_options": {"max_batch_size": size}}
    run = serving.begin(**changed)
    run.until(phase)
    run.interrupt()
    serving.deploy(**changed).succeeded()
    assert serving.on(0, "docker", "ps", "--all", "--quiet", "--filter", "label=lmfleet.lmdeploy.job").strip() == ""
    assert set(serving.deploy(**changed).succeeded().changed.values()) == {0}


@pytest.mark.slow
def test_a_host_that_goes_away_after_the_look_ends_the_run_by_name(serving: Sandbox) -> None:
    run = serving.begin(plan_environment={**SIM, "LMFLEET_SIM_NOTHING": "1"})
    run.until(r"TASK .*Bring what the containers need")
    serving.power(1, on=False)
    try:
        ended = run.end()
    finally:
        serving.power(1, on=True)
    assert ended.code != 0
    assert "node1" in ended.text
    serving.deploy().succeeded()
