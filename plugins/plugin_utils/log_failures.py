# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failures that a log tells of, and which of them counts.

An exception is what ends a traceback, whatever its name. One that its own process got over does not count. Of the others
the weightiest counts, the first of equal ones: a cause before a kill or a time-out, these before a peer that is gone, that
before what only says that another process has failed.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Iterable, Sequence

from .log_lines import UP, Line, address_in, phase_of

# Weights.
CAUSE = 50
CRASH = 45  # a signal of the process's own making; an exception before it is the cause of it
KILLED = TIMED_OUT = 40
NOTICE = 35  # another process noticed that one was killed
LOST_PEER = 30
RECORD = 20  # an error was logged, and no more is known
REQUEST = 15  # a server's request failed; it goes on
ECHO = 10  # only says that another process failed

ALIKE = 200  # of failures that are alike, the last ones
FRAMES = 40
MESSAGE = 60
INTERLEAVED = 30  # lines of others in a traceback of one process
APART = 60  # lines between an exception and the next: what ended a process follows at once
LOGGED, PLAIN = 2, 1  # what tells that a process went on: a logger's word, or any other line
SERVED = 3  # requests in a row that prove that an engine serves

_HEADING = re.compile(r"Traceback \(most recent call last\):(?: \[repeated \d+x across cluster\].*)?$")
_REMOTE = re.compile(r"^ray::\S{1,200}\(\) \(pid=")
_FRAME = re.compile(r'^\s*File ".{1,1000}", line \d+(?:,|$)')  # a native dump of Python's stacks has no comma
_NAME = r"(?:[^\W\d]\w*\.|<locals>\.)*[^\W\d]\w*(?:\([\w.]+\))?"
_EXCEPTION = re.compile(rf"^(?P<name>{_NAME})(?:: |:?$)")
_LEVEL_WORD = re.compile(r"^(?:DEBUG|INFO|HINT|WARNING|ERROR|CRITICAL|FATAL|NOTE|Process \S+)$")
# Outside of a traceback a name has to look like an exception's.
_BARE = re.compile(
    r"^(?:[\w.]+\.)?(?:[A-Z]\w*)?(?:Error|Exception|Exit|OutOfResources|TimeoutExpired|Interrupt)(?:\(\w+\))?(?:: |:?$)"
)
_CHAINED = re.compile(r"^(?:During handling of the above exception|The above exception was the direct cause)")
_GROUP = "Exception Group Traceback"
_MARGIN = re.compile(r"^\s+(?:\| ?|\+-\+?-{3,}.*$|\+-{5,}$)")
_RULE = re.compile(r"^[=\-*]{8,}$")
_NATIVE_FRAME = re.compile(r"^(?:\s+\[\d{4}-|frame #\d+:|\s*@ +0x|\s*#\d+ +0x|\s*\[0x|0x[0-9a-f]+ in )")
_UNCAUGHT = re.compile(
    r'/multiprocessing/(?:process|spawn|popen\w*)\.py"|/s?bin/[\w.-]+", line|<frozen runpy>|"<string>", line|/threading\.py"|'
    r'programs/rank\.py"'
)
_PROCESS = re.compile(r"^Process [\w-]+:$")
_IGNORED = re.compile(r"^Exception ignored in|^Error in (?:atexit|sys\.)")
_REQUEST = re.compile(
    r"Exception in ASGI application|\[(?:request_handle|safe_run|preprocess)\]|^\S*ERROR\S*.*session \d+ finished"
)

