# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line of a log, apart from what others put before it: which process wrote it, on which host, at which level.

A container's log has the lines of many processes, and each program on the way may have marked them: Docker, Compose, kubectl,
journald, the rank program, torchrun, torch, Ray.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

from .text import harmless

# What says why a process failed is never further back in a line; what is longer is a prompt.
LINE_LENGTH = 4000
PREFIXES = 8  # a line has at most that many; Ray's inside the rank program's inside Docker's are three

_IP = r"[0-9A-Fa-f.:]*[0-9A-Fa-f]"
_ADDRESS = re.compile(
    rf"\b(?:(?:ip|IP|IP address|Ip address|and address)[=:]|with IP) ?(?P<ip>\d+\.\d+\.\d+\.\d+|(?=[0-9A-Fa-f]*:){_IP})"
)

# Those that tell no process from another.
_STAMPS = re.compile(
    # Docker's and kubectl's; containerd's adds the stream
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)\s(?:std(?:out|err) [FP] )?"
    # NCCL's, from 2.24
    r"|^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (?=\S{1,120}:\d+:\d+ \[\d+\] )"
)
# Those that do. ``ip`` and ``host`` are the host's.
_SOURCES = (
    re.compile(r"^\[rank (?P<rank>\d+)\] ?"),  # the rank program
    re.compile(r"^\[rank(?P<rank>\d+)\]:? ?"),  # torch
    re.compile(r"^\[(?P<name>[a-z_]{1,40}\d{1,5})\]:"),  # torchrun
    re.compile(r"^\[(?:\d,)?(?P<rank>\d{1,5})\](?:<std(?:out|err)>:| (?=\S{1,120}:\d+:\d+ \[\d+\] ))"),  # MPI
    re.compile(
        rf"^\((?P<name>[^()=,]{{0,80}}(?:\([^()]{{0,40}}\))?\s?pid=\w{{1,20}})(?:, ip=(?P<ip>{_IP}))?\)\s?"
    ),  # Ray
    re.compile(
        rf"^\((?P<name>raylet|gcs_server|dashboard\w*|log_monitor|autoscaler[^()]{{0,20}})(?:, ip=(?P<ip>{_IP}))?\)\s?"
    ),
    re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]{1,62}) +\| ?"),  # Compose
    re.compile(r"^\[(?P<name>pod/[^\]\s]{1,200})\] ?"),  # kubectl
    re.compile(  # journald
        r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (?P<host>[\w.-]{1,64}) (?P<name>[^\s:\[]{1,64})(?:\[\d+\])?: "
    ),
)
# NCCL and NVSHMEM begin with the host's name, which in a container without the host's network is its id.
_LIBRARY = re.compile(r"^(?![0-9a-f]{12}:)(?P<host>[A-Za-z][\w.-]{0,62}):\d+:\d+ \[\d+\] ")
# Loggers that put their head before every line of a message.
_HEADS = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[?[\w./-]{1,60}:\d+\] ?")
_TRACEBACK = re.compile(r"^(?:\s|Traceback|[\w.]+(?:Error|Exception)\b)")
_DEDUPLICATED = re.compile(r"(\[repeated \d+x across cluster\]) \(Ray deduplicates logs.*$")
_LEVELS = (
    re.compile(r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*(?:[\s-]+[\w.]{1,40}){0,2}?[\s-]+\[?(?P<level>[A-Z]{4,8}|ERR)\b"),
    re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[\d.,]* (?P<level>[DIWECF]) \d+ \d+\]"),  # Ray's C++
    re.compile(r"^\[?(?P<level>[IWEFC])\d{3,4} \d\d:\d\d:\d\d[.\d]*"),  # torch, glog, gRPC
    re.compile(r"^\[(?P<level>[IWEFC]) [\w./]{1,80}:\d+\]"),  # torch before 2.2
    re.compile(
        r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] torch\.[\w.]{1,80}: \[(?P<level>[A-Z]{4,8})\]"
    ),  # torchrun of 2.1
    re.compile(r"^(?P<level>DEBUG|INFO|HINT|WARNING|ERROR|CRITICAL|FATAL):(?=\s|[\w.]+:)"),
    re.compile(r"^(?:\[TM\])?\[(?P<level>DEBUG|INFO|WARN|WARNING|ERROR|FATAL)\]"),  # TurboMind
    re.compile(r"^\S{1,120}:\d+:\d+ \[\d+\] (?:\S{1,120}:\d+ )?(?P<level>NCCL|NVSHMEM)\b"),
    re.compile(r"^(?:time=\S{1,40} )?level=(?P<level>[a-z]+)\b"),  # Docker's own
    re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]{0,40}\] (?P<level>)"),
)
_LETTERS = {"NCCL": "N", "NVSHMEM": "N", "HINT": "I", "FATAL": "F", "CRITICAL": "F", "C": "F", "": "I"}
_KNOWN = frozenset("DIWEFN")


