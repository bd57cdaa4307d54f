# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where else on a host a model lies that is not where it was said to be: 690 GB are not fetched twice.

Looks in the directory that was named and some levels down, one level up, and in the caches that people have by default: for a
cache with or without ``hub``, a plain directory, ModelScope's layout. A look has a bound of directories and of time.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import json
import os
import posixpath
import re
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Callable

from . import parallel
from .view import Mount, View

SEARCH_SECONDS = 15.0
MOST_DIRECTORIES = 400
MOST_ENTRIES = 2000  # of one directory
MOST_FOUND = 4
# What never holds a model, or holds a cache's inner parts.
_OTHER = "proc sys dev run boot bin sbin lib lib64 usr etc lost+found blobs refs snapshots xet .locks .git .no_exist"
SKIPPED = frozenset(_OTHER.split(" "))
LAYOUT = ("hub", "huggingface", "models", "modelscope")
PLAIN = re.compile(r"[\w./@+-]+")
CACHED = "models--"


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """A place on the ``host`` that may have the model: ``what`` it is, ``inside`` the container of ``view``.

    ``setting`` are the variables, as YAML, with which containers have that view. With ``repo`` it is a cache's directory.
    ``other_model``: it is not the one that was asked for.
    """

    host: str
    what: str
    inside: str
    view: View
    setting: str = ""
    repo: str = ""
    revision: str = "main"
    other_model: bool = False


def folder_of(repo: str) -> str:
    """The name of a repository's directory in a cache."""
    return CACHED + repo.replace("/", "--")


def of_repository(repo: str, hf_home: str, hub: str, view: View, revision: str = "main") -> list[Elsewhere]:
    """Where else ``repo`` may be, the likelier first; ``hub`` is the cache's directory in the container."""
    owner, __, name = repo.rpartition("/")
    places = _Places(repo, hf_home, hub, view, revision)
    home = hf_home.rstrip("/") or "/"
    starts = [
        (home, 3),
        (posixpath.join(home, owner), 1),
        *((os.path.expanduser(f"~/.cache/{each}"), 4) for each in ("huggingface", "modelscope")),  # noqa: PTH111
        (posixpath.dirname(home), 1),  # not down into what others have beside it
    ]
    plain = {each.lower() for each in (name, name.replace(".", "___"), f"{owner}--{name}", f"{owner}_{name}")}
    found: list[Elsewhere] = []

    def search() -> None:
        for folder, names in _walk(starts, {*LAYOUT, owner}):
            for each in names:
                if each.lower() == folder_of(repo).lower():
                    found.append(places.cached(folder, each))
                elif each.lower() in plain and _is_model(f"{folder}/{each}"):
                    found.append(places.directory(posixpath.join(folder, each)))
            if len(found) >= MOST_FOUND:
                return

    _within(SEARCH_SECONDS, search)
    return found[:MOST_FOUND] or places.others()


def of_path(path: str, view: View) -> list[Elsewhere]:
    """Where else below its mount the model of a path of the container may be."""
    path = "/" + posixpath.normpath(f"/{path}").strip("/")
    host, name = view.on_host(path), posixpath.basename(path).lower()
    if host is None:
        return []
    target = path
    while target != "/" and view.on_host(posixpath.dirname(target)) == posixpath.dirname(view.on_host(target) or ""):
        target = posixpath.dirname(target)
    # On the host itself there is no mount to stay in.
    source = view.on_host(target) or "/"
    if source == "/":
        source = target = posixpath.dirname(path)
    there = os.path.isdir(host)  # noqa: PTH112  (False, too, for what may not be read)
    found: list[Elsewhere] = []

    def add(folder: str) -> None:
        inside = posixpath.join(target, posixpath.relpath(folder, source))
        inside = "/" + posixpath.normpath(inside).strip("/")
        found.append(Elsewhere(folder, "a model", inside, view, f"plan_model: {_yaml(inside)}"))

    def search() -> None:
        for folder, names in _walk([(host, 2)] if there else [(source, 3)]):
            for commit in _commits(folder) if there else []:
                add(f"{folder}/snapshots/{commit}")
            for each in names:
                inner = posixpath.join(folder, each)
                cached = each.lower().startswith(CACHED) and (there or each.lower().endswith(f"--{name}"))
                for commit in _commits(inner) if cached else []:
                    add(f"{inner}/snapshots/{commit}")
                if (there or each.lower() == name) and _is_model(inner):
                    add(inner)
            if len(found) >= MOST_FOUND:
                return

    _within(SEARCH_SECONDS, search)
    return found[:MOST_FOUND]