_NOISE = re.compile(
    # Ray goes on without them, or tries again.
    r"metrics (?:exporter )?agent|event_aggregator|opentelemetry|server_chttp2\.cc|chttp2_server\.cc"
    r"|No address added out of"
    r"|observability pubsub|usage stats|Free input ref failed"
    r"|file_system_monitor\.cc|metric_exporter\.cc|tcp_posix\.cc"
    # What loaders and libraries go on without.
    r"|cannot be preloaded|errno: 97\b|Unable to register cu\w+ factory"
    # What is logged at an end, or harmless.
    r"|resource_tracker|leaked (?:semaphore|shared_memory)|destroy_process_group"
    r"|hostname of the client socket cannot be retrieved"
)
_ECHO = re.compile(
    r"RPCServerDeadError|engine process (?:is not alive|exited before)|\bEOFError\b|BrokenPipeError|CancelledError"
    r"|SystemExit"
    r"|KeyboardInterrupt|GeneratorExit|was never retrieved|Received custom termination signal|Ray worker exited"
    r"|(?:ChildFailedError|ProcessRaisedException|ProcessExitedException|ExceptionGroup|SignalException)\b"
    r"|(?:[Ll]oop|wait_tasks|Engine main loop)>? failed|closing signal SIG|\(exitcode: |rank \d+ .*\bended\b"
    r"|exited with code"
    r"|terminate called (?:without|recursively)|\bSIG(?:TERM|ABRT|INT)\b"
    r"|Exception \(either an error or timeout\) detected by"
    r"|death signal, shutting down workers"
    r"|To avoid data inconsistency, we are taking the entire process down"
)
_LOST_PEER = re.compile(
    r"[Cc]onnection (?:was )?(?:likely )?(?:closed|reset|aborted)(?: by)?|ConnectionResetError|[Bb]roken pipe"
    r"|socketProgress"
    r"|(?:recv|send)(?:Vector|Bytes|Value)? failed|[Ff]ailed to recv, got 0 bytes|[Ss]ocket [Cc]losed|pair closure"
    r"|communicator was aborted|monitoredBarrier, but received errors|ActorUnavailableError|Read error \["
)
_TIMED_OUT = re.compile(
    r"collective operation timeout|DeepEP.*time-?out|[Tt]imed out (?:after|waiting|initializing)|has timed out after"
    r"|[Ww]ait timeout|GetTimeoutError|Heartbeat monitor timed out|Timeout waiting for"
)
# After these torch ends the process; other time-outs that are logged may be of what is tried again.
_WATCHDOG = re.compile(r"[Ww]atchdog (?:caught|thread terminated)")
_KILLED = re.compile(
    r"^(?:\S+: line \d+:\s+\d+ )?Killed\b|\bSIGKILL\b|\bsignal 9\b|exit(?:ed)?(?: with)?(?: exit)? code:? (?:-9|137)\b"
    r"|exitcode *: -9\b|died unexpectedly before finishing|WorkerCrashedError|Raylet is terminated"
    r"|LocalRayletDiedError|NodeDiedError"
    r"|marked (?:as )?dead|OOMKilled|exceeds threshold \S+ killing"
)
# How a process ends itself; why, it has said before.
_ABORTED = re.compile(r"^(?:Fatal Python error: )?Abort|\bSIGABRT\b")
_NOTICE = re.compile(r"worker died or was killed while executing|Failed to connect to GCS within")
_CRASH = re.compile(
    r"\bSIG(?:SEGV|BUS|ILL|FPE)\b|[Ss]egmentation fault|Segfault|Bus error|Illegal instruction|Fatal Python error"
)
# Lines that tell of a failure though no traceback is there.
_DEATH = re.compile(
    r"^terminate called (?:after|without|recursively)|^Fatal Python error: |^(?:\S+: line \d+:\s+\d+ )?"
    r"(?:Segmentation fault|Bus error|Illegal instruction|Aborted|Floating point exception|Killed)"
    r"(?: +\(core dumped\))?(?:\s{2,}.*)?$"
    r"|^\*\*\* SIG[A-Z]+ received|Segfault encountered|Caught signal \d+|^\s*Signal: [A-Z]"
    r"|^Assertion failed|Assertion error |Check failed: "
    r"|^(?:double free or corruption|malloc\(\)|free\(\)|corrupted |munmap_chunk|\*\*\* (?:stack smashing|buffer overflow))"
    r"|NVRM: Xid|\bXid \(PCI|Out of memory: Killed process|Memory cgroup out of memory|oom-kill:"
    r"|Error response from daemon: |OCI runtime .{0,40}failed|nvidia-container-cli: |exec format error"
    r"|executable file not found|: command not found$|error while loading shared libraries: |: can't open file "
    r"|: No module named \w"
    r"|^[\w./-]+(?: [\w./-]+){0,4}: error: |^(?:Usage|Error): .*(?:No such option|Invalid value|Got unexpected)"
    r"|^Error: (?:No such option|Invalid value)"
    r"|^DeepEP .*(?:time-?out|assert)|^DeepEP timeout check failed|: non-zero status: \d+|: NULL value "
    r"|init failed for (?:remote )?transport|nvshmem\w* initialization failed"
    r"|<\w+> (?:check|test) failed|^(?:ERROR: +)?\[Errno \d+\]|^CUDA (?:error|failure)"
    r"|^Failed: (?:CUDA|Cuda|Assertion) error|^ibv_\w+ failed|^/\S*nvshmem\S*:\d+: "
    r"|^lmfleet: rank \d+ .*\bended\b|Raylet is terminated|worker died or was killed while executing"
    r"|^NVSHMEM.*(?:ERROR|abort)"
    r"|Some Ray subprocesses exited|^Process exited with|Failed to connect to GCS within"
    r"|Unhandled exception: \S+ what\(\):|No available node types can fulfill|NVRM: .*\bfailed!|^docker: "
    r"|^[\w.-]+ exited with code [1-9]|fate[- ]shares? with the agent|has been marked dead"
    r"|pthread_create failed|Thread creation failed|Unable to determine the device handle"
)
_WARNED = re.compile(
    r"[Ff]ail|[Uu]nable|[Cc]annot|could not|[Tt]imed? ?out|refused|unreachable|[Ee]rror|[Ii]nvalid|[Mm]ismatch"
    r"|not permitted|have not registered"
)
# A warner that writes what it cannot do: torch's and Ray's native loggers, not a server that warns of a request.
_NATIVE_LOGGER = re.compile(r"^(?:\[|W\d{4} )")
_WARNS_OF_LOSS = re.compile(r"has been marked dead|Unable to connect to GCS")
# Ray tells of a node, which need not be the one that writes it.
_OF_NODE = re.compile(r"\b(?:[Tt]he|at|on the) node (?:\(|with )")
_LIBRARY_WARNS = re.compile(r"\b(?:NCCL|NVSHMEM) (?:WARN|ERROR)\b")
# What a library wrote before its caller failed for it, in general words.
_HINT = re.compile(
    r"NCCL WARN|UserWarning: CUDA initialization|Failed to initialize NVML|: fatal error: |^\s+\[\[ .*\(error \d+\) \]\]"
)
HINTED = 100  # so many lines before a failure a hint counts
# Parts of NCCL's message, which has several lines wherever it stands.
_NCCL_PART = re.compile(r"^(?:nccl\w{1,40}: |Last error)")
_NVSHMEM = re.compile(r"^(?:\[?/\S*nvshmem\S*:|ibv_\w+ failed|aborting due to error in nvshmem)")
_QUIET = re.compile(
    r"[Ss]hut|[Cc]los|[Ee]xit|[Tt]erminat|[Ss]top|[Cc]lean|[Dd]estroy|[Kk]ill|[Ll]eak|[Ff]inished server|[Aa]bort"
    r"|[Dd]isconnect|[Gg]oodbye"
    r'|"(?:GET|POST|HEAD) /|\bsession(?:_id)?=|\b(?:prompt|response)='
)
_SERVED = re.compile(r'"POST /\S* HTTP/[\d.]+" 200\b')
# torchrun was told to stop, by a person or by Docker: what breaks after that, breaks for it.
_STOPPED = re.compile(r"Received \S+ death signal, shutting down workers")
# What LMDeploy's proxy logs of ranks, at whatever level; it serves on, and answers 200 for them.
_PROXY = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ - lmdeploy - [A-Z]+ - (?:\[pid=\d+ ppid=\d+\] - )?proxy\.py:\d+ - (?P<said>.+)"
)
_RANK = re.compile(r"https?://\[?(?P<host>[\w.:-]+?)\]?:\d+")
_RANK_LOST = re.compile(r"Removed node_url: |api timeout: |exception happened when adding node |no model name: ")
_RANK_ERROR = re.compile(r"ca(?:ught|tched) an exception: ")  # right before the time-out that names the rank
_RANK_LISTED = re.compile(r"(?:add|delete) node \S+ successfully$")
_RANK_SENT = "A request is dispatched to "
_HOST = re.compile(r"^\s+host +: (?P<host>[\w.-]{1,64})$")


