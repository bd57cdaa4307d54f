# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox writes over and removes nothing but its own, wherever its state is; and leaves other engines' filters alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "molecule/sandbox/tools/state"
FOREIGN = {
    "notes.txt": "mine",
    "apt.log": "mine",
    "model-v3/weights": "mine",
    "model-0123456789ab/weights": "mine",
    "docker/compose.yml": "mine",
    "wheels/own.whl": "mine",
    "a b/c": "mine",
}


def state(verb: str, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOL, verb, folder, *names], capture_output=True, text=True, check=False)


def sourced(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A few lines of bash in a checkout's root, with the sandbox's state in ``folder``."""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; {script}"],
        cwd=ROOT,
        env={**os.environ, "LMFLEET_SANDBOX_STATE": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_only_what_carries_the_mark_is_removed(tmp_path: Path) -> None:
    fill(tmp_path, FOREIGN)
    assert state("claim", tmp_path, "ssh", "context", "model-new").returncode == 0
    fill(tmp_path, {"ssh/id_ed25519.pub": "ssh-ed25519 AAAA lmfleet-sandbox\n", "model-new/hub/x": ""})
    assert state("owned", tmp_path, "ssh").returncode == 0
    assert state("owned", tmp_path, "wheels").returncode == 1
    removed = state("remove", tmp_path, "model-*").stdout.split()
    assert removed == ["removed", f"{tmp_path}/model-new"]
    assert state("remove", tmp_path).returncode == 0
    assert files(tmp_path) == FOREIGN


def test_a_state_of_its_own_goes_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a b" / "state"
    assert state("claim", folder, "ssh", "wheels").returncode == 0
    assert state("remove", folder).returncode == 0
    assert not folder.exists()
    assert state("remove", folder).returncode == 0


def test_a_directory_that_somebody_else_filled_is_not_taken(tmp_path: Path) -> None:
    fill(tmp_path, FOREIGN)
    (tmp_path / "context").symlink_to(tmp_path / "model-v3")
    for name in ("wheels", "context"):
        refused = state("claim", tmp_path, name)
        assert refused.returncode == 1
        assert f"{tmp_path}/{name} exists, and the sandbox did not make it." in refused.stderr
        assert "LMFLEET_SANDBOX_STATE" in refused.stderr
    assert files(tmp_path) == FOREIGN


def test_what_an_earlier_version_made_is_known_by_its_key_and_is_removed(tmp_path: Path) -> None:
    made = {
        "ssh/id_ed25519.pub": "ssh-ed25519 AAAA lmfleet-sandbox\n",
        "wheels/engine-torch/a.whl": "",
        "docker/data/x": "",
        "model-0123456789ab/hub/x": "",
    }
    fill(tmp_path, {**made, "model-v3/hub/x": "mine", "notes.txt": "mine"})
    assert state("claim", tmp_path, "sandbox-log").returncode == 0
    fill(tmp_path, {"context/later": "mine"})  # what comes after the adoption is not the sandbox's
    assert state("remove", tmp_path).returncode == 0
    assert files(tmp_path) == {"model-v3/hub/x": "mine", "notes.txt": "mine", "context/later": "mine"}


def test_purging_the_engine_leaves_a_foreign_directory_of_its_name(tmp_path: Path) -> None:
    fill(tmp_path, FOREIGN)
    done = sourced("source scripts/lib/docker.sh; stop_docker --purge", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path) == FOREIGN
    own = tmp_path / "own"
    state("claim", own, "docker")
    assert sourced("source scripts/lib/docker.sh; stop_docker --purge", own).returncode == 0
    assert not own.exists()


def test_an_environment_that_was_made_by_hand_is_neither_cleared_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "scripts/lib").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/lib/python.sh", tmp_path / "scripts/lib")
    fill(tmp_path, {".venv/bin/python": "mine"})
    script = f"source {tmp_path}/scripts/lib/python.sh; echo $(_venv_of .venv); remove_venv"
    assert sourced(script, tmp_path).stdout.strip() == f"{tmp_path}/.cache/venv"
    assert (tmp_path / ".venv/bin/python").read_text() == "mine"
    fill(tmp_path, {".venv/requirements.sha256": ""})
    assert sourced(script, tmp_path).stdout.strip() == f"{tmp_path}/.venv"
    assert not (tmp_path / ".venv").exists()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Stand-ins for programs that would change this machine; each writes down how it was called."""
    folder = tmp_path / "bin"
    for name, text in {
        "dockerd": 'case "$*" in *--help*) echo "--ip6tables"; exit;; esac',
        "docker": "",
        "iptables": '[ "$1" != -C ] && { [ "$1" != -D ] || { [ ! -e "$0.gone" ] && touch "$0.gone"; }; }',
    }.items():
        fill(folder, {name: f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n{text}\n'})
        (folder / name).chmod(0o755)
    return folder


def test_the_sandboxs_own_engine_leaves_the_packet_filter_of_others_alone(tmp_path: Path, programs: Path) -> None:
    path = f"{programs}:{os.environ['PATH']}"
    script = "source scripts/lib/docker.sh; _start_own_docker; _filter remove; wait"  # until the background has written
    with tempfile.TemporaryDirectory() as short:  # a socket's path has 107 bytes
        done = sourced(script, Path(short) / "s", PATH=path)
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    [started] = [line for line in called if line.startswith("dockerd --config-file")]
    assert " --bridge none --iptables=false --ip6tables=false" in started
    rules = [line for line in called if line.startswith("iptables ")]
    assert all("10.77.0.0/24" in rule and "--comment lmfleet-sandbox" in rule for rule in rules)
    assert [rule.split()[1] for rule in rules] == ["-C", "-I", "-D", "-D"]


def test_an_image_is_not_built_again_because_another_checkout_asks(tmp_path: Path) -> None:
    """What its label says of what it was built from is the same from wherever it is asked."""
    digests = []
    for name in ("one", "two"):
        requirements = tmp_path / name / "requirements.txt"
        requirements.parent.mkdir()
        requirements.write_text("ray==2.60.0\n")
        tool = ROOT / "molecule/sandbox/tools/digest"
        digests.append(subprocess.run([tool, "seed", "base", requirements], check=True, capture_output=True).stdout)
    assert digests[0] == digests[1]
    (tmp_path / "two" / "requirements.txt").write_text("ray==2.61.0\n")
    other = subprocess.run([tool, "seed", "base", requirements], check=True, capture_output=True).stdout
    assert other != digests[0]
