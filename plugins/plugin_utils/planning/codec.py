# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From plain JSON back to typed dataclasses; the way there is ``dataclasses.asdict``."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))  # Python 3.9 has the former alone


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """A ``cls`` (a dataclass) out of ``data``. Raises ``ValueError`` at a key too many or missing, or a value of another type."""
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        raise ValueError(f"{where or cls.__name__} is no mapping")  # noqa: TRY004 - one kind of error for bad data
    unknown = [key for key in data if key not in fields]
    # A default is for who builds one: what was written has every key, and a lost one is no default.
    missing = [name for name in fields if name not in data]
    if unknown or missing:
        told = [*(f"{key} is not known" for key in unknown), *(f"{key} is missing" for key in missing)]
        raise ValueError(f"{where or cls.__name__}: {', '.join(told)}")
    return cls(**{key: _value(hints[key], value, f"{where}.{key}".lstrip(".")) for key, value in data.items()})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """A class's types, which Python evaluates again each time that it is asked: most of the time of reading a plan."""
    return typing.get_type_hints(cls)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in UNIONS:
        if value is None and type(None) in arguments:
            return None
        (inner,) = (each for each in arguments if each is not type(None))
        return _value(inner, value, where)
    if dataclasses.is_dataclass(hint):
        return decode(hint, value, where)  # type: ignore[arg-type]
    if origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{where} is no list")
        return [_value(arguments[0], each, f"{where}[{n}]") for n, each in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is no mapping")
        return {str(key): _value(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    # JSON has one kind of number where a float is meant; bool is an int in Python, and none here.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} is {value!r}, not of type {hint.__name__}")
    return value
