# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets taken out of text before it leaves a host, or is given to others: known values, and what looks like a secret.

Rather too much is taken out than too little: a log with a word missing can still be read.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

REMOVED = "***"
SHORTEST = 4  # characters; a shorter value is in every other word
SHORTEST_LEARNT = 6  # of a value that was found beside a name, which may be no secret
# What stands for no secret at all; all of these are words of logs too.
_WORDS = frozenset({"none", "null", "true", "false", "empty", "default", "changeme"})

# Names have an end, or a line of a million dashes would take minutes.
_UPPER = (
    r"[A-Z0-9_]{0,60}(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL)[A-Z0-9_]{0,20}"
    r"|[A-Z0-9_]{0,60}(?:TOKEN|KEYS?|APIKEYS?|AUTH|PAT|PWD|PASS)"
)
_LOWER = (
    r"[\w-]{0,60}(?:password|passwd|passphrase|client[_-]?secret|secret[_-]?key)|(?:[\w-]{1,60}[_-])?secret"
    r"|(?:[\w-]{1,60}[_-])?(?:api|access|auth|private|account|encryption|signing|shared)[_-]?(?:tokens?|keys?)"
    r"|(?:hf|hub|hugging[_-]?face|ray|bearer|refresh|id|session|registry|identity|github|gitlab|vault)[_-]?token"
    r"|X-Amz-(?:Signature|Credential|Security-Token)|(?:X-)?[Aa]pi-?[Kk]ey|x-api-key|sig|Signature|Key-Pair-Id|Policy"
)
# Names that only look like a secret's: of paths, of files, of what is on or off.
_NO_NAME = re.compile(r"(?:_|^)(?:PATH|FILE|DIR|HOME|URL|ID|MODE|TYPE|LENGTH|LEN|SIZE|COUNT|TIMEOUT)$", re.IGNORECASE)
_NAME = re.compile(rf"(?:{_UPPER})|(?i:{_LOWER})")

