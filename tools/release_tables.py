#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write plugins/plugin_utils/data/releases.json: what each LMDeploy release accepts on its command line.

The options are asked of the releases' own argument parsers. A parser is pure Python, so the gigabytes that a
release depends on are not installed: third-party packages are replaced by stand-ins while it is imported.

    tools/release_tables.py                     every release that ships a table now, from the package index
    tools/release_tables.py --add 0.19.0        and this one
    tools/release_tables.py --sources DIR       from DIR/<version>/lmdeploy instead of the package index
"""

from __future__ import annotations

import abc
import argparse
import importlib.abc
import importlib.machinery
import json
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parent.parent / "plugins" / "plugin_utils" / "data" / "releases.json"
COMMANDS = ("api_server", "proxy")
PARSERS = (
    ("--reasoning-parser", "reasoning_parser", "ReasoningParserManager"),
    ("--tool-call-parser", "tool_parser", "ToolParserManager"),
)
LEGACY_REASONING_PARSERS = {"deepseek-r1", "intern-s1", "qwen-qwq"}

Option = dict[str, Any]  # {"kind": ..., "type": ..., "choices": ..., "default": ...}


# Asking one release ------------------------------------------------------------------------------------------------


class _AnythingMeta(abc.ABCMeta):
    """Makes a class of which every attribute is that class again: it can be subclassed, called and decorated with."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        return "99.0.0" if name == "__version__" else Anything