class _Places:
    """Makes of what was found on the host what a container would see of it, and what to set for that."""

    def __init__(self, repo: str, hf_home: str, hub: str, view: View, revision: str) -> None:
        self._repo, self._home, self._hub, self._view, self._revision = repo, hf_home, hub, view, revision
        self._inside = posixpath.dirname(hub)  # the Hugging Face home, in the container
        self._hub_on_host = view.on_host(hub) or ""

    def cached(self, folder: str, entry: str) -> Elsewhere:
        """A cache's directory of a repository, in ``folder``."""
        repo = entry[len(CACHED) :].replace("--", "/", 1)
        lines, view, hub = [], self._view, self._hub
        if repo != self._repo:
            lines.append(f"plan_model: {_yaml(repo)}")
        if os.path.realpath(folder) != os.path.realpath(self._hub_on_host):
            if posixpath.basename(folder) == "hub" == posixpath.basename(hub):
                home = posixpath.dirname(folder)
                lines.append(f"plan_hf_home: {_yaml(home)}")
                view = view.replaced(Mount(home, self._inside))
            else:
                lines.append(_mount_line(folder, hub))
                view = view.replaced(Mount(folder, hub))
        what = f"{repo} in a cache's layout"
        return Elsewhere(posixpath.join(folder, entry), what, hub, view, "\n".join(lines), repo, self._revision)

    def directory(self, folder: str) -> Elsewhere:
        """A directory with the model's files themselves."""
        below = posixpath.relpath(folder, self._home)
        name = f"plan_served_model_name: {_yaml(self._repo)}"
        if not below.startswith(".."):
            inside = posixpath.normpath(posixpath.join(self._inside, below))
            view, lines = self._view, [f"plan_model: {_yaml(inside)}", name]
        else:
            inside = folder
            view = self._view.replaced(Mount(folder, folder))
            lines = [f"plan_model: {_yaml(inside)}", name, _mount_line(folder, folder)]
        return Elsewhere(folder, "a model's files", inside, view, "\n".join(lines))

    def others(self) -> list[Elsewhere]:
        """Other models of a like name in the cache where this one was looked for."""
        repos = {}
        for entry in _names(self._hub_on_host):
            if entry.startswith(CACHED):
                repos[entry[len(CACHED) :].replace("--", "/", 1)] = entry
        name = self._repo.rpartition("/")[2].lower()
        same = [each for each in repos if each.rpartition("/")[2].lower() == name]
        like = (same or difflib.get_close_matches(self._repo, repos, n=2, cutoff=0.75))[:2]
        return [dataclasses.replace(self.cached(self._hub_on_host, repos[each]), other_model=True) for each in like]


def _mount_line(source: str, target: str) -> str:
    return f"plan_extra_mounts: [{{source: {_yaml(source)}, target: {_yaml(target)}}}]"


def _yaml(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _within(seconds: float, search: Callable[[], None]) -> None:
    """Run a search, or leave it where a file system hangs."""
    try:
        parallel.by(time.monotonic() + seconds, parallel.start(search))
    except (parallel.Late, OSError):
        return


def _walk(starts: Sequence[tuple[str, int]], free: Collection[str] = ()) -> Iterator[tuple[str, list[str]]]:
    """Directories and the names of directories in them, breadth first from each start, which has its own depth.

    Those whose names are ``free`` cost no depth.
    """
    seen: set[str] = set()
    for start, deepest in starts:
        queue = collections.deque([(start, deepest)])
        while queue and len(seen) < MOST_DIRECTORIES:
            folder, depth = queue.popleft()
            real = os.path.realpath(folder)
            if real in seen:
                continue
            seen.add(real)
            names = _names(folder)
            yield folder, names
            for name in names:
                left = depth - (name not in free)
                if left and _is_searched(name):
                    queue.append((posixpath.join(folder, name), left))


def _is_searched(name: str) -> bool:
    return name not in SKIPPED and not name.startswith((CACHED, "datasets--", "spaces--"))


def _names(folder: str) -> list[str]:
    """The names of the directories in a directory, links to directories among them."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry, __ in zip(entries, range(MOST_ENTRIES)) if entry.is_dir())
    except (OSError, ValueError):
        return []


def _is_model(folder: str) -> bool:
    return os.path.isfile(posixpath.join(folder, "config.json"))  # noqa: PTH113  (the same)


def _commits(folder: str) -> list[str]:
    snapshots = posixpath.join(folder, "snapshots")
    return [commit for commit in _names(snapshots) if _is_model(posixpath.join(snapshots, commit))]
