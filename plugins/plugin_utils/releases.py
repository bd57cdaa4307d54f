# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of LMDeploy before any host is asked: each release's options, what its DeepEP needs, and its images.

Control node only: the data files beside this module do not travel to hosts.
``tools/release_tables.py`` writes ``data/releases.json``; ``images.json``, ``deepep.json`` and ``chat_templates.json`` beside it
are kept by hand.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("data")

NUMBERS = {"int": int, "float": float}
LONGEST_WORD, LONGEST_SHOWN = 200, 160  # characters
HIGHEST_PORT = 65535


# Options -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command: ``kind`` is flag, value or list; ``type`` is that of the value or of each item."""

    name: str
    kind: str
    type: str = "str"
    choices: Sequence[Any] = ()
    default: Any = None

    def faults(self, value: Any) -> list[str]:
        """Say what is wrong with ``value``; empty where the command would take it."""
        if self.kind == "flag":
            return [] if isinstance(value, bool) else [f"is a flag and takes true or false, not {_quoted(value)}"]
        if self.kind == "list":
            if value == []:
                return ["is an empty list: leave it out"]
            return [fault for item in _items(value) for fault in self._item_faults(item)]
        return self._item_faults(value)

    def _item_faults(self, value: Any) -> list[str]:
        if self.type == "json":
            return [] if _is_json(value) else [f"takes a mapping or a string of JSON, not {_quoted(value)}"]
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return [f"takes {_article(self.type)}, not {_quoted(value)}"]
        if self.type in NUMBERS:
            try:
                NUMBERS[self.type](str(value))
            except ValueError:
                return [f"takes {_article(self.type)}, not {_quoted(value)}"]
        choices = [str(choice) for choice in self.choices]
        if choices and str(value) not in choices:
            return [f"is {_quoted(value)}{did_you_mean(str(value), choices)}; it is one of {', '.join(choices)}"]
        return []


@dataclasses.dataclass(frozen=True)
class Command:
    """``lmdeploy serve <name>`` of one release; ``options`` is None where no table says which it has."""

    name: str
    release: str | None
    options: Mapping[str, Option] | None

    def __contains__(self, key: str) -> bool:
        return self.options is not None and option_name(key) in self.options

    def check_option(self, key: str, value: Any) -> list[str]:
        """Return the faults of ``key: value``, each a sentence that starts with the key as it was written.

        A value of None stands for an option that is not given, whatever its kind.
        """
        name = option_name(key)
        if not re.fullmatch(r"--[a-z][a-z0-9-]*", name):
            near = did_you_mean(name[2:].lower(), [known[2:] for known in self.options or ()])
            return [f"{_brief(key) or repr(key)} is not the name of an option{near}."]
        if self.options is None:  # checked against the image's own --help later
            return []
        if name not in self.options:
            near = did_you_mean(name[2:], [known[2:] for known in self.options])
            return [f"{key} is not an option of lmdeploy serve {self.name} in {self.release}{near}."]
        return [] if value is None else [f"{key} {fault}." for fault in self.options[name].faults(value)]

    def check(self, options: Mapping[str, Any]) -> list[str]:
        """Return every fault of ``options``, one option written in two ways among them."""
        faults = [fault for key, value in options.items() for fault in self.check_option(key, value)]
        spellings: dict[str, str] = {}
        for key in options:
            first = spellings.setdefault(option_name(key), key)
            if first != key:
                faults.append(f"{key} and {first} are the same option: give one of them.")
        return faults

    def argv(self, options: Mapping[str, Any]) -> list[str]:
        """Render checked ``options`` as arguments, sorted by name, so that equal options give equal containers."""
        return [word for key in sorted(options, key=option_name) for word in _words(option_name(key), options[key])]


@dataclasses.dataclass(frozen=True)
class ReleaseTable:
    """What one release accepts; without a table, its options can only be checked once the image is asked."""

    release: str | None
    api_server: Command
    proxy: Command


@functools.cache
def _data(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / name).read_text(encoding="utf-8"))
    return content