@dataclasses.dataclass(frozen=True)
class Hint:
    """What a library told at line ``at`` of a log, for itself no failure."""

    at: int
    source: str
    address: str
    text: str


@dataclasses.dataclass
class Failure:
    """A failure that a log tells of, at line ``at`` (of all) to ``end``, by ``source``.

    ``kind``: exception, death or record. ``head`` is the line that names it, ``message`` what follows of it, ``frames`` its
    traceback, ``wrapper`` the line of Ray in which it came, ``prior`` what its process said right before, ``leads`` that where
    it belongs to it. ``of_rank``: a proxy lost a rank, and has not sent to it since. ``told`` is what libraries told in all of
    the log.
    """

    at: int
    source: str
    kind: str
    head: str
    weight: int = 0
    end: int = 0
    address: str = ""
    frames: list[str] = dataclasses.field(default_factory=list)
    message: list[str] = dataclasses.field(default_factory=list)
    wrapper: str = ""
    leads: list[str] = dataclasses.field(default_factory=list)
    cause: Failure | None = None
    prior: Failure | None = None
    uncaught: bool = False
    request: bool = False
    survived: bool = False
    of_rank: bool = False
    told: list[Hint] = dataclasses.field(default_factory=list)

    @property
    def innermost(self) -> list[str]:
        """The last frame with its line of code; none of Ray's own, which only hand on what a worker raised."""
        starts = [number for number, line in enumerate(self.frames) if _FRAME.match(line)]
        if (self.weight < CAUSE and not self.request) or not starts:
            return []
        found = [line for line in self.frames[starts[-1] :][:3] if line.strip(" ^~|")][:2]
        return [] if "/ray/_private/" in found[0] else found

    def own(self) -> str:
        """What it says itself."""
        return "\n".join([self.head, *self.message])

    def hints(self) -> list[Hint]:
        """What libraries told shortly before it, in its process or on its host, the nearest first."""
        end = bisect.bisect_left(self.told, self.at, key=lambda hint: hint.at)
        found = []
        for hint in reversed(self.told[max(0, end - HINTED) : end]):
            if hint.at < self.at - HINTED:
                break
            if hint.source == self.source or (self.address and hint.address == self.address):
                found.append(hint)
        return found

    def causes(self) -> list[Failure]:
        """What it came from, the nearest first."""
        found: list[Failure] = []
        each = self.cause
        while each is not None and len(found) < 10:
            if each.head != self.head:
                found.append(each)
            each = each.cause
        return found