class Anything(metaclass=_AnythingMeta):
    """Stands for whatever a third-party package offers; as a decorator it hands back what it decorates."""

    def __new__(cls, *args: Any, **__: Any) -> Any:  # noqa: D102
        return args[0] if len(args) == 1 and callable(args[0]) else super().__new__(cls)

    def __init__(self, *_args: Any, **_more: Any) -> None:
        """Take whatever is given."""

    def __call__(self, *args: Any, **__: Any) -> Any:  # noqa: D102
        return args[0] if len(args) == 1 and callable(args[0]) else self

    def __class_getitem__(cls, __: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Registry:
    """Stands for mmengine's Registry, in which LMDeploy keeps its parsers: the one stand-in that remembers."""

    def __init__(self, *_args: Any, **_more: Any) -> None:
        self.module_dict: dict[str, Any] = {}

    def register_module(self, name: Any = None, **__: Any) -> Any:
        """Register under ``name``, one or a list, or under the class's own."""

        def register(cls: Any) -> Any:
            for one in [name or cls.__name__] if isinstance(name, (str, type(None))) else name:
                self.module_dict[one] = cls
            return cls

        return register


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for every module that is neither LMDeploy's nor the standard library's."""

    def find_spec(self, name: str, *__: Any) -> importlib.machinery.ModuleSpec | None:
        """Return a spec of which this object is the loader."""
        top = name.partition(".")[0]
        if top == "lmdeploy" or top in sys.stdlib_module_names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make a module that has every attribute."""
        module = types.ModuleType(spec.name)
        offers = {"Registry": Registry}
        module.__getattr__ = lambda name: offers.get(name) or getattr(Anything, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave it as it was made."""


def extract(source: Path) -> dict[str, Any]:
    """Return {"release", "api_server": {option: ...}, "proxy": {...}} of the LMDeploy under ``source``; imports it."""
    sys.path.insert(0, str(source))
    sys.meta_path.insert(0, _StandIns())
    package = types.ModuleType("lmdeploy")  # without its __init__, which imports the engines
    package.__path__ = [str(source / "lmdeploy")]
    sys.modules["lmdeploy"] = package

    from lmdeploy.cli.serve import SubCliServe
    from lmdeploy.version import __version__

    SubCliServe.add_parsers()
    parsers = SubCliServe.subparsers.choices
    table: dict[str, Any] = {"release": __version__}
    for command in COMMANDS:
        table[command] = _options(parsers[command])
    for option, names in _parser_names().items():
        if option in table["api_server"]:
            table["api_server"][option]["choices"] = names
    return table


def _options(parser: argparse.ArgumentParser) -> dict[str, Option]:
    options = {}
    for action in parser._actions:
        if not action.option_strings or isinstance(action, argparse._HelpAction):
            continue
        (name,) = action.option_strings  # LMDeploy has no aliases; should it get one, this says so
        option: Option = {"kind": "flag" if action.nargs == 0 else "list" if action.nargs in ("+", "*") else "value"}
        if option["kind"] != "flag":
            option["type"] = _type_name(action.type)
            option["default"] = action.default
        if action.choices is not None:
            option["choices"] = [c for c in action.choices if c is not None]
        options[name] = option
    return options


def _type_name(kind: Any) -> str:
    if kind in (int, float):
        return str(kind.__name__)
    if kind is json.loads:
        return "json"
    return "str"  # or a parser of LMDeploy's own, which is left to LMDeploy


def _parser_names() -> dict[str, list[str]]:
    """Return the names that LMDeploy accepts for a model's parsers; it keeps them in registries, not in ``choices``."""
    names: dict[str, set[str]] = {}
    for option, module, manager in PARSERS:
        for home in ("lmdeploy.serve.openai", "lmdeploy.serve.parsers"):  # moved in 0.13
            try:
                parsers = importlib.import_module(f"{home}.{module}")
            except ModuleNotFoundError:
                continue
            names[option] = set(getattr(parsers, manager).module_dict)
    if "default" in names["--reasoning-parser"]:  # the registries were reworked, and these names kept working
        names["--reasoning-parser"] |= LEGACY_REASONING_PARSERS
    return {option: sorted(accepted) for option, accepted in names.items()}


# From releases to spans ----------------------------------------------------------------------------------------------


def spans(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the tables of all releases, oldest first, into {"releases": [...], command: {option: [span, ...]}}.

    A span is what an option looks like from the release ``since`` to the release ``until``, both included; without
    ``until`` it lasts to the newest.
    """
    releases = [table["release"] for table in tables]
    merged: dict[str, Any] = {"releases": releases}
    for command in COMMANDS:
        merged[command] = {}
        for option in sorted({name for table in tables for name in table[command]}):
            merged[command][option] = _spans_of([table[command].get(option) for table in tables], releases)
    return merged


def _spans_of(history: list[Option | None], releases: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    start = 0
    for index in range(1, len(history) + 1):
        if index < len(history) and history[index] == history[start]:
            continue
        option = history[start]
        if option is not None:
            until = {} if index == len(history) else {"until": releases[index - 1]}
            found.append({"since": releases[start], **until, **option})
        start = index
    return found


def as_text(merged: dict[str, Any]) -> str:
    """JSON with one line a span, so that a new release's changes read well in a diff."""
    lines = ["{", f'"releases": {json.dumps(merged["releases"])},']
    for command in COMMANDS:
        lines.append(f'"{command}": {{')
        options = list(merged[command].items())
        for number, (option, found) in enumerate(options):
            comma = "," if number < len(options) - 1 else ""
            body = ",\n  ".join(json.dumps(span) for span in found)
            lines.append(f'"{option}": [\n  {body}\n]{comma}')
        lines.append("}" if command == COMMANDS[-1] else "},")
    return "\n".join([*lines, "}", ""])


# Getting the releases ------------------------------------------------------------------------------------------------


def download(release: str, target: Path) -> None:
    """Unpack the Python files of ``release``'s wheel into ``target``; pip decides where it comes from."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", folder, f"lmdeploy=={release}"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target, [name for name in archive.namelist() if name.endswith(".py")])


def ask(source: Path) -> dict[str, Any]:
    """``extract`` in a process of its own: one process can import one LMDeploy."""
    answer = subprocess.run(
        [sys.executable, __file__, "--extract", str(source)], check=True, stdout=subprocess.PIPE, text=True
    )
    table: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or print one release's where it is asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--add", action="append", default=[], metavar="RELEASE", help="one more release")
    parser.add_argument("--sources", type=Path, help="folder with <release>/lmdeploy in it, instead of the index")
    parser.add_argument("--output", type=Path, default=TABLE)
    parser.add_argument("--extract", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.extract:
        print(json.dumps(extract(args.extract)))
        return 0

    shipped = json.loads(TABLE.read_text(encoding="utf-8"))["releases"] if TABLE.exists() else []
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for release in sorted({*shipped, *args.add}, key=version_key):
            source = (args.sources or Path(folder)) / release
            if not args.sources:
                download(release, source)
            tables.append(ask(source))
    args.output.write_text(as_text(spans(tables)), encoding="utf-8")
    return 0


def version_key(release: str) -> tuple[int, ...]:
    """Order 0.9.2 before 0.9.2.post1 before 0.10.0."""
    return tuple(int(part.removeprefix("post")) for part in release.split("."))


if __name__ == "__main__":
    sys.exit(main())
