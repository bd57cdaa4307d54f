# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host can say about its services: containers, their new log lines, ports, HTTP answers, Ray's members.

Runs on the host. Docker is asked through the Docker SDK for Python (5.0 or newer).
"""

from __future__ import annotations

import concurrent.futures
import datetime
import http.client
import json
import socket
import urllib.error
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._engine_probe import OPENER

LOG_LINES = 4000
UP = "Application startup complete"  # uvicorn's; plugin_utils/logs.py has all phases of a start
PROBE_SECONDS = 3.0
RAY_SECONDS = 20
# Ray's own public API, asked inside the head's container, where the Ray of the image and its token are.
RAY_NODES = """
import json, ray
from ray.util.placement_group import placement_group
ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR', configure_logging=False)
nodes = [dict(address=n['NodeManagerAddress'], alive=n['Alive'], gpus=int(n['Resources'].get('GPU', 0))) for n in ray.nodes()]
claim = {claim}
given = not claim or placement_group([dict(GPU=1)] * claim).wait(timeout_seconds=8)
print(json.dumps(dict(nodes=nodes, given=given)))
"""


class ContainerStatus(TypedDict, total=False):
    """``cursor`` is the time stamp of the last line of ``lines``; ``touched`` grows while the container reads or allocates.

    ``up_after_s``: seconds from its start until the last of its servers said that it is up; None where its log does not say.
    """

    present: bool
    status: str
    exit_code: int
    oom_killed: bool
    restarts: int
    started_at: str
    lines: list[str]
    cursor: str
    touched: int
    up_after_s: float | None


def look(client: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """One look at a host: the answer of the module ``service_status`` to its arguments. Raises DockerException."""
    answer: dict[str, Any] = {
        "containers": {
            name: container_status(client, name, cursor or "", measure=asked.get("measure", False))
            for name, cursor in asked.get("containers", {}).items()
        },
        "tcp": {target: tcp_status(*_host_port(target)) for target in asked.get("tcp", [])},
        "http": http_statuses(asked.get("http", [])),
    }
    if asked.get("proxy"):
        answer["proxy"] = proxy_status(asked["proxy"])
    if asked.get("ray_container"):
        claim = 0 if is_running(client, asked.get("ray_claim_unless")) else asked.get("ray_claim", 0)
        answer["ray"] = ray_nodes(client, asked["ray_container"], asked["ray_address"], claim)
    return answer


def container_status(client: Any, name: str, cursor: str = "", *, measure: bool = False) -> ContainerStatus:
    """State of one container, and its log lines after ``cursor`` (RFC 3339 with nanoseconds)."""
    import docker

    try:
        container = client.containers.get(name)
    except docker.errors.NotFound:
        return {"present": False}
    state = container.attrs["State"]
    raw = container.logs(timestamps=True, tail=LOG_LINES).decode("utf-8", "replace")
    # The log of a container that was started again begins with its earlier runs, which are over.
    lines, cursor = new_lines(raw, cursor or fixed(state["StartedAt"]))
    return {
        "present": True,
        "status": state["Status"],
        "exit_code": state["ExitCode"],
        "oom_killed": state["OOMKilled"],
        "restarts": container.attrs["RestartCount"],
        "started_at": state["StartedAt"],
        "lines": lines,
        "cursor": cursor,
        "up_after_s": up_after(raw, fixed(state["StartedAt"])),
        "touched": _touched(container) if measure and state["Status"] == "running" else 0,
    }


def is_running(client: Any, name: str | None) -> bool:
    """Whether a container of that name runs."""
    return bool(name and client.containers.list(filters={"name": f"^/{name}$"}))


def fixed(stamp: str) -> str:
    """An RFC 3339 time with all nine digits, as Docker stamps log lines, so that stamps compare as text."""
    seconds, __, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}Z"


def new_lines(raw: str, cursor: str) -> tuple[list[str], str]:
    """Split Docker's time-stamped log into the lines after ``cursor`` and the new cursor."""
    lines, last = [], cursor
    for stamped in raw.split("\n"):
        stamp, __, line = stamped.partition(" ")
        if stamp > cursor:  # not > last: stdout and stderr come interleaved
            # A progress bar redraws itself with carriage returns: its last state is the line.
            lines.append(line.rstrip("\r").rpartition("\r")[2])
            last = max(last, stamp)
    return lines, last


