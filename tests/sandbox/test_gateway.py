# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway promises, on real hosts: two TP replicas behind it, under a steady load of requests.

Needs its image (LMFLEET_SANDBOX_GATEWAY=1), which scripts/test --full brings with the sandbox. Run it alone: ``python -m pytest
tests/sandbox/test_gateway.py -m slow``.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sandbox.faults import API_SERVER, kill
from sandbox.hosts import MODEL
from sandbox.replicas import OTHER, Replicas, option

pytestmark = pytest.mark.slow
DOOR = "https://10.77.0.11:8443"
KEYS = {"chat": "planted-gateway-key-of-chat-0123456789", "batch": "planted-gateway-key-of-batch-0123456789"}
GATEWAY = "node0/lmdeploy-gateway"
FILES = "/var/lib/lmfleet/lmdeploy/gateway/files"


def ask(
    key: str | None, path: str = "/v1/chat/completions", url: str = DOOR, *, stream: bool = False
) -> tuple[int, str]:
    """Status and text of an answer."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, "stream": stream}
    data = None if path == "/v1/models" else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(urllib.request.Request(f"{url}{path}", data, headers), timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Load:
    """Requests through the gateway, one after another from each of three clients; what became of each is counted."""

    def __init__(self, key: str = KEYS["batch"]) -> None:
        self.said: Counter[str] = Counter()
        self._key, self._over, self._lock = key, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(stream,)) for stream in (True, False, False)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.until(10)
        return self

    def __exit__(self, *__: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        print(f"through the gateway: {dict(self.said)}")

    def until(self, more: int) -> None:
        """Until so many more were answered."""
        wanted = self.said.total() + more
        while self.said.total() < wanted:
            time.sleep(0.1)

    def _ask(self, stream: bool) -> None:
        while not self._over.wait(0.1):
            try:
                status, text = ask(self._key, stream=stream)
                whole = text.rstrip().endswith("[DONE]") if stream else status != 200 or "completion_tokens" in text
                said = str(status) if whole else f"{status}, cut"
            except OSError as error:
                said = repr(error)
            with self._lock:
                self.said[said] += 1


@pytest.fixture(scope="module")
def door(pair: Replicas, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Plays on both replicas with a gateway before them; keys stand in a file, as in a vault."""
    kept = tmp_path_factory.mktemp("gateway") / "keys.yml"

    def play(name: str, *arguments: str, keys: dict[str, str] | None = None, **variables: Any) -> Any:
        kept.touch(mode=0o600)
        kept.write_text(
            yaml.safe_dump({"plan_gateway": True, "plan_gateway_keys": KEYS if keys is None else keys}),
            encoding="utf-8",
        )
        done = pair.play(name, "-e", f"@{kept}", *arguments, **variables)
        assert not [key for key in KEYS.values() if key in done.output]
        return done

    play("deploy").succeeded().says(f"READY {DOOR} model={MODEL}")
    return play


def test_it_is_the_door_and_the_one_door(pair: Replicas, door: Callable[..., Any], tmp_path: Path) -> None:
    status, text = ask(KEYS["chat"])
    assert status == 200
    assert json.loads(text)["usage"]["completion_tokens"] == 24
    assert ask(KEYS["chat"], stream=True)[1].rstrip().endswith("[DONE]")
    assert ask(None)[0] == 401
    assert ask("guessed" * 8)[0] == 401
    assert ask(KEYS["chat"], "/metrics")[0] == 404
    again = door("deploy", "--diff").succeeded()
    assert not any(again.changed.values())
    told = tmp_path / "status.json"
    door("status", status_file=str(told)).succeeded()
    shown = json.loads(told.read_text())
    assert (shown["state"], shown["url"], shown["gateway"]["right"]) == ("as planned", DOOR, True)
    # Nothing on the host has a key, and what may not be read is not.
    secrets = pair.sandbox.on(
        0, "sh", "-c", f"cat {FILES}/*; docker inspect lmdeploy-gateway; docker logs lmdeploy-gateway 2>&1"
    )
    assert not [key for key in KEYS.values() if key in secrets]
    assert "key=chat" in secrets
    modes = pair.sandbox.on(0, "stat", "--format", "%a %U", f"{FILES}/keys.map", f"{FILES}/certificate.pem").split("\n")
    assert modes[:2] == ["600 root", "600 root"]


def test_keys_are_revoked_and_limited_under_load_without_a_restart(pair: Replicas, door: Callable[..., Any]) -> None:
    before = pair.sandbox.containers()
    with Load() as load:
        run = door("deploy", keys={"batch": KEYS["batch"]}, plan_gateway_options={"queue": 64}).succeeded()
        load.until(20)
    run.says("without a restart")
    assert load.said.keys() == {"200"}
    assert pair.sandbox.containers() == before
    assert ask(KEYS["chat"])[0] == 401
    door("deploy").succeeded()
    assert ask(KEYS["chat"])[0] == 200


def test_an_upgrade_loses_no_request(pair: Replicas, door: Callable[..., Any]) -> None:
    before = pair.sandbox.containers()
    with Load() as load:
        door("upgrade", **pair.another()).succeeded()
        load.until(20)
    assert load.said.keys() == {"200"}
    after = pair.sandbox.containers()
    assert {name for name in after if after[name] != before[name]} == {"node0/lmdeploy-api", "node1/lmdeploy-api"}


def test_of_a_killed_engine_only_the_requests_that_it_had_are_lost(pair: Replicas, door: Callable[..., Any]) -> None:
    variables = pair.serving()
    with Load() as load:
        kill(1, API_SERVER)(pair.sandbox)
        load.until(60)
        lost = {said: count for said, count in load.said.items() if said != "200"}
        # It starts again by itself, and is given requests again by itself.
        deadline = time.monotonic() + 900
        while True:
            shown = door("status", **variables).succeeded()
            if re.search(rf"{OTHER} +node1 +alive", shown.output) and f"sends nothing to {OTHER}" not in shown.text:
                break
            assert time.monotonic() < deadline, shown.output[-3000:]
            time.sleep(5)
    print(f"lost with the engine: {lost}")
    assert sum(lost.values()) <= 3  # what the three clients had there
    assert load.said.total() - load.said["200"] == sum(lost.values())


def test_a_gateway_that_docker_killed_is_told_and_one_deploy_brings_it_back(
    pair: Replicas, door: Callable[..., Any]
) -> None:
    variables = pair.serving()
    before = pair.sandbox.containers()
    pair.sandbox.on(0, "docker", "kill", "lmdeploy-gateway")
    door("status", **variables).succeeded().says("lmdeploy: degraded", "The gateway could not be asked")
    door("deploy", **variables).succeeded().says("replace lmdeploy-gateway: it has ended with exit code")
    assert ask(KEYS["chat"])[0] == 200
    after = pair.sandbox.containers()
    assert {name for name in after if after[name] != before[name]} == {GATEWAY}


def test_without_it_the_engines_serve_on(pair: Replicas, door: Callable[..., Any]) -> None:
    variables = pair.serving()
    before = pair.sandbox.containers()
    pair.play("deploy", **variables).succeeded().says("remove lmdeploy-gateway")
    after = pair.sandbox.containers()
    assert before.keys() - after.keys() == {GATEWAY}
    assert {name for name in after if after[name] != before[name]} == {
        "node0/lmdeploy-proxy"
    }  # for all addresses again
    door("deploy", **option(8)).succeeded()
