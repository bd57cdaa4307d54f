# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with one file of a model: stand-ins, JSON, headers of weights. Reads headers, never weights.

Each function takes a file that was opened and returns what is to be said after the file's name, or nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

LONGEST_HEADER = 100_000_000  # bytes; the safetensors format's own limit
LONGEST_JSON = 128 << 20  # bytes; what is longer is not parsed here (the longest index known has 9 MB)
START = 512  # bytes that tell a stand-in from a file
NOT_WRITTEN = 1 << 20  # bytes of a tensor that no disk space was ever written for
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
END_OF_ZIP = b"PK\5\6"
COMMENT = 65_557  # bytes that the end of a zip archive may have at most
RELATIVE_IMPORT = re.compile(r"^\s*(?:import\s+\.|from\s+\.)(\w+)(?:\s*$|\s+import\b)", re.MULTILINE)
VOCABULARY = re.compile(r"""["']vocab_file["']\s*:\s*["'](?:\./)?([\w.-]+)["']""")


class DamagedError(Exception):
    """A file is not what its name says; the message goes after the name."""


def size_of(file: BinaryIO) -> int:
    """Bytes."""
    return os.fstat(file.fileno()).st_size


def stand_in(file: BinaryIO) -> str:
    """Whether something else lies in a file's place: nothing, zeros, or what ``_pointer`` knows."""
    if not size_of(file):
        return "is empty: it has 0 bytes."
    file.seek(0)
    if not file.read(1 << 16).strip(b"\0"):
        return f"has {size_of(file)} bytes and begins with zeros only: its download was cut off, or the disk was full."
    return _pointer(file)


def _pointer(file: BinaryIO) -> str:
    """Whether it is what Git keeps in a file's place, or a server's page; reads from its beginning."""
    size = size_of(file)
    file.seek(0)
    text = file.read(START).lstrip().lower()
    file.seek(0)
    if text.startswith((b"version https://git-lfs", b"version https://hawser", b"version http://git-media")):
        return f"is a Git LFS pointer of {size} bytes, not the file itself (in a clone: git lfs pull)."
    if text.startswith(b"# xet version"):
        return f"is a Xet pointer of {size} bytes, not the file itself (in a clone: git xet checkout)."
    if size <= START and b"annex/objects/" in text:
        return f"is a git-annex pointer of {size} bytes, not the file itself (in a clone: git annex get)."
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<error>")):
        return f"is a web page of {size} bytes, such as a login or an error, which was saved in the file's place."
    return ""


def json_object(file: BinaryIO) -> dict[str, Any] | None:
    """The object in a JSON file as the engine reads it: UTF-8 without a mark. None: too long to be parsed here.

    Raises DamagedError.
    """
    wrong = stand_in(file)
    if wrong:
        raise DamagedError(wrong)
    size = size_of(file)
    if size > LONGEST_JSON:
        start = file.read(START).lstrip()
        file.seek(-START, os.SEEK_END)
        if not start.startswith(b"{") or not file.read().rstrip().endswith(b"}"):
            raise DamagedError(f"is not a JSON object, or cut off: it has {size} bytes.")
        return None
    data = file.read(LONGEST_JSON + 1)
    try:
        content = json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        cut = error.pos >= len(data.decode("utf-8").rstrip()) or error.msg.startswith("Unterminated")
        why = "it is cut off" if cut else f"{_reason(error.msg)} at line {error.lineno}"
        raise DamagedError(f"is not a JSON object: {why}{_start_of(data)}.") from None
    except UnicodeDecodeError:
        raise DamagedError(f"is not a JSON object: it is not UTF-8{_start_of(data)}.") from None
    except (ValueError, RecursionError, MemoryError):
        raise DamagedError(f"is not a JSON object that can be parsed{_start_of(data)}.") from None
    if not isinstance(content, dict):
        raise DamagedError(f"is not a JSON object{_start_of(data)}.")
    if content and set(content) <= {
        "error",
        "message",
        "detail",
        "code",
        "statusCode",
        "request_id",
        "Message",
        "Code",
    }:
        raise DamagedError(f"holds a server's error, not the file itself{_start_of(data)}.")
    return content


