# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts whose Docker is set up in a way that will not do: refused by name, with the setting, before anything is started."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox.hosts import URL, Sandbox

HOOK = "/usr/local/bin/nvidia-container-runtime-hook"
CONFIGURATION = "/etc/docker/daemon.json"
OTHER_NETWORK = "lmfleet-sandbox-other"
WHERE = "node1 (10.77.0.12): Docker "
# Its entrypoint starts it again; the file of its pid is not reliable while it ends.
RESTART = """
old=$(cat /run/docker.pid)
kill "$old"
for n in $(seq 240); do
  [ -e "/proc/$old" ] || break
  sleep 0.25
done
[ ! -e "/proc/$old" ] || { echo "dockerd $old does not end" >&2; exit 1; }
for n in $(seq 120); do
  new=$(cat /run/docker.pid 2>/dev/null)
  if [ -n "$new" ] && [ "$new" != "$old" ] && docker version >/dev/null 2>&1; then exit 0; fi
  sleep 0.5
done
echo "dockerd did not start again" >&2
exit 1
"""


@contextlib.contextmanager
def changed_docker(sandbox: Sandbox, before: str, after: str) -> Iterator[None]:
    """node1's Docker, started again after a change by a line of shell, which another line takes back."""
    sandbox.on(1, "sh", "-ec", f"mkdir -p /etc/docker; {before}")
    try:
        sandbox.on(1, "sh", "-c", RESTART)
        yield
    finally:
        sandbox.on(1, "sh", "-ec", after)
        sandbox.on(1, "sh", "-c", RESTART)
        sandbox.on(1, "wait-ready")


@contextlib.contextmanager
def configured(sandbox: Sandbox, **settings: Any) -> Iterator[None]:
    """node1's Docker with a daemon.json."""
    text = json.dumps(settings)
    with changed_docker(sandbox, f"echo '{text}' >{CONFIGURATION}", f"rm -f {CONFIGURATION}"):
        yield


def test_a_log_driver_that_docker_cannot_read_back_is_refused(sandbox: Sandbox) -> None:
    with configured(sandbox, **{"log-driver": "none"}):
        run = sandbox.deploy()
        run.failed_with(f"{WHERE}logs with the driver none,", "cannot read such logs back", CONFIGURATION, "json-file")
    assert "node0 (10.77.0.11)" not in run.text
    print(f"told after {run.seconds:.0f} s")


@pytest.mark.slow
def test_a_log_driver_whose_copy_is_switched_off_is_refused(sandbox: Sandbox) -> None:
    options = {"cache-disabled": "true", "syslog-address": "udp://127.0.0.1:5140"}
    with configured(sandbox, **{"log-driver": "syslog", "log-opts": options}):
        run = sandbox.deploy()
        run.failed_with(f"{WHERE}logs with the driver syslog and cache-disabled,", CONFIGURATION, "log-opts")


@pytest.mark.slow
def test_logs_that_docker_keeps_a_copy_of_will_do(sandbox: Sandbox) -> None:
    options = {"syslog-address": "udp://127.0.0.1:5140"}
    with configured(sandbox, **{"log-driver": "syslog", "log-opts": options}):
        run = sandbox.deploy("--check")
    assert "logs with the driver" not in run.text


def test_mapped_users_are_refused(sandbox: Sandbox) -> None:
    with configured(sandbox, **{"userns-remap": "default"}):
        run = sandbox.deploy()
        run.failed_with(f"{WHERE}maps users (userns-remap)", CONFIGURATION, "systemctl restart docker")


def test_a_host_whose_docker_has_no_gpu_runtime_is_refused(sandbox: Sandbox) -> None:
    with changed_docker(sandbox, f"mv {HOOK} {HOOK}.away", f"mv {HOOK}.away {HOOK}"):
        run = sandbox.deploy()
        run.failed_with(
            f"{WHERE}has no GPU runtime",
            'could not select device driver "" with capabilities: [[gpu]]',
            "nvidia-container-toolkit",
        )
    assert "node0 (10.77.0.11)" not in run.text


@pytest.mark.slow
def test_what_docker_says_itself_when_it_does_not_start_a_container_is_told_with_the_remedy(sandbox: Sandbox) -> None:
    """A runtime that looks as if it were there; Docker runs it for each container."""
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    sandbox.on(1, "sh", "-ec", f"mv {HOOK} {HOOK}.away; ln -s /nowhere {HOOK}")
    try:
        run = sandbox.deploy()
    finally:
        sandbox.on(1, "mv", f"{HOOK}.away", HOOK)
    run.failed_with(
        "node1 (10.77.0.12): start lmdeploy-ray failed:",
        "nvidia-container-runtime-hook",
        "Remedy: install nvidia-container-toolkit",
    )


@pytest.fixture
def two_networks(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Every host has a second network, and its default route there."""
    sandbox.outer("network", "create", "--subnet", "10.79.0.0/24", OTHER_NETWORK)
    try:
        for node in sandbox.nodes:
            sandbox.outer(
                "network", "connect", "--ip", f"10.79.0.{11 + node}", OTHER_NETWORK, f"lmfleet-sandbox-node{node}"
            )
            sandbox.on(node, "ip", "route", "replace", "default", "via", "10.79.0.1")
        yield sandbox
    finally:
        for node in sandbox.nodes:
            sandbox.on(node, "ip", "route", "replace", "default", "via", "10.77.0.1")
            sandbox.outer("network", "disconnect", OTHER_NETWORK, f"lmfleet-sandbox-node{node}")
        sandbox.outer("network", "rm", OTHER_NETWORK)


@pytest.mark.slow
def test_the_default_route_on_another_network_is_no_hindrance_to_tp(two_networks: Sandbox) -> None:
    two_networks.playbook("playbooks/teardown.yml").succeeded()
    run = two_networks.deploy().succeeded()
    assert f"READY {URL}" in run.output
    assert two_networks.chat()["usage"]["completion_tokens"] == 8
