#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that each role's meta/argument_specs.yml says what its defaults/main.yml does.

A template is no value of a dict, an integer and so on, and documentation tools refuse it as the default of one; a secret's
would be printed with the spec, as what it comes to. It stands in defaults/main.yml alone, and the option's description says
what it comes to. Prints every difference and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

TEXT = ("str", "path", "raw")
ROLES = Path(__file__).resolve().parent.parent / "roles"


def load(file: Path) -> dict[str, Any]:
    """Return the mapping in ``file``, empty where there is no such file."""
    return (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}


def entry_points(role: Path) -> dict[str, Any]:
    """Return {entry point: its spec} of ``role``."""
    specs: dict[str, Any] = load(role / "meta" / "argument_specs.yml").get("argument_specs", {})
    return specs


def differences(role: Path) -> list[str]:
    """Return what differs between the role's defaults and its specs, a sentence each."""
    defaults = load(role / "defaults" / "main.yml")
    points = entry_points(role)
    if "main" not in points and (role / "tasks" / "main.yml").exists():
        return [f"{role.name}: meta/argument_specs.yml has no entry point main."]
    found = []
    for point, spec in points.items():
        for name, option in (spec.get("options") or {}).items():
            where = f"{role.name}: {name} ({point})"
            if name in defaults and option.get("required"):
                found.append(f"{where} is required, and has a default in defaults/main.yml.")
            elif name in defaults and typed_template(option, defaults[name]):
                if "default" in option:
                    found.append(
                        f"{where} has a template as its default: leave it to defaults/main.yml, and say in the description "
                        f"what it comes to, because documentation tools want a {option['type']}."
                    )
                elif "default" not in " ".join(descriptions(option)).lower():
                    found.append(
                        f"{where} has its default, a template, in defaults/main.yml alone: the description has to say it."
                    )
            elif name in defaults and "default" not in option:
                found.append(f"{where} has no default in its spec, and {defaults[name]!r} in defaults/main.yml.")
            elif name not in defaults and "default" in option:
                found.append(
                    f"{where} has the default {option['default']!r} in its spec, and none in defaults/main.yml."
                )
            elif name in defaults and not same(option["default"], defaults[name]):
                found.append(
                    f"{where} is {option['default']!r} in its spec, and {defaults[name]!r} in defaults/main.yml."
                )
    documented = {name for spec in points.values() for name in spec.get("options") or {}}
    found.extend(f"{role.name}: {name} is in defaults/main.yml only." for name in defaults if name not in documented)
    return found


def typed_template(option: dict[str, Any], default: Any) -> bool:
    """Whether ``default`` is a template for what is not text, or for a secret."""
    return (
        (option.get("type", "str") not in TEXT or option.get("no_log", False))
        and isinstance(default, str)
        and "{{" in default
    )


def descriptions(option: dict[str, Any]) -> list[str]:
    """Return the paragraphs of the option's description."""
    given: str | list[str] = option.get("description", [])
    return [given] if isinstance(given, str) else given


def same(one: Any, other: Any) -> bool:
    """Whether two values from YAML are equal; true is not 1."""
    return yaml.safe_dump(one, sort_keys=True) == yaml.safe_dump(other, sort_keys=True)


def main() -> int:
    """Check every role."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--roles", type=Path, default=ROLES)
    args = parser.parse_args()
    found = [line for role in sorted(args.roles.iterdir()) if role.is_dir() for line in differences(role)]
    print("\n".join(found) or "Specs and defaults of all roles agree.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
