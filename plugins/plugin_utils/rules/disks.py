# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is mounted, and the disks below: paths, space, inodes, rights, file systems of the network."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..look import engine_of, hub_of
from ..planning.types import Node, Plan
from .types import ERROR, WARNING, OfHost, Rule, Unknown

GIB = 2**30
# Of LMDeploy's image, packed out, and of logs and small files.
IMAGE_BYTES, SOME_BYTES = 40 * GIB, 1 * GIB
FEW_INODES = 10_000
# File systems that have a table of inodes, which can be full; others make them as they need them, and say 0.
WITH_INODES = ("ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay")
REMOTE = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.sshfs",
    "glusterfs",
    "fuse.glusterfs",
)


def _mounts(of: OfHost) -> Iterator[str]:
    home = of.node.hf_home
    # Of what the model is looked for in, the absence is told already.
    told = {_source_of_model(of.plan, of.node)}
    there: Mapping[str, bool] = of.known("paths")
    for path in (path for path, exists in there.items() if not exists and path not in told):
        variable = "plan_hf_home" if path == home else "plan_extra_mounts"
        yield f"{path} does not exist on this host, and containers mount it: make it, or correct {variable}."


def _source_of_model(plan: Plan, node: Node) -> str | None:
    """The source of the mount by which containers see the directory that the model is looked for in."""
    inside = posixpath.normpath(plan.model if plan.model.startswith("/") else hub_of(plan, node))
    over = [each for each in engine_of(plan, node).mounts if f"{inside}/".startswith(f"{each.target.rstrip('/')}/")]
    return max(over, key=lambda mount: len(mount.target.rstrip("/"))).source if over else None


def _each(of: OfHost) -> Iterator[tuple[str, str, Mapping[str, Any] | None]]:
    """What a disk is for, its path, and what is told of it, if anything."""
    disks = of.known("host.disks")
    root = of.get("docker_settings.root_dir") or "a directory that Docker does not tell"
    for what, path in (
        ("plan_state_dir", of.node.state_dir),
        ("plan_hf_home", of.node.hf_home),
        ("Docker's data", root),
    ):
        yield what, path, disks.get(path)


def _every(key: str, told: Callable[[OfHost, str, str, Mapping[str, Any]], str]) -> Callable[[OfHost], Iterator[str]]:
    """A check of one key of every disk; disks that do not tell it are unknown."""

    def check(of: OfHost) -> Iterator[str]:
        silent = []
        for what, path, disk in _each(of):
            # A file system without a table of inodes has none to tell.
            if disk is None or (disk.get(key) is None and key != "free_inodes"):
                silent.append(f"{path} ({what})")
                continue
            found = told(of, what, path, disk)
            if found:
                yield found
        if silent:
            raise Unknown(f"the disk of {', '.join(silent)} could not be read")

    return check


def _read_only(of: OfHost, what: str, path: str, disk: Mapping[str, Any]) -> str:
    # The model may well be on a disk that is only read. A user without rights may still have Docker write.
    if disk["writable"] or what == "plan_hf_home" or of.get("host.uid") != 0:
        return ""
    how = f" (mount -o remount,rw; dmesg | tail), or set {what} to another directory" if what != "Docker's data" else ""
    return f"{path} ({what}) cannot be written: it or its disk is read-only. Mount it for writing{how}."


def _space(of: OfHost, what: str, path: str, disk: Mapping[str, Any]) -> str:
    if what == "plan_hf_home":  # the download says itself what it needs, and a whole model needs nothing more
        return ""
    image = what == "Docker's data" and of.real and of.host.image_id is None
    least = IMAGE_BYTES if image else SOME_BYTES
    if disk["free_bytes"] >= least:
        return ""
    why = "the image needs about" if image else "logs and small files need at least"
    return (
        f"{path} ({what}) has {disk['free_bytes'] / GIB:.1f} GiB free, and {why} {least // GIB} GiB: free some space "
        f"(df -h {path}; docker system df), or move it to another disk."
    )


def _inodes(__: OfHost, what: str, path: str, disk: Mapping[str, Any]) -> str:
    free = disk["free_inodes"]
    if free is None or free >= FEW_INODES or (free == 0 and disk.get("type") not in WITH_INODES):
        return ""
    return (
        f"the disk of {path} ({what}) has {free} inodes left, so few files can still be made (No space left on device): look with "
        f"df -i {path}, and remove small files."
    )


def _remote(__: OfHost, what: str, path: str, disk: Mapping[str, Any]) -> str:
    if what == "plan_hf_home" or str(disk["type"]).lower() not in REMOTE:
        return ""
    return (
        f"{path} ({what}) is on a file system of the network ({disk['type']}), where hosts write over each other's files and "
        f"locks are slow: set {'plan_state_dir' if what == 'plan_state_dir' else 'data-root in /etc/docker/daemon.json'} to a "
        "directory on a disk of the host."
    )


RULES = (
    Rule(
        id="disk.mounts",
        severity=ERROR,
        title="What containers mount is there",
        check=_mounts,
        remedy="Make it, or correct `plan_hf_home` or `plan_extra_mounts`.",
        needs=("paths",),
        waivable=False,
    ),
    Rule(
        id="disk.read-only",
        severity=ERROR,
        title="`plan_state_dir` and Docker's data can be written",
        check=_every("writable", _read_only),
        remedy="Mount it for writing, or set `plan_state_dir`.",
        needs=("host.disks",),
    ),
)
WARNINGS = (
    Rule(
        id="disk.space",
        severity=WARNING,
        title="`plan_state_dir` and Docker's data have space, for the image where it is to be brought",
        check=_every("free_bytes", _space),
        remedy="Free some space.",
        needs=("host.disks",),
    ),
    Rule(
        id="disk.inodes",
        severity=WARNING,
        title="The disks have inodes left",
        check=_every("free_inodes", _inodes),
        remedy="Remove small files.",
        needs=("host.disks",),
    ),
    Rule(
        id="disk.remote",
        severity=WARNING,
        title="`plan_state_dir` and Docker's data are on disks of the host",
        check=_every("type", _remote),
        remedy="Set `plan_state_dir`, or Docker's `data-root`.",
        needs=("host.disks",),
    ),
)
