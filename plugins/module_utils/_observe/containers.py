# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers: their state, what Docker was asked for when they were made, their new log lines, their processor time."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import parallel

DEPLOYMENT_LABEL = "lmfleet.lmdeploy.deployment"
LOG_LINES = 4000
JUMP_S = 1.0  # stdout and stderr are apart by less; a clock that was set back goes by more
# A start has said what it has to say long before; the log of a year at log_level INFO has gigabytes.
START_BYTES = 32 << 20
UP = "Application startup complete"  # uvicorn's; plugin_utils/logs.py has all phases of a start
_RANK = re.compile(r"^\[rank \d+\] ")
CGROUPS = Path("/sys/fs/cgroup")


def listed(client: Any, deployment: str) -> list[str]:
    """The names of all containers with the label of a deployment, running or not."""
    found = client.containers.list(all=True, sparse=True, filters={"label": f"{DEPLOYMENT_LABEL}={deployment}"})
    return [name.lstrip("/") for each in found for name in each.attrs["Names"][:1]]


def inspected(client: Any, names: Iterable[str]) -> dict[str, Any]:
    """Name -> the SDK's container, or None where there is none. All are asked at once."""
    import docker

    def get(name: str) -> Any:
        with contextlib.suppress(docker.errors.NotFound):
            return client.containers.get(name)
        return None

    return parallel.each(get, dict.fromkeys(names))


def is_running(container: Any) -> bool:
    """Whether an inspected container runs; None does not."""
    return container is not None and container.attrs["State"]["Status"] == "running"


