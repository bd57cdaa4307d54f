# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A log that somebody has in a file: what is read of it, and its diagnosis as text."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Sequence
from pathlib import Path

from .log_lines import split
from .logs import Diagnosis

# Why a service failed stands at the end of its log; so much of it is held in memory.
READ_BYTES = 32 << 20
SAMPLE_BYTES = 64 << 10
_PACKED = {
    b"\x1f\x8b": "gzip -dc",
    b"\x28\xb5\x2f\xfd": "zstd -dc",
    b"\xfd7zXZ\x00": "xz -dc",
    b"BZh": "bzip2 -dc",
    b"PK\x03\x04": "unzip -p",
}
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_log(path: Path, limit: int = READ_BYTES) -> tuple[list[str], int]:
    """The lines of a log, of a long one those of its last ``limit`` bytes, and how many bytes before them were left out.

    Raises ValueError with a message for a person.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError(f"{path} is a directory: name one file in it.")
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file: write the log into a file first.")
        with path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
            left_out = max(0, status.st_size - limit)
            file.seek(left_out)
            raw = file.read(limit)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    packed = next((command for magic, command in _PACKED.items() if sample.startswith(magic)), None)
    if packed:
        raise ValueError(f"{path} is compressed. Unpack it first: {packed} {path} > log.txt")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if sample.startswith(mark)), "utf-8")
    if encoding == "utf-8" and _is_binary(sample, raw):
        raise ValueError(f"{path} is no text, so it is no log.")
    # A log that was cut while it was written (copytruncate) begins with zeros. Of a long one, the first line is cut.
    text = raw[left_out % 2 if encoding.startswith("utf-16") else 0 :].decode(encoding, "replace").lstrip("\0\ufeff")
    lines = split(text)[1 if left_out else 0 :]
    if not any(map(str.strip, lines)):
        raise ValueError(f"{path} is empty: it has no line of a log.")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines, left_out


def _is_binary(*samples: bytes) -> bool:
    """Whether more than a few bytes are such that no program writes into a log."""
    for sample in samples:
        part = sample.lstrip(b"\0")[:SAMPLE_BYTES]
        odd = sum(part.count(byte) for byte in (b"\0", b"\1", b"\2", b"\3", b"\4", b"\5", b"\6", b"\x0e", b"\x0f"))
        if part and odd * 50 > len(part):
            return True
    return False


def told(diagnosis: Diagnosis | None, path: Path, lines: Sequence[str], left_out: int = 0) -> list[str]:
    """A diagnosis as lines for a person; ``decisive:``, ``means:``, ``remedy:`` and ``node:`` begin those that a script reads."""
    count = f"{len(lines)} lines"
    part = f"the last {count}; the {left_out >> 20} MiB before them were not read" if left_out else count
    if diagnosis is None:
        return [
            f"No failure was found in {path}: none of its lines tells of one that ended a process ({part}).",
            "A service that hangs, or that was killed, may not log it: look at `docker inspect` and `dmesg -T` on its host.",
        ]
    known = diagnosis.known
    unknown = "Look for the decisive lines in the issues of what wrote them: LMDeploy, torch, Ray, NCCL or DeepEP."
    return [
        f"log: {path} ({part})",
        "decisive:",
        *(f"  | {line}" for line in diagnosis.lines),
        f"means: {known.means if known else 'This failure is not known: the catalogue has no entry for it.'}",
        f"remedy: {known.remedy if known else unknown}",
        *([f"node: {diagnosis.node}"] if diagnosis.node else []),
    ]