@dataclasses.dataclass(frozen=True)
class Line:
    """``text`` without prefixes and terminal escapes; ``source`` tells the processes of a log apart, empty where none is named.

    ``address``: of the host, where the prefixes have it. ``level``: one letter of D, I, W, E, F (fatal), N (NCCL's own debug
    output), or empty where the line is no head of a record.
    """

    text: str
    source: str = ""
    address: str = ""
    level: str = ""


def address_in(text: str) -> str:
    """The address that ``text`` calls one, as Ray does (``ip=10.0.0.11``, ``IP: 10.0.0.11``); or nothing."""
    match = _ADDRESS.search(text)
    return match["ip"] if match else ""


def rank_of(line: str) -> int | None:
    """The DP rank that the rank program has put before ``line``."""
    match = _SOURCES[0].match(line)
    return int(match["rank"]) if match else None


def read(raw: str) -> Line:
    """One line of a log."""
    text = harmless(_unpacked(raw[: 2 * LINE_LENGTH] if not raw.startswith("{") else raw))[:LINE_LENGTH].rstrip()
    text = text.replace("\n", " ")
    text = _DEDUPLICATED.sub(r"\1", text)
    source, address, level = "", "", ""
    for __ in range(PREFIXES):
        text, found = _without(_STAMPS, text)
        if found:
            continue
        match = next(filter(None, (pattern.match(text) for pattern in _SOURCES)), None) if text[:1] else None
        if match:
            groups = match.groupdict()
            source = f"{source}/{groups.get('name') or ''}{groups.get('rank') or ''}{groups.get('ip') or ''}"
            address = groups.get("ip") or groups.get("host") or address
            text = text[match.end() :]
            continue
        match = _HEADS.match(text)
        if not match:
            break
        text = text[match.end() :]
        if not _TRACEBACK.match(text):
            level = level or match["level"][0]
    match = None if address else _LIBRARY.match(text)
    return Line(text, source, match["host"] if match else address, level or level_of(text))


def _unpacked(raw: str) -> str:
    """The text of a line of Docker's json-file, or ``raw`` as it is."""
    if raw.startswith('{"log":'):
        try:
            log = json.loads(raw)["log"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return raw
        return log.rstrip("\r\n") if isinstance(log, str) else raw
    return raw


def _without(pattern: re.Pattern[str], text: str) -> tuple[str, bool]:
    match = pattern.match(text)
    return (text[match.end() :], True) if match else (text, False)


def level_of(text: str) -> str:
    """The level of a record that ``text`` begins, as one letter; empty where it begins none."""
    for pattern in _LEVELS:
        match = pattern.match(text)
        if match:
            word = match["level"].upper()
            letter = _LETTERS.get(word, word[:1])
            if letter in _KNOWN:
                return letter
    return ""


def split(text: str, keep: Callable[[str], str] = str) -> list[str]:
    """The lines of a log; of a progress bar, which redraws itself with carriage returns, the last state."""
    return [keep(line.rstrip("\r").rpartition("\r")[2]) for line in text.split("\n")]


# ---- how far a start has come


@dataclasses.dataclass(frozen=True, order=True)
class Phase:
    """A stage of a service's start, in order; ``part`` is how much of it is done, in tenths."""

    order: int
    part: int
    text: str


UP = 5
# A pattern is tried on so much of a line, from its words on: a line may be as long as it likes.
PHASE_LENGTH = 240
_PHASES = (
    (1, "Connected to Ray cluster", re.compile(""), "connected to Ray"),
    (2, "Waiting for creating a placement group", re.compile(""), "waits for Ray to give it all GPUs"),
    (
        3,
        "Loading weights",
        re.compile(r"[^%]*?(?P<percent>\d{1,3})%[^/]*?(?P<done>\d{1,6})/(?P<all>\d{1,6})"),
        "loading weights, {done} of {all} shards",
    ),
    (4, "Warming up ", re.compile(r"(?!.*%.*100%)"), "capturing CUDA graphs"),
    (UP, "Application startup complete", re.compile(""), "the server is up"),
)


def phase_of(line: str) -> Phase | None:
    """The phase that ``line`` (plain) shows, or None. Phases compare: a later one is greater."""
    for order, words, pattern, text in _PHASES:
        start = line.find(words)
        if start < 0:
            continue
        match = pattern.match(line[start + len(words) : start + len(words) + PHASE_LENGTH])
        if match:
            found = match.groupdict()
            return Phase(order, int(found.get("percent", 0)) // 10, text.format(**found))
    return None