def is_noise(line: Line) -> bool:
    """Whether a line tells of what its program goes on without."""
    return bool(_NOISE.search(line.text))


def is_nvshmem(text: str) -> bool:
    """Whether NVSHMEM wrote a line, which says more of the same end in the next one."""
    return bool(_NVSHMEM.match(text))


def address_of(text: str) -> str:
    """The address, or the name, of the host that a line of a failure names as its own."""
    match = _HOST.match(text)
    return match["host"] if match else address_in(text)


class _Stream:
    """The lines of one process, of which a traceback may be open, or the message of a failure."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.frames: list[str] | None = None  # of the traceback that is open
        self.headings = 0
        self.others = 0
        self.address = ""
        self.wrapper = ""
        self.open: Failure | None = None
        self.blank = False
        self.last: Failure | None = None
        self.chained: Failure | None = None
        self.leads: list[Failure] = []
        self.prior: Failure | None = None
        self.uncaught = False
        self.ignored = False
        self.request = False
        self.group = False


class _Reader:
    """Finds failures line by line, and what tells that a process went on."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self._streams: dict[str, _Stream] = {}
        self.went_on: list[tuple[int, str, int]] = []  # line, source, LOGGED or PLAIN
        self.phases: list[tuple[int, str, int]] = []  # line, source, order
        self.served: list[int] = []
        self.hints: list[Hint] = []
        self.ranks: dict[str, list[Failure]] = {}  # by URL, what a proxy has not got over yet
        self.sent: dict[str, int] = {}  # by URL, the requests since
        self.said: Failure | None = None  # by a proxy, before it names the rank
        self.stops: list[int] = []  # the lines at which torchrun was told to stop
        self.lines = 0

    def take(self, line: Line) -> None:
        """The next line of the log."""
        at, self.lines = self.lines, self.lines + 1
        stream = self._streams.setdefault(line.source, _Stream(line.source))
        text = line.text
        match = _PROXY.match(text)
        if match and self._of_ranks(stream, text, match["said"], at):
            return
        if _GROUP in text:
            stream.group = True
            text = text[text.index(_GROUP) + len("Exception Group ") :]
        elif stream.group:
            match = _MARGIN.match(text)
            stream.group = match is not None or not text.strip()
            text = text[match.end() :] if match else text
        if not self._of_traceback(stream, line, text, at) and not self._of_message(stream, line, text, at):
            self._other(stream, line, text, at)

    def end(self) -> None:
        """The log is over: a traceback that was cut off by it is one of a failure too."""
        for stream in self._streams.values():
            if stream.frames and not stream.ignored:
                head = next((frame for frame in reversed(stream.frames) if _FRAME.match(frame)), stream.frames[-1])
                self._add(stream, Failure(self.lines - 1, stream.source, "exception", head.strip()))

    # ---- tracebacks

    def _of_traceback(self, stream: _Stream, line: Line, text: str, at: int) -> bool:
        heading = _HEADING.search(text)
        if (heading and line.level not in ("D", "I")) or _REMOTE.match(text):
            if text.startswith("traceback: "):  # an exception's message has that of another
                stream.chained = stream.last
            self._begin(stream, at, address_in(text) if not heading else "")
            stream.headings += 1
            return True
        if stream.frames is None:
            if not _FRAME.match(text) or line.level:
                return False
            opened = stream.open
            self._begin(stream, at, "")
            if opened and not opened.message and "ray::" in opened.head:
                # Ray raises in the driver what was raised in a worker: the worker's frames and exception follow.
                opened.weight = ECHO
                stream.wrapper, stream.address = opened.head, address_in(opened.head) or opened.address
                stream.uncaught = opened.uncaught
            stream.frames = [text]
            return True
        if text[:1].isspace() or not text:
            if text and len(stream.frames) < 10 * FRAMES:
                stream.frames.append(text)
            return True
        if _FRAME.match(text):
            stream.frames.append(text)
            return True
        match = _EXCEPTION.match(text)
        if match and not line.level and _is_exception(match["name"], text):
            self._finish(stream, line, text, at)
            return True
        stream.others += 1
        if stream.others > INTERLEAVED:
            stream.frames = None
        return False

    def _begin(self, stream: _Stream, at: int, address: str) -> None:
        stream.open = None
        stream.frames, stream.others = [], 0
        stream.address, stream.wrapper = address, ""
        stream.leads = []
        last = stream.last
        stream.prior = last if last and last.kind == "death" and at - last.end <= 2 else None

    def _finish(self, stream: _Stream, line: Line, text: str, at: int) -> None:
        frames = stream.frames or []
        failure = Failure(at, stream.source, "exception", text)
        failure.frames = frames[-FRAMES:]
        failure.uncaught = stream.uncaught or any(_UNCAUGHT.search(frame) for frame in frames[:3])
        failure.wrapper, failure.address = stream.wrapper, line.address or stream.address
        failure.prior = stream.prior
        failure.cause, stream.chained = stream.chained, None
        failure.request = stream.request
        stream.headings -= 1
        if not stream.ignored:
            self._add(stream, failure)
        stream.frames, stream.leads = None, []
        stream.open, stream.blank = failure, False
        stream.last = failure
        if stream.headings <= 0:
            stream.headings, stream.ignored, stream.uncaught, stream.request = 0, False, False, False

    def _add(self, stream: _Stream, failure: Failure) -> None:
        failure.end, failure.told = failure.at, self.hints
        self.failures.append(failure)
        stream.last = failure

    # ---- ranks of a proxy

    def _of_ranks(self, stream: _Stream, text: str, said: str, at: int) -> bool:
        """Whether a line of LMDeploy's proxy tells how it stands with a rank."""
        named = _RANK.search(said)
        url = named[0] if named else ""
        if _RANK_LOST.match(said):
            failure = Failure(at, stream.source, "record", text, address=named["host"] if named else "", of_rank=True)
            if self.said and url and at - self.said.at <= INTERLEAVED:
                failure.leads = [self.said.head]
                self.said.survived = True
            self.said = None
            self._add(stream, failure)
            self.ranks.setdefault(url, []).append(failure)
            self.sent[url] = 0
        elif _RANK_ERROR.match(said):
            self.said = Failure(at, stream.source, "record", text, of_rank=True)
            self._add(stream, self.said)
        elif url and _RANK_LISTED.match(said):
            self._is_well(url)
        elif url and said.startswith(_RANK_SENT):
            # Any request proves that a rank was found for its model.
            for each in (url, ""):
                self.sent[each] = self.sent.get(each, 0) + 1
                if self.sent[each] > SERVED:
                    self._is_well(each)
        else:
            return False
        stream.open = None
        return True

    def _is_well(self, url: str) -> None:
        for failure in self.ranks.pop(url, []):
            failure.survived = True

    # ---- messages

    def _of_message(self, stream: _Stream, line: Line, text: str, at: int) -> bool:
        failure = stream.open
        if _CHAINED.match(text):
            stream.chained, stream.open = stream.last, None
            return True
        if failure is None:
            return False
        if not text.strip():
            stream.blank = True
            return True
        summary = "ChildFailedError" in failure.head
        if not line.level and _is_part(failure, text):
            pass
        elif (
            line.level
            or text.startswith("lmfleet: ")
            or phase_of(text)
            or _PROCESS.match(text)
            or _IGNORED.match(text)
            or (stream.headings > 0 and _EXCEPTION.match(text))
            or (stream.blank and not summary and not _unfinished(failure) and not text[0].isspace())
            or len(failure.message) >= MESSAGE
            or (failure.kind == "record")
            or (failure.kind == "death" and not text[0].isspace() and not _goes_on(failure, text))
            or (failure.kind == "exception" and _BARE.match(text) and failure.weight == ECHO)
        ):
            stream.open = None
            return False
        stream.blank = False
        failure.end = at
        if _NATIVE_FRAME.match(text) or (
            failure.head.startswith("Fatal Python error") and (text[0].isspace() or "most recent" in text)
        ):
            return True
        failure.message.append(text)
        failure.address = failure.address or address_of(text)
        if summary and text.startswith("====") and any(each.startswith("Root Cause") for each in failure.message):
            _summarise(failure)
            stream.open = None
        return True

    # ---- all else

    def _other(self, stream: _Stream, line: Line, text: str, at: int) -> None:
        if not text.strip():
            return
        if line.level not in ("D", "I"):
            if _IGNORED.match(text):
                stream.ignored = True
                return
            stream.uncaught = stream.uncaught or bool(_PROCESS.match(text))
            if _REQUEST.search(text):
                stream.request = True
            if self._named(stream, line, text, at):
                return
            stream.request = stream.request and line.level not in ("W", "")
        self._progress(stream, line, text, at)

    def _named(self, stream: _Stream, line: Line, text: str, at: int) -> bool:
        """Whether a line names a failure by itself."""
        if is_noise(line):
            return True
        stopped = bool(_STOPPED.search(text)) and line.level in ("W", "I", "")
        if stopped:
            self.stops.append(at)
        if line.level in ("E", "F") or _HINT.search(text):
            self.hints.append(Hint(at, stream.source, line.address, text))
        death = _DEATH.search(text) or _asserts(text)
        if stopped or line.level == "F" or (death and (line.level in ("", "E") or "NVSHMEM" in text)):
            kind = "death"
        elif not line.level and _BARE.match(text) and stream.frames is None:
            kind = "exception"
        elif (
            line.level == "E"
            or (line.level == "N" and _LIBRARY_WARNS.search(text))
            or (line.level == "W" and _NATIVE_LOGGER.match(text) and _WARNED.search(text))
            or (line.level == "W" and _WARNS_OF_LOSS.search(text))
        ):
            kind = "record"
        else:
            return False
        named = address_in(text)
        address = named or line.address if _OF_NODE.search(text) else line.address or named
        failure = Failure(at, stream.source, kind, text, address=address)
        if kind == "death":
            # Why a check failed stands in the record before it.
            near = [lead for lead in stream.leads if at - lead.end <= 2 and " failed!" in text]
            failure.leads = [line for lead in near for line in (lead.head, *lead.message)]
        failure.request = stream.request
        self._add(stream, failure)
        stream.open, stream.blank = failure, False
        stream.leads = [failure]
        return True

    def _progress(self, stream: _Stream, line: Line, text: str, at: int) -> None:
        phase = phase_of(text)
        if phase:
            self.phases.append((at, stream.source, phase.order))
        if _SERVED.search(text):
            self.served.append(at)
        if line.level == "N" or _QUIET.search(text) or _ECHO.search(text):
            return
        if line.level in ("I", "W", "D"):
            self.went_on.append((at, stream.source, LOGGED))
        elif not text[0].isspace() and not _RULE.match(text):
            self.went_on.append((at, stream.source, PLAIN))


