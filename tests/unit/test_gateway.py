# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway as a real HAProxy runs it, with the files that the plan's builder and ``gateway/config.py`` make.

Endpoints answer by the clock; the real engines stand behind it in the sandbox.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import re
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import put_aside, state_of, told
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._http import exchange
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import EngineProbe, State
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway import config
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.certificate import self_signed
from ansible_collections.lmfleet.lmdeploy.tests.unit.haproxy import KEYS, HAProxy, gateway_plan, running, write_files
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

CHAT = {"Authorization": f"Bearer {KEYS['chat']}"}
BATCH = {"Authorization": f"Bearer {KEYS['batch']}"}
BODY = {"model": "null", "prompt": "ping", "max_tokens": 1}


def ask(
    door: HAProxy, headers: dict[str, str] | None = None, path: str = "/v1/completions", **body: Any
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
    try:
        method, data = ("GET", None) if path == "/v1/models" else ("POST", json.dumps({**BODY, **body}))
        connection.request(
            method, path, data, {"Content-Type": "application/json", **(CHAT if headers is None else headers)}
        )
        answer = connection.getresponse()
        text = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(text) if "json" in found.get("content-type", "") else text.decode()
    finally:
        connection.close()


def stream(door: HAProxy, trusting: ssl.SSLContext) -> tuple[int, bool]:
    """Status of a streamed answer over TLS, and whether it came whole."""
    connection = http.client.HTTPSConnection("127.0.0.1", door.port, timeout=60, context=trusting)
    try:
        connection.request("POST", "/v1/completions", json.dumps({**BODY, "stream": True}), CHAT)
        answer = connection.getresponse()
        return answer.status, answer.read().endswith(b"data: [DONE]\n\n")
    finally:
        connection.close()


def raw(door: HAProxy, text: str) -> bytes:
    """What comes back for bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=60) as connection:
        connection.sendall(text.encode())
        return connection.recv(4096)


def all_up(count: int) -> Any:
    return lambda state: sum(each["up"] for each in state["servers"].values()) == count


@contextlib.contextmanager
def before(count: int, folder: Path, **variables: Any) -> Iterator[tuple[HAProxy, list[NullServer]]]:
    """A gateway before so many endpoints, all of which it has found well."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(NullServer()) for __ in range(count)]
        plan = gateway_plan([each.endpoints[0].url for each in servers], **variables)
        door = stack.enter_context(running(plan, folder))
        door.until("all endpoints are up", all_up(count))
        yield door, servers


# ---- who comes in


def test_a_key_of_the_deployment_opens_it_and_nothing_else_does(tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, (server,)):
        assert ask(door)[0] == 200
        for headers in ({}, {"Authorization": "Bearer guessed"}, {"Authorization": f"Basic {KEYS['chat']}"}):
            status, __, answer = ask(door, headers)
            assert status == 401
            assert answer["error"]["type"] == "authentication_error"
        assert len(server.endpoints[0].bodies) == 1


def test_an_engine_never_sees_a_key_and_no_file_or_log_has_one(tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, (server,)):
        ask(door)
        ask(door, BATCH)
        assert "authorization" not in {name for headers in server.endpoints[0].headers for name in headers}
        door.until("it has written both requests", lambda __: "key=batch" in door.log)
        texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
        assert not [key for key in KEYS.values() if any(key in text for text in texts)]
        assert "key=chat endpoint=rank0 status=200" in door.log


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models", 200),
        ("/metrics", 404),
        ("/nodes/add", 404),
        ("/update_weights", 404),
        ("/v1/../update_weights", 400),
        ("/v1/%2e%2e/update_weights", 400),
        ("/v1//update_weights", 400),
        ("/v1", 404),
        ("/V1/models", 404),
    ],
)
def test_nothing_but_v1_goes_through(path: str, status: int, tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, __):
        assert ask(door, path=path)[0] == status


