# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service's log says: the decisive lines of a failure, what it means, and how far a start has come.

Pure functions over lines; the catalogue of failures is data (``data/failures.json``).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

DATA = Path(__file__).with_name("data")
DECISIVE_LINES = 12
LINE_LENGTH = 320

# Ray and LMDeploy colour their logs and put a source before each line that another process wrote.
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RANK = re.compile(r"^\[rank (?P<rank>\d+)\] ")
_SOURCE = re.compile(r"^\([\w:.]+(?: pid=\d+)?(?:, ip=[\d.]+)?\)\s?")
_ADDRESS = re.compile(r"\bip[=:] ?(?P<ip>\d+\.\d+\.\d+\.\d+)")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?(?:[A-Z]\w*)?(?:Error|Exception|Exit)(?:\(\w+\))?(?:: |:?$)")
_ERROR = re.compile(
    r"\b(?:ERROR|ERR|FATAL|CRITICAL)\b|\berror: |^\[[\d :,-]+ [EF] |Termination is unexpected|^\[.*Failed to "
)
# A line that begins a record of its own: a time stamp, a level, a traceback.
_RECORD = re.compile(r"^(?:\d{4}-\d\d-\d\d|\[|Traceback|During handling|The above exception|(?:INFO|WARNING|ERROR)\b)")
# What only says that another process has failed; the cause stands above it.
ECHOES = re.compile(
    r"RPCServerDeadError|engine process is not alive|EOFError|BrokenPipeError|ConnectionResetError|CancelledError"
    r"|SystemExit|KeyboardInterrupt|was never retrieved|Connection closed by peer"
)


@dataclasses.dataclass(frozen=True)
class Known:
    """A known failure: ``pattern`` finds it.

    ``fatal``: waiting on is useless though the container runs. ``lost_start``: chance alone, so another start may do.
    """

    id: str
    pattern: str
    means: str
    remedy: str
    fatal: bool = False
    lost_start: bool = False


@functools.cache
def catalogue() -> tuple[Known, ...]:
    """Every known failure, the most specific first."""
    return tuple(Known(**entry) for entry in json.loads((DATA / "failures.json").read_text(encoding="utf-8")))


def explain(lines: Sequence[str], *, fatal_only: bool = False) -> Known | None:
    """The first entry of the catalogue that one of ``lines`` shows."""
    return _shown(lines, lambda known: known.fatal or not fatal_only)


def lost_start(lines: Sequence[str]) -> Known | None:
    """The entry of a start that was lost by chance alone, where ``lines``, a whole log, has its traceback."""
    return _shown(lines, lambda known: known.lost_start)


def _shown(lines: Sequence[str], among: Callable[[Known], bool]) -> Known | None:
    text = "\n".join(plain(line) for line in lines)
    return next((known for known in catalogue() if among(known) and re.search(known.pattern, text)), None)


def is_fatal(line: str) -> bool:
    """Whether its service cannot come up or answer any more after this line."""
    text = plain(line)
    return any(known.fatal and re.search(known.pattern, text) for known in catalogue())


def fatal_line(lines: Sequence[str]) -> str:
    """The first fatal line, plain, or nothing."""
    return next((plain(line) for line in lines if is_fatal(line)), "")


def failed_rank(lines: Sequence[str]) -> int | None:
    """The DP rank that wrote the first fatal line, where lines say their ranks."""
    match = _RANK.match(next(filter(is_fatal, lines), ""))
    return int(match["rank"]) if match else None


def plain(line: str) -> str:
    """``line`` without colour, and without the source that the rank program or Ray puts before it."""
    return _SOURCE.sub("", _COLOUR.sub("", _RANK.sub("", line))).rstrip()


def of_rank(lines: Sequence[str], rank: int) -> list[str]:
    """The lines that one DP rank wrote."""
    return [line for line in lines if line.startswith(f"[rank {rank}] ")]


def decisive(lines: Sequence[str]) -> list[str]:
    """The lines that say why a service failed: the worker's own exception with its innermost frame, not its echo.

    At most ``DECISIVE_LINES``, each at most ``LINE_LENGTH`` long. The end of the log where it names no error.
    """
    clean = [plain(line) for line in lines]
    exceptions = [n for n, line in enumerate(clean) if _EXCEPTION.match(line) and not ECHOES.search(line)]
    from_workers = [n for n in exceptions if "RayTaskError" in clean[n]]
    if from_workers:
        start = from_workers[0]
        end = next((n for n in exceptions if n > start), start)
        kept = [clean[start], *_innermost_frame(clean, start, end), *([clean[end]] if end > start else [])]
    elif exceptions:
        start = exceptions[0]
        message = itertools.takewhile(_continues, clean[start + 1 :])
        kept = [*_innermost_frame(clean, 0, start), clean[start], *message]
    else:
        errors = [line for line in clean if _ERROR.search(line) and not ECHOES.search(line)]
        # A process that was killed says nothing: then its echoes are all there is, the first one the nearest to it.
        echoes = [line for line in clean if _EXCEPTION.match(line)]
        kept = (errors or list(dict.fromkeys([*echoes[:1], *echoes[-1:]])) or [line for line in clean if line])[
            -DECISIVE_LINES:
        ]
    return [line[:LINE_LENGTH] for line in kept[:DECISIVE_LINES]]


def failed_address(lines: Sequence[str]) -> str | None:
    """The address of the node whose worker failed, where Ray names it."""
    found = (_ADDRESS.search(line) for line in lines)
    return next((match["ip"] for match in found if match), None)


def _innermost_frame(lines: Sequence[str], start: int, end: int) -> list[str]:
    """The last ``File ...`` line in [start, end) with the line of code below it."""
    frames = [n for n in range(start, end) if lines[n].lstrip().startswith('File "')]
    return list(lines[frames[-1] : frames[-1] + 2]) if frames else []


def _continues(line: str) -> bool:
    return bool(line) and not _EXCEPTION.match(line) and not _RECORD.match(line)


# ---- how far a start has come


@dataclasses.dataclass(frozen=True, order=True)
class Phase:
    """A stage of a service's start, in order; ``part`` is how much of it is done, in tenths."""

    order: int
    part: int
    text: str


UP = 5
_PHASES = (
    (1, re.compile(r"Connected to Ray cluster"), "connected to Ray"),
    (2, re.compile(r"Waiting for creating a placement group"), "waits for Ray to give it all GPUs"),
    (
        3,
        re.compile(r"Loading weights.*?(?P<percent>\d+)%.*?(?P<done>\d+)/(?P<all>\d+)"),
        "loading weights, {done} of {all} shards",
    ),
    (4, re.compile(r"Warming up (?!.*%.*100%)"), "capturing CUDA graphs"),
    (UP, re.compile(r"Application startup complete"), "the server is up"),
)


def phase_of(line: str) -> Phase | None:
    """The phase that ``line`` (plain) shows, or None. Phases compare: a later one is greater."""
    for order, pattern, text in _PHASES:
        match = pattern.search(line)
        if match:
            found = match.groupdict()
            return Phase(order, int(found.get("percent", 0)) // 10, text.format(**found))
    return None
