# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the host, each with an end: nvidia-smi hangs on a sick GPU, and cannot always be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence

COMMAND_SECONDS = 15.0
# Where a login that is not root's may not look.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str) -> str | None:
    """The path of a command, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def run(argv: Sequence[str], seconds: float | None = None) -> tuple[str, str]:
    """(what it wrote to stdout, why it failed as one line, or nothing); its stdin is empty."""
    seconds = COMMAND_SECONDS if seconds is None else seconds
    said = " ".join([os.path.basename(argv[0]), *argv[1:]])  # noqa: PTH119  (the last part as text)
    # Files, not pipes: what it has started may outlive it and would hold a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, cwd="/"
            )
        except OSError as error:
            return "", f"{said} cannot be run: {error.strerror}"
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)  # longer is no use: a process that waits for a device does not die
            return "", f"{said} timed out after {seconds:g} s"
        out.seek(0)
        err.seek(0)
        stdout, stderr = (file.read().decode("utf-8", "replace") for file in (out, err))
    if code != 0:
        last = next(iter([line.strip() for line in f"{stdout}\n{stderr}".splitlines() if line.strip()][-1:]), "")
        return stdout, f"{said} ended with code {code}: {last or 'it said nothing'}"
    return stdout, ""