def test_a_request_that_is_too_long_or_hides_its_length_is_refused(tmp_path: Path) -> None:
    with before(1, tmp_path, plan_gateway_options={"body_mb": 1}) as (door, (server,)):
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: {CHAT['Authorization']}\r\n"
        # Its beginning alone: who goes on sending may find the connection closed before the answer is read.
        refused = raw(door, f"{head}Content-Length: {(1 << 20) + 1}\r\n\r\n")
        status, __, answer = refused.partition(b"\r\n\r\n")
        assert (status.split()[1], json.loads(answer)["error"]["code"]) == (b"413", 413)
        assert raw(door, f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n").startswith(b"HTTP/1.1 411")
        assert ask(door, prompt="x" * (300 << 10))[0] == 200  # longer than what is held
        assert len(server.endpoints[0].bodies) == 1


def test_tls_with_the_certificate_that_it_was_given(tmp_path: Path) -> None:
    with before(1, tmp_path, plan_gateway_tls=True) as (door, __):
        trusting = ssl.create_default_context(cafile=str(tmp_path / "files" / "certificate.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", door.port, context=trusting)
        connection.request("GET", "/v1/models", headers=CHAT)
        assert connection.getresponse().status == 200
        connection.close()
        # As this collection proves it: the host asks itself, with a key.
        assert EngineProbe(door.url, "null", api_key=KEYS["chat"]).run().state is State.ALIVE
        assert exchange(f"{door.url}/v1/models", headers=CHAT, deadline_s=30, verified=False).status == 200


@pytest.mark.parametrize("key", [KEYS["chat"], "guessed"])
def test_the_openai_client_gets_tokens_or_its_own_error_over_tls(key: str, tmp_path: Path) -> None:
    with before(1, tmp_path, plan_gateway_tls=True) as (door, __):
        trusting = ssl.create_default_context(cafile=str(tmp_path / "files" / "certificate.pem"))
        with openai.DefaultHttpxClient(verify=trusting, trust_env=False) as http_client:
            client = openai.OpenAI(api_key=key, base_url=f"{door.url}/v1", http_client=http_client, max_retries=0)
            if key == "guessed":
                with pytest.raises(openai.AuthenticationError, match="give a key of this deployment"):
                    client.completions.create(model="null", prompt="ping", max_tokens=1)
                return
            assert client.completions.create(model="null", prompt="ping", max_tokens=1).choices[0].text == "token"
            stream = client.completions.create(model="null", prompt="ping", max_tokens=1, stream=True)
            assert [event.choices[0].text for event in stream if event.choices] == ["token"]


def test_thousands_who_say_nothing_keep_nobody_out(tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))
    with before(1, tmp_path) as (door, __), contextlib.ExitStack() as idle:
        for _number in range(min(8000, most[1] - 1000)):
            idle.enter_context(socket.create_connection(("127.0.0.1", door.port), timeout=60))
        assert ask(door)[0] == 200


def test_a_client_that_drips_its_request_is_told_so_and_let_go(tmp_path: Path) -> None:
    with NullServer() as server:
        plan = gateway_plan([server.endpoints[0].url])
        with running(plan, tmp_path) as door:
            # A second in place of thirty; all else is as planned.
            place = tmp_path / "files" / "haproxy.cfg"
            text = place.read_text().replace("timeout http-request 30s", "timeout http-request 1s")
            place.write_text(re.sub("description .*", "description shorter", text))
            door.reload("shorter")
            assert raw(door, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n").startswith(b"HTTP/1.1 408")


# ---- limits


def test_a_key_has_its_own_limit_a_minute_and_others_are_not_held_up(tmp_path: Path) -> None:
    limits = {"chat": {"requests_per_minute": 3}}
    with before(1, tmp_path, plan_gateway_key_limits=limits) as (door, __):
        answers = [ask(door) for __ in range(5)]
        assert [status for status, __, __ in answers] == [200, 200, 200, 429, 429]
        assert answers[-1][1]["retry-after"] == "5"
        assert answers[-1][2]["error"]["type"] == "rate_limit_error"
        assert {ask(door, BATCH)[0] for __ in range(5)} == {200}


def test_a_key_has_no_more_requests_at_once_than_it_may(tmp_path: Path) -> None:
    with before(1, tmp_path, plan_gateway_limits={"concurrent": 2}) as (door, (server,)):
        server.endpoints[0].delay_s = 5
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running_now = [pool.submit(ask, door) for __ in range(2)]
            door.until("both are there", lambda state: state["servers"]["rank0"]["requests"] == 2)
            assert ask(door)[0] == 429
            assert [each.result()[0] for each in running_now] == [200, 200]
        server.endpoints[0].delay_s = 0
        assert ask(door)[0] == 200


def test_what_would_wait_too_long_is_told_to_come_again(tmp_path: Path) -> None:
    with before(1, tmp_path, plan_gateway_options={"endpoint_requests": 1, "queue": 1}) as (door, (server,)):
        server.endpoints[0].delay_s = 5
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, door)
            door.until("one runs", lambda state: state["servers"]["rank0"]["requests"] == 1)
            second = pool.submit(ask, door)
            door.until("the other one waits", lambda state: state["waiting"] == 1)
            server.endpoints[0].delay_s = 0
            status, headers, __ = ask(door)
            assert (status, headers["retry-after"]) == (503, "5")
            assert [first.result()[0], second.result()[0]] == [200, 200]


# ---- endpoints that fail


def test_no_request_is_lost_while_one_of_two_endpoints_is_killed_and_comes_back(tmp_path: Path) -> None:
    with before(2, tmp_path) as (door, servers), concurrent.futures.ThreadPoolExecutor(4) as pool:
        steady = [pool.submit(ask, door) for __ in range(50)]
        assert {each.result()[0] for each in steady} == {200}
        counts = [len(each.endpoints[0].bodies) for each in servers]
        assert min(counts) >= 20  # to both alike
        servers[0].stop()
        cut = [pool.submit(ask, door) for __ in range(100)]
        assert Counter(each.result()[0] for each in cut) == {200: 100}
        door.until("it is found ill", lambda state: not state["servers"]["rank0"]["up"])
        assert Counter(ask(door)[0] for __ in range(20)) == {200: 20}


def test_an_endpoint_that_gives_errors_alone_is_left_out_and_the_other_one_answers(tmp_path: Path) -> None:
    with before(2, tmp_path) as (door, servers):
        servers[0].endpoints[0].mode = "status"  # 503 to everything, while /health says that it is well
        assert Counter(ask(door)[0] for __ in range(60)) == {200: 60}
        assert len(servers[1].endpoints[0].bodies) == 60


def test_with_no_endpoint_the_answer_is_503_in_the_form_of_the_api(tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, (server,)):
        server.stop()
        door.until("it is found ill", lambda state: not state["servers"]["rank0"]["up"])
        status, headers, answer = ask(door)
        assert (status, headers["retry-after"], answer["error"]["type"]) == (503, "5", "api_error")


def test_a_stream_comes_as_it_is_made(tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, (server,)):
        server.endpoints[0].mode = "drip"  # never ends, so what is held back would never come
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps({**BODY, "stream": True}), CHAT)
        answer = connection.getresponse()
        assert answer.read(14) == b"data: xdata: x"
        connection.close()


