# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which reference an image comes, how far it is in words, and whether its archives fit."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.images import (
    archive_fault,
    is_archive,
    is_packed,
    mirrored,
    no_room,
    pull_line,
)

PATHS = ("/var/lib/lmfleet", "/var/lib/docker")


@pytest.mark.parametrize(
    ("reference", "mirror", "source"),
    [
        ("openmmlab/lmdeploy:v0.18.0", "", ""),
        ("openmmlab/lmdeploy:v0.18.0", "mirror.example.com", "mirror.example.com/openmmlab/lmdeploy:v0.18.0"),
        ("openmmlab/lmdeploy:v1", "https://mirror.example.com/hub/", "mirror.example.com/hub/openmmlab/lmdeploy:v1"),
        ("docker.io/openmmlab/lmdeploy:v1", "10.0.0.5:5000", "10.0.0.5:5000/openmmlab/lmdeploy:v1"),
        ("debian:12", "m.example.com", "m.example.com/library/debian:12"),
        ("docker.io/debian", "m.example.com", "m.example.com/library/debian"),
        ("ghcr.io/team/image:1", "m.example.com/ghcr", "m.example.com/ghcr/team/image:1"),
        ("localhost:5077/engine:0.18.0", "m.example.com", "m.example.com/engine:0.18.0"),
        ("localhost/engine:1", "m.example.com", "m.example.com/engine:1"),
    ],
)
def test_a_mirror_takes_the_place_of_the_registry(reference: str, mirror: str, source: str) -> None:
    assert mirrored(reference, mirror) == source


@pytest.mark.parametrize("reference", ["openmmlab/lmdeploy@sha256:" + "0" * 64, "x/y:1@sha256:" + "0" * 64])
def test_a_digest_is_told_beforehand(reference: str) -> None:
    assert mirrored(reference, "") == ""
    with pytest.raises(ValueError, match="image_mirror"):
        mirrored(reference, "m.example.com")


def summary(**differs: Any) -> dict[str, Any]:
    usual = {"stage": "downloads", "got": 3.2e9, "size": 8.1e9, "sized": True, "unpacked": 0}
    return {**usual, "layers": 38, "done": 12, "rate": 85e6, "left_s": 58, "lines": 1, **differs}


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (summary(), "downloads 3.2 of 8.1 GB, 85 MB/s, 58 s left, 12 of 38 layers done"),
        (summary(left_s=600), "downloads 3.2 of 8.1 GB, 85 MB/s, 10 min left, 12 of 38 layers done"),
        (
            summary(sized=False, left_s=None),
            "downloads 3.2 of at least 8.1 GB, 85 MB/s, 12 of 38 layers done",
        ),
        (summary(rate=0.0, left_s=None), "downloads 3.2 of 8.1 GB, 12 of 38 layers done"),
        (summary(stage="unpacks", unpacked=4e9), "unpacks 4.0 of 8.1 GB, 12 of 38 layers done"),
        (summary(stage="unpacks"), "unpacks 12 of 38 layers done"),
        (summary(stage="waits"), "waits for the registry"),
    ],
)
def test_how_far_a_pull_is(seen: dict[str, Any], line: str) -> None:
    assert pull_line(seen) == line


def test_a_pull_that_cannot_fit_is_told() -> None:
    assert no_room(summary(), {"path": "/d", "free_bytes": 9e9}) == ""
    assert no_room(summary(), {"path": "/d", "free_bytes": None}) == ""
    assert no_room(summary(), {"path": "/d", "free_bytes": 8e9}).startswith("/d had 8.0 GB free")


def disk(gigabytes: float, device: str = "/dev/sda1") -> dict[str, Any]:
    return {"free_bytes": gigabytes * 1e9, "device": device}


@pytest.mark.parametrize(
    ("archives", "folder", "docker", "words"),
    [
        ([(10e9, False)], disk(23), disk(23), []),
        ([(10e9, False)], disk(21), disk(21), ["/var/lib/docker has 21.0 GB", "need 22.0 GB"]),
        ([(10e9, False)], disk(11), disk(13, "/dev/sdb1"), []),
        ([(10e9, False)], disk(9), disk(13, "/dev/sdb1"), ["/var/lib/lmfleet has 9.0 GB", "need 10.0 GB"]),
        ([(10e9, False)], disk(9), disk(11, "/dev/sdb1"), ["/var/lib/lmfleet", "/var/lib/docker has 11.0 GB"]),
        # The largest one's copy, and all of them unpacked.
        ([(10e9, False), (5e9, False)], disk(27), disk(27), ["need 28.0 GB"]),
        ([(10e9, True)], disk(35), disk(35), ["need 40.0 GB"]),
        ([(10e9, False)], None, None, []),
        ([(10e9, False)], {"free_bytes": None, "device": None}, disk(1), ["/var/lib/docker has 1.0 GB"]),
    ],
)
def test_archives_that_do_not_fit_are_refused(
    archives: list[tuple[int, bool]], folder: Any, docker: Any, words: list[str]
) -> None:
    fault = archive_fault(archives, folder, docker, PATHS)
    assert bool(fault) == bool(words)
    assert all(word in fault for word in words)


def test_archives_are_known_by_their_first_bytes() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    plain = packed.getvalue()
    assert (is_archive(plain[:512]), is_packed(plain[:512])) == (True, False)
    assert (is_archive(gzip.compress(plain)[:512]), is_packed(gzip.compress(plain)[:512])) == (True, True)
    assert is_archive(b"\x28\xb5\x2f\xfd" + bytes(508))
    assert not is_archive(b"<html>" + bytes(506))
    assert not is_archive(b"")
