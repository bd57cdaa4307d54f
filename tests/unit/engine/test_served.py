# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lmfleet_sim.faults import Fault
from lmfleet_sim.served import Application, Message, Receive, Send, Served
from lmfleet_sim.settings import Settings

from .conftest import ENGINE

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def text(said: str, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": said}], **more})


def delta(**said: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"role": "assistant", **said}}]})


DONE = b"data: [DONE]\n\n"
WHOLE = json.dumps({"choices": [{"index": 0, "text": " the of"}], "usage": USAGE}).encode()


class Server:
    """An application that answers with these bodies, one message each, and notes when it hands each over."""

    def __init__(self, *bodies: bytes, kind: bytes = b"text/event-stream; charset=utf-8", status: int = 200) -> None:
        self.bodies, self.kind, self.status = bodies, kind, status
        self.handed: list[tuple[float, float]] = []

    async def __call__(self, _scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", self.kind)]})
        for body in self.bodies:
            await asyncio.sleep(0.002)
            before = time.time()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self.handed.append((before, time.time()))
        await asyncio.sleep(0.002)
        await send({"type": "http.response.body", "body": b""})


def ask(app: Application, path: str = "/v1/completions", agent: str = "") -> list[Message]:
    """Send one request whose body comes in two messages; return all that was answered."""
    waiting: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.request", "body": b"}", "more_body": False},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"node0"), *([(b"user-agent", agent.encode())] if agent else [])]
    asyncio.run(app({"type": "http", "path": path, "headers": headers}, receive, send))
    if sent[0]["status"] == 500:
        assert not waiting, "a refused request's body must be taken in, or its connection cannot be used again"
    return sent


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stamps=str(tmp_path / "stamps.jsonl"))


def stamps(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(settings.stamps).read_text().splitlines()]


@pytest.mark.parametrize(
    ("path", "bodies", "first", "last"),
    [
        # As 0.18.0: usage in an event of its own, after one that only says why it ends.
        ("/v1/completions", [text(" the"), text(" of"), text(""), event({"choices": [], "usage": USAGE}), DONE], 0, 1),
        # As 0.8.0: usage in every event, so far.
        (
            "/v1/completions",
            [
                text(" the", usage={**USAGE, "completion_tokens": 1}),
                text(" of", usage=USAGE),
                text("", usage=USAGE),
                DONE,
            ],
            0,
            1,
        ),
        (
            "/v1/chat/completions",
            [
                delta(),
                delta(reasoning_content=" the"),
                delta(content=" of"),
                event({"choices": [], "usage": USAGE}),
                DONE,
            ],
            1,
            2,
        ),
        # Several events in one message, and usage is not the last.
        ("/v1/completions", [text(" the") + text(" of", usage=USAGE) + text("", usage=None) + DONE], 0, 0),
    ],
)
def test_a_stream_is_stamped_at_its_first_and_last_token(
    settings: Settings, path: str, bodies: list[bytes], first: int, last: int
) -> None:
    server, asked = Server(*bodies), time.time()
    answered = ask(Served(server, settings, 0), path)
    assert [message["body"] for message in answered[1:]] == [*bodies, b""]
    (stamp,) = stamps(settings)
    assert asked <= stamp["in"] <= server.handed[0][0]
    assert server.handed[first][0] <= stamp["first"] <= server.handed[first][1]
    assert server.handed[last][0] <= stamp["last"] <= server.handed[last][1]
    assert (stamp["prompt_tokens"], stamp["tokens"], stamp["status"]) == (7, 2, 200)


@pytest.mark.parametrize("agent", ["aiperf/0.4", ""])
def test_who_asked_is_stamped(settings: Settings, agent: str) -> None:
    ask(Served(Server(WHOLE, kind=b"application/json"), settings, 0), agent=agent)
    assert [stamp["agent"] for stamp in stamps(settings)] == [agent]


def test_a_whole_answer_has_one_time(settings: Settings) -> None:
    server = Server(WHOLE[:20], WHOLE[20:], kind=b"application/json")
    ask(Served(server, settings, 0))
    (stamp,) = stamps(settings)
    assert server.handed[-1][0] <= stamp["first"] == stamp["last"] <= server.handed[-1][1]
    assert (stamp["prompt_tokens"], stamp["tokens"], stamp["status"]) == (7, 2, 200)


def test_tokens_are_never_counted_by_events(settings: Settings) -> None:
    ask(Served(Server(text(" the"), text(" of"), DONE), settings, 0))
    (stamp,) = stamps(settings)
    assert (stamp["prompt_tokens"], stamp["tokens"]) == (None, None)
    assert stamp["in"] <= stamp["first"] < stamp["last"]