def test_a_token_does_not_wait_for_the_next_ones() -> None:
    """Without the option HAProxy held tokens back for 200 ms over plain HTTP, as tools/bench_gateway.py showed."""
    plan = gateway_plan(["http://10.0.0.10:23333"])
    assert plan.gateway
    assert "option http-no-delay" in config.files_of(plan, plan.gateway, {})[config.CONFIG]


# ---- which endpoint


def test_what_begins_alike_goes_to_one_endpoint_where_engines_keep_prefixes(tmp_path: Path) -> None:
    options = {"enable_prefix_caching": True}
    with before(2, tmp_path, plan_api_server_options=options) as (door, servers):

        def alone(**asked: Any) -> int:
            """One that is not yet counted as over would be half of the load, and the next one go elsewhere for it."""
            door.until("none runs", lambda state: not any(each["requests"] for each in state["servers"].values()))
            return ask(door, **asked)[0]

        for n in range(12):
            for __ in range(3):
                assert alone(prompt=f"document {n} " * 50) == 200
        seen = [{body["prompt"] for body in each.endpoints[0].bodies} for each in servers]
        assert not seen[0] & seen[1]
        assert all(seen)
        # Of a conversation, whatever stands before its messages.
        for n in range(6):
            alone(path="/v1/chat/completions", messages=[{"role": "user", "content": f"{n}"}], temperature=n / 10)
            alone(path="/v1/chat/completions", messages=[{"role": "user", "content": f"{n}"}], top_p=0.5)
        talks = [{json.dumps(body.get("messages")) for body in each.endpoints[0].bodies} - {"null"} for each in servers]
        assert not talks[0] & talks[1]


# ---- draining and reloading