def releases() -> list[str]:
    """Every release that has a table, oldest first."""
    return list(_data("releases.json")["releases"])


def release_table(release: str | None) -> ReleaseTable:
    """Return the table of ``release`` (a local suffix such as +cu128 is ignored), or one that knows no options."""
    public = (release or "").partition("+")[0]
    known = public in releases()
    commands = {
        name: Command(name, release, _options(name, public) if known else None) for name in ("api_server", "proxy")
    }
    return ReleaseTable(release, **commands)


def at_least(release: str | None, since: str) -> bool:
    """Whether ``release`` is ``since`` or later; one that nobody knows yet counts as the newest."""
    return release is None or _numbers(release) >= _numbers(since)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release.partition("+")[0])))


def _options(command: str, release: str) -> dict[str, Option]:
    order = releases()
    position = order.index(release)
    return {
        name: Option(name=name, **{key: span[key] for key in span.keys() - {"since", "until"}})
        for name, spans in _data("releases.json")[command].items()
        for span in spans
        if order.index(span["since"]) <= position <= order.index(span.get("until", order[-1]))
    }


def chat_templates(release: str | None) -> list[str] | None:
    """The names that a release's ``--chat-template`` takes; None where nobody knows the release, or it has no table.

    None of them in 0.12.0 to 0.14.0, which end with an ImportError at any name (get_chat_template in lmdeploy/cli/utils.py).
    """
    spans = _data("chat_templates.json")["names"]
    if release is None or release.partition("+")[0] not in releases():
        return None
    return next((list(span["names"]) for span in reversed(spans) if at_least(release, span["since"])), None)


def unknown_to_image(argv: Iterable[str], observed: Iterable[str]) -> list[str]:
    """Return the options in ``argv`` that the image's own ``--help`` (``observed``) does not list."""
    known = set(observed)
    names = (word.partition("=")[0] for word in argv if word.startswith("--"))
    return [name for name in dict.fromkeys(names) if name not in known]


def option_name(key: str) -> str:
    """``max_batch_size``, ``max-batch-size`` and ``--max-batch-size`` are all ``--max-batch-size``."""
    return "--" + str(key).lstrip("-").replace("_", "-")