def _is_exception(name: str, text: str) -> bool:
    last = name.partition("(")[0].rpartition(".")[2]
    return not _LEVEL_WORD.match(name) and (": " in text or last[:1].isupper())


def _unfinished(failure: Failure) -> bool:
    """Whether the message is sure to go on after an empty line."""
    last = failure.message[-1] if failure.message else failure.head
    return last.endswith(":")


def _asserts(text: str) -> bool:
    """Whether a line is a native assertion's, as in ``x.cc:7: int f(): Assertion `n > 0' failed.``"""
    start = text.find("Assertion ")
    return start >= 0 and text.find("failed", start) > 0


def _is_part(failure: Failure, text: str) -> bool:
    """Whether a line is sure to belong to a failure: a part of NCCL's message, or NVSHMEM's next word of the same end."""
    if failure.kind == "exception" or len(failure.message) >= MESSAGE:
        return False
    if _NCCL_PART.match(text):
        return "NCCL" in failure.own()
    if failure.message and failure.message[-1].startswith("Last error"):
        return True
    if failure.kind == "record" and failure.head.endswith(":") and not failure.message:
        return bool(text.strip())
    return is_nvshmem(text) and is_nvshmem(failure.head)


def _goes_on(failure: Failure, text: str) -> bool:
    """Whether a line belongs to what a native library has printed so far: what it says of the same end."""
    if _KILLED.search(text) or _CRASH.search(text) or _CRASH.search(failure.head):
        return False
    # LMDeploy's checks say in a line or two below what they found.
    return (
        bool(_DEATH.search(text))
        or _unfinished(failure)
        or (failure.head.endswith("failed!") and len(failure.message) < 2)
    )


