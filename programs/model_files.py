# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's files below one directory: which there are, what they have to be, and putting aside what they must not be.

The directory is a repository in the Hugging Face cache (``models--ORG--NAME``), or any one with files. In the cache a file
lies in ``blobs`` under its own digest, so its content can be verified without asking anybody. Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

INCOMING = ".lmfleet-incoming"  # files on their way; on the same file system as where they go
CHUNK = 1 << 22
READERS = 8
SPARE = 1 << 30  # bytes that stay free on the file system


class Trouble(Exception):
    """What a person has to mend; its text says what, and what to do first."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a whole model is. ``files`` maps paths below the directory to bytes; ``links`` and ``texts`` are made last."""

    files: Mapping[str, int]
    links: Mapping[str, str]
    texts: Mapping[str, str]

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Manifest:
        """Raises ``Trouble`` for a path that leads out of the directory: it came over the network."""
        found = cls(dict(raw["files"]), dict(raw["links"]), dict(raw["texts"]))
        targets = [f"{PurePosixPath(path).parent}/{target}" for path, target in found.links.items()]
        for path in (*found.files, *found.links, *found.texts, *found.links.values(), *targets):
            climbs = path not in found.links.values() and os.path.normpath(path).startswith("..")
            if path.startswith("/") or climbs or INCOMING in path:
                raise Trouble(f"the list of files that came has {path!r}, which is not below the model's directory.")
        return found

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def manifest_of(root: Path, revision: str) -> Manifest:
    """The files of ``revision`` in the repository at ``root``; without a revision every file below ``root``.

    Raises ``Trouble`` where there is no such revision.
    """
    files: dict[str, int] = {}
    links: dict[str, str] = {}
    texts: dict[str, str] = {}
    top = root
    if revision:
        reference = root / "refs" / revision
        commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
        top = root / "snapshots" / commit
        if reference.is_file():
            texts[f"refs/{revision}"] = commit
    if not top.is_dir():
        raise Trouble(f"{top} does not exist on this host, which was to give the model to the others.")
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            here, real = path.relative_to(root).as_posix(), path.resolve()
            inside = real.is_relative_to((root / "blobs").resolve())
            if revision and path.is_symlink() and inside:
                blob = f"blobs/{real.name}"
                files[blob] = real.stat().st_size
                links[here] = os.path.relpath(root / blob, path.parent)
            elif real.is_file() and not name.startswith("."):
                files[here] = real.stat().st_size
    return Manifest(files, links, texts)


def hasher_of(path: str, size: int) -> tuple[Any, str]:
    """(a hash to feed the file to, the hex digest that it must have; empty where the path does not say)."""
    name = path.rpartition("/")[2] if path.startswith("blobs/") else ""
    hexadecimal = bool(name) and set(name) <= set("0123456789abcdef")
    if hexadecimal and len(name) == 40:  # a file that is not in LFS is called as Git calls it
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), name
    return hashlib.sha256(), name if hexadecimal and len(name) == 64 else ""


def digest(file: Path, path: str, size: int, told: Callable[[int], None] = lambda __: None) -> str:
    """The file's digest, of the kind that its path has. ``told`` gets the bytes of each part that was read."""
    found, __ = hasher_of(path, size)
    with file.open("rb", buffering=0) as stream:
        while part := stream.read(CHUNK):
            found.update(part)
            told(len(part))
    return str(found.hexdigest())


def unsound(root: Path, files: Mapping[str, int], *, whole: bool, told: Callable[[int], None]) -> dict[str, str]:
    """Files that are there and are not what they must be, with why: another length or, if ``whole``, another content."""

    def judge(path: str) -> str:
        file, size = root / path, files[path]
        if not file.is_file():
            return ""
        has = file.stat().st_size
        if has != size:
            return f"it has {has} bytes in place of {size}"
        expected = hasher_of(path, size)[1]
        if whole and expected and digest(file, path, size, told) != expected:
            return "its content is not what its name says"
        return ""

    with ThreadPoolExecutor(READERS) as pool:
        return {path: why for path, why in zip(files, pool.map(judge, files)) if why}


def put_aside(root: Path, paths: Iterable[str]) -> list[str]:
    """Rename files, so that they are fetched again; nothing that a host holds is deleted. The new paths."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    moved = []
    for path in paths:
        aside = f"{path}.damaged-{stamp}"
        (root / path).replace(root / aside)
        moved.append(aside)
    return moved


def refuse_without_room(root: Path, needed: int) -> None:
    """Raise ``Trouble`` where ``needed`` bytes do not fit below ``root``."""
    free = shutil.disk_usage(root).free
    if needed + (SPARE if needed else 0) > free:
        raise Trouble(
            f"{needed / 1e9:.1f} GB of the model are missing, and the file system has {free / 1e9:.1f} GB free "
            f"({SPARE / 1e9:.0f} GB stay free): make room (du -xh), or set plan_hf_home to a larger file system."
        )


def finish(root: Path, manifest: Manifest) -> None:
    """Make the links and, last, the references, each in one step: only now the model is there."""
    for path, target in manifest.links.items():
        link = root / path
        if link.is_symlink() and str(link.readlink()) == target:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        draft = link.with_name(f".{link.name}.lmfleet")
        draft.unlink(missing_ok=True)
        draft.symlink_to(target)
        draft.replace(link)
    for path, text in manifest.texts.items():
        file = root / path
        if file.is_file() and file.read_text("utf-8") == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.lmfleet")
        draft.write_text(text, "utf-8")
        draft.replace(file)
    with contextlib.suppress(OSError):  # something is left there: of another revision
        (root / INCOMING).rmdir()
