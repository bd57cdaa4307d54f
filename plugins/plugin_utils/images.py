# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an image comes to a host: by which reference, how far it is, and with how much space. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

GB = 1e9
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
# docker save packs nothing: an image takes what its archive does, and somewhat more. A person may have packed it.
UNPACKED, UNPACKED_OF_PACKED = 1.2, 3.0
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd, which docker load takes


def mirrored(reference: str, mirror: str) -> str:
    """The reference by which a mirror has an image: its registry's place is taken by ``mirror``, a registry with or without a path.

    Empty without a mirror. Raises ``ValueError`` where the image could not be given its name afterwards.
    """
    if not mirror:
        return ""
    if "@" in reference:
        raise ValueError(
            f"{reference} names a digest, and Docker cannot give an image from another registry that name: set plan_image to the "
            "mirror's own reference with the digest, or to a tag; or, for Docker Hub, list the mirror in registry-mirrors of "
            "/etc/docker/daemon.json, and leave image_mirror empty."
        )
    first, slash, rest = reference.partition("/")
    if not slash or not (re.search(r"[.:]", first) or first == "localhost"):
        first, rest = "docker.io", reference
    if first in _HUB and "/" not in rest:
        rest = f"library/{rest}"
    return f"{re.sub(r'^https?://', '', mirror).strip('/')}/{rest}"


def pull_line(summary: Mapping[str, Any]) -> str:
    """How far a pull is: ``downloads 3.2 of 8.1 GB, 85 MB/s, 58 s left, 12 of 38 layers done``."""
    if summary["stage"] == "waits":
        return "waits for the registry"
    layers = f"{summary['done']} of {summary['layers']} layers done"
    if summary["stage"] == "unpacks":
        # containerd's image store tells no bytes of it.
        share = f"{summary['unpacked'] / GB:.1f} of {summary['size'] / GB:.1f} GB, " if summary["unpacked"] else ""
        return f"unpacks {share}{layers}"
    # Docker tells a layer's size when it begins with it.
    least = "" if summary["sized"] else "at least "
    line = f"downloads {summary['got'] / GB:.1f} of {least}{summary['size'] / GB:.1f} GB"
    if summary["rate"]:
        line += f", {summary['rate'] / 1e6:.0f} MB/s"
    left = summary["left_s"]
    if left is not None:
        line += f", {left} s left" if left < 120 else f", {left // 60} min left"
    return f"{line}, {layers}"


def share_line(summary: Mapping[str, Any]) -> str:
    """How far an image is on its way from host to host: ``copies 3.2 of about 8.1 GB, 85 MB/s, 58 s left``."""
    if summary["stage"] == "loads":
        return f"loads {summary['got'] / GB:.1f} GB"
    line = f"copies {summary['got'] / GB:.1f} of about {summary['size'] / GB:.1f} GB"
    if summary["rate"]:
        line += f", {summary['rate'] / 1e6:.0f} MB/s"
    left = summary["left_s"]
    if left is not None:
        line += f", {left} s left" if left < 120 else f", {left // 60} min left"
    return line


def no_room(summary: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Why a pull cannot end well, or empty: its layers, unpacked, are more than what was free in Docker's ``root`` when it began.

    Said as soon as Docker has told enough of their sizes, and only where it is certain: they take more than they are packed.
    """
    if root["free_bytes"] is None or summary["size"] <= root["free_bytes"]:
        return ""
    return (
        f"{root['path']} had {root['free_bytes'] / GB:.1f} GB free, and the image's layers take more than "
        f"{summary['size'] / GB:.1f} GB (no space left on device)"
    )


def is_packed(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a packed one."""
    return head.startswith(_PACKED)


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with these 512 bytes may be one of docker save."""
    return is_packed(head) or head[257:262] == b"ustar"


def archive_fault(
    archives: Sequence[tuple[int, bool]],
    folder: Mapping[str, Any] | None,
    docker: Mapping[str, Any] | None,
    paths: tuple[str, str],
) -> str:
    """Why archives do not fit, or empty. Of each its bytes, and whether it is packed.

    They are copied one after another, and all are unpacked.

    ``folder`` and ``docker`` are the disks of the two ``paths``, where archives are copied and where Docker has its data:
    ``{"free_bytes", "device"}``; None is not known, and refuses nothing.
    """
    copied = max((size for size, __ in archives), default=0)
    unpacked = round(sum(size * (UNPACKED_OF_PACKED if packed else UNPACKED) for size, packed in archives))
    one = folder and docker and folder.get("device") is not None and folder.get("device") == docker.get("device")
    needs = (
        [(docker, paths[1], copied + unpacked)] if one else [(folder, paths[0], copied), (docker, paths[1], unpacked)]
    )
    return " ".join(
        f"{path} has {disk['free_bytes'] / GB:.1f} GB free, and the archives need {need / GB:.1f} GB there: free some space "
        f"(df -h {path}; docker system df)."
        for disk, path, need in needs
        if disk and disk.get("free_bytes") is not None and disk["free_bytes"] < need
    )
