# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan's gateway as the files that HAProxy reads. Pure: a plan in, texts out.

Nothing secret is in them. Keys are looked up by their SHA-256 in a file that is brought beside them, so not even that has a key.
HAProxy 2.6 and later read this (Debian has that one).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import BACKEND

from ..observed import Host
from ..planning.gateway import CERTIFICATE_FILE, KEYS_FILE, admin_socket, secret_paths
from ..planning.types import GATEWAY_ADMIN, GATEWAY_FILES, Endpoint, Gateway, Plan, digest_of

CONFIG = "haproxy.cfg"
REQUESTS, CONCURRENT = "requests.map", "concurrent.map"
# A request that fits is held until it is whole; what fits is given to another endpoint where the first one does not take it.
HELD_BYTES = 256 << 10
BEGINNING_BYTES = 4096  # of a conversation, by which requests are told alike; some thousand tokens
RETRY_AFTER_S = 5
UNREAD = "@read@"  # in the place of the digest, in what the digest is over
OWN_FILES = 1000  # beside the two of each connection
_V1 = "/v1/"


def server_of(endpoint: Endpoint) -> str:
    """An endpoint's name in HAProxy."""
    return f"rank{endpoint.rank}"


def files_of(plan: Plan, gateway: Gateway, secrets: Mapping[str, str]) -> dict[str, str]:
    """File name -> text, of all that is not secret; ``secrets`` are the marks of what is (file name -> mark).

    The marks are in ``description``, which a running HAProxy tells: so it can be seen which files it has read.
    """
    config, maps = _config(plan, gateway), _maps(gateway)
    return {CONFIG: config.replace(UNREAD, digest_of([config, maps, dict(secrets)])), **maps}


def description(plan: Plan, gateway: Gateway, secrets: Mapping[str, str]) -> str:
    """What a HAProxy that has read these files says of itself."""
    return digest_of([_config(plan, gateway), _maps(gateway), dict(secrets)])


def planned_description(plan: Plan, gateway: Gateway, host: Host) -> str:
    """The same, of the secrets that its host has, or is brought (``steps.as_brought``)."""
    return description(plan, gateway, _marks(plan, gateway, host))


def planned_files(plan: Plan, gateway: Gateway, host: Host) -> dict[str, str]:
    """Path on the gateway's host -> text, of all that is not secret."""
    folder = plan.only("gateway").source_of(GATEWAY_FILES)
    return {f"{folder}/{name}": text for name, text in files_of(plan, gateway, _marks(plan, gateway, host)).items()}


def _marks(plan: Plan, gateway: Gateway, host: Host) -> dict[str, str]:
    paths = secret_paths(plan.only("gateway"), tls=gateway.tls)
    return {name: host.mark(path) or "" for name, path in paths.items()}


def keys_map(keys: Mapping[str, str]) -> str:
    """Names by the SHA-256 of their keys. A key is 32 random characters or more, so this does not give it away."""
    return _map((hashlib.sha256(key.encode()).hexdigest(), name) for name, key in sorted(keys.items()))


def _maps(gateway: Gateway) -> dict[str, str]:
    return {
        REQUESTS: _map((name, str(each.requests_per_minute)) for name, each in gateway.limits.items()),
        CONCURRENT: _map((name, str(each.concurrent)) for name, each in gateway.limits.items()),
    }


def _map(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key} {value}\n" for key, value in pairs)


def _config(plan: Plan, gateway: Gateway) -> str:
    return "\n".join(
        [
            "# Made by the collection lmfleet.lmdeploy, which writes it again at every deploy that changes it.",
            *_section("global", _global(gateway)),
            *_section("defaults", _defaults(gateway)),
            *_section("frontend clients", _frontend(plan, gateway)),
            *_section(
                "backend keys", ["stick-table type string len 64 size 100k expire 2m store http_req_rate(60s),conn_cur"]
            ),
            *_section(f"backend {BACKEND}", _backend(plan, gateway)),
            *_section("frontend metrics", _metrics(plan, gateway)),
            "",
        ]
    )


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return ["", title, *(f"    {line}" for line in lines)]


def _global(gateway: Gateway) -> list[str]:
    return [
        f"description {UNREAD}",
        "log stdout format raw local0",
        f"stats socket {GATEWAY_ADMIN} mode 600 level admin expose-fd listeners",
        # No `maxconn` here: HAProxy does not start where the host allows it fewer files than that needs.
        f"fd-hard-limit {2 * gateway.connections + OWN_FILES}",
        f"tune.bufsize {HELD_BYTES}",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
        # After a reload: streams that run end with the worker that has them.
        f"hard-stop-after {gateway.silence_s}s",
    ]


def _defaults(gateway: Gateway) -> list[str]:
    return [
        "mode http",
        "log global",
        "option dontlognull",
        "option http-no-delay",  # else tokens wait up to 200 ms for the next ones
        # Who, where, how it ended, how long until the first byte and the last, and what was asked for; never a prompt or a key.
        'log-format "%ci key=%[var(txn.key)] endpoint=%s status=%ST first_byte=%Tr ms total=%Ta ms bytes=%B state=%ts %HM %HPO"',
        "timeout connect 3s",
        "timeout http-request 30s",  # a client that drips its request
        "timeout http-keep-alive 75s",
        # Between two bytes: the first token of a long prompt may take minutes.
        f"timeout client {gateway.silence_s}s",
        f"timeout server {gateway.silence_s}s",
        f"timeout queue {gateway.queue_s}s",
        # A host that is cut off says nothing, and neither does an engine that computes: the kernel can tell them apart.
        "option clitcpka",
        "option srvtcpka",
        "srvtcpka-idle 10s",
        "srvtcpka-intvl 5s",
        "srvtcpka-cnt 3",
        # Of a request that no endpoint has begun to answer.
        "retries 2",
        "option redispatch 1",
        "retry-on conn-failure empty-response 503",
        *(_error(status, message) for status, message in _ERRORS.items()),
    ]


