# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real HAProxy with the files that a plan's gateway has, on ports and in a folder of a test's own."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import GatewayError, state_of
from ansible_collections.lmfleet.lmdeploy.plugins.modules.gateway import Gateway
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.certificate import self_signed
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.config import description, files_of, keys_map
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import GATEWAY_FILES, GATEWAY_RUN, Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.steps import mark_of

from .packages import program
from .plans import nodes, plan_of

KEYS = {"batch": "b" * 40, "chat": "c" * 40}
TAKEN = "cannot bind socket (Address already in use)"
DEADLINE_S = 60  # nothing here measures time


def gateway_plan(urls: Sequence[str], **variables: Any) -> Plan:
    """A plan with a gateway before these URLs, in the place of its endpoints': one TP engine on each of as many nodes."""
    group = {f"r{n}": [f"node{n}"] for n in range(len(urls))}
    planned = plan_of(
        nodes(
            len(urls),
            plan_replicas=list(group),
            plan_gateway=True,
            plan_gateway_keys=KEYS,
            **{"plan_gateway_tls": False, **variables},
        ),
        groups=group,
    )
    endpoints = [dataclasses.replace(each, url=url) for each, url in zip(planned.endpoints, urls)]
    return dataclasses.replace(planned, endpoints=endpoints)


class HAProxy:
    """One that runs; ``url`` is where clients ask."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], port: int, *, tls: bool) -> None:
        self.folder, self.port = folder, port
        self.socket = str(folder / "run" / "admin.sock")
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._process = process

    @property
    def pid(self) -> int:
        """Its first process, which has made the one that works."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written."""
        return (self.folder / "haproxy.log").read_text(encoding="utf-8")

    def reload(self, described: str) -> None:
        """Have it read its files, by the module's own code: what that uses of a container is ``kill`` and ``logs``."""
        Gateway(self.socket, self, described, DEADLINE_S).reload()

    def end(self) -> None:
        """Have it end."""
        self._process.terminate()
        self._process.wait()

    def kill(self, signal: str) -> None:
        """As a container of Docker's."""
        self._process.send_signal(Signals[signal])

    def logs(self, tail: int) -> bytes:
        """Likewise."""
        return "\n".join(self.log.splitlines()[-tail:]).encode()

    def until(self, what: str, found: Any) -> None:
        """Wait until ``found(state)`` is true."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                state: Any = state_of(self.socket)
                if found(state):
                    return
            except GatewayError as error:
                state = error
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, f"never: {what}; {state}\n{self.log}"
            time.sleep(0.1)


def write_files(plan: Plan, folder: Path, port: int, keys: Mapping[str, str] | None = None) -> str:
    """What ``place`` would write, with paths and ports of the test's own; what HAProxy says of itself once it has read it."""
    gateway = plan.gateway
    assert gateway
    files, run = folder / "files", folder / "run"
    files.mkdir(exist_ok=True)
    run.mkdir(exist_ok=True)
    secrets = {"keys.map": keys_map(KEYS if keys is None else keys)}
    if gateway.tls:
        kept = files / "certificate.pem"
        secrets["certificate.pem"] = kept.read_text() if kept.exists() else self_signed("test", "127.0.0.1")
    marks = {name: mark_of(text) for name, text in secrets.items()}
    for name, text in {**secrets, **files_of(plan, gateway, marks)}.items():
        own = text.replace(GATEWAY_FILES, str(files)).replace(GATEWAY_RUN, str(run))
        own = own.replace(f"bind :{plan.ports.gateway}", f"bind 127.0.0.1:{port}")
        address = plan.node(gateway.node).address
        own = own.replace(f"bind {address}:{plan.ports.gateway_metrics}", f"bind 127.0.0.1:{port + 1}")
        (files / name).write_text(own)
    return description(plan, gateway, marks)


def free_ports() -> int:
    """The first of two ports that nobody has."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + 1)):
                return port


@contextmanager
def running(plan: Plan, folder: Path) -> Iterator[HAProxy]:
    """One that runs for a plan, and has read its files."""
    found = start(plan, folder)
    while found is None:
        found = start(plan, folder)
    try:
        yield found
    finally:
        found.end()


def start(plan: Plan, folder: Path) -> HAProxy | None:
    """Start it, until it has read its files; None where somebody else has taken a port that was free a moment ago."""
    port = free_ports()
    expected = write_files(plan, folder, port)
    with (folder / "haproxy.log").open("wb") as log:
        words = [program("haproxy"), "-W", "-db", "-f", str(folder / "files" / "haproxy.cfg")]
        process = subprocess.Popen(words, stdout=log, stderr=log)
    found = HAProxy(folder, process, port, tls=bool(plan.gateway and plan.gateway.tls))
    try:
        found.until("it has read its files", lambda state: state["description"] == expected)
    except BaseException:
        found.end()
        if TAKEN in found.log:
            return None
        raise
    return found
