# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In the place of LMDeploy's proxy: its list, and no more. The real one of each release runs in the sandbox."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn(ThreadingHTTPServer):
    """What LMDeploy's proxy answers at /nodes: of 0.8.0 when `query`, which then wants ?node_url=, else of later ones."""

    def __init__(self, *, query: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.query = query
        self.nodes: dict[str, dict[str, Any]] = {}
        self.broken = ""
        self.keys: set[str | None] = set()
        self.reads = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def serving(self) -> Iterator[StandIn]:
        """In a thread of its own."""
        with self:
            thread = threading.Thread(target=self.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                self.shutdown()
                thread.join()


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *__: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.keys.add(self.headers["Authorization"])
        self.server.reads += 1
        self._reply(200, self.server.nodes)

    def do_POST(self) -> None:
        path, __, query = self.path.partition("?")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        url = urllib.parse.parse_qs(query).get("node_url", [None])[0] if self.server.query else body.get("url")
        if self.server.broken:
            self._reply(200, self.server.broken)
        elif path == "/nodes/add":
            self.server.nodes[body["url"]] = {**body["status"], "unfinished": 0, "latency": [], "speed": None}
            self._reply(200, "Added successfully")
        elif path != "/nodes/remove":
            self._reply(404, {"detail": "Not Found"})
        elif not url:
            self._reply(422, {"detail": "Field required"})
        else:
            self.server.nodes.pop(url, None)
            self._reply(200, "Deleted successfully")

    def _reply(self, status: int, answer: Any) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
