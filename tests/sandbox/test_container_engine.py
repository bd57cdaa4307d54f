# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's settings on hosts that have Docker: merged, reloaded, and restarted only where nobody's containers run.

A host's Docker is no service of systemd, and is started again when it ends (molecule/sandbox/host/entrypoint), so the commands
are signals. What installs packages is not tried here: the hosts have no package mirror.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox.hosts import Run, Sandbox

FILE = "/etc/docker/daemon.json"
IMAGE = "10.77.0.2:5000/lmdeploy-test-engine:0.18.0"
STRANGER = "lmfleet-test-stranger"
END = "p=$(cat /run/docker.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.2; done"
COMMANDS = {
    "container_engine_reload_command": "sh -c 'kill -HUP $(cat /run/docker.pid)'",
    "container_engine_restart_command": f"sh -c '{END}'",
}


class Engines:
    """The Docker engines of the hosts, and the playbook."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        # Where a machine gives nobody CAP_SYS_RESOURCE, no container could be given more than the host has.
        self._memlock = sandbox.on(0, "sh", "-c", "ulimit -H -l").strip() == "unlimited"

    def run(self, *arguments: str, **variables: Any) -> Run:
        given = {**COMMANDS, "container_engine_memlock": self._memlock, **variables}
        return self.sandbox.playbook("playbooks/container_engine.yml", *arguments, **given)

    def file(self, node: int) -> str:
        return self.sandbox.on(node, "sh", "-c", f"cat {FILE} 2>/dev/null || true")

    def processes(self) -> list[str]:
        return [self.sandbox.on(node, "cat", "/run/docker.pid") for node in self.sandbox.nodes]

    def write(self, content: dict[str, Any]) -> None:
        for node in self.sandbox.nodes:
            self.sandbox.on(node, "sh", "-c", f"mkdir -p /etc/docker; echo '{json.dumps(content)}' > {FILE}")


@pytest.fixture
def engines(sandbox: Sandbox) -> Iterator[Engines]:
    """Hosts on which nothing runs, and whose Docker has no settings; so they are left."""
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    try:
        yield Engines(sandbox)
    finally:
        for node in sandbox.nodes:
            sandbox.on(node, "sh", "-c", f"docker rm -f {STRANGER}; rm -f {FILE} {FILE}.*~; {END}")
            sandbox.on(node, "wait-ready")


@pytest.mark.slow
def test_an_idle_docker_is_set_up_and_restarted(engines: Engines) -> None:
    before = engines.processes()
    checked = engines.run("--check", "--diff").succeeded()
    assert all(checked.changed[f"node{node}"] for node in engines.sandbox.nodes)
    assert '"max-size": "100m"' in checked.output
    assert engines.file(0) == ""
    assert engines.processes() == before

    engines.run().succeeded()
    assert json.loads(engines.file(0))["log-opts"] == {"max-size": "100m", "max-file": "5"}
    assert all(old != new for old, new in zip(before, engines.processes()))
    log = engines.sandbox.on(
        0, "sh", "-c", f"docker create --name {STRANGER} {IMAGE} true && docker inspect {STRANGER}", limit_s=600
    )
    assert json.loads(log[log.index("[") :])[0]["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-file": "5", "max-size": "100m"},
    }

    after = engines.processes()
    assert set(engines.run().succeeded().changed.values()) == {0}
    assert set(engines.run("--check", "--diff").succeeded().changed.values()) == {0}
    assert engines.processes() == after


@pytest.mark.slow
def test_a_strangers_container_is_not_stopped_unasked(engines: Engines) -> None:
    on = engines.sandbox.on
    started = "docker inspect --format '{{.State.StartedAt}} {{.State.Running}}' " + STRANGER
    on(0, "docker", "run", "--detach", "--name", STRANGER, "--entrypoint", "sleep", IMAGE, "3600", limit_s=600)
    there, before = on(0, "sh", "-c", started), engines.processes()
    settings = {"debug": True}  # dockerd takes it over without a restart

    first = engines.run(container_engine_settings=settings).succeeded()
    assert f"it runs {STRANGER} (not of this collection)" in first.text
    assert "container_engine_restart=true" in first.text
    assert on(0, "docker", "info", "--format", "{{.Debug}}").strip() == "true"
    again = engines.run(container_engine_settings=settings).succeeded()
    assert set(again.changed.values()) == {0}
    assert f"it runs {STRANGER} (not of this collection)" in again.text  # said until it is done
    assert (on(0, "sh", "-c", started), engines.processes()[0]) == (there, before[0])
    assert engines.processes()[1] != before[1]  # where nothing runs

    engines.run(container_engine_settings=settings, container_engine_restart=True).succeeded()
    assert engines.processes()[0] != before[0]
    last = engines.run(container_engine_settings=settings).succeeded()
    assert "has to be restarted" not in last.text


@pytest.mark.slow
def test_what_the_user_has_set_otherwise_is_told_and_stays(engines: Engines) -> None:
    own = {"log-driver": "local", "shutdown-timeout": 20}
    engines.write(own)
    engines.run().failed_with("log-driver", "container_engine_overwrite")
    assert json.loads(engines.file(0)) == own
    engines.run(container_engine_overwrite=["log-driver"]).succeeded()
    merged = json.loads(engines.file(0))
    assert merged["log-driver"] == "json-file"
    assert merged["shutdown-timeout"] == 20
    assert engines.sandbox.on(0, "sh", "-c", f"cat {FILE}.*~").strip() == json.dumps(own)  # the backup
