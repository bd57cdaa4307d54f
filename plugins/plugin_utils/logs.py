# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service's log says: the decisive lines of a failure, what it means, and how far a start has come.

Pure functions over lines; the catalogue of failures is data (``data/failures.json``). ``log_failures.py`` finds the
failures that a log tells of, and which of them counts.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import log_failures, log_lines
from .log_failures import ECHO, LOST_PEER, RECORD, Failure, Hint
from .log_lines import UP, Phase, phase_of

__all__ = ["UP", "Phase", "phase_of"]

DATA = Path(__file__).with_name("data")
DECISIVE_LINES = 8
LINE_LENGTH = 320
FRONT = 200  # of a longer line, so much of its beginning is shown, and the rest of its end
# What CUDA and torch add to each of their messages.
_BOILERPLATE = re.compile(
    r"^(?:CUDA kernel errors might be|For debugging consider|Compile with `?TORCH_USE|Search for `|Device-side assertion tracking)"
)
# What Ray adds whenever a worker is gone.
_GUESSES = re.compile(r"(?:There are some potential root|Some common|Possible) (?:causes|reasons)\b.*")
RECORDS = 4  # of a log that has no exception: that many of its error records


@dataclasses.dataclass(frozen=True)
class Known:
    """A known failure: ``pattern`` finds it.

    ``fatal``: waiting on is useless though the container runs. ``lost_start``: chance alone, so another start may do; known by the
    whole log. ``passing``: as the failure itself it may be over at another start, for the host was busy.
    ``vague``: it only says that something failed, so what its process told before says more.
    """

    id: str
    pattern: str
    means: str
    remedy: str
    fatal: bool = False
    lost_start: bool = False
    passing: bool = False
    vague: bool = False

    def search(self, text: str) -> re.Match[str] | None:
        """Where ``text`` shows it."""
        return _compiled(self.pattern).search(text)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # The cache of re is for all of a process, and too small for the catalogue beside others' patterns.
    return re.compile(pattern)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Why a service failed. ``lines`` are the decisive ones of its log, at most ``DECISIVE_LINES``, each at most ``LINE_LENGTH``.

    ``known`` is the catalogue's entry, where it has one. ``node`` is the address, or the name, of the host whose process
    wrote them, where the log has it; of what a proxy wrote of a rank, that rank's.
    """

    lines: list[str]
    known: Known | None
    node: str


@functools.cache
def catalogue() -> tuple[Known, ...]:
    """Every known failure, the most specific first."""
    return tuple(Known(**entry) for entry in json.loads((DATA / "failures.json").read_text(encoding="utf-8")))


def diagnose(log: Iterable[str]) -> Diagnosis | None:
    """What ended the process that wrote ``log``, or came last before its end; None where the log tells of no failure.

    A failure that its own process got over is none: it went on after it.
    """
    chosen = _decisive(log_failures.found(map(log_lines.read, log)))
    return _diagnosis(chosen) if chosen else None


def decisive(log: Sequence[str]) -> list[str]:
    """The lines that say why a service failed, which is known to have: the end of its log where that names no failure."""
    failures = log_failures.found(map(log_lines.read, log))
    chosen = _decisive(failures) or log_failures.strongest(failures)
    return _diagnosis(chosen).lines if chosen else _end_of(log)


def explained(log: Sequence[str]) -> Diagnosis:
    """The same with its meaning, for a service that is known to have failed."""
    failures = log_failures.found(map(log_lines.read, log))
    chosen = _decisive(failures) or log_failures.strongest(failures)
    return _diagnosis(chosen) if chosen else Diagnosis(_end_of(log), None, "")


def _decisive(failures: Sequence[Failure]) -> list[Failure]:
    chosen = log_failures.decisive(failures)
    if chosen and chosen[0].weight == LOST_PEER:
        # That a peer is gone says where to look. What another process logged, where that is known, says why.
        for failure in failures:
            if failure.weight == RECORD and not failure.survived:
                known = _first([_said(failure)], vague=False)
                if known and known.id != "nccl-lost-peer":
                    return [failure]
    return chosen


def _end_of(log: Sequence[str]) -> list[str]:
    lines = [line for line in (log_lines.read(raw).text.expandtabs(4) for raw in log[-200:]) if line.strip()]
    return [_clip(line) for line in lines[-DECISIVE_LINES:]]


def _diagnosis(chosen: list[Failure]) -> Diagnosis:
    known, hint = _known(chosen)
    shown = chosen
    if chosen[0].weight == ECHO:
        # A process that was killed says nothing: then its echoes are all there is, the first one the nearest to it.
        first, last = chosen[0], chosen[-1]
        lines = _lines_of(last, known) if last.message else list(dict.fromkeys([first.head, last.head]))
    elif chosen[0].kind == "record":
        shown = [failure for failure in chosen if known and known.search(failure.own())] or chosen
        heads = list(dict.fromkeys(failure.head for failure in shown))[-RECORDS:]
        lines = [*heads[:-1], *_lines_of(shown[-1], known)]
    else:
        lines = _lines_of(chosen[0], known)
    address = next((failure.address for failure in chosen if failure.address), "")
    if len({failure.address for failure in shown if failure.of_rank}) > 1:
        address = ""
    if hint:
        lines, address = [hint.text, *lines[1 - DECISIVE_LINES :]], address or hint.address
    return Diagnosis([_clip(line.expandtabs(4), known) for line in lines], known, address)


def _known(chosen: list[Failure]) -> tuple[Known | None, Hint | None]:
    """The catalogue's entry: by what was said right before, the failure itself, what it came from, where it was raised.

    Where these are vague, by what a library told before, which is the second value then.
    """
    frames: list[str] = []
    if chosen[0].kind == "record" or chosen[0].weight == ECHO:
        whole = "\n".join("\n".join([*failure.frames, failure.own()]) for failure in chosen)
        lost = _find(whole, lambda known: known.lost_start)
        if lost:
            return lost, None
        texts = ["\n".join(map(_said, chosen))]
    else:
        failure = chosen[0]
        # Of a chain of NVSHMEM's messages the first one is the cause of the others.
        heads = [failure.head] if log_failures.is_nvshmem(failure.head) else []
        texts = [*failure.leads, *heads, _said(failure), *map(_said, failure.causes())]
        frames = failure.innermost
    plainly = _first(texts, vague=False)
    if plainly:
        return plainly, None
    for hint in chosen[0].hints():
        known = _first([hint.text], vague=False)
        if known and hint.text not in texts:
            return known, hint
    ended = (known for hint in chosen[0].hints() for known in catalogue() if known.fatal and known.search(hint.text))
    return _first(texts, vague=True) or explain(frames) or next(ended, None), None


def _first(texts: Iterable[str], *, vague: bool) -> Known | None:
    return next((known for text in texts for known in catalogue() if known.vague is vague and known.search(text)), None)


def _said(failure: Failure) -> str:
    """What a failure says itself."""
    return _telling_part([failure.head, *failure.message])


def _telling_part(lines: Iterable[str]) -> str:
    """``lines`` without what CUDA, torch and Ray add to each of their messages."""
    return _GUESSES.sub("", "\n".join(line for line in lines if not _BOILERPLATE.match(line)))


def _lines_of(failure: Failure, known: Known | None) -> list[str]:
    """The lines to show of one failure, in the order of the log."""
    causes = failure.causes()
    before = [*([causes[-1].head] if causes else []), *failure.leads, *([failure.wrapper] if failure.wrapper else [])]
    room = DECISIVE_LINES - len(before) - 1
    message = [line for line in failure.message if not _BOILERPLATE.match(line)]
    if len(message) > room:
        # What it is known by, NCCL's last error and where it was come before the beginning, and that before the rest.
        ranked = sorted(range(len(message)), key=lambda number: (_telling(message, number, known), number))
        message = [message[number] for number in sorted(ranked[:room])]
    frame = failure.innermost if len(message) + 2 <= room else []
    return [*before, *frame, failure.head, *message]


def _telling(message: Sequence[str], number: int, known: Known | None) -> int:
    line = message[number]
    if (known and known.search(line)) or (number and message[number - 1].startswith("Last error")):
        return 0
    return 1 if log_failures.address_of(line) or number in (0, len(message) - 1) else 2


def _clip(line: str, known: Known | None = None) -> str:
    """``line``, cut to ``LINE_LENGTH`` so that what it is known by stays."""
    if len(line) <= LINE_LENGTH:
        return line
    match = known.search(line) if known else None
    if match is None or match.end() <= FRONT:
        # Errors that hand on others have the cause at their end.
        return f"{line[:FRONT]} ... {line[FRONT + 5 - LINE_LENGTH :]}"
    start = max(0, min(match.start() - 80, len(line) - LINE_LENGTH + 8))
    return f"... {line[start : start + LINE_LENGTH - 8]} ..."


# ---- one line


def _find(text: str, among: Callable[[Known], bool]) -> Known | None:
    ranked = sorted(catalogue(), key=lambda known: known.vague)
    return next((known for known in ranked if among(known) and known.search(text)), None)


def explain(lines: Sequence[str], *, fatal_only: bool = False) -> Known | None:
    """The first entry of the catalogue that one of ``lines`` shows."""
    return _find(_telling_part(map(plain, lines)), lambda known: known.fatal or not fatal_only)


def lost_start(log: Sequence[str]) -> Known | None:
    """The entry of a start that was lost by chance alone, where ``log``, a whole one, has its traceback."""
    return _find("\n".join(map(plain, log)), lambda known: known.lost_start)


def is_fatal(line: str) -> bool:
    """Whether its service cannot come up or answer any more after this line."""
    found = log_lines.read(line)
    # What informs tells of others: of users' prompts, of what was tried and is tried again.
    if found.level in ("D", "I", "W", "N") or log_failures.is_noise(found):
        return False
    return any(known.fatal and known.search(found.text) for known in catalogue())


def fatal_line(lines: Sequence[str]) -> str:
    """The first fatal line, plain, or nothing."""
    return next((plain(line) for line in lines if is_fatal(line)), "")


def failed_rank(lines: Sequence[str]) -> int | None:
    """The DP rank that wrote the first fatal line, where lines say their ranks."""
    return log_lines.rank_of(next(filter(is_fatal, lines), ""))


def plain(line: str) -> str:
    """``line`` without terminal escapes, and without what others have put before it."""
    return log_lines.read(line).text


def of_rank(lines: Sequence[str], rank: int) -> list[str]:
    """The lines that one DP rank wrote."""
    return [line for line in lines if line.startswith(f"[rank {rank}] ")]
