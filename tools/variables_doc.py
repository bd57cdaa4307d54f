#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/variables.md from the roles' meta/argument_specs.yml, and defaults/main.yml where that has a default alone.

With --check nothing is written, and the exit status is 1 if the page is not what would be written.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.lmfleet.lmdeploy.tools.doc_pages import command_line, written  # noqa: E402  (its path first)

HEAD = """\
# Variables

Every variable of every role, as its `meta/argument_specs.yml` says; `tools/variables_doc.py` writes this page.
"""


def page(roles: Path) -> str:
    """Return the whole page for the roles in the folder ``roles``."""
    specs = {
        file.parent.parent.name: yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"]
        for file in sorted(roles.glob("*/meta/argument_specs.yml"))
    }
    return "\n".join([HEAD, *(section(role, points, defaults_of(roles / role)) for role, points in specs.items())])


def defaults_of(role: Path) -> dict[str, Any]:
    """Return the role's defaults/main.yml, empty where there is none."""
    file = role / "defaults" / "main.yml"
    return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}


def section(role: str, points: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Return one role's part: a table of variables an entry point."""
    lines = [f"## {role}", ""]
    for point, spec in points.items():
        if point != "main":
            lines += [f"### {role}, tasks_from: {point}", ""]
        lines += [text(spec.get("short_description", "")) + ".", "", *paragraphs(spec), ""]
        rows = list(options(spec.get("options") or {}, defaults))
        if rows:
            lines += ["| Variable | Type | Default | Meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def paragraphs(spec: dict[str, Any]) -> list[str]:
    """Return the description, a line a paragraph."""
    given = spec.get("description", [])
    return [text(line) for line in ([given] if isinstance(given, str) else given)]


def options(given: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a row an option, and after it its suboptions, named ``option.suboption``."""
    for name, option in given.items():
        kind = option.get("type", "str")
        if kind == "list":
            kind = f"list of {option.get('elements', 'any')}"
        values = [each[key] for each, key in ((option, "default"), (defaults, name)) if key in each]
        default = "required" if option.get("required") else code(values[0]) if values else ""
        choices = ", ".join(code(choice) for choice in option.get("choices", []))
        meaning = " ".join([*paragraphs(option), *([f"One of {choices}."] if choices else [])])
        yield f"| `{prefix}{name}` | {kind} | {default} | {cell(meaning)} |"
        yield from options(option.get("options") or {}, {}, f"{prefix}{name}.")


def text(marked: str) -> str:
    """Turn Ansible's markup, such as O(option), M(module) and C(code), into Markdown's."""
    return re.sub(r"\b(?:[CEMOPV]|RV)\(([^)]*)\)", r"`\1`", marked).strip()


def code(value: Any) -> str:
    """Return ``value`` as it would stand in YAML, as code."""
    return cell(f"`{json.dumps(value) if not isinstance(value, str) or not value else value}`")


def cell(content: str) -> str:
    """Return ``content`` so that it fits into a cell of a table."""
    return content.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write or check the page."""
    parser = command_line(__doc__, "variables.md")
    parser.add_argument("--roles", type=Path, default=ROOT / "roles")
    args = parser.parse_args()
    return written(args, page(args.roles))


if __name__ == "__main__":
    sys.exit(main())