def test_what_is_set_aside_gets_no_new_request_and_ends_those_that_it_has(tmp_path: Path) -> None:
    with before(2, tmp_path) as (door, servers), concurrent.futures.ThreadPoolExecutor(8) as pool:
        for each in servers:
            each.endpoints[0].delay_s = 3
        old = [pool.submit(ask, door) for __ in range(4)]
        door.until("all run", lambda state: sum(each["requests"] for each in state["servers"].values()) == 4)
        put_aside(door.socket, ["rank0"], aside=True)
        assert state_of(door.socket)["servers"]["rank0"]["aside"]
        had = len(servers[0].endpoints[0].bodies)
        for each in servers:
            each.endpoints[0].delay_s = 0
        assert {ask(door)[0] for __ in range(10)} == {200}
        assert {each.result()[0] for each in old} == {200}
        assert len(servers[0].endpoints[0].bodies) == had
        put_aside(door.socket, ["rank0"], aside=False)
        assert {ask(door)[0] for __ in range(10)} == {200}
        assert len(servers[0].endpoints[0].bodies) > had


def test_a_key_is_revoked_and_another_one_added_without_a_request_lost(tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, (server,)), concurrent.futures.ThreadPoolExecutor(4) as pool:
        plan = gateway_plan([server.endpoints[0].url])
        server.endpoints[0].delay_s = 3
        running_now = pool.submit(ask, door)
        door.until("it runs", lambda state: state["servers"]["rank0"]["requests"] == 1)
        expected = write_files(plan, tmp_path, door.port, {"batch": KEYS["batch"], "new": "n" * 40})
        server.endpoints[0].delay_s = 0
        meanwhile = [pool.submit(ask, door, BATCH) for __ in range(200)]
        door.reload(expected)
        assert running_now.result()[0] == 200  # it came in with a key that counted then
        assert Counter(each.result()[0] for each in meanwhile) == {200: 200}
        assert ask(door)[0] == 401
        assert ask(door, {"Authorization": f"Bearer {'n' * 40}"})[0] == 200


def test_a_renewed_certificate_counts_at_once_and_streams_that_run_end_whole(tmp_path: Path) -> None:
    streams = 64
    with before(1, tmp_path, plan_gateway_tls=True) as (door, (server,)), contextlib.ExitStack() as stack:
        kept = tmp_path / "files" / "certificate.pem"
        old = ssl.create_default_context(cafile=str(kept))
        # None is answered before the last one has come, which is after the renewal.
        server.endpoints[0].hold = streams + 1
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(streams))
        running_now = [pool.submit(stream, door, old) for __ in range(streams)]
        door.until("all run", lambda state: state["servers"]["rank0"]["requests"] == streams)
        kept.write_text(self_signed("renewed", "127.0.0.1"))
        plan = gateway_plan([server.endpoints[0].url], plan_gateway_tls=True)
        door.reload(write_files(plan, tmp_path, door.port))
        with pytest.raises(ssl.SSLCertVerificationError):
            stream(door, old)
        assert stream(door, ssl.create_default_context(cafile=str(kept))) == (200, True)
        assert Counter(each.result() for each in running_now) == {(200, True): streams}


def test_what_it_has_read_changes_with_all_that_it_reads_and_with_nothing_else() -> None:
    urls = ["http://10.0.0.10:23333"]
    marks = {"keys.map": "a", "certificate.pem": "b"}

    def read(secrets: dict[str, str] | None = None, **variables: Any) -> str:
        plan = gateway_plan(urls, **variables)
        assert plan.gateway
        return config.description(plan, plan.gateway, marks if secrets is None else secrets)

    same = read()
    assert read() == same
    assert read({**marks, "keys.map": "other"}) != same
    assert read({**marks, "certificate.pem": "other"}) != same
    assert read(plan_gateway_limits={"concurrent": 1}) != same
    assert read(plan_gateway_key_limits={"chat": {"concurrent": 1}}) != same
    assert read(plan_gateway_options={"queue": 1}) != same
    assert read(plan_gateway_tls=True) != same
    assert read(plan_api_server_options={"enable_prefix_caching": True}) != same
    assert read(plan_api_server_options={"session_len": 4096}) == same


def test_one_that_does_not_run_is_told_as_that(tmp_path: Path) -> None:
    assert "No such file" in told(str(tmp_path / "admin.sock"))["error"]


def test_its_metrics_are_those_that_prometheus_reads(tmp_path: Path) -> None:
    with before(1, tmp_path) as (door, __):
        ask(door)
        text = exchange(f"http://127.0.0.1:{door.port + 1}/metrics", deadline_s=30).text
        assert 'haproxy_server_http_responses_total{proxy="engines",server="rank0",code="2xx"} 1' in text
        assert exchange(f"http://127.0.0.1:{door.port + 1}/v1/models", deadline_s=30).status == 404
