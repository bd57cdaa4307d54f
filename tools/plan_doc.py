#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/plan.md from the types of the plan, plugins/plugin_utils/planning/types.py.

With --check nothing is written, and the exit status is 1 if the page is not what would be written.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import (  # noqa: E402  (its path first)
    DERIVED,
    PLAN_FORMAT,
    Plan,
)
from ansible_collections.lmfleet.lmdeploy.tools.doc_pages import command_line, written  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

HEAD = """\
# The plan

All that a deployment is, as JSON. `playbooks/plan.yml` prints it with `-e plan_show=json`, and every host keeps the one that was
carried out in its [record.json](architecture.md#files-on-the-hosts). `tools/plan_doc.py` writes this page from
`plugins/plugin_utils/planning/types.py`.

This is format {number}. A reader refuses any other, and keys and types that are not on this page. The number goes up with any
change that a reader could notice. Computed keys are there for people and programs; the collection never reads them back. No secret
is in a plan, only the name of its file.
"""


def page(plan: type[Any], number: int, derived: Collection[str]) -> str:
    """Return the whole page: the type ``plan``, and each type that is in it, in the order in which they come."""
    return "\n".join([HEAD.format(number=number), *(section(each, derived) for each in reached(plan))])


def reached(root: type[Any]) -> list[type[Any]]:
    """Return ``root`` and every dataclass that its fields hold, each once."""
    found = [root]
    for each in found:  # grows meanwhile
        for hint in typing.get_type_hints(each).values():
            found.extend(inner for inner in inside(hint) if inner not in found)
    return found


def inside(hint: Any) -> Iterator[type[Any]]:
    """Yield the dataclasses in a type."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from inside(argument)


def section(cls: type[Any], derived: Collection[str]) -> str:
    """Return one type's part: its docstring, and a table of its keys."""
    rows = [*fields(cls), *computed(cls, derived)]
    notes = any(note for *__, note in rows)
    head = ["| Key | Type | |", "|---|---|---|"] if notes else ["| Key | Type |", "|---|---|"]
    table = [f"| `{name}` | {kind} |" + (f" {note} |" if notes else "") for name, kind, note in rows]
    return "\n".join([f"## {cls.__name__}", "", *text(cls), "", *head, *table, ""])


def fields(cls: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and default of each field."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        note = ""
        if field.default is not dataclasses.MISSING:
            note = f"`{json.dumps(field.default)}` where it is left out"
        elif field.default_factory is not dataclasses.MISSING:
            note = f"`{json.dumps(field.default_factory())}` where it is left out"
        yield field.name, kind(hints[field.name]), note


def computed(cls: type[Any], derived: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the keys of ``derived`` that the JSON has beside the fields, with what each is."""
    for name, member in vars(cls).items():
        if name in derived and isinstance(member, property) and member.fget is not None:
            (meaning,) = text(member)
            yield name, kind(typing.get_type_hints(member.fget)["return"]), f"computed: {meaning}"


def kind(hint: Any) -> str:
    """Return a type in a reader's words, with links to the types of this page."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if each is type(None) else kind(each) for each in arguments)
    if origin is list:
        return f"list of {kind(arguments[0])}"
    if origin is dict:
        return f"map of {kind(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"  # type: ignore[union-attr]
    return str(hint.__name__)


def text(documented: Any) -> list[str]:
    """Return the docstring in Markdown, a line a paragraph."""
    paragraphs = (inspect.getdoc(documented) or "").split("\n\n")
    lines = [re.sub(r"\bNone\b", "null", " ".join(each.split()).replace("``", "`")) for each in paragraphs]
    return [line for n, each in enumerate(lines) for line in ([""] if n else []) + [each]]


def main() -> int:
    """Write or check the page."""
    return written(command_line(__doc__, "plan.md").parse_args(), page(Plan, PLAN_FORMAT, DERIVED))


if __name__ == "__main__":
    sys.exit(main())
