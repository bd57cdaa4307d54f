# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls as dockerd tells of them: with its own image store, and with containerd's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _pull
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._processes import started
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._pull import Progress
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd

COLLECTIONS = str(Path(__file__).parents[4] / "collections")
REFERENCE = "openmmlab/lmdeploy:v0.18.0-cu12.8"
IMAGE = {"Id": "sha256:aa", "RepoDigests": []}


def line(status: str, layer: str = "", current: int | None = None, total: int | None = None, **more: Any) -> Any:
    """A line in dockerd's own form: the detail is empty where there is none."""
    detail = {key: value for key, value in (("current", current), ("total", total)) if value is not None}
    shown = {"progress": "[=>   ]"} if detail else {}
    return {"status": status, "progressDetail": {**detail, **more}, **shown, **({"id": layer} if layer else {})}


CLASSIC = [
    {"status": "Pulling from openmmlab/lmdeploy", "id": "v0.18.0-cu12.8"},
    line("Already exists", "8d30e94188e7"),
    line("Pulling fs layer", "59f54fbcd984"),
    line("Pulling fs layer", "2ca1d28f3a22"),
    line("Waiting", "2ca1d28f3a22"),
    line("Downloading", "59f54fbcd984", 1_000_000, 10_000_000),
    line("Downloading", "59f54fbcd984", 5_000_000, 10_000_000),
    line("Downloading", "2ca1d28f3a22", 1_000_000, 30_000_000),
    line("Verifying Checksum", "59f54fbcd984"),
    line("Download complete", "59f54fbcd984"),
    line("Extracting", "59f54fbcd984", 4_000_000, 10_000_000),
    line("Pull complete", "59f54fbcd984"),
    line("Retrying in 5 seconds", "2ca1d28f3a22"),
    line("Downloading", "2ca1d28f3a22", 2_000_000, 30_000_000),
    line("Download complete", "2ca1d28f3a22"),
    line("Extracting", "2ca1d28f3a22", 15_000_000, 30_000_000),
    line("Pull complete", "2ca1d28f3a22"),
    {"status": "Digest: sha256:abd3e3f96fbc3445c420fda590f37e2bd3377f69affd47b63b3d826d084c5ddc"},
    {"status": f"Status: Downloaded newer image for {REFERENCE}"},
]
CONTAINERD = [
    {"status": "Pulling from openmmlab/lmdeploy", "id": "v0.18.0-cu12.8"},
    line("Pulling fs layer", "59f54fbcd984"),
    line("Downloading", "59f54fbcd984", 1_048_576, 29_724_688),
    line("Download complete", "59f54fbcd984"),
    line("Extracting", "59f54fbcd984", 1, units="s"),
    line("Extracting", "59f54fbcd984", 2, units="s"),
    line("Pull complete", "59f54fbcd984"),
]


def after(lines: list[Any], count: int | None = None) -> dict[str, Any]:
    progress = Progress()
    for each in lines[:count]:
        progress.see(each)
    return progress.summary(100.0)