def with_changes(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` with those of ``changes`` put over them, however either spells them; None takes an option out."""
    changed = {option_name(key) for key in changes}
    kept = {key: value for key, value in options.items() if option_name(key) not in changed}
    return {**kept, **{key: value for key, value in changes.items() if value is not None}}


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _words(name: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [name]
    if isinstance(value, Mapping):
        return [name, json.dumps(value, sort_keys=True)]
    if isinstance(value, (list, tuple)):
        return [name, *map(str, value)]
    text = str(value)
    # A word that starts with a dash would be read as the next option.
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def _is_json(value: Any) -> bool:
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return False
        return True
    return isinstance(value, Mapping)


def _article(kind: str) -> str:
    return {"int": "a whole number", "float": "a number"}.get(kind, "a string")


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """``" (did you mean --tp?)"``, or nothing where no known word is near; ``before`` is put before it."""
    near = difflib.get_close_matches(word, list(known), n=1) if len(word) <= LONGEST_WORD else []
    return f" (did you mean {before}{near[0]}?)" if near else ""


def _brief(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _quoted(value: Any) -> str:
    """A value as messages have it."""
    return _brief(repr(value))


# DeepEP --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DeepEPRules:
    """What a release's DeepEP takes, as it is built into the release's images.

    ``cap`` is how many tokens a rank may send in one decoding step unless one of ``variables`` says more (without any, it
    is in the code); None where the buffer follows max_batch_size. ``ranks`` are the sizes of ep that have kernels.
    """

    cap: int | None
    variables: Sequence[str]
    ranks: Sequence[int]
    source: str

    @property
    def fixed(self) -> bool:
        """Whether nothing can raise the cap."""
        return self.cap is not None and not self.variables


def deepep_rules(release: str | None) -> DeepEPRules:
    """The rules of ``release``.

    One that is not known before the image is asked counts as the newest, with every variable that any release reads: those
    that do not know it leave it alone.
    """
    spans = _data("deepep.json")["low_latency"]
    span = next((span for span in reversed(spans) if at_least(release, span["since"])), spans[0])
    rules = DeepEPRules(**{key: value for key, value in span.items() if key != "since"})
    if release is None:
        return dataclasses.replace(rules, variables=sorted({name for span in spans for name in span["variables"]}))
    return rules


# Images --------------------------------------------------------------------------------------------------------------


class ImageError(ValueError):
    """What was given is neither a word of the table nor an image reference."""


@dataclasses.dataclass(frozen=True)
class Image:
    """An image: ``release`` is what table or tag say, unverified until the image is asked; None where neither does.

    ``moving``: what the reference names may change under it, so only its digest says what runs.
    """

    reference: str
    release: str | None
    moving: bool


_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST}(?::[0-9]+)?)/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-f]{32,}))?",
    re.ASCII,
)
_RELEASE_IN_TAG = re.compile(r"(?:^|[-_])v?(\d+\.\d+\.\d+(?:\.post\d+)?)(?![\d.])")


@functools.cache
def images() -> dict[str, Image]:
    """The table of words, word -> image."""
    return {word: Image(**entry) for word, entry in _data("images.json").items()}


def resolve_image(word_or_reference: str) -> Image:
    """Resolve a word of the table (``cu12.8``) or a reference (``registry:5000/team/lmdeploy:v0.18.0-cu12.8``).

    Raises ImageError, with what to write instead.
    """
    given = str(word_or_reference)
    known = images()
    if given in known:
        return known[given]
    words = ", ".join(sorted(known))
    match = _REFERENCE.fullmatch(given)
    if match is None or _why_not(given):
        raise ImageError(
            f"{_quoted(given)} is not an image reference{_why_not(given)}: "
            f"write [registry[:port]/]path[:tag][@sha256:...], or one of the words {words}."
        )
    if not re.search(r"[/:@]", given):  # Docker would look for library/<word>
        raise ImageError(
            f"{_quoted(given)} is no word for an image{did_you_mean(given, known)}: "
            f"write one of {words}, or a reference with a tag."
        )
    tag, digest = match["tag"], match["digest"]
    release = _release_in(tag or "")
    return Image(
        reference=given,
        release=release,
        moving=digest is None and (tag is None or tag.startswith("latest")),
    )


def _release_in(tag: str) -> str | None:
    """LMDeploy's release by a tag, which may have CUDA's, Python's or a date in it as well."""
    found = _RELEASE_IN_TAG.findall(tag)
    known = [release for release in found if release in releases()]
    return next(iter([*known, *(release for release in found if release.startswith("0."))]), None)


def _why_not(given: str) -> str:
    """Why it is no reference, or none that can be pulled; empty where nothing of the kind can be seen."""
    if not given:
        return " (it is empty)"
    if re.search(r"\s", given):
        return " (it has white space in it)"
    if "://" in given:
        return " (it has a scheme in it)"
    name, __, digest = given.partition("@")
    first = name.rpartition("/")[0].partition("/")[0]
    # Docker takes a first part with upper-case letters for a registry's host.
    host = first if re.search(r"[.:]", first) or first == "localhost" else ""
    path = name.removeprefix(f"{host}/" if host else "")
    folders, slash, last = path.rpartition("/")
    path = f"{folders}{slash}{last.partition(':')[0]}"
    if path != path.lower():
        return " (its path has upper-case letters)"
    port = host.rpartition(":")[2]
    if ":" in host and port.isdecimal() and int(port[:9]) > HIGHEST_PORT:
        return f" (a port lies in 1..{HIGHEST_PORT})"
    if re.fullmatch(r"sha256:[0-9a-f]+", given):
        return " (it is the id of an image, which no registry can be asked for)"
    if "@" in given and not re.fullmatch(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", digest):
        return " (its digest is not sha256: and 64 hexadecimal digits)"
    return ""