def _summarise(failure: Failure) -> None:
    """Of torchrun's summary, leave what it says of the first process that failed."""
    starts = [number for number, line in enumerate(failure.message) if line.startswith("Root Cause")]
    if starts:
        rest = failure.message[starts[0] :]
        failure.message = [
            line for line in rest if not _RULE.match(line) and not re.match(r"\s+(?:time|error_file) +:", line)
        ]
        failure.address = next((match["host"] for match in map(_HOST.match, failure.message) if match), failure.address)


def _weigh(failure: Failure) -> int:
    if failure.weight == ECHO:
        return ECHO
    own = failure.own()
    head = failure.head if is_nvshmem(failure.head) else own
    if "Last error" in own:
        head = own[own.index("Last error") :]  # NCCL's general words name every cause at once
    if failure.request:
        return REQUEST
    if failure.kind == "record" and "(exitcode:" in own:
        return ECHO  # torchrun's summary follows, which has the host
    if _KILLED.search(own):
        return KILLED
    if _WATCHDOG.search(own) or (failure.kind != "record" and _TIMED_OUT.search(own)):
        return TIMED_OUT
    if _NOTICE.search(own):
        return NOTICE
    if _ECHO.search(failure.head):
        return CRASH if _CRASH.search(own) else ECHO
    if failure.kind == "record":
        return RECORD
    if _LOST_PEER.search(head):
        return LOST_PEER
    if _ABORTED.search(failure.head):
        return ECHO
    return CRASH if _CRASH.search(failure.head) or failure.head.startswith("***") else CAUSE