def up_after(raw: str, started: str) -> float | None:
    """Seconds from ``started`` to the last line of Docker's time-stamped log that says that a server is up."""
    found = None
    for stamped in raw.split("\n"):
        stamp, __, line = stamped.partition(" ")
        if stamp > started and UP in line:
            found = stamp
    return None if found is None else round((_time(found) - _time(started)).total_seconds(), 1)


def _time(stamp: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(stamp[:26])  # it knows microseconds


def _touched(container: Any) -> int:
    """Bytes read and bytes held so far: what moves while 690 GB load without a line in the log."""
    stats = container.stats(stream=False)
    read = sum(entry["value"] for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or [])
    return int(read) + int((stats.get("memory_stats") or {}).get("usage", 0))


def ray_nodes(client: Any, container: str, address: str, claim: int = 0) -> dict[str, Any]:
    """``{"nodes": [{"address", "alive", "gpus"}]}`` as Ray's head counts them, or ``{"error": ...}``.

    ``claim`` asks Ray for that many GPUs at once, as an engine does, and gives them back; ``given`` says whether it got them.
    """
    import docker

    program = ["timeout", str(RAY_SECONDS), "python3", "-c", RAY_NODES.format(address=address, claim=claim)]
    try:
        code, output = client.containers.get(container).exec_run(program, demux=True)
    except docker.errors.APIError as error:
        return {"error": str(error.explanation or error)}
    stdout, stderr = ((part or b"").decode("utf-8", "replace").strip() for part in output)
    if code != 0:
        return {"error": stderr.rpartition("\n")[2] or f"exit code {code}"}
    result: dict[str, Any] = json.loads(stdout.rpartition("\n")[2])
    return result


def _host_port(target: str) -> tuple[str, int]:
    host, __, port = target.rpartition(":")
    return host, int(port)


def tcp_status(host: str, port: int) -> str:
    """An empty string when the port takes a connection, else why not."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_SECONDS):
            return ""
    except OSError as error:
        return "timed out" if isinstance(error, socket.timeout) else str(error.strerror or error)


def http_status(url: str) -> dict[str, Any]:
    """``{"health": status, "models": [names]}`` of an api_server, or ``{"error": ...}`` while it does not answer."""
    try:
        with OPENER.open(f"{url}/health", timeout=PROBE_SECONDS) as answer:
            health = answer.status
        with OPENER.open(f"{url}/v1/models", timeout=PROBE_SECONDS) as answer:
            models = [entry["id"] for entry in json.load(answer)["data"]]
    except urllib.error.HTTPError as error:
        return {"error": f"HTTP {error.code} from {error.url}"}
    except (OSError, http.client.HTTPException) as error:
        return {"error": str(getattr(error, "reason", error)) or type(error).__name__}
    except (ValueError, KeyError) as error:
        return {"error": f"no model list from {url}/v1/models: {error}"}
    return {"health": health, "models": models}


def http_statuses(urls: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``http_status`` of each URL, all asked at once."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(len(urls), 1)) as pool:
        return dict(zip(urls, pool.map(http_status, urls)))


def proxy_status(url: str) -> dict[str, Any]:
    """``{"nodes": {url: [models]}}`` as the proxy lists them, or ``{"error": ...}``."""
    try:
        with OPENER.open(f"{url}/nodes/status", timeout=PROBE_SECONDS) as answer:
            return {"nodes": {node: list(status["models"]) for node, status in json.load(answer).items()}}
    except (OSError, http.client.HTTPException) as error:
        return {"error": str(getattr(error, "reason", error)) or type(error).__name__}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {"error": f"no list of nodes from {url}/nodes/status: {error}"}
