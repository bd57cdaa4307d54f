# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the containers of a host would find a whole model: every file that the engine reads, each as long as it says itself.

Runs on the hosts: Python 3.9, standard library only. Reads headers, never weights, so that the 690 GB of DeepSeek-V3
are checked in seconds. Only what the engine reads can be a fault.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import posixpath
import pwd
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Callable

from . import formats, nearby, parallel
from .formats import DamagedError, shown, some
from .view import DanglingError, LeavesMountsError, Mount, NotAFileError, View

CONFIG = "config.json"
GENERATION = "generation_config.json"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
TORCH_INDEX, TORCH = "pytorch_model.bin.index.json", "pytorch_model.bin"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS = ("special_tokens_map.json", "added_tokens.json")
TEMPLATES = ("chat_template.json", "chat_template.jinja")
# Of a model that sees or hears.
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
SENSES = ("vision_config", "visual", "audio_config", "thinker_config")
# Weights in a form that LMDeploy does not read.
OTHER_WEIGHTS = re.compile(r".*\.(gguf|ggml|pth|pt|msgpack|h5|onnx|npz)|consolidated.*\.safetensors|adapter_model\..*")
SHARD = re.compile(r".*-of-\d+\.safetensors")
# What an engine may read of a model; the rest (pictures, licences) may differ between hosts.
ENGINE_SUFFIXES = {".jinja", ".json", ".model", ".py", ".safetensors", ".tiktoken", ".txt"}
# What a plan asks of the configuration.
CONFIG_KEYS = (
    "architectures",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "moe_intermediate_size",
    "n_routed_experts",
    "n_shared_experts",
    "num_attention_heads",
    "num_experts",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_local_experts",
    "quantization_config",
)
# What LMDeploy chooses its model by (lmdeploy/archs.py, get_model_arch).
ARCHITECTURE = ("architectures", "auto_map", "language_config")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHORTEST_COMMIT = 4  # digits that people shorten one to
LONGEST_CODE = 4 << 20  # bytes of a code file, or of a ref, that are read
READERS = 16  # on network storage the time goes into round trips, not into reading
NAMED = 3  # how many names of many a fault gives
MOST_FAULTS = 12  # of one model, after those that say the same were joined
MOST_MOUNTS = 8  # links that leave the mounts, each to another place
MOST_SNAPSHOTS = 4  # that are checked where the one that was asked for is not whole
UNREAD = "cannot be read"
NEVER_READ = (errno.ELOOP, errno.ENOTDIR)  # by nobody, whatever the rights
UNFINISHED = (".aria2", ".part", ".crdownload")  # what downloaders keep beside a file until it is whole


@dataclasses.dataclass
class ModelReport:
    """What was found. ``files`` maps the names that an engine may read to bytes; ``faults`` is empty for a whole model.

    ``path`` is the host's. ``digest`` is equal on two hosts exactly if commit, names, sizes and configuration are; None
    without a directory. Of a model in the cache, ``hub`` is the cache's directory on the host, and ``snapshots`` has every
    commit, and whether that is whole (None: not checked); ``reads`` is that
    directory in the container, without links. ``mounts`` are what links lead to and no mount brings into the
    container, ``settings`` the variables that would find the model where it is, as YAML, ``damaged`` the host's paths of
    files that are not fetched again until they are removed. ``unread``: all that is wrong is that it cannot be read.
    """

    path: str | None = None
    commit: str | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, int] = dataclasses.field(default_factory=dict)
    total_bytes: int = 0
    digest: str | None = None
    faults: list[str] = dataclasses.field(default_factory=list)
    hub: str | None = None
    snapshots: dict[str, bool | None] = dataclasses.field(default_factory=dict)
    mounts: list[dict[str, str]] = dataclasses.field(default_factory=list)
    settings: list[str] = dataclasses.field(default_factory=list)
    damaged: list[str] = dataclasses.field(default_factory=list)
    unread: bool = False
    reads: str | None = None


EMPTY: dict[str, Any] = dataclasses.asdict(ModelReport())  # what a look without an end answers