def found(log: Iterable[Line]) -> list[Failure]:
    """Every failure that a log tells of, in its order, weighed; ``survived`` those that their process got over."""
    reader = _Reader()
    for line in log:
        reader.take(line)
    reader.end()
    for failure in reader.failures:
        failure.weight = _weigh(failure)
    _see_who_went_on(reader)
    return _joined(reader.failures)


def _joined(failures: list[Failure]) -> list[Failure]:
    """``failures``, where what a process printed and then raised is one, and so is what it raised while it handled another."""
    dropped = set()
    for failure in failures:
        prior, cause = failure.prior, failure.cause
        if prior and prior.weight <= failure.weight:
            failure.leads = [prior.head]
            dropped.add(id(prior))
        if cause and cause.weight <= failure.weight:
            dropped.add(id(cause))
    return [failure for failure in failures if id(failure) not in dropped]


def _see_who_went_on(reader: _Reader) -> None:
    """Mark the failures after which a log's later lines tell that their process went on."""
    logged: dict[str, int] = {}  # source -> the last line of a logger
    plain: dict[str, list[int]] = {}  # source -> the last three other lines
    for at, source, kind in reader.went_on:
        if kind == LOGGED:
            logged[source] = at
        else:
            plain[source] = [*plain.get(source, [])[-2:], at]
    ups = [at for at, __, order in reader.phases if order == UP]
    first_up, last_up = (ups[0], ups[-1]) if ups else (reader.lines, -1)
    # Docker has started the container again: a server connects to Ray again.
    restarts = {source: at for at, source, order in reader.phases if order == 1}
    advances = _advances(reader.phases)
    serving = _serving(reader)
    starts = [failure.at for failure in reader.failures]
    for failure in reader.failures:
        end, sources = failure.end, (failure.source, "")
        if failure.of_rank:
            continue
        told_to_stop = ECHO < failure.weight < CAUSE and _ends(reader, failure.at)
        if told_to_stop or serving > end or max(restarts.get(source, -1) for source in sources) > end:
            failure.survived = True
        elif failure.kind == "record" or "init failed for" in failure.head or is_nvshmem(failure.head):
            # It is no end of its process; so it counts only where nothing of note came after it.
            failure.survived = any(logged.get(source, -1) > end for source in _itself_and_above(failure.source))
        elif not failure.uncaught and failure.kind == "exception":
            others = plain.get(failure.source, [])
            went_on = logged.get(failure.source, -1) > end or (len(others) > 2 and others[0] > end)
            advanced = any(at > end and source in sources for at, source in advances)
            following = bisect.bisect_right(starts, end)
            apart = following < len(starts) and starts[following] - end > APART
            failure.survived = (went_on and end < first_up) or last_up > end or advanced or apart


