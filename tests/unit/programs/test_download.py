# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real huggingface_hub against a small hub on this machine, which answers what the real one does of these requests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._events import last_events
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import PACKAGE, program

REPO, COMMIT, TOKEN = "org/model", "e815299b0bcbac849fa540c768ef21845365c9eb", "hf_secret"


class Hub:
    """A repository of a few files. ``damage`` counts how often a file still goes out with a byte flipped."""

    def __init__(self, *, token: str = "") -> None:
        numbers = random.Random(2)
        self.files = {"config.json": numbers.randbytes(300), "model.safetensors": numbers.randbytes(400_000)}
        self.damage: dict[str, int] = {}
        self.token = token
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *__: Any) -> None:
                pass

            def answer(self, body: bytes, status: int = 200, **headers: Any) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self) -> None:
                hub.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.answer(b"{}", 401, X_Error_Code="GatedRepo", X_Error_Message="restricted")
                elif re.match(rf"/api/models/{REPO}/revision/(main|{COMMIT})", self.path):
                    self.answer(json.dumps(hub.info()).encode(), Content_Type="application/json")
                elif self.path.startswith(f"/api/models/{REPO}/tree/"):
                    self.answer(json.dumps(hub.tree()).encode(), Content_Type="application/json")
                elif self.path.startswith("/api/models"):
                    self.answer(b"{}", 404, X_Error_Code="RevisionNotFound")
                else:
                    self.give(self.path.rpartition("/")[2])

            do_HEAD = do_GET  # noqa: N815

            def give(self, name: str) -> None:
                data = hub.files[name]
                etag = hub.blob(name)
                if self.command == "GET" and hub.damage.get(name, 0) > 0:
                    hub.damage[name] -= 1
                    data = bytes([data[0] ^ 1]) + data[1:]
                start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["", "0"])[1])
                more = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
                self.answer(
                    data[start:],
                    206 if start else 200,
                    ETag=f'"{etag}"',
                    X_Repo_Commit=COMMIT,
                    Accept_Ranges="bytes",
                    **more,
                )

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def blob(self, name: str) -> str:
        data = self.files[name]
        if name.endswith(".safetensors"):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def info(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            one: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": self.blob(name)}
            if name.endswith(".safetensors"):
                one |= {"blobId": "0" * 40, "lfs": {"sha256": self.blob(name), "size": len(data), "pointerSize": 135}}
            siblings.append(one)
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

    def tree(self) -> list[dict[str, Any]]:
        """The same, as newer releases ask for it."""
        return [
            {
                "type": "file",
                "path": one["rfilename"],
                "size": one["size"],
                "oid": one["blobId"],
                **({"lfs": {**one["lfs"], "oid": one["lfs"]["sha256"]}} if "lfs" in one else {}),
            }
            for one in self.info()["siblings"]
        ]


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def download(hub: Hub, folder: Path, **more: Any) -> tuple[int, dict[str, Any], str]:
    """Run the program as its container does; exit code, result, and all that it printed."""
    for name, text in {
        **program("events", "model_files", "download"),
        "config.json": json.dumps(
            {"repo": REPO, "revision": "main", "cache_dir": str(folder / "hub"), "endpoint": hub.url, **more}
        ),
    }.items():
        file = folder / "program" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    clean = {
        key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("HF_")
    }
    done = subprocess.run(
        [sys.executable, "-m", f"{PACKAGE}.download", "config.json"],
        cwd=folder / "program",
        env={**clean, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    result = last_events(done.stdout).get("result")
    assert result is not None, done.stderr
    return done.returncode, result, done.stdout + done.stderr


def cache(folder: Path) -> Path:
    return folder / "hub" / f"models--{REPO.replace('/', '--')}"


def test_a_revision_comes_whole_and_a_second_time_nothing_does(hub: Hub, tmp_path: Path) -> None:
    code, result, __ = download(hub, tmp_path)
    assert (code, result["fault"]) == (0, "")
    assert result["needed"] == result["total"] == sum(map(len, hub.files.values()))
    snapshot = cache(tmp_path) / "snapshots" / COMMIT
    assert {name: (snapshot / name).read_bytes() for name in hub.files} == hub.files
    assert (cache(tmp_path) / "refs" / "main").read_text() == COMMIT
    hub.asked.clear()
    code, result, __ = download(hub, tmp_path)
    assert (code, result["needed"]) == (0, 0)
    assert not [line for line in hub.asked if line.startswith("GET /org")]


def test_what_is_damaged_is_put_aside_and_fetched(hub: Hub, tmp_path: Path) -> None:
    download(hub, tmp_path)
    blob = cache(tmp_path) / "blobs" / hub.blob("model.safetensors")
    blob.write_bytes(blob.read_bytes()[:-1])
    code, result, __ = download(hub, tmp_path)
    assert (code, len(result["aside"])) == (0, 1)
    assert blob.read_bytes() == hub.files["model.safetensors"]
    small = cache(tmp_path) / "blobs" / hub.blob("config.json")
    small.write_bytes(b"x" * len(hub.files["config.json"]))
    assert download(hub, tmp_path)[1]["aside"] == []
    code, result, __ = download(hub, tmp_path, verify=True)
    assert (code, len(result["aside"])) == (0, 1)
    assert small.read_bytes() == hub.files["config.json"]


def test_what_arrives_damaged_is_fetched_once_more_and_then_told(hub: Hub, tmp_path: Path) -> None:
    hub.damage["model.safetensors"] = 1
    code, result, __ = download(hub, tmp_path / "once")
    assert (code, len(result["aside"])) == (0, 1)
    hub.damage["model.safetensors"] = 100
    code, result, __ = download(hub, tmp_path / "always")
    assert code == 1
    assert "another content than the hub says" in result["fault"]
    assert not (cache(tmp_path / "always") / "blobs" / hub.blob("model.safetensors")).exists()


def test_a_proxy_with_a_password_is_asked_and_its_password_shown_nowhere(hub: Hub, tmp_path: Path) -> None:
    """Its variable is in the configuration alone: of the container's own environment Docker would show it."""
    proxied = {"http_proxy": f"http://anna:planted-password@127.0.0.1:{hub.server.server_port}"}
    code, result, printed = download(hub, tmp_path, environment=proxied, endpoint="http://hub.example.com")
    assert (code, result["fault"]) == (1, result["fault"])
    assert any("http://hub.example.com/api/models" in line for line in hub.asked)  # it came by the proxy
    assert "planted-password" not in printed


def test_a_token_is_sent_and_shown_nowhere(tmp_path: Path) -> None:
    hub = Hub(token=TOKEN)
    code, result, __ = download(hub, tmp_path)
    assert code == 1
    assert "model_hub_token" in result["fault"]
    code, result, printed = download(hub, tmp_path, api_key=TOKEN)
    assert (code, result["fault"]) == (0, "")
    assert TOKEN not in printed
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and TOKEN in path.read_text(errors="ignore") and path.name != "config.json"
    ]
    hub.server.shutdown()
    hub.server.server_close()


def test_a_revision_that_is_not_there_is_told(hub: Hub, tmp_path: Path) -> None:
    code, result, __ = download(hub, tmp_path, revision="nightly")
    assert code == 1
    assert result["fault"] == f"{hub.url} has no revision nightly of org/model: correct plan_model_revision."
