# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two TP replicas, left on node0 and right on node1, behind one proxy on node0."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.hosts import PROXY, URL, Run, Sandbox

OTHER = URL.replace(".11:", ".12:")
GROUPS = "left: {hosts: {node0: {}}}\nright: {hosts: {node1: {}}}\n"


def listed() -> dict[str, list[str]]:
    """What the proxy sends requests to: URL -> models."""
    with urllib.request.urlopen(f"{PROXY}/nodes/status", timeout=10) as status:
        return {url: each["models"] for url, each in json.load(status).items()}


class Replicas:
    """The two of them, and the playbooks on them."""

    def __init__(self, sandbox: Sandbox, groups: Path) -> None:
        self.sandbox, self.groups = sandbox, groups

    def play(self, name: str, *arguments: str, **variables: Any) -> Run:
        found = self.sandbox.playbook(
            f"playbooks/{name}.yml",
            *("-i", str(self.groups)),
            *arguments,
            plan_replicas=["left", "right"],
            **variables,
        )
        print(f"{name}: {found.seconds:.0f} s, exit code {found.code}")
        return found

    def batch_sizes(self) -> list[str]:
        """The option that upgrades change in the tests, of each engine that runs; empty where it is not given."""
        found = []
        for node in (0, 1):
            words = json.loads(
                self.sandbox.on(node, "docker", "inspect", "--format", "{{json .Config.Cmd}}", "lmdeploy-api")
            )
            found.append(words[words.index("--max-batch-size") + 1] if "--max-batch-size" in words else "")
        return found

    def serving(self) -> dict[str, Any]:
        """The variables of what serves, where both engines have the one option that tests change; else those of a first deploy."""
        try:
            (size,) = {size for size in self.batch_sizes() if size}
        except (ValueError, subprocess.CalledProcessError):
            return {}
        return option(int(size))

    def another(self) -> dict[str, Any]:
        """Variables of an upgrade: the option as no engine has it."""
        return option(next(size for size in (8, 4) if str(size) not in self.batch_sizes()))


def option(size: int) -> dict[str, Any]:
    """The variables that set the one option that tests change."""
    return {"plan_api_server_options": {"max_batch_size": size}}


@contextmanager
def deployed_replicas(sandbox: Sandbox, groups: Path) -> Iterator[Replicas]:
    """A fresh deployment of both, with ``groups`` as their part of the inventory; taken down at the end."""
    groups.write_text(GROUPS)
    found = Replicas(sandbox, groups)
    sandbox.playbook("playbooks/teardown.yml").succeeded()
    for node in (0, 1):  # what other tests deployed is not what these roll back to
        sandbox.on(node, "rm", "-f", "/var/lib/lmfleet/lmdeploy/record.json")
    try:
        found.play("deploy").succeeded()
        yield found
    finally:
        found.play("teardown").succeeded()
