# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of LMDeploy's commands as an inventory has them: flags that are text, and values that cannot become one argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..releases import Command, Option, option_name, release_table, releases, resolve_image
from .environment import LONGEST, has_secret
from .types import Faults
from .values import YAML_WORDS, as_flag, is_plain, shown

COMMANDS = {"plan_api_server_options": "api_server", "plan_proxy_options": "proxy"}
NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def read_options(variable: str, given: Mapping[str, Any], image: str, faults: Faults) -> dict[str, Any]:
    """The options of a variable, flags as truth values; one that cannot be an argument is a fault, and left out.

    ``image`` is plan_image; of one whose release nobody knows, flags are those of the newest release.
    """
    known = _known(COMMANDS[variable], image)
    accepted = {}
    for key, value in given.items():
        if not key.isprintable():
            faults.add(f"{variable} has {shown(key)}, which is not the name of an option: correct it.")
            continue
        option = (known.options or {}).get(option_name(key))
        fault = _fault_of(option, value)
        if fault:
            faults.add(f"{variable}.{key} {fault}")
        else:
            flag = as_flag(value) if option and option.kind == "flag" else None
            accepted[key] = value if flag is None else flag
    return accepted


def _known(command: str, image: str) -> Command:
    try:
        release = resolve_image(image).release
    except ValueError:  # a fault of its own
        release = None
    table = release_table(release)
    found: Command = getattr(table, command)
    return found if found.options is not None else getattr(release_table(releases()[-1]), command)


def _fault_of(option: Option | None, value: Any) -> str | None:
    """What keeps a value from becoming arguments, whatever the option; None where nothing does."""
    if has_secret(value):
        return "has what looks like a secret, and would be readable in plans, diffs and docker inspect: take it out."
    if not is_plain(value):
        return f"is {shown(value)}, which is neither text nor a number that can be given to a command: quote it."
    if option and option.kind != "flag" and option.type == "str":
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, bool):
                return f"would become the text {str(item)!r} ({YAML_WORDS}): quote it."
            if isinstance(item, float):
                return f"is a number with a fraction and would become the text {str(item)!r}: quote it."
    if isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, str) and item.startswith("-") and not NUMBER.fullmatch(item):
                return f"has {shown(item)}, which the command would take for another option: take it out."
            if item is None or isinstance(item, (Mapping, list, tuple)):
                return f"has {shown(item)} in its list: give a list of words or numbers."
    if len(str(value)) > LONGEST:
        return f"has {len(str(value))} characters, and no program can be started with so much: shorten it."
    if _has_hidden(value):
        return f"is {shown(value)}, which has a character in it that nobody can see: write it again."
    return None


def _has_hidden(value: Any) -> bool:
    if isinstance(value, str):
        return any(not character.isprintable() and character not in "\n\t" for character in value)
    if isinstance(value, Mapping):
        return any(_has_hidden(each) for pair in value.items() for each in pair)
    return isinstance(value, (list, tuple)) and any(map(_has_hidden, value))
