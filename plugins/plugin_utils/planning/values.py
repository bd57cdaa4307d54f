# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One value of a variable, brought into the type that its argument spec names, or refused with what to write instead."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_dict
from ansible.module_utils.parsing.convert_bool import boolean

from ..releases import did_you_mean

HIGHEST = 2**63 - 1  # Python itself refuses to print a number that is much longer
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
YAML_WORDS = "YAML reads yes, no, on, off, true and false as truth values"
LONGEST_SHOWN = 80
LONGEST_PATH = 200  # that is shown whole
LONG_NUMBER = "a number of more than 18 digits"


class WrongValue(ValueError):
    """A value that is of no use; each of ``args`` is a sentence that starts with the variable."""


def shown(value: Any, most: int = LONGEST_SHOWN) -> str:
    """A value as messages have it: ``most`` characters, and on one line."""
    try:
        text = str(value) if isinstance(value, datetime.date) else repr(value)
    except ValueError:  # a number that Python refuses to print
        text = LONG_NUMBER
    if isinstance(value, int) and abs(value) > HIGHEST:
        text = LONG_NUMBER
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(text: str) -> str:
    """A path or a name, which is shown whole where it can be."""
    return shown(text, LONGEST_PATH)


def read_value(rule: Mapping[str, Any], value: Any, where: str) -> Any:
    """``value`` in the type of ``rule``, an entry of an argument spec (type, elements, options, choices, default).

    ``where`` names the variable in messages. Text is taken for numbers, truth values, lists and mappings as Ansible does it
    everywhere, for ``-e name=value`` gives text. Raises ``WrongValue``.
    """
    if value is None:
        if rule.get("default") in ("", [], {}):
            return rule["default"]
        raise WrongValue(f"{where} has no value: give it one, or take the line out.")
    result = READERS[rule.get("type", "str")](rule, value, where)
    choices = rule.get("choices")
    if choices and result not in choices:
        near = did_you_mean(str(result), choices)
        raise WrongValue(f"{where} is {shown(result)}{near}: it is one of {', '.join(choices)}.")
    return result


def as_text(value: Any, where: str) -> str:
    """Text, or a whole number as text. Raises ``WrongValue`` with what another value would have become."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise WrongValue(f"{where} would become the text {str(value)!r} ({YAML_WORDS}): quote it.")
    if isinstance(value, int):
        if abs(value) > HIGHEST:
            raise WrongValue(f"{where} is {shown(value)}: quote it.")
        return str(value)
    kind: dict[Any, str] = {
        float: "a number with a fraction",
        type(None): "empty",
        Mapping: "a mapping",
        (list, tuple): "a list",
    }
    named = (word for known, word in kind.items() if isinstance(value, known))
    what = next(named, f"a {type(value).__name__.rpartition('Tagged')[2].lower()}")
    try:
        text = shown(str(value))
    except ValueError:
        text = LONG_NUMBER
    first = "give one text instead, or " if isinstance(value, (Mapping, list, tuple)) else ""
    raise WrongValue(f"{where} is {what} and would become the text {text}: {first}quote it.")


def _text(__: Mapping[str, Any], value: Any, where: str) -> str:
    return as_text(value, where)


def _whole(__: Mapping[str, Any], value: Any, where: str) -> int:
    if isinstance(value, str) and WHOLE.fullmatch(value.strip()):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > HIGHEST:
        raise WrongValue(f"{where} is {shown(value)}: it takes a whole number (int).")
    return int(value)


def as_flag(value: Any) -> bool | None:
    """A truth value, also one that is given as text or as 0 or 1; None where it is none."""
    try:
        return bool(boolean(value)) if isinstance(value, (str, int, float)) else None
    except TypeError:
        return None


def _flag(__: Mapping[str, Any], value: Any, where: str) -> bool:
    flag = as_flag(value)
    if flag is None:
        raise WrongValue(f"{where} is {shown(value)}: it takes true or false (bool).")
    return flag


def _mapping(rule: Mapping[str, Any], value: Any, where: str) -> dict[str, Any]:
    parts = rule.get("options")
    other_kind = f"{where} is {shown(value)}: it takes a mapping (dict), {_like(parts)}."
    if isinstance(value, str):
        try:
            value = check_type_dict(value)
        except (TypeError, ValueError):
            raise WrongValue(other_kind) from None
    if not isinstance(value, Mapping):
        raise WrongValue(other_kind)
    if not parts:
        return dict(value)
    wrong = [
        f"{where} has {shown(key)}{did_you_mean(str(key), parts)}: it takes {', '.join(parts)}."
        for key in value
        if key not in parts
    ]
    result = {}
    for key, part in parts.items():
        result[key] = part.get("default")
        if value.get(key) is None and part.get("required"):
            wrong.append(f"{where} has no {key}: give it one.")
        elif value.get(key) is not None:
            read: list[Any] = []
            _collect(part, value[key], f"{where}.{key}", read, wrong)
            result[key] = read[0] if read else None
    if wrong:
        raise WrongValue(*wrong)
    return result


def _like(parts: Mapping[str, Any] | None) -> str:
    """What a mapping looks like."""
    required = [f"{key}: ..." for key, part in (parts or {}).items() if part.get("required")]
    return ", ".join(required) or "name: value"


def text_keys(given: Mapping[Any, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The entries whose key is text, and a fault for each other."""
    wrong = [
        f"{where} has the key {shown(key)}, which is not text: quote it." for key in given if not isinstance(key, str)
    ]
    return {key: value for key, value in given.items() if isinstance(key, str)}, wrong


def _list(rule: Mapping[str, Any], value: Any, where: str) -> list[Any]:
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, (list, tuple)):
        raise WrongValue(f"{where} is {shown(value)}: it takes a list.")
    item = {"type": rule.get("elements", "str"), "options": rule.get("options")}
    found: list[Any] = []
    wrong: list[str] = []
    for n, each in enumerate(value):
        _collect(item, each, f"{where}[{n}]", found, wrong)
    if wrong:
        raise WrongValue(*wrong)
    return found


def _collect(rule: Mapping[str, Any], value: Any, where: str, found: list[Any], wrong: list[str]) -> None:
    try:
        found.append(read_value(rule, value, where))
    except WrongValue as error:
        wrong.extend(error.args)


def _listed(text: str) -> Any:
    """The list that a text stands for: JSON, or words with commas between them."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return None
    return [word.strip() for word in text.split(",") if word.strip()]


def is_plain(value: Any) -> bool:
    """Whether ``value`` is what JSON can hold, with text for keys and numbers that are finite."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= HIGHEST
    return value is None or isinstance(value, str)


READERS = {"str": _text, "int": _whole, "bool": _flag, "dict": _mapping, "list": _list}
