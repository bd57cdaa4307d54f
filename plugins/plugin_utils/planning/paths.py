# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and directories that options of api_server name, as its containers see them.

Read in lmdeploy/cli/utils.py, pytorch/engine/engine.py and serve/core of 0.8.0 to 0.18.0.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import re
from collections.abc import Iterator, Sequence

from .types import HF_CACHE, REPO_ID

# Option -> what of the directory that it names is read first; nothing for what need not be there yet.
DIRECTORIES = {
    "--adapters": "adapter_config.json",
    "--generation-config": "generation_config.json",
    "--speculative-draft-model": "config.json",
    "--download-dir": "",
}
TEMPLATE = "--chat-template"
KV_TRANSFER = "--kv-transfer-config"
NO_PATHS = {"--generation-config": ("auto", "lmdeploy")}
# A repository's id does instead: its files are in the cache, for nothing is downloaded.
REPOSITORIES = ("--adapters", "--speculative-draft-model")
# In TP the server reads these, on the head; the rest is for every worker.
READ_BY_SERVER = frozenset({TEMPLATE, "--generation-config"})
# With one of these a template's name is that of a file.
A_FILE = re.compile(r"/|\.(?:json|jinja2?|j2|txt|ya?ml)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Named:
    """What an option names: ``path`` in the containers, which is ``kind``: "json", "file" or "directory".

    ``reads`` is the file that is read first, ``path`` itself or one in it; empty where nothing need be there.
    """

    option: str
    path: str
    kind: str
    reads: str

    @property
    def key(self) -> str:
        """The option as an inventory has it."""
        return self.option[2:].replace("-", "_")


def named(arguments: Sequence[str], hub: str = f"{HF_CACHE}/hub") -> list[Named]:
    """Every path that ``arguments`` of api_server name, absolute or not; ``hub`` is the cache in the containers."""
    found = []
    for option, value in values_of(arguments):
        if option == TEMPLATE and A_FILE.search(value):
            found.append(Named(option, value, "json", value))
        elif option == KV_TRANSFER:
            path = _mooncake(value)
            found += [Named(option, path, "file", path)] if path else []
        elif option in DIRECTORIES and value not in NO_PATHS.get(option, ()):
            place = value.partition("=")[2] if option == "--adapters" and "=" in value else value
            first = DIRECTORIES[option]
            if option in REPOSITORIES and REPO_ID.fullmatch(place):
                folder = f"{hub}/models--{place.replace('/', '--')}"
                found.append(Named(option, folder, "directory", f"{folder}/snapshots"))
            else:
                found.append(Named(option, place, "directory", posixpath.join(place, first) if first else ""))
    return found


def values_of(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option with each of its values."""
    option = ""
    for word in arguments:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            if equals:
                yield option, value
        elif option:
            yield option, word


def _mooncake(value: str) -> str:
    """The file that the connector to Mooncake reads, where its configuration names one."""
    try:
        extra = json.loads(value).get("kv_connector_extra_config", {})
        path = extra.get("mooncake_config_path", "")
    except (ValueError, AttributeError):
        return ""
    return path if isinstance(path, str) else ""
