# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._events import last_events
from ansible_collections.lmfleet.lmdeploy.plugins.modules.client_job import archive
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import program, source

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
