# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd


@pytest.fixture
def dockerd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    """A stand-in for dockerd where the Docker SDK looks for the real one."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Dockerd(Path(folder) / "s") as daemon,
    ):  # a socket's path has 107 bytes
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        yield daemon


@pytest.fixture
def sdk_leaks() -> Iterator[None]:
    """Have what the SDK leaves to the garbage collector collected here, and not in some other test.

    It leaves sockets that it could not connect, and those of exec.
    """
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    gc.collect()
