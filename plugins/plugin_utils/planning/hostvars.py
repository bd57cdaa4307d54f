# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``plan_*`` variables of hosts, templated one by one, so that what cannot be read is told of each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.template import Templar

from ..hidden import token_fault
from .gateway import SECRETS
from .types import Faults

PREFIX = "plan_"
ADDRESS = "plan_cluster_address"
OMITTED = "__omit_place_holder__"  # ansible-core before 2.19
NO_FACTS = "The plan touches no host, so it has no facts: write the value itself into the inventory."
# Mappings whose entries stand alone: one that cannot be read leaves the others what they are.
ENTRIES = frozenset(
    {"plan_environment", "plan_proxy_environment", "plan_api_server_options", "plan_proxy_options", "plan_ports"}
)
LOST, LEFT_OUT = object(), object()
LONGEST_REASON = 300
WORD = re.compile(r"[A-Za-z_]\w*")


class _Unreadable(Exception):
    """The value of one variable; the fault was noted."""


class HostVariables:
    """Reads the variables of one host; faults go to ``faults``. Raises nothing for what stands in an inventory."""

    def __init__(self, node: str, hostvars: Any, loader: Any, faults: Faults, sources: Sources) -> None:
        self._node = node
        self._faults = faults
        self._sources = sources
        self._raw: Mapping[str, Any] = hostvars.raw_get(node)
        self._templar = Templar(loader=loader, variables={**self._raw, "hostvars": hostvars})

    def read(self) -> tuple[dict[str, Any], set[str]]:
        """The values that could be read, by variable, and the names of those that could not."""
        values, unreadable = {}, set()
        for key in self._raw:
            if not key.startswith(PREFIX):
                continue
            try:
                values[key] = self._value(self._raw[key], key)
            except _Omitted:
                continue
            except _Unreadable:
                unreadable.add(key)
        self._check_token()
        host = self._host(unreadable)
        if not values.get(ADDRESS) and ADDRESS not in unreadable:
            values[ADDRESS] = host
        return values, unreadable

    def _check_token(self) -> None:
        """The one secret that a plan needs: refused here if it will be later, before any host is touched. It enters no plan."""
        with contextlib.suppress(_Omitted, _Unreadable):
            token = self._value(self._raw.get("ray_token_value"), "ray_token_value")
            fault = token_fault(str(token or ""))
            if fault:
                self._faults.add(fault)

    def _host(self, unreadable: set[str]) -> str:
        try:
            return str(self._value(self._raw.get("ansible_host"), "ansible_host") or self._node)
        except _Omitted:
            return self._node
        except _Unreadable:
            if not self._raw.get(ADDRESS):
                unreadable.add(ADDRESS)
            return self._node

    def _value(self, raw: Any, where: str) -> Any:
        """``raw`` with everything in it templated. Each part that cannot be is a fault of its own."""
        if isinstance(raw, Mapping):
            written = self._sources.numbers_in(raw)
            parts = {key: self._part(each, f"{where}.{key}", written.get(key)) for key, each in raw.items()}
            if any(part is LOST for part in parts.values()) and where not in ENTRIES:
                raise _Unreadable
            return {key: part for key, part in parts.items() if part is not LOST and part is not LEFT_OUT}
        if isinstance(raw, (list, tuple)):
            items = [self._part(each, f"{where}[{n}]", None) for n, each in enumerate(raw)]
            if any(item is LOST for item in items):
                raise _Unreadable
            return [item for item in items if item is not LEFT_OUT]
        value = self._templated(raw, where)
        if value is not raw and isinstance(value, Mapping):  # a variable that another one names
            for key, each in value.items():
                self._check_number(each, self._sources.number(each), f"{where}.{key}")
            return value
        self._check_number(value, self._sources.number(raw), where)
        return value

    def _part(self, raw: Any, where: str, written: str | None) -> Any:
        """A part of a value, ``LOST`` where it cannot be read and ``LEFT_OUT`` where its template says so."""
        try:
            value = self._value(raw, where)
            self._check_number(value, written, where)
        except _Omitted:
            return LEFT_OUT
        except _Unreadable:
            return LOST
        return value

    def _templated(self, raw: Any, where: str) -> Any:
        if raw is None or isinstance(raw, (bool, int, float)):
            return raw
        try:
            # A vaulted text of ansible-core before 2.19 is decrypted when it is asked for its text.
            value = str(raw) if getattr(raw, "__ENCRYPTED__", False) else self._templar.template(raw)
        except Exception as error:  # noqa: BLE001 - whatever a template, a lookup or a filter raises
            if type(error).__name__ == "AnsibleValueOmittedError":
                raise _Omitted from None
            self._faults.add(f"{where} cannot be read: {self._reason(raw, error)}", self._node)
            raise _Unreadable from None
        if isinstance(value, str) and value.startswith(OMITTED):
            raise _Omitted
        return value

    def _check_number(self, value: Any, written: str | None, where: str) -> None:
        """YAML reads 022 as 18 and 1:30 as 90, which is seldom what was meant."""
        if (
            written is None
            or isinstance(value, bool)
            or not isinstance(value, int)
            or written in (str(value), f"+{value}")
        ):
            return
        if where.startswith(SECRETS):
            self._faults.add(f"{where} is a number for YAML: quote it.", self._node)
            raise _Unreadable
        self._faults.add(
            f"{where} is written {written}, which YAML reads as the number {value}: quote it ('{written}'), or write {value}.",
            self._node,
        )
        raise _Unreadable

    def _reason(self, raw: Any, error: Exception) -> str:
        """Why it cannot be read, and what to do, in a line."""
        lines = " ".join(str(error).split())
        # ansible-core before 2.19 tells the same in several shells, and twice.
        lines = lines.rpartition("original message: ")[2] or lines
        half = (len(lines) - 2) // 2
        if half > 0 and lines[half : half + 2] == ". " and lines[:half] == lines[half + 2 :]:
            lines = lines[:half]
        for shell in ("Error rendering template: ", "Attempt to use undecryptable variable: "):
            lines = lines.removeprefix(shell)
        reason = lines if len(lines) <= LONGEST_REASON else f"{lines[:LONGEST_REASON]}..."
        reason = reason.rstrip(".")
        low = reason.lower()
        if "vault secret" in low or "decrypt" in low:
            return f"{reason}. Give the vault's password: --ask-vault-pass, or --vault-password-file FILE."
        if "recursi" in low:
            return "its template refers to itself, directly or through other variables. Write the value itself."
        if type(error).__name__ == "AnsibleUndefinedVariable" or "undefined" in low or "not defined" in low:
            if self._wants_facts(raw):
                return f"{reason}. {NO_FACTS}"
            return f"{reason}. Define it for this host, or write the value itself."
        return f"{reason}. Correct the template, or write the value itself."

    def _wants_facts(self, raw: Any) -> bool:
        """Whether a template, or a variable that it refers to, names a fact."""
        seen: set[str] = set()
        texts = [str(raw)]
        while texts:
            for word in WORD.findall(texts.pop()):
                if word in seen:
                    continue
                seen.add(word)
                if word == "ansible_facts" or (word.startswith("ansible_") and word not in self._raw):
                    return True
                if isinstance(self._raw.get(word), (str, Mapping, list)):
                    texts.append(str(self._raw[word]))
        return False