def model_facts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The ModelReport of ``asked`` as a dict. What the file system refuses is a fault like any other.

    ``asked`` has ``path``, or ``repo``, ``revision`` and ``hf_home``. With ``mounts`` (each ``source`` and ``target``) ``path``,
    and ``hub``, the cache's directory, are the container's. ``code``: whether the engine runs the model's own code.
    """
    where = asked.get("path") or asked.get("hf_home") or ""
    mounts = [Mount(each["source"], each["target"]) for each in asked.get("mounts") or []]
    view, code = View(mounts) if mounts else View(), asked.get("code") is not False
    try:
        if asked.get("path"):
            report = _at_path(where, view, asked.get("hub") if mounts else None, code=code)
        elif asked.get("repo") and where:
            hub = asked.get("hub") if mounts else None
            report = check_cached(where, asked["repo"], asked.get("revision") or "main", view=view, hub=hub, code=code)
        else:
            report = ModelReport(faults=["nobody said which model to look for: give path, or repo and hf_home."])
    except OSError as error:
        report = ModelReport(faults=[_refused(error, where)], unread=error.errno not in NEVER_READ)
    return dataclasses.asdict(report)


def check_cached(
    hf_home: str,
    repo: str,
    revision: str = "main",
    *,
    view: View | None = None,
    hub: str | None = None,
    code: bool = True,
) -> ModelReport:
    """Check ``repo`` at ``revision`` (a branch, a tag or a commit) in the Hugging Face cache.

    That is ``hub``, in the container, or the host's directory hub under ``hf_home``.
    """
    view = view or View()
    cache = _Cache(view, hub or f"{hf_home}/hub", repo, code=code)
    try:
        report = cache.check(revision)
    except PermissionError as error:  # the default home is root's; that of the user who looks is another
        report = ModelReport(faults=[_refused(error, hf_home)], unread=True)
    if not report.faults:
        return report
    if cache.present:
        cache.add_other_snapshots(report)
        return report
    places = nearby.of_repository(repo, hf_home, cache.hub, view, revision)
    if any(not each.other_model for each in places):
        report.faults = [fault.replace(_never(repo), ".") for fault in report.faults]
    _add_nearby(report, places, code=code)
    return report


def check_directory(path: str, *, view: View | None = None, hub: str | None = None, code: bool = True) -> ModelReport:
    """Check the model whose files lie in the directory ``path`` of the container, or of the host where there is no ``view``.

    ``hub`` is the cache in which code of other repositories is looked for.
    """
    return _Directory(path, view or View(), hub, code=code).report()


def _at_path(path: str, view: View, hub: str | None, *, code: bool) -> ModelReport:
    report = check_directory(path, view=view, hub=hub, code=code)
    if report.faults and CONFIG not in report.files:
        _add_nearby(report, nearby.of_path(path, view), code=code)
    return report


def _add_nearby(report: ModelReport, places: Sequence[nearby.Elsewhere], *, code: bool) -> None:
    """Say of a model that was found elsewhere on the host whether it is whole, and what to set."""
    for each in places:
        if each.repo:
            cache = _Cache(each.view, each.inside, each.repo, code=code)
            found = cache.check(each.revision)
            if found.faults:
                cache.add_other_snapshots(found)
        else:
            found = check_directory(each.inside, view=each.view, code=code)
        whole = next((commit for commit, is_whole in found.snapshots.items() if is_whole), None)
        setting = each.setting
        if not found.faults:
            state = "whole"
        elif whole:
            state, setting = f"whole at the commit {whole}", f"{setting}\nplan_model_revision: {whole}".lstrip()
        else:
            state = f"not whole: {found.faults[0]}"
        report.faults.append(f"{shown(each.host)} holds {each.what}, {state.rstrip('.')}.")
        if not found.faults or whole:
            report.settings.append(setting)
            report.mounts += found.mounts
        # Half of a model beside nothing is still better gone on with than begun again.
        elif not each.other_model and not report.settings:
            report.settings.append(setting)


class _Cache:
    """A repository in a Hugging Face cache, as huggingface_hub finds it without a network."""

    def __init__(self, view: View, hub: str, repo: str, *, code: bool) -> None:
        self._view, self._repo, self._code = view, repo, code
        self._inside = f"{hub}/{nearby.folder_of(repo)}"
        self.hub = hub
        self.present = False
        self._commits: list[str] = []
        self._asked: str | None = None

    def check(self, revision: str) -> ModelReport:
        """The report on one revision."""
        links = _Links(self._view)
        report = ModelReport()
        try:
            self.present = links.through(lambda: stat.S_ISDIR(self._view.status(self._inside).st_mode))
        except FileNotFoundError as error:
            where = self._view.on_host(self._inside) or self._inside
            if isinstance(error, DanglingError):
                report.faults.append(_dangling(shown(error.link), error))
            report.faults.append(f"{shown(where)} does not exist{_never(self._repo)}")
        else:
            if not self.present:
                report.faults.append(f"{self._on_host()} is no directory.")
        if not self.present:
            return links.told(report)
        report.hub = posixpath.dirname(self._on_host())
        try:
            self._commits = links.through(lambda: self._view.names(f"{self._inside}/snapshots"))
        except FileNotFoundError:
            self._commits = []
        report.snapshots = dict.fromkeys(map(shown, self._commits))
        try:
            commit, fault = self._commit_of(revision, links)
        except OSError as error:
            commit, fault, report.unread = "", _refused(error, self._inside), error.errno not in NEVER_READ
        if fault:
            report.faults.append(fault)
            return links.told(report)
        inside = f"{self._inside}/snapshots/{commit}"
        found = _Directory(inside, self._view, self.hub, code=self._code).report(commit)
        found.hub, found.snapshots = report.hub, {**report.snapshots, commit: not found.faults}
        with contextlib.suppress(OSError, LeavesMountsError):
            found.reads = self._view.find(self.hub).inside
        self._asked = commit
        if found.faults:
            found.faults += self._unfinished(links)
        return links.told(found)

    def add_other_snapshots(self, report: ModelReport) -> None:
        """Look whether another commit is whole, the newest first."""
        others = [commit for commit in self._commits if commit != self._asked and COMMIT.fullmatch(commit)]
        others = sorted(others, key=self._age)[:MOST_SNAPSHOTS]
        report.snapshots = {**dict.fromkeys(others), **report.snapshots}
        for commit in others:
            inside = f"{self._inside}/snapshots/{commit}"
            found = check_directory(inside, view=self._view, hub=self.hub, code=self._code)
            report.snapshots[commit] = not found.faults
            if not found.faults:
                said = f"The commit {commit} of {self._repo} is on this host, and whole."
                if self._asked is None and report.faults:
                    report.faults[-1] += f" {said}"
                else:
                    report.faults.append(said)

    def _age(self, commit: str) -> float:
        try:
            return -self._view.status(f"{self._inside}/snapshots/{commit}").st_mtime
        except (OSError, LeavesMountsError):
            return 0.0

    def _commit_of(self, revision: str, links: _Links) -> tuple[str, str]:
        """(the commit of a revision, what is wrong with it)."""
        never = f"revision {shown(revision)} of {self._repo} was never downloaded to this host"
        held = f"(it has {some(self._commits)})"
        longer = [
            each for each in self._commits if len(revision) >= SHORTEST_COMMIT and each.startswith(revision.lower())
        ]
        if longer and revision not in self._commits:
            held += f". A commit is given in full: plan_model_revision: {longer[0]}"
        commit = revision
        if not COMMIT.fullmatch(revision):
            ref = f"{self._inside}/refs/{revision}"
            where = f"{self._on_host()}/refs/{shown(revision)}"
            try:
                content = links.through(lambda: _read(self._view, ref))
            except (FileNotFoundError, NotADirectoryError):
                return "", f"{where} does not exist: {never} {held}."
            except NotAFileError as error:
                return "", f"{where} is {error.kind}: {never} {held}."
            commit = content.decode("utf-8", "replace")
            bare = commit.strip()
            if bare != commit and bare in self._commits:
                return "", (
                    f"{where} ends with a line break or blanks, which the engine takes for a part of the commit's name: "
                    f"write the commit alone (printf %s {bare} > {where})."
                )
            if not bare:
                return "", f"{where} is empty, so no commit is revision {shown(revision)} of {self._repo} {held}."
            if not re.fullmatch(r"(?!\.+$)[\w.-]{1,100}", bare):
                return "", f"{where} holds no commit ({shown(bare[:40])!r}): {never} {held}."
        if commit in self._commits:
            return commit, ""
        return "", f"{self._on_host()}/snapshots/{shown(commit)} does not exist: {never} {held}."

    def _on_host(self) -> str:
        return shown(self._view.find(self._inside).host or self._inside)

    def _unfinished(self, links: _Links) -> list[str]:
        blobs = f"{self._inside}/blobs"
        try:
            names = [name for name in links.through(lambda: self._view.names(blobs)) if name.endswith(".incomplete")]
            where = self._view.find(blobs).host
            sizes = [self._view.status(f"{blobs}/{name}").st_size for name in names]
        except OSError:
            return []
        if len(names) > NAMED:
            total = sum(sizes)
            return [
                f"{where} holds {len(names)} files (*.incomplete, {total} bytes) of a download that was cut off or still runs."
            ]
        return [
            f"{where}/{shown(name)} holds {size} bytes of a download that was cut off or is still running."
            for name, size in zip(names, sizes)
        ]


class _Links:
    """Links that leave what is mounted. Each is noted, with the mount to add, and then followed as if that were there."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._left: list[LeavesMountsError] = []

    def through(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except LeavesMountsError as left:  # noqa: PERF203  (each try has one mount more)
                if len(self._left) >= MOST_MOUNTS:
                    raise OSError(errno.ELOOP, "too many links lead out of what is mounted", left.link) from None
                self._left.append(left)
                self._view.add(left.mount)

    def told(self, report: ModelReport) -> ModelReport:
        """The report, with these faults first."""
        said = [
            f"{shown(each.link)} is a link, and no container finds what it leads to: no mount has {shown(each.inside)}."
            for each in self._left
        ]
        report.mounts = [dataclasses.asdict(each.mount) for each in self._left] + report.mounts
        report.faults = said + report.faults
        return report


class _Directory:
    """The check of one directory of the container."""

    def __init__(self, path: str, view: View, hub: str | None, *, code: bool) -> None:
        self._path, self._view, self._hub, self._runs_code = path, view, hub, code
        self._links = _Links(view)
        self._report = ModelReport()
        self._names: set[str] = set()
        self._said: dict[str, list[str]] = {}  # what is wrong -> the files of which it is

    def report(self, commit: str | None = None) -> ModelReport:
        """All that is found out of it."""
        report = self._report
        report.commit = commit
        if not self._list():
            return self._links.told(report)
        found = self._json(CONFIG, needed=True)
        config = found or {}
        report.config = {key: config[key] for key in CONFIG_KEYS if key in config}
        if found is not None and not any(config.get(key) for key in ARCHITECTURE):
            self._say(
                CONFIG,
                "names no architecture (architectures), so an engine cannot tell what to load: fetch the model's own.",
            )
        self._json(GENERATION)
        tokenizer = self._tokenizer()
        for name in (*TEMPLATES, *(PROCESSORS if any(key in config for key in SENSES) else ())):
            self._json(name) if name.endswith(".json") else self._plain(name)
        self._code(config, tokenizer)
        self._weights()
        report.total_bytes = sum(report.files.values())
        report.digest = _digest_of(report, self._bytes(CONFIG))
        report.unread = not report.faults and all(text.startswith(UNREAD) for text in self._said) and bool(self._said)
        for text, names in self._said.items():
            if len(names) > NAMED:
                report.faults.append(f"{some(names)}: each {text}")
            else:
                report.faults += [f"{shown(name)} {text}".strip() for name in names]
        if len(report.faults) > MOST_FAULTS:
            more = len(report.faults) - MOST_FAULTS
            report.faults[MOST_FAULTS:] = [f"and {more} more faults of this kind."]
        return self._links.told(report)

    # ---- the directory

    def _list(self) -> bool:
        """Whether there is a directory, whose names and sizes are known then."""
        report = self._report
        try:
            names = self._links.through(lambda: self._view.names(self._path))
            place = self._view.find(self._path)
        except (FileNotFoundError, NotADirectoryError) as error:
            where = self._view.on_host(self._path)
            if isinstance(error, DanglingError):
                report.faults.append(_dangling(shown(error.link), error))
            elif isinstance(error, NotADirectoryError):
                report.faults.append(_refused(error, where or self._path))
            elif where is None:
                report.faults.append(f"{shown(self._path)} is under no mount: no container has it.")
            elif posixpath.normpath(where) == posixpath.normpath(self._path):
                report.faults.append(f"{shown(self._path)} is not a directory on this host.")
            else:
                report.faults.append(
                    f"{shown(self._path)} of the containers is {shown(where)} on this host, and that is not a directory "
                    f"(beside it is {some(self._beside())}): correct plan_model, or its mount in plan_extra_mounts."
                )
            return False
        report.path = place.host or place.inside
        self._names = set(names)
        for name in names:
            if PurePosixPath(name).suffix in ENGINE_SUFFIXES:
                self._measure(name)
        return True

    def _beside(self) -> list[str]:
        try:
            return self._view.names(posixpath.dirname(posixpath.normpath(self._path)))
        except (OSError, LeavesMountsError):
            return []

    def _measure(self, name: str) -> None:
        """Note the size of a file; one that is not needed may lead to nothing."""
        try:
            status = self._links.through(lambda: self._view.status(f"{self._path}/{name}"))
        except OSError:
            return  # told, if it is needed
        if stat.S_ISREG(status.st_mode):
            self._report.files[shown(name)] = status.st_size

    def _say(self, name: str, text: str) -> None:
        self._said.setdefault(text, []).append(name)

    # ---- files

    def _open(self, name: str, *, needed: bool) -> BinaryIO | None:
        """A file, opened; where that cannot be, it is said why. One that is not needed may be missing."""
        try:
            file: BinaryIO = self._links.through(lambda: self._view.open(f"{self._path}/{name}"))
        except DanglingError as error:
            self._report.faults.append(_dangling(shown(name), error))
        except (FileNotFoundError, NotADirectoryError):
            if needed:
                self._say(name, self._missing(name))
        except NotAFileError as error:
            self._say(name, f"is {error.kind}, and not a file.")
        except (OSError, ValueError) as error:
            self._say(name, _why(error))
        else:
            return file
        return None

    def _missing(self, name: str) -> str:
        """That a file is missing, and what of it is there."""
        begun = next((suffix for suffix in (*UNFINISHED, ".incomplete") if f"{name}{suffix}" in self._names), None)
        if begun:
            return f"is missing: its downloader's unfinished file ({begun}) is there, so the download was cut off or still runs."
        other = next((each for each in self._names if each.lower() == name.lower()), None)
        return f"is missing: there is {shown(other)}, in other letters." if other else "is missing."

    def _checked(self, name: str, check: Callable[[BinaryIO], Any], *, needed: bool) -> Any:
        """What ``check`` returns of a file; None where there is none, or it is damaged."""
        file = self._open(name, needed=needed)
        if file is None:
            return None
        with file:
            try:
                return check(file)
            except DamagedError as error:
                self._damaged(name, str(error))
            except OSError as error:
                self._say(name, _why(error))
        return None

    def _damaged(self, name: str, text: str) -> None:
        self._say(name, text)
        host = self._view.find(f"{self._path}/{name}").host
        if host and host not in self._report.damaged:
            self._report.damaged.append(host)

    def _json(self, name: str, *, needed: bool = False) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._checked(name, formats.json_object, needed=needed)
        return found

    def _plain(self, name: str, *, needed: bool = False) -> None:
        def check(file: BinaryIO) -> None:
            wrong = formats.stand_in(file)
            if wrong:
                raise DamagedError(wrong)

        self._checked(name, check, needed=needed)

    def _bytes(self, name: str) -> bytes | None:
        try:
            return _read(self._view, f"{self._path}/{name}", formats.LONGEST_JSON)
        except (OSError, LeavesMountsError):
            return None

    # ---- the tokenizer

    def _tokenizer(self) -> dict[str, Any]:
        """Check its files, and return its configuration. A fast tokenizer is read from tokenizer.json alone."""
        config = self._json(TOKENIZER_CONFIG) or {}
        self._json(TOKENIZER)
        own = bool(formats.code_files(_auto_map(config)))
        if "added_tokens_decoder" not in config:
            for name in SPECIAL_TOKENS:
                self._json(name)
        if TOKENIZER in self._names and TOKENIZER_CONFIG in self._names and not own:
            return config
        vocabularies = sorted(name for name in self._names if _is_vocabulary(name))
        for name in vocabularies:
            self._json(name) if name.endswith(".json") else self._plain(name)
        if TOKENIZER in self._names or own:
            return config
        if not vocabularies:
            self._report.faults.append(
                f"there is neither {TOKENIZER} nor tokenizer.model, nor another file with a tokenizer's vocabulary."
            )
        elif vocabularies == ["vocab.json"]:
            self._say("merges.txt", f"is missing: without it, and without {TOKENIZER}, vocab.json is no tokenizer.")
        elif vocabularies == ["merges.txt"]:
            self._say("vocab.json", f"is missing: without it, and without {TOKENIZER}, merges.txt is no tokenizer.")
        return config

    # ---- code

    def _code(self, config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
        """Check that the model's own code is there, with what it imports of itself.

        An engine that does not run it needs none of it: it is no fault then that there is none at all.
        """
        maps = (_auto_map(config), _auto_map(tokenizer))
        files: dict[str, list[str]] = {}
        for each in maps:
            for name, classes in formats.code_files(each).items():
                files.setdefault(name, []).extend(classes)
        own = [name for name in files if "--" not in name]
        if not self._runs_code and not any(name in self._names for name in own):
            return
        todo, seen = list(own), set(own)
        while todo:
            name = todo.pop()
            source = self._source(name)
            for module in formats.RELATIVE_IMPORT.findall(source):
                wanted = f"{module}.py"
                if wanted not in seen and module not in self._names:
                    seen.add(wanted)
                    todo.append(wanted)
            if TOKENIZER not in self._names and name in formats.code_files(_auto_map(tokenizer)):
                for vocabulary in set(formats.VOCABULARY.findall(source)) - self._names:
                    self._say(vocabulary, f"is missing, and {name} reads the tokenizer's vocabulary from it.")
        if self._runs_code:
            for name, classes in files.items():
                # LMDeploy has models of its own: of another repository's code it runs the configuration's and tokenizer's.
                if "--" in name and any(not each.startswith("AutoModel") for each in classes):
                    self._foreign(name)

    def _source(self, name: str) -> str:
        def read(file: BinaryIO) -> str:
            wrong = formats.stand_in(file) if formats.size_of(file) else ""
            if wrong:
                raise DamagedError(wrong)
            return file.read(LONGEST_CODE).decode("utf-8", "replace")

        return self._checked(name, read, needed=True) or ""

    def _foreign(self, name: str) -> None:
        """Code that lies in another repository, which is looked for in the cache."""
        repo, __, file = name.partition("--")
        if self._hub is None:
            return
        folder = f"{self._hub}/{nearby.folder_of(repo)}"
        try:
            commit = _read(self._view, f"{folder}/refs/main").decode("utf-8", "replace")
            self._view.status(f"{folder}/snapshots/{commit}/{file}")
        except (OSError, ValueError, LeavesMountsError):
            self._say(
                file, f"of the repository {repo} is missing in the cache, and the model needs it: hf download {repo}."
            )

    # ---- weights

    def _weights(self) -> None:
        """In the order in which LMDeploy looks for them."""
        if SINGLE in self._names:
            self._shards({SINGLE: set()}, formats.safetensors_fault)
        elif INDEX in self._names:
            self._indexed(INDEX, formats.safetensors_fault)
        elif TORCH in self._names:
            self._shards({TORCH: set()}, _pytorch)
        elif TORCH_INDEX in self._names:
            self._indexed(TORCH_INDEX, _pytorch)
        else:
            fault = f"there is neither {INDEX} nor {SINGLE}."
            shards = sorted(name for name in self._names if SHARD.fullmatch(name))
            others = sorted(name for name in self._names if OTHER_WEIGHTS.fullmatch(name))
            if shards:
                fault += (
                    f" {len(shards)} files of weights are there ({some(shards)}), but nothing says what is in them."
                )
            elif others:
                fault += (
                    f" There is {some(others)}, which LMDeploy does not read: it needs the model as safetensors files."
                )
            self._report.faults.append(fault)

    def _indexed(self, name: str, check: Callable[[BinaryIO, set[str]], str]) -> None:
        index = self._json(name, needed=True)
        if index is None:
            return
        try:
            shards = formats.shards_of(index)
        except DamagedError as error:
            self._damaged(name, str(error))
            return
        self._shards(shards, check)

    def _shards(self, shards: Mapping[str, set[str]], check: Callable[[BinaryIO, set[str]], str]) -> None:
        def read(name: str) -> str | OSError:
            with opened[name]:
                try:
                    return check(opened[name], shards[name])
                except OSError as error:
                    return error

        unfinished = {name for name in shards if any(f"{name}{suffix}" in self._names for suffix in UNFINISHED)}
        names = sorted(shards)
        for first in range(0, len(names), READERS * 4):  # a thousand open files are too many
            opened: dict[str, BinaryIO] = {}
            for name in names[first : first + READERS * 4]:
                file = self._open(name, needed=True)
                if file is not None:
                    opened[name] = file
                    self._report.files[shown(name)] = formats.size_of(file)
            for name, found in parallel.each(read, opened, READERS).items():
                if isinstance(found, OSError):
                    self._say(name, _why(found))
                elif found:
                    self._damaged(name, found)
                elif name in unfinished:
                    self._say(name, "is not downloaded to its end: its downloader's own file lies beside it still.")


def _never(repo: str) -> str:
    return f": {repo} was never downloaded to this host."


def _pytorch(file: BinaryIO, __: set[str]) -> str:
    return formats.pytorch_fault(file)


def _auto_map(config: Mapping[str, Any]) -> Any:
    found = config.get("auto_map")
    return {"AutoTokenizer": found} if isinstance(found, list) else found


def _is_vocabulary(name: str) -> bool:
    if name in (TOKENIZER_CONFIG, TOKENIZER):
        return False
    return name in ("tekken.json", "vocab.json", "merges.txt", "vocab.txt") or name.endswith(
        (".model", ".tiktoken", ".bpe")
    )


def _read(view: View, inside: str, most: int = LONGEST_CODE) -> bytes:
    with view.open(inside) as file:
        return file.read(most)


def _dangling(name: str, error: DanglingError) -> str:
    return f"{name} is a link to {shown(error.target)}, which does not exist."


def _why(error: Exception) -> str:
    """Why a file cannot be read, to be said after its name."""
    if isinstance(error, ValueError):
        return "is no name of a file."
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "is a link that leads back to itself: remove it, and fetch the file again."
    if isinstance(error, PermissionError):
        return f"{UNREAD}: {error.strerror} for the user {_user()}: run with become, or let that user read it (ls -l)."
    return f"{UNREAD}: {getattr(error, 'strerror', None) or error}: see dmesg, and that its file system is mounted."


def _refused(error: OSError, where: str) -> str:
    name = shown(str(error.filename or where))
    if error.errno == errno.ELOOP:
        return f"{name} is a link that leads back to itself: remove it, or make it lead to the directory that it stands for."
    if error.errno == errno.ENOTDIR:
        path = PurePosixPath(str(error.filename or where))
        file = next((each for each in (*reversed(path.parents), path) if os.path.isfile(each)), path)  # noqa: PTH113
        return (
            f"{shown(str(file))} is a file, and a directory of the model belongs there: remove it, or correct the path."
        )
    if isinstance(error, PermissionError):
        return (
            f"{name} cannot be read: {error.strerror}. The user {_user()} looked: run with become, or let that user "
            "read it (ls -ld), or set plan_hf_home to a cache that it may read."
        )
    return f"{name} cannot be read: {error.strerror or error}. See who may read it (ls -ld), and that its file system is mounted."


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"with the number {os.geteuid()}"


def _digest_of(report: ModelReport, config: bytes | None) -> str:
    mark = None if config is None else hashlib.sha256(config).hexdigest()
    identity = json.dumps([report.commit, mark, sorted(report.files.items())])
    return hashlib.sha256(identity.encode()).hexdigest()
