# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: the sandbox, and a deployment on it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox.hosts import PRIVATE_REGISTRY, REGISTRY_PASSWORD, Sandbox
from sandbox.replicas import Replicas, deployed_replicas

CONTAINER = "lmfleet-sandbox-private-registry"
# What a shell has in the background ignores Ctrl-C, and so would the runs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The sandbox, which has to be up."""
    return Sandbox()


@pytest.fixture(scope="session")
def dpep() -> Sandbox:
    """Four hosts for DP+EP, which have to be up, with no deployment of TP on them."""
    return Sandbox("dpep", nodes=4)


@pytest.fixture
def ranks(dpep: Sandbox) -> Sandbox:
    """A converged deployment of DP+EP."""
    dpep.deploy().succeeded()
    return dpep


@pytest.fixture
def deployed(sandbox: Sandbox) -> Sandbox:
    """A converged deployment; what a test leaves behind is for the next test's deployment to mend."""
    sandbox.deploy().succeeded()
    return sandbox


@pytest.fixture
def serving(sandbox: Sandbox) -> Sandbox:
    """A deployment that serves, with whatever options the test before has left it: one start less than a converged one."""
    try:
        sandbox.chat()
    except OSError:
        sandbox.deploy().succeeded()
    return sandbox


@pytest.fixture
def there(sandbox: Sandbox) -> Sandbox:
    """A deployment whose containers are there, however the test before has left them: for what forms it again, or never starts."""
    if not sandbox.containers():
        sandbox.deploy().succeeded()
    return sandbox


@pytest.fixture(scope="module")
def pair(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two replicas behind one proxy, for all tests of a module."""
    with deployed_replicas(sandbox, tmp_path_factory.mktemp("replicas") / "replicas.yml") as found:
        yield found


@pytest.fixture
def private_registry(sandbox: Sandbox, tmp_path: Path) -> Iterator[str]:
    """A registry with the same images that wants a login."""
    hashed = sandbox.on(
        0,
        "python3",
        "-W",
        "ignore",
        "-c",
        f"import crypt; print(crypt.crypt({REGISTRY_PASSWORD!r}, crypt.METHOD_BLOWFISH))",
    )
    accounts = tmp_path / "htpasswd"
    accounts.write_text(f"operator:{hashed}")
    settings = ["REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM=test", "REGISTRY_AUTH_HTPASSWD_PATH=/htpasswd"]
    volume = "lmfleet-sandbox-registry:/var/lib/docker-registry"
    create = ["create", "--name", CONTAINER, "--network", "lmfleet-sandbox", "--ip", "10.77.0.3", "--volume", volume]
    sandbox.outer(*create, *(word for each in settings for word in ("--env", each)), "lmfleet-sandbox-registry:latest")
    try:
        sandbox.outer("cp", str(accounts), f"{CONTAINER}:/htpasswd")
        sandbox.outer("start", CONTAINER)
        yield f"{PRIVATE_REGISTRY}/lmdeploy-test-engine:0.18.0"
    finally:
        sandbox.outer("rm", "--force", CONTAINER)
