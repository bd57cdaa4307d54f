# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for dockerd on a socket of its own: the real Docker SDK talks to it over HTTP, there are no containers."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socketserver
import struct
import sys
import tarfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any

API = "1.45"


def container(name: str, **state: Any) -> dict[str, Any]:
    """What dockerd says of a container on inspection."""
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Created": "2026-11-24T22:25:00.5Z",
        "Image": "sha256:1",
        "RestartCount": 0,
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-11-24T22:25:01.5Z",
            "Pid": 0,
            **state,
        },
        "Config": {"Cmd": ["serve"], "Env": [], "Labels": {}, "Tty": False},
        "HostConfig": {},
        "Mounts": [],
    }


@dataclass
class Dockerd:
    """What it has, which a test may change at any time; a context manager. ``late_s``: each answer takes that long.

    ``at_once``: no container is told of before so many are asked for at the same moment; where they are not, that is an error 500.
    """

    socket: Path
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    registry: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # reference -> what is said while it is pulled
    pulled: dict[str, dict[str, Any]] = field(default_factory=dict)  # reference -> the image that is there then
    archives: dict[str, bytes] = field(default_factory=dict)  # reference -> what docker save gives of it
    line_s: float = 0.0  # from one of these lines to the next
    says: bytes = b""
    exit_code: int = 0
    components: list[dict[str, str]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=lambda: {"LoggingDriver": "json-file", "SecurityOptions": []})
    fails: dict[str, str] = field(default_factory=dict)  # path -> the message of its error 500
    oldest_api: str = ""  # what asks in the words of an older one is refused, as Docker 29 does
    late_s: float = 0.0
    at_once: threading.Barrier | None = None
    asked: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> Dockerd:
        self._server = _Server(str(self.socket), _Handler)
        self._server.dockerd = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    dockerd: Dockerd

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked may have gone before the answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "a unix socket"

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self._body()
        dockerd = self.server.dockerd
        time.sleep(dockerd.late_s)
        path, __, query = re.sub(r"^/v[\d.]+", "", self.path).partition("?")
        dockerd.asked.append(f"{path}?{query}" if query else path)
        if dockerd.at_once and re.fullmatch(r"/containers/[^/]+/json", path):
            try:
                dockerd.at_once.wait(60)
            except threading.BrokenBarrierError:
                self._json({"message": "they were not asked for at once"}, 500)
                return
        name = path.split("/")[2] if path.count("/") > 1 else ""
        name = next((n for n, c in dockerd.containers.items() if c["Id"] == name), name)
        asked = re.match(r"/v(\d+)\.(\d+)/", self.path)
        if (
            asked
            and dockerd.oldest_api
            and tuple(map(int, asked.groups())) < tuple(map(int, dockerd.oldest_api.split(".")))
        ):
            text = f"client version {asked[1]}.{asked[2]} is too old. Minimum supported API version is {dockerd.oldest_api}"
            self._json({"message": text}, 400)
        elif path in dockerd.fails:
            self._json({"message": dockerd.fails[path]}, 500)
        elif path == "/info":
            self._json(dockerd.info)
        elif self.command != "GET" and self._changed(path, query, name, body):
            return
        elif path == "/version":
            self._json({"Version": "28.5.1", "ApiVersion": API, "Components": dockerd.components})
        elif path == "/containers/json":
            self._json(
                [
                    {
                        "Id": c["Id"],
                        "Names": [c["Name"]],
                        "Labels": c["Config"]["Labels"],
                        "State": c["State"]["Status"],
                        "Mounts": c["Mounts"],
                    }
                    for c in dockerd.containers.values()
                    if self._labelled(c)
                ]
            )
        elif path == "/images/json":
            self._json([{**each, "RepoTags": [name]} for name, each in dockerd.images.items()])
        elif path.startswith("/images/") and path.endswith("/get"):
            self._raw(dockerd.archives[path[len("/images/") : -len("/get")]])
        elif path.startswith("/images/"):
            self._found(self._image(path[len("/images/") : -len("/json")]))
        elif path.startswith("/distribution/"):
            dockerd.logins.append(self.headers.get("X-Registry-Auth"))
            digest = dockerd.registry.get(path[len("/distribution/") : -len("/json")])
            self._found({"Descriptor": {"digest": digest}, "Platforms": []} if digest else None)
        elif path == "/exec/1/start":
            self._raw(_frame(dockerd.says), later_s=0.2)  # the SDK reads it past its own HTTP client's buffer
        elif path == "/exec/1/json":
            self._json({"ExitCode": dockerd.exit_code})
        elif name not in dockerd.containers:
            self._found(None)
        elif path.endswith("/exec"):
            self._json({"Id": "1"})
        elif path.endswith("/logs"):
            self._raw(b"".join(map(_frame, dockerd.logs.get(name, b"").splitlines(keepends=True))))
        elif path.endswith("/stats"):
            self._json({"cpu_stats": {"cpu_usage": {"total_usage": time.monotonic_ns()}}, "memory_stats": {"usage": 7}})
        else:
            self._json(dockerd.containers[name])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline() or b"0", 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _changed(self, path: str, query: str, name: str, body: bytes) -> bool:
        """Containers that are made, filled, started and removed; whether it was that."""
        there, dockerd = self.server.dockerd.containers, self.server.dockerd
        if path == "/images/create":
            asked = dict(urllib.parse.parse_qsl(query))
            self._pull(f"{asked['fromImage']}:{asked['tag']}")
        elif path == "/images/load":
            self._json({"stream": f"Loaded image: {self._load(body)}\n"})
        elif path.startswith("/images/") and path.endswith("/tag"):
            asked = dict(urllib.parse.parse_qsl(query))
            dockerd.images[f"{asked['repo']}:{asked['tag']}"] = self._image(path[len("/images/") : -len("/tag")])
            self._json({}, 201)
        elif path == "/containers/create":
            made = re.search(r"name=([^&]+)", query)
            name = made[1] if made else "nameless"
            there[name] = container(name, Status="created")
            there[name]["Config"] = {**there[name]["Config"], **json.loads(body)}
            self._json({"Id": there[name]["Id"], "Warnings": []}, 201)
        elif name in there and path.endswith("/archive"):
            self._json({})
        elif name in there and path.endswith("/start"):
            there[name]["State"]["Status"] = "running"
            self._json({}, 204)
        elif name in there and self.command == "DELETE":
            del there[name]
            self._json({}, 204)
        else:
            return False
        return True

    def _image(self, name: str) -> Any:
        """The image of that name or id, or None."""
        images = self.server.dockerd.images
        return images.get(name) or next((each for each in images.values() if each["Id"] == name), None)

    def _load(self, body: bytes) -> str:
        """Have the first image of an archive of docker save; its name."""
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            manifest: Any = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        name = str(manifest[0]["RepoTags"][0])
        self.server.dockerd.images[name] = {"Id": f"sha256:{manifest[0]['Config']}", "RepoDigests": []}
        return name

    def _pull(self, reference: str) -> None:
        """Say what is said of a pull, as dockerd does, in chunks; then the image is there."""
        dockerd = self.server.dockerd
        dockerd.logins.append(self.headers.get("X-Registry-Auth"))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in dockerd.pulls[reference]:
            chunk = json.dumps(line).encode() + b"\r\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
            time.sleep(dockerd.line_s)
        if reference in dockerd.pulled:
            dockerd.images[reference] = dockerd.pulled[reference]
        self.wfile.write(b"0\r\n\r\n")

    def _labelled(self, each: dict[str, Any]) -> bool:
        match = re.search(r"label%22%3A\+?%5B%22(?P<label>[^%]+)%3D(?P<value>[^%]+)%22", self.path)
        return match is None or each["Config"]["Labels"].get(match["label"]) == match["value"]

    def _found(self, what: Any) -> None:
        self._json(what) if what is not None else self._json({"message": f"No such thing: {self.path}"}, 404)

    def _json(self, what: Any, status: int = 200) -> None:
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _raw(self, body: bytes, later_s: float = 0.0) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.end_headers()
        time.sleep(later_s)
        with contextlib.suppress(BrokenPipeError):  # who asked has gone
            self.wfile.write(body)


def _frame(content: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(content)) + content
