# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listener and the connections of the check of links, over loopback, whose 16 million addresses stand for hosts."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _sockets
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._processes import started, stop
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._sockets import bound, connect, outcome, sources

COLLECTIONS = {"PYTHONPATH": str(Path(__file__).parents[4] / "collections")}
LISTEN = "import json; from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._sockets import listen; "


def listening(address: str, *ports: int, others: tuple[int, ...] = (), seconds: float = 60) -> dict[str, Any]:
    """As the module does it: by a process that ends, while the listener stays."""
    code = f"{LISTEN}print(json.dumps(listen({address!r}, {list(ports)}, {list(others)}, {seconds})))"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=COLLECTIONS)
    found: dict[str, Any] = json.loads(done.stdout)  # its end: the listener holds no pipe of the module
    return found


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.21 on which a service listens."""
    with socket.create_server(("127.0.0.21", 0)) as service:
        yield service.getsockname()[1]


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_listener_is_reached_and_then_gone_without_a_trace() -> None:
    port = free_port("127.0.0.21")
    found = listening("127.0.0.21", port, 0)
    assert found["held"] == []
    assert found["errors"] == {}
    assert found["listening"][str(port)] == port
    chosen = found["listening"]["0"]
    assert connect([("127.0.0.21", port), ("127.0.0.21", chosen)] * 40, 30) == ["reached"] * 80
    assert stop(found["process"])
    assert connect([("127.0.0.21", port)], 30) == ["refused"]
    # Without SO_REUSEADDR, as a service may do it: nothing is left in TIME_WAIT.
    with socket.socket() as service:
        service.bind(("127.0.0.21", port))
        service.listen()


def test_what_a_service_holds_is_left_alone_and_tried_as_it_is(taken: int) -> None:
    found = listening("127.0.0.21", taken)
    assert (found["listening"], found["held"], found["process"]) == ({}, [taken], None)
    assert connect([("127.0.0.21", taken)], 30) == ["reached"]


def test_of_what_may_not_be_listened_on_only_what_is_in_use_is_held(taken: int) -> None:
    free = free_port("127.0.0.21")
    found = listening("127.0.0.21", others=(taken, free))
    assert (found["listening"], found["held"], found["process"]) == ({}, [taken], None)
    assert connect([("127.0.0.21", free)], 30) == ["refused"]


def test_an_address_of_another_host_is_an_error_in_words() -> None:
    found = listening("192.0.2.77", 6379)
    assert found["errors"] == {"6379": "Cannot assign requested address"}


def test_a_listener_ends_by_itself_and_another_process_of_its_number_is_left_alone() -> None:
    found = listening("127.0.0.21", 0, seconds=0.1)
    deadline = time.monotonic() + 60
    while started(found["process"]["pid"]) == found["process"]["started"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stop(found["process"]) is False
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert stop({"pid": sleeping.pid, "started": "1"}) is False
        assert sleeping.poll() is None
    finally:
        sleeping.kill()
        sleeping.wait()


def test_what_gives_no_answer_is_told_from_what_refuses() -> None:
    with contextlib.ExitStack() as stack:
        # Linux drops what comes to a listener whose queue is full: as a firewall does.
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.22", 0))
        full.listen(0)
        for __ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        began = time.monotonic()
        closed = free_port("127.0.0.22")
        assert connect([full.getsockname(), ("127.0.0.22", closed)], 0.5) == ["timeout", "refused"]
        assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (0, "reached"),
        (errno.ECONNREFUSED, "refused"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.ETIMEDOUT, "timeout"),
        (errno.EPERM, "forbidden"),
        (errno.EADDRNOTAVAIL, "Cannot assign requested address"),
    ],
)
def test_every_end_of_a_connection_has_its_word(number: int, word: str) -> None:
    assert outcome(number) == word


def test_more_connections_than_are_tried_at_once(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(_sockets, "AT_ONCE", 3)
    assert connect([("127.0.0.21", taken)] * 7, 30) == ["reached"] * 7


def test_a_port_is_asked_for_by_its_number() -> None:
    found, refused = bound("127.0.0.21", [0])
    assert list(found) == [0]
    assert refused == {}
    found[0].close()


def test_addresses_of_ipv6_are_tried_too_and_the_way_to_each_is_known() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as service:
        service.bind(("::1", 0))
        service.listen()
        port = service.getsockname()[1]
        assert connect([("::1", port), ("127.0.0.21", port)], 30) == ["reached", "refused"]
    assert sources(["::1", "127.0.0.21", "no address"]) == {"::1": "::1", "127.0.0.21": "127.0.0.1"}