def figures(summary: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(summary[key] for key in ("stage", "got", "size", "sized", "unpacked", "layers", "done"))


def test_a_pull_of_dockers_own_store() -> None:
    assert figures(after(CLASSIC, 2)) == ("waits", 0, 0, False, 0, 0, 0)
    # A layer's size is not known before Docker begins with it.
    assert figures(after(CLASSIC, 7)) == ("downloads", 5_000_000, 10_000_000, False, 0, 2, 0)
    assert figures(after(CLASSIC, 8)) == ("downloads", 6_000_000, 40_000_000, True, 0, 2, 0)
    assert figures(after(CLASSIC, 11)) == ("downloads", 11_000_000, 40_000_000, True, 4_000_000, 2, 0)
    assert figures(after(CLASSIC, 13)) == ("downloads", 10_000_000, 40_000_000, True, 10_000_000, 2, 1)
    assert figures(after(CLASSIC, 16)) == ("unpacks", 40_000_000, 40_000_000, True, 25_000_000, 2, 1)
    assert figures(after(CLASSIC)) == ("unpacks", 40_000_000, 40_000_000, True, 40_000_000, 2, 2)


def test_a_pull_of_containerds_store_tells_seconds_of_unpacking() -> None:
    assert figures(after(CONTAINERD, 6)) == ("unpacks", 29_724_688, 29_724_688, True, 0, 1, 0)
    assert figures(after(CONTAINERD))[-2:] == (1, 1)


def test_an_image_that_is_there_has_nothing_to_do() -> None:
    there = [CLASSIC[0], CLASSIC[1], {"status": f"Status: Image is up to date for {REFERENCE}"}]
    assert after(there)["stage"] == "waits"


@pytest.mark.parametrize(
    "error",
    [
        {"errorDetail": {"message": "no space left on device"}, "error": "no space left on device"},
        {"error": "no space left on device"},
    ],
)
def test_an_error_on_the_way_is_kept(error: dict[str, Any]) -> None:
    progress = Progress()
    for each in [*CLASSIC[:5], error]:
        progress.see(each)
    assert progress.error == "no space left on device"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    progress = Progress()
    for second in range(41):
        size = 400_000_000
        got = second * 1_000_000 if second < 20 else 20_000_000 + (second - 20) * 10_000_000
        progress.see(line("Downloading", "59f54fbcd984", got, size))
        summary = progress.summary(float(second))
    assert summary["rate"] == pytest.approx(10e6)
    assert summary["left_s"] == round((400_000_000 - summary["got"]) / 10e6)
    progress.see(line("Retrying in 3 seconds", "59f54fbcd984"))
    assert progress.summary(41.0)["rate"] == 0  # never less than nothing


def test_what_docker_may_say_besides_is_no_crash() -> None:
    odd: list[Any] = [
        {},
        {"id": "x"},
        {"status": None, "id": None},
        {"status": "Downloading", "id": "y", "progressDetail": None},
    ]
    odd += [line("Downloading", "z", 7, -1), {"aux": {"ID": "sha256:1"}}, line("Unheard of", "z")]
    assert after(odd)["got"] == 7


def pulled(daemon: Dockerd, file: Path, tag_as: str = "", reference: str = REFERENCE) -> dict[str, Any]:
    """As the module does it, by a process that ends; polled to its end."""
    code = (
        "import json, pathlib, sys; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._pull import start; "
        "print(json.dumps(start(pathlib.Path(sys.argv[1]), *sys.argv[2:4], float(sys.argv[4]))))"
    )
    argv = [sys.executable, "-c", code, str(file), reference, tag_as, "300"]
    environment = {"PYTHONPATH": COLLECTIONS, "DOCKER_HOST": daemon.host}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=environment)
    process = json.loads(done.stdout)  # its end: the puller holds no pipe of the module
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = _pull.poll(file, process)
        if found["result"]:
            _pull.remove(file, process)
            return found
        time.sleep(0.05)
    raise AssertionError("it does not end")


def test_a_pull_outlives_the_module_that_began_it(tmp_path: Path) -> None:
    with Dockerd(tmp_path / "d.sock", pulls={REFERENCE: CLASSIC}, pulled={REFERENCE: IMAGE}, line_s=0.02) as daemon:
        found = pulled(daemon, tmp_path / "pulls" / "1.json")
    assert found["result"] == {"ok": True, "image": "sha256:aa", "error": ""}
    assert found["summary"]["done"] == 2
    assert list((tmp_path / "pulls").iterdir()) == []


def test_an_image_from_a_mirror_gets_its_name(tmp_path: Path) -> None:
    mirror = f"mirror.example.com/hub/{REFERENCE}"
    with Dockerd(tmp_path / "d.sock", pulls={mirror: CLASSIC}, pulled={mirror: IMAGE}) as daemon:
        found = pulled(daemon, tmp_path / "1.json", tag_as=REFERENCE, reference=mirror)
        assert found["result"]["ok"]
        assert daemon.images[REFERENCE] == IMAGE


def test_an_error_of_the_registry_is_the_result(tmp_path: Path) -> None:
    error = "manifest for openmmlab/lmdeploy:v1 not found: manifest unknown"
    with Dockerd(tmp_path / "d.sock", fails={"/images/create": error}) as daemon:
        assert pulled(daemon, tmp_path / "1.json")["result"] == {"ok": False, "image": None, "error": error}
    full = {
        "errorDetail": {"message": "write /x: no space left on device"},
        "error": "write /x: no space left on device",
    }
    with Dockerd(tmp_path / "e.sock", pulls={REFERENCE: [*CLASSIC[:6], full]}) as daemon:
        assert "no space left" in pulled(daemon, tmp_path / "2.json")["result"]["error"]


def test_a_pull_that_was_killed_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "1.json"
    _pull.write(file, {"summary": {}, "result": None})
    found = _pull.poll(file, {"pid": 2**22 + 1, "started": "1"})
    assert found["result"]["ok"] is False


def test_nobody_who_asks_any_more_ends_it(tmp_path: Path) -> None:
    with Dockerd(tmp_path / "d.sock", pulls={REFERENCE: CLASSIC * 200}, line_s=0.05) as daemon:
        code = (
            "import pathlib, sys; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._pull import start; "
            "print(start(pathlib.Path(sys.argv[1]), sys.argv[2], '', 0.2)['pid'])"
        )
        argv = [sys.executable, "-c", code, str(tmp_path / "1.json"), REFERENCE]
        environment = {"PYTHONPATH": COLLECTIONS, "DOCKER_HOST": daemon.host}
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=environment)
        deadline = time.monotonic() + 60
        while started(int(done.stdout)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert started(int(done.stdout)) == ""
