# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._events import last_events
from ansible_collections.lmfleet.lmdeploy.plugins.modules.client_job import (
    LABEL,
    OWNER,
    archive,
    configuration,
    own_container,
    start,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import program, source
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import API, Dockerd, container

events = st.builds(lambda kind, n: {"event": kind, "n": n}, st.sampled_from(["progress", "result"]), st.integers())
noise = st.text(alphabet=st.characters(exclude_characters="{"))


@given(st.lists(st.one_of(events, noise)), st.sampled_from(["\n", "\r\n"]))
def test_the_log_gives_the_last_of_each_kind_in_any_noise(lines: list[dict[str, Any] | str], end: str) -> None:
    log = end.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    last: dict[str, Any] = {line["event"]: line for line in lines if isinstance(line, dict)}
    assert last_events(log) == last


def test_the_container_gets_its_files_readable_by_root_alone() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive({"one.py": "pass\n", "config.json": '{"api_key": "hush"}'}))) as tar:
        files = {info.name: (info.mode, tar.extractfile(info).read().decode()) for info in tar}  # type: ignore[union-attr]
    assert files == {"lmfleet/one.py": (0o600, "pass\n"), "lmfleet/config.json": (0o600, '{"api_key": "hush"}')}


def test_what_is_hidden_is_in_the_clients_configuration_alone() -> None:
    options = {
        "config": {"repo": "a/b"},
        "api_key": "hush",
        "hidden": '{"environment": {"https_proxy": "http://a:b@c"}}',
    }
    whole = {"repo": "a/b", "api_key": "hush", "environment": {"https_proxy": "http://a:b@c"}}
    assert json.loads(configuration(options)) == whole
    assert json.loads(configuration({"config": {}, "api_key": None, "hidden": None})) == {"api_key": None}


def test_every_file_of_the_collection_that_a_client_is_made_of_is_found() -> None:
    assert source("warmup").startswith("# Copyright")
    with pytest.raises(ModuleNotFoundError):
        source("no_such_module")


def test_a_client_is_a_package_of_its_own() -> None:
    files = program("events", "benchmark.records")
    assert list(files) == [
        "lmfleet_client/__init__.py",
        "lmfleet_client/benchmark/__init__.py",
        "lmfleet_client/events.py",
        "lmfleet_client/benchmark/records.py",
    ]
    assert files["lmfleet_client/events.py"] == source("events")


@pytest.fixture
def dockerd() -> Iterator[Dockerd]:
    with tempfile.TemporaryDirectory() as folder, Dockerd(Path(folder) / "s") as daemon:  # a socket's path is short
        yield daemon


def left(dockerd: Dockerd, name: str, owner: str, status: str = "running", kind: str = "warm-up") -> None:
    """A client's container that is there already."""
    dockerd.containers[name] = container(name, Status=status)
    dockerd.containers[name]["Config"]["Labels"] = {LABEL: kind, OWNER: owner}


def started(dockerd: Dockerd, owner: str = "warm-up of lmdeploy") -> None:
    options: dict[str, Any] = {
        "kind": "warm-up",
        "name": "lmfleet-warmup-new",
        "image": "sha256:1",
        "owner": owner,
        "api_key": None,
        "hidden": None,
        "files": {},
        "argv": [],
        "config": {},
        "mounts": [],
        "environment": {},
        "cpus": 0,
        "gpus": False,
        "privileged": False,
    }
    with contextlib.closing(docker.DockerClient(base_url=dockerd.host, version=API)) as client:
        start(client, options)


@pytest.mark.parametrize("status", ["running", "created", "exited", "paused"])
def test_63_a_client_that_an_interrupted_run_left_is_removed_before_another_starts(
    dockerd: Dockerd, status: str
) -> None:
    left(dockerd, "lmfleet-warmup-old", "warm-up of lmdeploy", status)
    left(dockerd, "lmfleet-benchmark-1", "somebody", kind="benchmark")
    started(dockerd)
    assert sorted(dockerd.containers) == ["lmfleet-benchmark-1", "lmfleet-warmup-new"]
    changes = [path for path in dockerd.asked if path.endswith(("/start", "v=False&link=False&force=True"))]
    assert changes == [
        "/containers/id-of-lmfleet-warmup-old?v=False&link=False&force=True",
        "/containers/id-of-lmfleet-warmup-new/start",
    ]
    with contextlib.closing(docker.DockerClient(base_url=dockerd.host, version=API)) as client:
        own_container(client, "warm-up", "lmfleet-warmup-new").remove(force=True)
    assert list(dockerd.containers) == ["lmfleet-benchmark-1"]


def test_63_another_deployments_client_is_left_alone_while_it_works(dockerd: Dockerd) -> None:
    left(dockerd, "lmfleet-warmup-other", "warm-up of other")
    with pytest.raises(ValueError, match=r"lmfleet-warmup-other is at work there already, for warm-up of other"):
        started(dockerd)
    for status in ("exited", "dead"):
        left(dockerd, "lmfleet-warmup-other", "warm-up of other", status)
        started(dockerd)
        assert list(dockerd.containers) == ["lmfleet-warmup-new"]