_ERRORS = {
    408: "the request did not come in whole",
    502: "the endpoint ended in the middle of the answer, or gave none",
    503: "no endpoint is free, or none serves",
    504: "the endpoint said nothing for too long",
}


def _error(status: int, message: str) -> str:
    retry = f" hdr retry-after {RETRY_AFTER_S}" if status == 503 else ""
    return f"http-error status {status} content-type application/json string {_quoted(_body(status, message))}{retry}"


def _body(status: int, message: str) -> str:
    """As OpenAI's API tells errors, and its clients read them."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "api_error"
    )
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}})


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _refuse(status: int, message: str, condition: str, *, retry: bool = False) -> str:
    header = f" hdr retry-after {RETRY_AFTER_S}" if retry else ""
    body = _quoted(_body(status, message))
    return f"http-request return status {status} content-type application/json string {body}{header} if {condition}"


def _frontend(plan: Plan, gateway: Gateway) -> list[str]:
    tls = f" ssl crt {GATEWAY_FILES}/{CERTIFICATE_FILE} alpn h2,http/1.1" if gateway.tls else ""
    requests, concurrent = gateway.limit.requests_per_minute, gateway.limit.concurrent
    return [
        f"bind :{plan.ports.gateway}{tls}",
        f"maxconn {gateway.connections}",
        f"http-request set-var(txn.key) http_auth_bearer,sha2(256),hex,lower,map_str({GATEWAY_FILES}/{KEYS_FILE})",
        _refuse(401, "give a key of this deployment: Authorization: Bearer KEY", "!{ var(txn.key) -m found }"),
        # Engines have other doors: /metrics, /update_weights, /sleep, and the proxy's /nodes.
        _refuse(404, f"only {_V1} is served here", f"!{{ path_beg {_V1} }}"),
        _refuse(400, "write the path plainly", "{ path -m sub .. } || { path -m sub // } || { path -m sub % }"),
        _refuse(411, "say how long the request is (Content-Length)", "METH_POST !{ req.hdr(content-length) -m found }"),
        _refuse(
            413,
            f"the request is longer than {gateway.body_mb} MB",
            f"{{ req.hdr_val(content-length) gt {gateway.body_mb << 20} }}",
        ),
        "http-request track-sc0 var(txn.key) table keys",
        f"http-request set-var(txn.requests) var(txn.key),map_str_int({GATEWAY_FILES}/{REQUESTS},{requests})",
        f"http-request set-var(txn.concurrent) var(txn.key),map_str_int({GATEWAY_FILES}/{CONCURRENT},{concurrent})",
        _refuse(
            429,
            "this key has asked too often in the last minute",
            "{ var(txn.requests) -m int gt 0 } { sc_http_req_rate(0),sub(txn.requests) gt 0 }",
            retry=True,
        ),
        _refuse(
            429,
            "this key has too many requests at once",
            "{ var(txn.concurrent) -m int gt 0 } { sc_conn_cur(0),sub(txn.concurrent) gt 0 }",
            retry=True,
        ),
        _refuse(503, "too many requests wait already", f"{{ queue({BACKEND}) ge {gateway.queue} }}", retry=True),
        "http-request del-header authorization",
        f"default_backend {BACKEND}",
    ]


def _backend(plan: Plan, gateway: Gateway) -> list[str]:
    lines = [
        "option http-buffer-request",  # for nothing else can be given to another endpoint
        "option httpchk GET /health",
        "http-check expect status 200",
        "timeout check 10s",  # a busy api_server answers late
    ]
    if gateway.by_beginning:
        beginning = "http-request set-var(txn.beginning)"
        lines += [
            f"{beginning} req.body,json_query('$.messages'),bytes(0,{BEGINNING_BYTES})",
            f"{beginning} req.body,json_query('$.prompt'),bytes(0,{BEGINNING_BYTES}) unless {{ var(txn.beginning) -m found }}",
            # Alike goes where alike went, unless that one has a half more to do than the others.
            "balance hash var(txn.beginning)",
            "hash-type consistent",
            "hash-balance-factor 150",
        ]
    else:
        lines.append("balance leastconn")
    most = f" maxconn {gateway.endpoint_requests}" if gateway.endpoint_requests else ""
    lines.append(
        "default-server check inter 2s fastinter 1s downinter 1s fall 3 rise 2 observe layer7 error-limit 10 on-error mark-down"
        + most
    )
    return [*lines, *(f"server {server_of(each)} {_address(each.url)}" for each in plan.endpoints)]


def _address(url: str) -> str:
    return url.partition("://")[2]


def _metrics(plan: Plan, gateway: Gateway) -> list[str]:
    return [
        f"bind {plan.node(gateway.node).address}:{plan.ports.gateway_metrics}",
        "http-request set-log-level silent",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "http-request deny deny_status 404",
    ]


def told(plan: Plan, act: str, urls: Iterable[str]) -> dict[str, Any]:
    """Arguments of M(lmfleet.lmdeploy.gateway): it sends the endpoints at ``urls`` nothing (close), or requests again (open)."""
    wanted = {*urls}
    servers = [server_of(each) for each in plan.endpoints if each.url in wanted]
    return {"socket": admin_socket(plan.only("gateway")), "act": act, "servers": servers}