def _ends(reader: _Reader, at: int) -> bool:
    """Whether torchrun was told to stop before line ``at``, and nothing has started again since."""
    before = bisect.bisect_left(reader.stops, at)
    return before > 0 and not any(reader.stops[before - 1] < phase < at for phase, *__ in reader.phases)


def _itself_and_above(source: str) -> list[str]:
    """A process, and those that have started it, as far as prefixes tell: Ray's workers in a rank in a container."""
    ends = [number for number, character in enumerate(source) if character == "/"]
    return [source, *(source[:end] for end in ends)]


def _advances(phases: Sequence[tuple[int, str, int]]) -> list[tuple[int, str]]:
    """Where a start came further than before."""
    furthest, result = 0, []
    for at, source, order in phases:
        if order > furthest:
            furthest = order
            result.append((at, source))
    return result


def _serving(reader: _Reader) -> int:
    """The line by which the engine last proved that it serves: so many requests with no failure between them; or -1."""
    failures = [failure.at for failure in reader.failures]
    proof, count, position = -1, 0, 0
    for at in reader.served:
        while position < len(failures) and failures[position] < at:
            count, position = 0, position + 1
        count += 1
        if count >= SERVED:
            proof = at
    return proof


def decisive(failures: Sequence[Failure]) -> list[Failure]:
    """What ended the process, or came last before its end: one failure; of records and echoes alone all that count."""
    return _chosen([failure for failure in failures if not failure.survived])


def strongest(failures: Sequence[Failure]) -> list[Failure]:
    """Of a process that is known to have failed, though it went on after each: the last of the weightiest."""
    if not failures:
        return []
    weight = max(failure.weight for failure in failures)
    return _chosen([failure for failure in failures if failure.weight == weight][-1:])


def _chosen(among: Sequence[Failure]) -> list[Failure]:
    if not among:
        return []
    best = max(among, key=lambda failure: failure.weight)
    if best.kind == "record" or best.weight == ECHO:
        alike = [failure for failure in among if failure.weight == best.weight][-ALIKE:]
        exceptions = [failure for failure in alike if failure.kind == "exception"]
        # torchrun's exception says nothing where its summary was cut off; its record before has the exit code.
        bare = (
            bool(exceptions)
            and exceptions[-1].head.rstrip(": ").endswith("ChildFailedError")
            and not exceptions[-1].message
        )
        return alike if bare else exceptions or alike
    return [best]