def safetensors_fault(file: BinaryIO, tensors: set[str]) -> str:
    """Compare the size of a safetensors file with what its own header says, and its tensors with the index's."""
    size = size_of(file)
    wrong = _pointer(file)
    if wrong:
        return wrong
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if len(start) == 8 and not length:
        return f"has {size} bytes and begins with zeros only: its download was cut off, or the disk was full."
    if len(start) < 8 or length > min(LONGEST_HEADER, size - 8):
        return f"is cut off or no safetensors file: it has {size} bytes, and its header does not fit."
    try:
        header = json.loads(file.read(length).decode("utf-8"))
        ends = _ends(header)
    except (DamagedError, ValueError, RecursionError, MemoryError):
        return "has a damaged header."
    expected = 8 + length + (ends[-1][1] if ends else 0)
    if size != expected:
        return f"has {size} bytes where its header says {expected}."
    gone = sum(_not_written(file, 8 + length, ends))
    if gone:
        return f"has {gone} tensors that were never written, only room was made for them: its download was cut off."
    absent = sorted(tensors - header.keys())
    return f"lacks {len(absent)} tensors of the index: {some(absent)}." if absent else ""


def _ends(header: Any) -> list[tuple[int, int]]:
    """Begin and end of every tensor, in their order, one after the other. Raises DamagedError where that is not so."""
    if not isinstance(header, dict):
        raise DamagedError
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
            raise DamagedError
        begin, end = offsets
        shape, bits = entry.get("shape"), BITS.get(str(entry.get("dtype")))
        if begin > end or (bits and not _fits(shape, bits, end - begin)):
            raise DamagedError
        found.append((begin, end))
    found.sort()
    last = 0
    for begin, end in found:
        if begin != last:
            raise DamagedError
        last = end
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fits(shape: Any, bits: int, held: int) -> bool:
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        return False
    total = bits
    for length in shape:
        total *= length
        if total > 1 << 70:
            return False
    return total == held * 8


def _not_written(file: BinaryIO, data: int, ends: list[tuple[int, int]]) -> list[bool]:
    """For each large tensor, whether all of it is a hole: downloaders make room first, and no real tensor is all zeros."""
    descriptor, size = file.fileno(), size_of(file)
    try:
        if os.lseek(descriptor, data, os.SEEK_HOLE) >= size:
            return []
        large = [(data + begin, data + end) for begin, end in ends if end - begin >= NOT_WRITTEN]
        return [_is_hole(descriptor, begin, end) for begin, end in large]
    except (OSError, ValueError):  # not every file system says where holes are
        return []


def _is_hole(descriptor: int, begin: int, end: int) -> bool:
    try:
        return os.lseek(descriptor, begin, os.SEEK_DATA) >= end
    except OSError as error:
        return error.errno == errno.ENXIO  # nothing from here to the end


def pytorch_fault(file: BinaryIO) -> str:
    """Whether a file that torch saved is cut off: such a file is a zip archive, or one of pickle before torch 1.6."""
    wrong = stand_in(file)
    if wrong:
        return wrong
    start = file.read(2)
    if start == b"PK":
        file.seek(max(size_of(file) - COMMENT, 0))
        return "" if END_OF_ZIP in file.read() else f"is cut off: it has {size_of(file)} bytes, and no end."
    return "" if start[:1] == b"\x80" else "is no file that torch saved."


def shards_of(index: Mapping[str, Any]) -> dict[str, set[str]]:
    """File -> its tensors, out of an index. Raises DamagedError where it is none."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedError("has no weight_map.")
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.strip("/.") or "\0" in shard:
            raise DamagedError(f"has a weight_map whose values are no names of files, such as {shard!r:.60}.")
        shards.setdefault(shard, set()).add(tensor)
    return shards


def code_files(auto_map: Any) -> dict[str, list[str]]:
    """Of an ``auto_map``: file (``repo--file.py``, where another repository has it) -> the classes that are read from it."""
    found: dict[str, list[str]] = {}
    entries = auto_map.items() if isinstance(auto_map, dict) else []
    for kind, entry in entries:
        for reference in entry if isinstance(entry, list) else [entry]:
            if isinstance(reference, str) and "." in reference:
                found.setdefault(f"{reference.rpartition('.')[0]}.py", []).append(str(kind))
    return found


def some(names: list[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(shown(name) for name in names[:most]) or "none") + more


def shown(text: str) -> str:
    """Text for people, whatever bytes a name is made of."""
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _encodes(text) else ascii(text)
    return "".join(sign if sign.isprintable() else "?" for sign in clean)


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _reason(message: str) -> str:
    return "it has a byte order mark" if "BOM" in message else f"{message[:1].lower()}{message[1:]}"


def _start_of(data: bytes) -> str:
    begin = shown(data[:40].decode("utf-8", "replace").strip())
    return f" (it begins with {begin!r})" if begin else ""
