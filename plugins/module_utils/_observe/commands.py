# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the host, each with an end: nvidia-smi hangs on a sick GPU, and cannot always be killed."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

COMMAND_SECONDS = 15.0
LARGEST = 4 << 20  # bytes of its output: nobody prints as much who is well
REASON = 300  # characters
# Where a login that is not root's may not look.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str) -> str | None:
    """The path of a command, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def run(argv: Sequence[str], seconds: float | None = None, answer: re.Pattern[str] | None = None) -> tuple[str, str]:
    """(what it wrote to stdout, why it failed as one line, or nothing); its stdin is empty.

    The reason is what it wrote to stderr, else to stdout, but for lines that match ``answer``, which are what it was asked for.
    """
    seconds = COMMAND_SECONDS if seconds is None else seconds
    said = " ".join([os.path.basename(argv[0]), *argv[1:]])  # noqa: PTH119  (the last part as text)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        return "", f"{said} cannot be run: {error.strerror}"
    with contextlib.ExitStack() as pipes:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipes.enter_context(pipe)
        stdout, stderr, why = _read(process, time.monotonic() + seconds)
        if why:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)  # longer is no use: a process that waits for a device does not die
            return "", f"{said} {why}" if why != TOO_LATE else f"{said} {why} after {seconds:g} s"
    if process.returncode != 0:
        return stdout, f"{said} ended with code {process.returncode}: {_reason(stdout, stderr, answer)}"
    return stdout, ""


TOO_LATE = "timed out"


def _read(process: subprocess.Popen[bytes], ends: float) -> tuple[str, str, str]:
    """(stdout, stderr, why it has to be killed, or nothing) of a process, until it ends.

    Not until its pipes close: what it has started may outlive it, and holds them open.
    """
    parts: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    with selectors.DefaultSelector() as ready:
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            if pipe:
                os.set_blocking(pipe.fileno(), False)
                ready.register(pipe, selectors.EVENT_READ, name)
        why, ended = "", False
        while not why:
            found = ready.select(0 if ended else 0.05) if ready.get_map() else []
            for key, __ in found:
                block = os.read(key.fd, 1 << 16)
                parts[key.data] += block
                if not block:
                    ready.unregister(key.fileobj)
            if ended and not found:
                break
            if sum(map(len, parts.values())) > LARGEST:
                why = f"did not stop printing ({LARGEST >> 20} MiB)"
            elif not ended:
                ended = process.poll() is not None
                if not ended and not ready.get_map():
                    time.sleep(0.01)
                if not ended and time.monotonic() > ends:
                    why = TOO_LATE
    stdout, stderr = (bytes(parts[name]).decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return stdout, stderr, why


def _reason(stdout: str, stderr: str, answer: re.Pattern[str] | None) -> str:
    for text in (stderr, stdout):
        lines = [line.strip() for line in text.splitlines() if line.strip() and not (answer and answer.match(line))]
        if lines:
            # The first lines have the fault; usage and advice come after it.
            return " ".join(lines[:2])[:REASON]
    return "it said nothing"
