# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the playbooks as a user would, against the sandbox's hosts, and looks at what the hosts then have.

The sandbox has to be up (playbooks/sandbox.yml); scripts/test brings it up. Traffic goes to its hosts only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GPUS = int(os.environ.get("LMFLEET_SANDBOX_GPUS", "2"))
# What the sandbox's inventory gives every engine: a variable more is given beside these.
SIM = {
    "LMFLEET_SIM_GPUS": str(GPUS),
    "LMFLEET_SIM_SHALLOW": os.environ.get("LMFLEET_SANDBOX_SHALLOW", "0"),
    "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": "0.05",
}
URL = "http://10.77.0.11:23333"
PROXY = "http://10.77.0.11:8000"
RANKS = [f"http://10.77.0.{11 + rank // GPUS}:{23333 + 10 * rank}" for rank in range(4 * GPUS)]
MODEL = "deepseek-ai/DeepSeek-V3"
# A registry that wants a login; conftest.py runs it.
PRIVATE_REGISTRY = "10.77.0.3:5000"
REGISTRY_PASSWORD = "correct-horse-battery"
# In one command for all; a container that ends in between is left out.
CONTAINERS = """
ids=$(docker ps --all --quiet) && { docker inspect --format '{{.Name}} {{.Id}} {{.State.StartedAt}}' $ids 2>/dev/null || true; }
"""
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclasses.dataclass
class Run:
    """What ansible-playbook printed, its exit code and how long it took."""

    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        return {host: int(changed) for host, __, changed, __, __ in RECAP.findall(self.output)}

    @property
    def text(self) -> str:
        """What a person reads: wrapped lines are one line."""
        return " ".join(self.output.split())

    def succeeded(self) -> Run:
        assert self.code == 0, self.output[-6000:]
        return self

    def failed_with(self, *words: str) -> Run:
        assert self.code != 0, self.output[-3000:]
        return self.says(*words)

    def says(self, *words: str) -> Run:
        for word in words:
            assert word in self.text, f"{word!r} is not in:\n{self.output[-6000:]}"
        return self


def _command(name: str, *arguments: str, **variables: Any) -> list[str]:
    given = ["-e", json.dumps(variables)] if variables else []
    return ["ansible-playbook", name, "-i", "inventory/sandbox", *arguments, *given]


class Begun:
    """A playbook that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._began = time.monotonic()
        self._printed = ""

    def until(self, seen: str) -> None:
        """Read its output up to a line that matches ``seen``."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._printed += line
            if re.search(seen, line):
                return
        raise AssertionError(f"it ended without a line of {seen!r}:\n{self._printed[-6000:]}")

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to the whole process group.

        Again where it does not end: Ansible's own queue may stay locked by a worker that the first one killed.
        """
        while self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                rest, __ = self._process.communicate(timeout=60)
                self._printed += rest

    def kill(self) -> None:
        """Kill it, with all that it started here."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.end()

    def end(self) -> Run:
        """Wait until it has ended."""
        rest, __ = self._process.communicate(timeout=600)
        return Run(self._process.returncode, self._printed + rest, time.monotonic() - self._began)


class Sandbox:
    """The hosts, by the numbers of their nodes, and what is deployed on them: ``tp`` or ``dpep``."""

    def __init__(self, topology: str = "tp", nodes: int = 2) -> None:
        self.nodes = range(nodes)
        self.topology = topology
        self._deploy = {"tp": "deploy_tp16.yml", "dpep": "deploy_dpep.yml"}[topology]
        self.environment = {
            **os.environ,
            "LMFLEET_SANDBOX_TOPOLOGY": topology,
            "LMFLEET_SANDBOX_NODES": str(nodes),
        }

    def playbook(self, name: str, *arguments: str, **variables: Any) -> Run:
        """Run a playbook from the root of the checkout."""
        began = time.monotonic()
        done = subprocess.run(
            _command(name, *arguments, **variables),
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )
        return Run(done.returncode, done.stdout, time.monotonic() - began)

    def begin(self, name: str = "", **variables: Any) -> Begun:
        """Begin a run of a playbook, the deployment's by default, beside what the test does meanwhile."""
        command = _command(name or self._deploy, **variables)
        return Begun(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )

    def deploy(self, *arguments: str, **variables: Any) -> Run:
        """``deploy_tp16.yml`` or ``deploy_dpep.yml``, as typed."""
        return self.playbook(self._deploy, *arguments, **variables)

    def outer(self, *command: str, limit_s: float = 120) -> str:
        """A docker command on the engine that runs the hosts."""
        return subprocess.run(["docker", *command], check=True, capture_output=True, text=True, timeout=limit_s).stdout

    def on(self, node: int, *command: str, limit_s: float = 120) -> str:
        """A command on a host; its output."""
        return self.outer("exec", f"lmfleet-sandbox-node{node}", *command, limit_s=limit_s)

    def containers(self) -> dict[str, tuple[str, str]]:
        """``node0/lmdeploy-ray`` -> id and start time of every container on every host."""
        found = {}
        for node in self.nodes:
            for line in self.on(node, "sh", "-c", CONTAINERS).splitlines():
                name, identity, started = line.split()
                found[f"node{node}{name}"] = (identity, started)
        return found

    def power(self, node: int, *, on: bool) -> None:
        """Switch a host off, or on again."""
        name = f"lmfleet-sandbox-node{node}"
        if on:
            self.outer("start", name)
            self.outer("exec", name, "wait-ready")
        else:
            self.outer("kill", name)

    def chat(self, max_tokens: int = 8, timeout: float = 60) -> dict[str, Any]:
        """One chat completion."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": max_tokens}
        request = urllib.request.Request(
            f"{URL}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=timeout) as answer:
            result: dict[str, Any] = json.load(answer)
        return result
