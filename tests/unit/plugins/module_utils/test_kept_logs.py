# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends of logs that outlive their containers: bounded in size and number, for nobody else, and nobody else's file goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._kept_logs import KEPT, LAST_BYTES, keep
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container

COLLECTIONS = Path(__file__).parents[4] / "collections"


def test_of_a_long_log_the_last_whole_lines_stay(tmp_path: Path) -> None:
    log = b"".join(b"line %d\n" % number for number in range(60000))
    name = keep(tmp_path, "lmdeploy-api", log, at=1795762800.25)
    kept = (tmp_path / name).read_bytes()
    assert name == "lmdeploy-api.20261127T070000.250Z.log"
    assert len(kept) <= LAST_BYTES
    assert log.endswith(kept)
    assert kept.startswith(b"line ")
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no draft is left


def test_the_latest_of_each_name_stay_and_other_files_are_not_touched(tmp_path: Path) -> None:
    others = ["lmdeploy-api.jsonl", "lmdeploy-api.log", "lmdeploy-api.of-mine.log", "record.json"]
    for each in others:
        (tmp_path / each).touch()
    for number in range(KEPT + 3):
        keep(tmp_path, "lmdeploy-api", b"x", at=1000.0 + number)
        keep(tmp_path, "lmdeploy-api-2", b"x", at=1000.0 + number)
    left = sorted(path.name for path in tmp_path.iterdir() if path.name not in others)
    assert len(left) == 2 * KEPT
    assert left[0].startswith("lmdeploy-api-2.19700101T001643")
    assert all((tmp_path / each).exists() for each in others)


def run(tmp_path: Path, daemon: str, **arguments: Any) -> dict[str, Any]:
    """The module as Ansible runs it: a program of its own."""
    file = tmp_path / "arguments.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"directory": str(tmp_path / "logs"), **arguments}}))
    ended = subprocess.run(
        [sys.executable, "-m", "ansible_collections.lmfleet.lmdeploy.plugins.modules.keep_logs", str(file)],
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS), "DOCKER_HOST": daemon},
        capture_output=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves sockets open
def test_the_log_of_a_container_is_kept_and_one_that_is_not_there_hinders_nobody(tmp_path: Path) -> None:
    with Dockerd(tmp_path / "docker.sock") as daemon:
        daemon.containers["lmdeploy-api"] = container("lmdeploy-api")
        daemon.logs["lmdeploy-api"] = b"2026-11-27T07:00:00.000000000Z it was out of memory\n"
        result = run(tmp_path, daemon.host, containers={"lmdeploy-api": "id-of-lmdeploy-api", "gone": "id-of-another"})
        assert result["changed"]
        [kept] = result["files"]
        assert "it was out of memory" in Path(kept).read_text()
        assert [*result["left_out"]] == ["gone"]
        assert not run(tmp_path, daemon.host, containers={"gone": "id-of-another"})["changed"]
    away = run(tmp_path, daemon.host, containers={"lmdeploy-api": "x"})  # no Docker at all
    assert (away["changed"], [*away["left_out"]]) == (False, ["lmdeploy-api"])
    assert len(list((tmp_path / "logs").iterdir())) == 1