@pytest.mark.parametrize(
    "server",
    [
        Server(event({"error": {"message": "The inference engine is unavailable."}}), DONE),
        Server(b'{"object": "error", "code": 404}', kind=b"application/json", status=404),
    ],
)
def test_an_answer_without_tokens_says_so(settings: Settings, server: Server) -> None:
    ask(Served(server, settings, 0))
    (stamp,) = stamps(settings)
    assert (stamp["first"], stamp["tokens"], stamp["status"]) == (None, None, server.status)
    assert stamp["in"] <= stamp["last"] <= time.time()


def test_an_exception_passes_and_is_stamped(settings: Settings) -> None:
    async def crash(*__: object) -> None:
        raise RuntimeError("as the application said")

    with pytest.raises(RuntimeError, match="as the application said"):
        ask(Served(crash, settings, 0))
    (stamp,) = stamps(settings)
    assert (stamp["first"], stamp["status"]) == (None, None)


def test_other_requests_leave_no_stamp(settings: Settings) -> None:
    everything = Fault("refuse", None, 1)
    app = Served(Server(b"{}", kind=b"application/json"), replace(settings, faults=(everything,)), 0)
    assert ask(app, "/v1/models")[0]["status"] == 200
    assert stamps(settings) == []


def test_one_request_of_so_many_is_refused(settings: Settings) -> None:
    app = Served(Server(WHOLE, kind=b"application/json"), replace(settings, faults=(Fault.parse("refuse@2:3"),)), 2)
    answers = [ask(app) for __ in range(7)]
    assert [answer[0]["status"] for answer in answers] == [200, 200, 500, 200, 200, 500, 200]
    assert [stamp["status"] for stamp in stamps(settings)] == [200, 200, 500, 200, 200, 500, 200]
    start, body = answers[2]
    refusal = json.loads(body["body"])
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert (refusal["object"], refusal["code"]) == ("error", 500)
    assert "refused" in refusal["message"]


@pytest.mark.parametrize(("fault", "status"), [("refuse@1", 200), ("refuse@0", 500), ("refuse@*", 500)])
def test_a_refusal_is_its_ranks(fault: str, status: int) -> None:
    app = Served(Server(WHOLE, kind=b"application/json"), Settings(faults=(Fault.parse(fault),)), 0)
    assert ask(app)[0]["status"] == status


def test_stamps_that_cannot_be_written_end_the_server_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        Served(Server(), Settings(stamps=str(tmp_path / "absent" / "stamps.jsonl")), 0)


def test_ranks_that_share_the_file_leave_each_others_lines_whole(settings: Settings) -> None:
    program = f"""
import sys
from lmfleet_sim.served import Served
from lmfleet_sim.settings import Settings
served = Served(None, Settings(stamps={settings.stamps!r}), 0)
for __ in range(2000):
    served._append(sys.argv[1].encode() * 200 + b"\\n")
"""
    ranks = [subprocess.Popen([sys.executable, "-c", program, letter], cwd=ENGINE) for letter in "ab"]
    assert [rank.wait() for rank in ranks] == [0, 0]
    lines = Path(settings.stamps).read_text().splitlines()
    assert sorted(lines) == ["a" * 200] * 2000 + ["b" * 200] * 2000


@pytest.mark.parametrize(
    ("variables", "ran"),
    [
        ({"LMFLEET_SIM_STAMPS": "/dev/null"}, "Served, 0 refusals"),
        ({"LMFLEET_SIM_FAULTS": "refuse@3,crash@3"}, "Served, 1 refusals"),
        ({"LMFLEET_SIM_FAULTS": "refuse@2"}, "Served, 0 refusals"),
        ({"LMFLEET_SIM_FAULTS": "crash@3"}, "str, 0 refusals"),
        ({}, "str, 0 refusals"),
    ],
)
def test_only_the_api_servers_own_application_is_wrapped(tmp_path: Path, variables: dict[str, str], ran: str) -> None:
    """A package with LMDeploy's name, release and seams, and an HTTP server that says what it was given."""
    package = tmp_path / "lmdeploy" / "serve" / "openai"
    package.mkdir(parents=True)
    (tmp_path / "lmdeploy" / "__init__.py").touch()
    (package / "api_server.py").write_text(
        "import uvicorn\ndef serve(model, *, backend_config): uvicorn.run(app='an application', port=8080)\n"
    )
    (tmp_path / "uvicorn.py").write_text(
        "def run(app, port):\n"
        "    print(port, type(app).__name__, end=', ')\n"
        "    print(len(getattr(app, '_refusals', ())), 'refusals')\n"
    )
    metadata = tmp_path / "lmdeploy-0.18.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lmdeploy\nVersion: 0.18.0\n")
    program = """
from types import SimpleNamespace
import uvicorn
from lmdeploy.serve.openai.api_server import serve
serve("model", backend_config=SimpleNamespace(dp_rank=3))
uvicorn.run(app="the proxy's", port=8000)
"""
    path = os.pathsep.join([str(ENGINE), str(tmp_path)])
    environ = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "LMFLEET_SIM": "1", **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"8080 {ran}", "8000 str, 0 refusals"]
