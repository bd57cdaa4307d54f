# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's files as a container sees them: through its mounts, and along links as its own kernel follows them.

A link's text is read again inside: one to /data/hub leads to whatever is mounted there in the container, or to nothing, be
the file there on the host or not.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import posixpath
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

MOST_LINKS = 40  # the kernel's own limit
MOST_NAMES = 50_000  # of one directory
# Hidden by a mount, the container's own programs would be gone; a file's mount hides nothing.
_OWN = "bin boot dev etc home lib lib64 opt proc root run sbin sys tmp usr var"
KEPT = frozenset(f"/{name}" for name in ("", *_OWN.split(" ")))
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclasses.dataclass(frozen=True)
class Mount:
    """A bind mount: ``source`` on the host, ``target`` in the container."""

    source: str
    target: str


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a path leads to, without links: ``inside`` the container, and on the ``host`` (None: the image has it)."""

    inside: str
    host: str | None


class LeavesMountsError(Exception):
    """A link leads to what the host has and the container does not.

    ``link`` is its path on the host, ``inside`` where it leads to in the container; ``mount`` would bring that there.
    """

    def __init__(self, link: str, inside: str, mount: Mount) -> None:
        super().__init__(link)
        self.link, self.inside, self.mount = link, inside, mount


class DanglingError(FileNotFoundError):
    """A link leads to nothing, on the host and in the container; ``link`` is its path, ``target`` where it leads to on the host."""

    def __init__(self, link: str) -> None:
        super().__init__(errno.ENOENT, os.strerror(errno.ENOENT), link)
        self.link = link
        self.target = os.path.realpath(link)


class NotAFileError(OSError):
    """What is no regular file is not opened: a FIFO would wait for ever. ``kind`` is what it is, with its article."""

    def __init__(self, path: str, mode: int) -> None:
        self.kind = KINDS.get(stat.S_IFMT(mode), "no file")
        super().__init__(errno.EINVAL, f"it is {self.kind}", path)


@dataclasses.dataclass(frozen=True)
class _Link:
    host: str
    text: str
    left: int  # parts of the path after what the link stands for


class View:
    """What a container with these mounts sees; of two targets the longer wins. Without mounts: the host itself.

    Its methods raise OSError for what is not there or may not be read, and LeavesMountsError.
    """

    def __init__(self, mounts: Iterable[Mount] = (Mount("/", "/"),)) -> None:
        self._sources: dict[str, str] = {}
        self._texts: dict[str, str | None] = {}
        for mount in mounts:
            self.add(mount)

    def add(self, mount: Mount) -> None:
        """Have one more mount; where one is at its target already, that one stays."""
        self._sources.setdefault(_clean(mount.target), os.path.realpath(mount.source))

    def replaced(self, *mounts: Mount) -> View:
        """A view that has these mounts too, before those that are at their targets now."""
        view = View(mounts)
        for target, source in self._sources.items():
            view.add(Mount(source, target))
        return view

    def on_host(self, inside: str) -> str | None:
        """The host's path of a path in the container that has no links; None where no mount has it."""
        inside = _clean(inside)
        target = inside
        while target not in self._sources:
            if target == "/":
                return None
            target = posixpath.dirname(target)
        rest = inside[len(target) :].strip("/")
        return posixpath.join(self._sources[target], rest) if rest else self._sources[target]

    def find(self, inside: str) -> Place:
        """Follow a path of the container, part by part."""
        if "\0" in inside:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), inside)
        done, todo = "", list(reversed(_parts(inside)))
        links: list[_Link] = []
        followed = 0
        while todo:
            name = todo.pop()
            if name == "..":
                done = posixpath.dirname(done) if done else ""
                done = "" if done == "/" else done
                continue
            here = f"{done}/{name}"
            host = self.on_host(here)
            if host is None and self._is_above_a_mount(here):
                done = here  # a directory that Docker makes, or the image has
                continue
            while links and len(todo) < links[-1].left:
                links.pop()
            try:
                text = self._text(host) if host is not None else None
                missing = host is None
            except FileNotFoundError:
                missing, text = not self._is_above_a_mount(here), None
            if missing:
                if links:
                    rest = reversed(todo[links[-1].left :])
                    raise self._lost(links[-1], _clean(posixpath.join(here, *rest)))
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), host or here)
            if text is None:
                done = here
                continue
            followed += 1
            if followed > MOST_LINKS or host is None:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), host)
            links.append(_Link(host, text, len(todo)))
            todo.extend(reversed(_parts(text)))
            done = "" if text.startswith("/") else done
        return Place(done or "/", self.on_host(done or "/"))

    def status(self, inside: str) -> os.stat_result:
        """What stat says of where a path leads to."""
        return Path(self._there(inside)).stat()

    def open(self, inside: str) -> BinaryIO:
        """A regular file, opened. Raises NotAFileError for anything else."""
        path = self._there(inside)
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            raise NotAFileError(path, mode)
        # It may have become a FIFO meanwhile.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")

    def names(self, inside: str) -> list[str]:
        """The names in a directory, sorted: those on the host, and those of mounts in it."""
        place = self.find(inside)
        prefix = "/" if place.inside == "/" else f"{place.inside}/"
        found = {target[len(prefix) :].partition("/")[0] for target in self._sources if target.startswith(prefix)}
        if place.host is not None:
            found.update(path.name for path, __ in zip(Path(place.host).iterdir(), range(MOST_NAMES)))
        return sorted(found - {""})

    def _there(self, inside: str) -> str:
        place = self.find(inside)
        if place.host is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.inside)
        return place.host

    def _text(self, host: str) -> str | None:
        """What a link says; None for what is no link."""
        if host not in self._texts:
            try:
                self._texts[host] = str(Path(host).readlink())
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:  # so there can be none
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), host) from None
                if error.errno != errno.EINVAL:
                    raise
                self._texts[host] = None
        return self._texts[host]

    def _is_above_a_mount(self, inside: str) -> bool:
        return any(target.startswith(f"{inside}/") for target in self._sources)

    def _lost(self, link: _Link, inside: str) -> Exception:
        """Why a link leads to nothing in the container, and what would bring it there."""
        try:
            mode = Path(link.host).stat().st_mode
        except FileNotFoundError:
            return DanglingError(link.host)
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # nobody mounts /dev/null
            return NotAFileError(link.host, mode)
        real = os.path.realpath(link.host)
        same = link.text.startswith("/") and _clean(link.text) == inside
        mount = Mount(inside if same else real, inside)
        folder = posixpath.dirname(inside)
        # All files that lie there, in one mount; unless that would hide something.
        hides = folder in KEPT or folder in self._sources or self._is_above_a_mount(folder)
        is_file = not os.path.isdir(real)  # noqa: PTH112  (False, too, for what may not be read)
        if is_file and not hides and posixpath.basename(real) == posixpath.basename(inside):
            mount = Mount(posixpath.dirname(mount.source), folder)
        return LeavesMountsError(link.host, inside, mount)


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(f"/{path}").strip("/")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
