# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that containers need, on real file systems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._files import write
from ansible_collections.lmfleet.lmdeploy.plugins.modules.place import differs, wanted

COLLECTIONS = Path(__file__).parents[4] / "collections"
SECRET = "not-for-everyone-0123456789abcdef"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def run(folder: Path, **arguments: Any) -> dict[str, Any]:
    """The module as Ansible runs it: a program of its own."""
    file = folder / "arguments.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    ended = subprocess.run(
        [sys.executable, "-m", "ansible_collections.lmfleet.lmdeploy.plugins.modules.place", str(file)],
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        check=False,
    )
    assert ended.stdout, ended.stderr.decode()
    assert SECRET not in (ended.stdout + ended.stderr).decode()
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


# Functions -----------------------------------------------------------------------------------------------------------


def test_a_file_differs_by_content_and_by_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert differs(path, b"x", 0o600)
    write(path, b"x", 0o600)
    assert not differs(path, b"x", 0o600)
    assert differs(path, b"y", 0o600)
    assert differs(path, b"x", 0o644)
    path.chmod(0o644)
    assert differs(path, b"x", 0o600), "a secret that others may read is written again"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for name, given in (("program", 0o644), ("secret", 0o600)):
            write(tmp_path / name, b"x", given)
            assert mode(tmp_path / name) == given
    finally:
        os.umask(before)


def test_a_reader_of_the_old_file_keeps_it_and_no_draft_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"old", 0o644)
    with path.open("rb") as reader:
        write(path, b"quite new", 0o644)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"quite new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_put_in_place_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "file", b"x", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_programs_may_be_read_by_everybody_and_secrets_by_their_owner() -> None:
    assert wanted({"files": {"/p": "größer"}, "secrets": {"/s": "x"}}) == [
        (Path("/p"), "größer".encode(), 0o644),
        (Path("/s"), b"x", 0o600),
    ]


# The module ----------------------------------------------------------------------------------------------------------


def test_all_is_brought_once_in_one_call(tmp_path: Path) -> None:
    home = tmp_path / "home"
    program, secret = home / "programs" / "rank.py", home / "secrets" / "ray_token"
    arguments: dict[str, Any] = {
        "directories": [str(home / "cache"), str(home / "ray")],
        "files": {str(program): "print()\n"},
        "secrets": {str(secret): SECRET},
    }
    paths = [*arguments["directories"], str(program), str(secret)]
    planned = run(tmp_path, **arguments, _ansible_check_mode=True)
    assert not home.exists()
    done = run(tmp_path, **arguments)
    for result in (planned, done):
        assert result["changed"]
        assert result["placed"] == paths
        assert result["diff"] == {"prepared": "".join(f"+ {path}\n" for path in paths)}
    assert (program.read_text(), mode(program)) == ("print()\n", 0o644)
    assert (secret.read_text(), mode(secret), mode(secret.parent)) == (SECRET, 0o600, 0o700)
    assert (home / "cache").is_dir()
    again = run(tmp_path, **arguments)
    assert (again["changed"], again["placed"]) == (False, [])
    arguments["files"][str(program)] = "print(1)\n"
    arguments["files"][f"{program}x"] = ""
    changed = run(tmp_path, **arguments)
    assert changed["diff"] == {"prepared": f"~ {program}\n+ {program}x\n"}


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o750)
    assert run(tmp_path, directories=[str(secrets)], secrets={str(secrets / "token"): SECRET})["placed"] == [
        str(secrets / "token")
    ]
    assert mode(secrets) == 0o750


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    kept, other = tmp_path / "kept", tmp_path / "other"
    run(tmp_path, files={str(kept): "a", str(other): "b"})
    inode = kept.stat().st_ino
    assert run(tmp_path, files={str(kept): "a", str(other): "c"})["placed"] == [str(other)]
    assert kept.stat().st_ino == inode


@pytest.mark.parametrize("kind", ["files", "secrets"])
def test_what_is_in_the_way_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "token"
    path.mkdir()  # as Docker leaves it where the source of a mount is missing
    result = run(tmp_path, **{kind: {str(path): SECRET if kind == "secrets" else "x"}})
    assert result["failed"]
    assert result["msg"] == f"{path} on this host cannot be written: Is a directory"
    (tmp_path / "file").write_text("x")
    result = run(tmp_path, directories=[str(tmp_path / "file" / "below")])
    assert result["failed"]
    assert "on this host cannot be written: Not a directory" in result["msg"]


def test_ansible_shows_no_secret_however_much_it_is_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "home" / "secrets" / "token"
    (tmp_path / "ansible.cfg").touch()  # the defaults, whatever the user's own say
    ended = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "ansible.cli.adhoc",
                "localhost",
                "-i",
                "localhost,",
                "-c",
                "local",
                "-vvv",
                "--diff",
            ),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            *("-m", "lmfleet.lmdeploy.place", "-a", json.dumps({"secrets": {str(path): SECRET}})),
        ],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_HOME": str(tmp_path / "ansible")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (path.read_text(), mode(path), mode(path.parent)) == (SECRET, 0o600, 0o700)
    assert str(path) in ended.stdout
    shown = [line for line in (ended.stdout + ended.stderr).splitlines() if SECRET in line]
    assert shown == []