_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# What its issuer marked as a secret, whatever holds it.
_MARKED = re.compile(
    r"\b(?:hf_(?:[A-Za-z0-9]{16,}|(?=[A-Za-z]{0,40}[0-9A-Z])[A-Za-z0-9]{8,})|api_org_[A-Za-z0-9]{16,}|sk-[\w-]{16,}"
    r"|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|nvapi-[\w-]{20,}|dckr_pat_[\w-]{16,}"
    r"|xox[abeprs]-[\w-]{10,}|A[KS]IA[A-Z0-9]{16}|eyJ[\w-]{8,2000}\.eyJ[\w-]{8,}\.[\w-]*)"
)
_HEADER = re.compile(
    r"(?P<kept>\b(?:proxy-)?authorization\b[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|digest|token|negotiate)\s+)?"
    r"|\bbearer\s+)(?P<value>[^\s\"',;}]{3,})",
    re.IGNORECASE,
)
# An option takes all words up to the next one; in JSON and Python each has its quotes.
_OPTION = re.compile(
    r"(?P<kept>--(?:[a-z]+[_-])*(?:api[_-]?keys?|password|passwd|token|secret)\b)"
    r"(?P<value>(?:(?:\s*[=,:\s]\s*|\s*[\"'],\s*)[\"'\[]*(?!-)[^\s\"',\]]+[\"'\]]*)+)",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9])(?P<name>(?:{_UPPER})|(?i:{_LOWER}))(?P<between>\\?[\"']?\s*(?:=|:(?!//))\s*)"
    r"(?P<value>\[[^\]\n]*\]|\([^)\n]*\)|b?\\?\"(?:[^\"\\\n]|\\.)*\"|b?'(?:[^'\\\n]|\\.)*'|"
    r"[^\s\"',&;}\])\\]+(?:[,;&][^\s\"'=&,;}\])\\]+(?=[\s\"',;&}\])\\]|$))*)"
)
_LOGIN = re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]{0,30}://)[^\s/@\"']+@", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^\s/:@]*:([^\s/@]+)@")
# A line without any of these has none of the patterns; most have none.
_HINT = re.compile(
    r"token|key|passw|pass=|phrase|secret|auth|credential|bearer|sig|policy|pat[\"']?\s*[=:]|pwd|pass[\"']?\s*[=:]|@|hf_|org_|sk-"
    r"|gh[oprsu]_|glpat|nvapi|xox|a[ks]ia|eyj",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(r"[\"'\[(]*(?:true|false|yes|no|on|off|none|null|\*+|<[^>]*>|)[\"'\])]*$", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether what a variable or an option of this name holds is taken for a secret."""
    return bool(_NAME.fullmatch(name)) and not _NO_NAME.search(name)


class Redactor:
    """Takes secrets out of text. ``values`` are known ones; more are learnt with ``learn``."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._known: re.Pattern[str] | None = None
        self.learn(values)

    def learn(self, values: Iterable[str], shortest: int = SHORTEST) -> None:
        """More values, which are taken out wherever they stand: as they are, in JSON, in URLs and in base64."""
        for value in values:
            lines = value.strip().splitlines()
            for each in {value.strip(), *(line.strip() for line in lines if len(lines) > 1)}:
                if len(each) < shortest or each.lower() in _WORDS or _BLOCK_MARK.match(each):
                    continue
                encoded = base64.b64encode(each.encode()).decode().rstrip("=")
                self._values |= {each, json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1], encoded}
                self._values |= {urllib.parse.quote(each), urllib.parse.quote(each, safe=""), repr(each)[1:-1]}
                self._known = None  # until it is asked for

    def known(self, text: str) -> str:
        """``text`` without the known values alone; for what a host has been through with ``text`` already."""
        if not self._values:
            return text
        if self._known is None:
            longest_first = sorted(self._values, key=lambda each: (-len(each), each))
            self._known = re.compile("|".join(map(re.escape, longest_first)))
        return self._known.sub(REMOVED, text)

    def learn_environment(self, environment: Iterable[str]) -> None:
        """The values of ``NAME=value`` whose names are those of secrets, and the passwords in addresses, as of a proxy."""
        for entry in environment:
            name, __, value = entry.partition("=")
            self.learn(_PASSWORD.findall(value), SHORTEST_LEARNT)
            if is_secret_name(name) and not _NO_SECRET.match(value):
                self.learn([value], SHORTEST_LEARNT)

    def learn_command(self, command: Iterable[str]) -> None:
        """The values of options such as ``--api-keys``."""
        taking = False
        for word in map(str, command):
            option, equals, value = word.partition("=")
            if word.startswith("-"):
                taking = is_secret_name(option.lstrip("-").replace("-", "_"))
                if taking and equals:
                    self.learn([value], SHORTEST_LEARNT)
            elif taking:
                self.learn([word], SHORTEST_LEARNT)

    def text(self, text: str) -> str:
        """``text`` without them."""
        text = self.known(text)
        text = _BLOCK.sub(REMOVED, text) if "-----BEGIN " in text else text
        return "\n".join(_line(line) if _HINT.search(line) else line for line in text.split("\n"))

    def data(self, value: Any, name: str = "") -> Any:
        """Plain data without them: of mappings the values of secret names, of lists environments and commands too."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.data(each, str(key)) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return self._list(value, name)
        if isinstance(value, str):
            return REMOVED if is_secret_name(name) and not _NO_SECRET.match(value) else self.text(value)
        return value

    def _list(self, value: Iterable[Any], name: str) -> list[Any]:
        found, taking = [], False
        for each in value:
            if not isinstance(each, str):
                found.append(self.data(each, name))
                continue
            option, equals, given = each.partition("=")
            if each.startswith("-"):
                taking = is_secret_name(option.lstrip("-").replace("-", "_"))
                found.append(f"{option}={REMOVED}" if taking and equals else self.text(each))
            elif taking:
                found.append(REMOVED)
            elif equals and is_secret_name(option) and not _NO_SECRET.match(given):
                found.append(f"{option}={REMOVED}")
            else:
                found.append(self.data(each, name))
        return found


def _line(line: str) -> str:
    line = _LOGIN.sub(lambda match: f"{match['kept']}{REMOVED}@", line)
    line = _HEADER.sub(lambda match: match["kept"] + REMOVED, line)
    line = _OPTION.sub(lambda match: f"{match['kept']} {REMOVED}", line) if "--" in line else line
    line = _ASSIGNED.sub(_assigned, line)
    return _MARKED.sub(REMOVED, line)


_BLOCK_MARK = re.compile(r"-----(?:BEGIN|END) ")


def _assigned(match: re.Match[str]) -> str:
    whole: str = match.group()
    if _NO_NAME.search(match["name"]) or _NO_SECRET.match(match["value"]):
        return whole
    value = match["value"]
    opening = re.match(r"[\[(]*b?\\?[\"']?", value)
    closing = re.search(r"\\?[\"']?[\])]*$", value)
    kept = (opening.group() if opening else "", closing.group() if closing else "")
    return f"{match['name']}{match['between']}{kept[0]}{REMOVED}{kept[1]}"