def facts(client: Any, containers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> ``{"present": False}``, or what inspecting says of the container; ``asked`` as in ``asked_of``."""
    images = dict.fromkeys(c.attrs["Image"] for c in containers.values() if c is not None)
    environments = parallel.each(lambda image: _image_environment(client, image), images)
    return {
        name: {"present": False} if c is None else _facts(c.attrs, environments[c.attrs["Image"]])
        for name, c in containers.items()
    }


def _image_environment(client: Any, image: str) -> list[str]:
    import docker

    try:
        return (client.images.get(image).attrs.get("Config") or {}).get("Env") or []
    except docker.errors.NotFound:  # removed by force
        return []


def _facts(attrs: Mapping[str, Any], image_environment: list[str]) -> dict[str, Any]:
    state = attrs["State"]
    return {
        "present": True,
        "id": attrs["Id"],
        "labels": attrs["Config"].get("Labels") or {},
        "image": attrs["Image"],
        "created": attrs["Created"],
        "status": state["Status"],
        "exit_code": state["ExitCode"],
        "oom_killed": state["OOMKilled"],
        "restarts": attrs["RestartCount"],
        "started_at": state["StartedAt"],
        "asked": asked_of(attrs, image_environment),
    }


def asked_of(attrs: Mapping[str, Any], image_environment: Iterable[str] = ()) -> dict[str, Any]:
    """What Docker was asked for when it made the container, out of what it says on inspection.

    ``environment`` lacks what the image sets to the same value. ``mounts`` are ``[source, target, read_only]``, sorted by
    target. ``restart_policy`` is as on the command line, such as ``on-failure:3``. ``rdma``: by single rights.
    """
    config, host = attrs["Config"], attrs["HostConfig"]
    own = set(config.get("Env") or []) - set(image_environment)
    mounts = [[m.get("Source", ""), m["Destination"], not m.get("RW", True)] for m in attrs.get("Mounts") or []]
    policy = host.get("RestartPolicy") or {}
    restarts = policy.get("MaximumRetryCount") or 0
    requests = host.get("DeviceRequests") or []
    rights = {right.partition("CAP_")[2] or right for right in host.get("CapAdd") or []}
    devices = {device.get("PathOnHost", "") for device in host.get("Devices") or []}
    return {
        "command": config.get("Cmd") or [],
        "environment": {name: value for name, __, value in sorted(entry.partition("=") for entry in own)},
        "mounts": sorted(mounts, key=lambda mount: (mount[1], mount[0])),
        "network_mode": host.get("NetworkMode", ""),
        "ipc_mode": host.get("IpcMode", ""),
        "pid_mode": host.get("PidMode", ""),
        "privileged": bool(host.get("Privileged")),
        "restart_policy": (policy.get("Name") or "no") + (f":{restarts}" if restarts else ""),
        "gpus": any("gpu" in kinds for request in requests for kinds in request.get("Capabilities") or []),
        "rdma": "IPC_LOCK" in rights and any(device.startswith("/dev/infiniband") for device in devices),
    }


# ---- logs


def log_facts(container: Any, cursor: str = "", *, measure: bool = False) -> dict[str, Any]:
    """``lines`` of the current run after ``cursor`` (as it was returned before; empty for all), and the new ``cursor``.

    ``up_after_s``: seconds from its start until the last of its servers said that it is up; None where its log does not
    say. ``touched`` grows while the container reads or allocates; 0 where it was not measured. ``log_error`` is there
    only where Docker cannot read the log.
    """
    import docker

    started = fixed(container.attrs["State"]["StartedAt"])
    answer: dict[str, Any] = {}
    try:
        raw = container.logs(timestamps=True, tail=LOG_LINES).decode("utf-8", "replace")
    except docker.errors.NotFound:
        raise
    except docker.errors.APIError as error:  # a logging driver that keeps nothing
        raw, answer["log_error"] = "", str(error.explanation or error)
    # The log of a container that was started again begins with its earlier runs, which are over.
    lines, cursor = new_lines(raw, cursor, started)
    touched = _touched(container) if measure and is_running(container) else 0
    return {**answer, "lines": lines, "cursor": cursor, "touched": touched, "up_after_s": up_after(raw, started)}


def start_lines(container: Any) -> list[str]:
    """The log lines of the current run that are about its start: the last ``LOG_LINES`` of them.

    What a server writes once it is up is about its requests, and may quote them.
    """
    started = fixed(container.attrs["State"]["StartedAt"])
    pieces, size = [], 0
    # From its beginning, not from its end, which is far from the start after a while. Where the clock is before the start,
    # it was set back, and Docker would leave out what was written since.
    since = _time(started).timestamp()
    stream = container.logs(timestamps=True, stream=True, follow=False, since=since if since < time.time() else None)
    for piece in stream:
        pieces.append(piece)
        size += len(piece)
        if size > START_BYTES:
            break
    lines, __ = new_lines(b"".join(pieces).decode("utf-8", "replace"), "", started)
    return before_up(lines)[-LOG_LINES:]


def before_up(lines: Iterable[str], up: set[str] | None = None) -> list[str]:
    """The lines up to the one that says that the server is up; of a log of many ranks, up to each rank's own.

    ``up`` has the ranks that are up already, of a log that comes in parts.
    """
    kept, up = [], set() if up is None else up
    for line in lines:
        match = _RANK.match(line)
        source = match.group() if match else ""
        if source not in up:
            kept.append(line)
        if UP in line:
            up.add(source)
    return kept


def fixed(stamp: str) -> str:
    """An RFC 3339 time with all nine digits, as Docker stamps log lines, so that stamps compare as text."""
    seconds, __, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}Z"


def new_lines(raw: str, cursor: str, started: str = "") -> tuple[list[str], str]:
    """Split Docker's time-stamped log into the lines after ``cursor``, or where it is empty since ``started``, and the new cursor.

    A cursor is the stamp of the last line that was seen, and where others have the same one, ``#`` and which of them it is.
    What is after it is found by its place: stamps may go back, for stdout and stderr come interleaved, and clocks are set.
    """
    entries = _entries(raw)
    stamps = [stamp for stamp, __ in entries]
    if cursor:
        seen, __, number = cursor.partition("#")
        places = [place for place, stamp in enumerate(stamps) if stamp == seen]
        # Without its line, more than a look's worth has come since.
        start = places[min(int(number or 1), len(places)) - 1] + 1 if places else 0
    else:
        start = _start_of(stamps, started) if started else 0
    # A progress bar redraws itself with carriage returns: its last state is the line.
    lines = [line.rstrip("\r").rpartition("\r")[2] for __, line in entries[start:]]
    if not lines:
        return [], cursor
    count = stamps.count(stamps[-1])
    return lines, stamps[-1] if count == 1 else f"{stamps[-1]}#{count}"


def _entries(raw: str) -> list[tuple[str, str]]:
    """The stamp and the text of each line."""
    found = (stamped.partition(" ") for stamped in raw.split("\n") if stamped)
    return [(stamp, line) for stamp, __, line in found]


def _start_of(stamps: list[str], started: str) -> int:
    """Where the lines of the run begin that was started then: at the first stamp after it, of several the nearest.

    There are several where the clock was set back, between two runs or in this one.
    """
    nearest, start = None, len(stamps)
    for place, stamp in enumerate(stamps):
        before = stamps[place - 1] if place else ""
        if stamp >= started and (before < started or _seconds(stamp, before) > JUMP_S):
            distance = _seconds(started, stamp)
            if nearest is None or distance < nearest:
                nearest, start = distance, place
    return start


def _seconds(first: str, last: str) -> float:
    """From one stamp to another; 0 where one of them is none."""
    try:
        return (_time(last) - _time(first)).total_seconds()
    except ValueError:
        return 0.0


def up_after(raw: str, started: str) -> float | None:
    """Seconds from ``started`` to the last line of Docker's time-stamped log that says that a server is up."""
    entries = _entries(raw)
    start = _start_of([stamp for stamp, __ in entries], started)
    found = next((stamp for stamp, line in reversed(entries[start:]) if UP in line), None)
    return None if found is None else max(0.0, round(_seconds(started, found), 1))


def _time(stamp: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(stamp[:26]).replace(tzinfo=datetime.timezone.utc)  # it knows microseconds


# ---- what moves


def _touched(container: Any) -> int:
    """Bytes read and bytes held so far: what moves while 690 GB load without a line in the log."""
    stats = container.stats(stream=False)
    read = sum(entry["value"] for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or [])
    return int(read) + int((stats.get("memory_stats") or {}).get("usage", 0))


def cpu_seconds(container: Any) -> float | None:
    """Processor time that a running container has used so far, or None where the kernel does not say.

    Read from its control group, at no cost; Docker takes two seconds for the same number, and is asked second.
    """
    pid = container.attrs["State"].get("Pid") or 0
    with contextlib.suppress(OSError, ValueError):
        return cgroup_cpu_seconds(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))
    used = (container.stats(stream=False).get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage")
    return None if used is None else used / 1e9


def cgroup_cpu_seconds(memberships: str, root: Path | None = None) -> float:
    """Processor time of the group that a text of /proc/PID/cgroup names. Raises OSError and ValueError."""
    root = CGROUPS if root is None else root
    for line in memberships.splitlines():
        __, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            text = (root / path.lstrip("/") / "cpu.stat").read_text(encoding="utf-8")
            return next(int(row.split()[1]) for row in text.splitlines() if row.startswith("usage_usec")) / 1e6
        if "cpuacct" in controllers.split(","):
            return int((root / "cpuacct" / path.lstrip("/") / "cpuacct.usage").read_text(encoding="utf-8")) / 1e9
    raise ValueError("no control group that counts processor time")