class _Omitted(Exception):
    """``omit`` came out of a template."""


class Sources:
    """How numbers are written in the YAML files that they come from; where that cannot be told, nothing is said."""

    def __init__(self) -> None:
        self._files: dict[str, dict[tuple[int, int], Any]] = {}

    def number(self, value: Any) -> str | None:
        """How a number is written, from ansible-core 2.19 on, which keeps the place of each."""
        place = _place(value) if isinstance(value, int) and not isinstance(value, bool) else None
        node = self._node(place)
        return node.value if isinstance(node, yaml.ScalarNode) and not node.style else None

    def numbers_in(self, mapping: Mapping[Any, Any]) -> dict[str, str]:
        """How the plain values of a mapping are written, by key; ansible-core before 2.19 keeps the place of mappings alone."""
        if not any(isinstance(each, int) for each in mapping.values()):
            return {}
        node = self._node(_place(mapping))
        if not isinstance(node, yaml.MappingNode):
            return {}
        return {
            key.value: each.value for key, each in node.value if isinstance(each, yaml.ScalarNode) and not each.style
        }

    def _node(self, place: tuple[str, int, int] | None) -> Any:
        if place is None:
            return None
        path, line, column = place
        if path not in self._files:
            self._files[path] = {}
            # Not YAML, gone, or encrypted: then nobody can tell.
            with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
                text = Path(path).read_text(encoding="utf-8")
                for document in yaml.compose_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                    places = {(n.start_mark.line + 1, n.start_mark.column + 1): n for n in _nodes(document)}
                    self._files[path].update(places)
        return self._files[path].get((line, column))


def _nodes(root: Any) -> Iterator[Any]:
    """Every node of a document; of a mapping and its first key, which begin at one place, the mapping comes last."""
    pending, found = [root], []
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        found.append(node)
        if isinstance(node, yaml.MappingNode):
            pending.extend(each for pair in node.value for each in pair)
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
    yield from reversed(found)


def _place(value: Any) -> tuple[str, int, int] | None:
    """File, line and column of a value, where Ansible kept them."""
    position = getattr(value, "ansible_pos", None)  # ansible-core before 2.19
    if position is None:
        try:
            from ansible._internal._datatag._tags import Origin  # 2.19 and later
        except ImportError:
            return None
        origin = Origin.get_tag(value)
        position = (origin.path, origin.line_num, origin.col_num) if origin else None
    return position if position and all(position) else None
