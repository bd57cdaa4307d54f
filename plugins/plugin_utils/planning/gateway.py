# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway in a plan: its variables, and its container. What HAProxy reads is made in ``plugin_utils/gateway``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..gateway.certificate import certificate_faults
from ..releases import did_you_mean
from .types import (
    GATEWAY_ADMIN,
    GATEWAY_FILES,
    GATEWAY_RUN,
    Engine,
    Faults,
    Gateway,
    KeyLimit,
    Node,
    Ports,
    Service,
)
from .values import quoted, shown

SECRETS = ("plan_gateway_keys", "plan_gateway_certificate")  # their values are in no message
KEYS_FILE, CERTIFICATE_FILE = "keys.map", "certificate.pem"
SHORTEST_KEY = 32  # characters: nobody guesses it, and its digest does not give it away
KEY = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what a bearer token may have (RFC 6750)
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it stands in logs and files
HIGHEST_LIMIT = 1_000_000
PREFIXES = "--enable-prefix-caching"
OPTIONS = {"connections": 20000, "queue": 256, "queue_s": 60, "silence_s": 900, "body_mb": 64, "endpoint_requests": 0}


@dataclasses.dataclass(frozen=True)
class GatewayInputs:
    """The gateway's variables, checked. ``keys`` by name and ``certificate`` (PEM) are secret, and enter no plan."""

    image: str
    keys: dict[str, str]
    tls: bool
    certificate: str
    limit: KeyLimit
    limits: dict[str, KeyLimit]
    options: dict[str, int]


def read_gateway(deployment: Mapping[str, Any], lost: set[str], faults: Faults) -> GatewayInputs | None:
    """The gateway that is asked for, or None; what is wrong goes to ``faults``. ``lost``: variables that could not be read."""
    given = [name for name in SECRETS if deployment[name]]
    given += [name for name in ("plan_gateway_limits", "plan_gateway_key_limits") if _any(deployment[name])]
    if not deployment["plan_gateway"]:
        if "plan_gateway" not in lost:
            faults.extend(
                f"{name} is set, but there is no gateway: set plan_gateway: true, or take it out." for name in given
            )
        return None
    keys = {str(name): key for name, key in deployment["plan_gateway_keys"].items()}
    if "plan_gateway_keys" not in lost:
        faults.extend(_key_faults(keys))
    if deployment["plan_gateway_certificate"] and not deployment["plan_gateway_tls"]:
        faults.add(
            "plan_gateway_certificate is set, but plan_gateway_tls is false: take one of them out. Without TLS, keys and prompts "
            "can be read on their way."
        )
    if deployment["plan_gateway_certificate"]:
        faults.extend(
            f"plan_gateway_certificate {each}" for each in certificate_faults(deployment["plan_gateway_certificate"])
        )
    limits = {}
    for name, each in deployment["plan_gateway_key_limits"].items():
        where = f"plan_gateway_key_limits.{name}"
        if name not in keys and "plan_gateway_keys" not in lost:
            near = did_you_mean(name, sorted(keys))
            faults.add(f"plan_gateway_key_limits names {quoted(name)}, which is no key of plan_gateway_keys{near}.")
        limit = _limit(each, where, faults)
        if limit:
            limits[name] = limit
    given_options = deployment["plan_gateway_options"] or {}
    options = {**OPTIONS, **{name: value for name, value in given_options.items() if value is not None}}
    faults.extend(
        f"plan_gateway_options.{name} is {value}: give a whole number from {least} to {HIGHEST_LIMIT}."
        for name, value in options.items()
        for least in [0 if name in ("queue", "endpoint_requests") else 1]
        if not least <= value <= HIGHEST_LIMIT
    )
    return GatewayInputs(
        image=deployment["plan_gateway_image"],
        keys=keys,
        tls=deployment["plan_gateway_tls"],
        certificate=deployment["plan_gateway_certificate"],
        limit=_limit(deployment["plan_gateway_limits"], "plan_gateway_limits", faults) or KeyLimit(),
        limits=limits,
        options=options,
    )


def _any(given: Mapping[str, Any]) -> bool:
    return any(value for value in given.values())


def _key_faults(keys: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with keys; never the keys themselves."""
    if not keys:
        yield (
            "plan_gateway is true, and plan_gateway_keys has no key, so nobody could use it: give every client one, as NAME: KEY, "
            "out of a vault (openssl rand -hex 32 makes a key)."
        )
    owners: dict[str, str] = {}
    for name, key in keys.items():
        if not KEY_NAME.fullmatch(name):
            yield (
                f"plan_gateway_keys: the name {quoted(name)} cannot stand in logs: take letters, digits, '.', '_' and '-', "
                "starting with a letter or digit, at most 64."
            )
        if not isinstance(key, str):
            yield f"plan_gateway_keys: the key of {quoted(name)} is no text: quote it."
            continue
        if len(key) < SHORTEST_KEY:
            yield f"plan_gateway_keys: the key of {quoted(name)} has {len(key)} characters: give it {SHORTEST_KEY} or more."
        elif not KEY.fullmatch(key):
            yield (
                f"plan_gateway_keys: the key of {quoted(name)} has a character that no header can carry: take letters, digits and "
                "-._~+/="
            )
        if key in owners:
            yield f"plan_gateway_keys: {quoted(owners[key])} and {quoted(name)} have the same key: give each its own."
        owners.setdefault(key, name)


def _limit(given: Any, where: str, faults: Faults) -> KeyLimit | None:
    if not isinstance(given, Mapping):
        faults.add(f"{where} is {shown(given)}: give requests_per_minute, concurrent, or both.")
        return None
    names = [field.name for field in dataclasses.fields(KeyLimit)]
    values = {}
    for name, value in given.items():
        if name not in names:
            faults.add(
                f"{where} has {quoted(str(name))}{did_you_mean(str(name), names)}: it takes {' and '.join(names)}."
            )
        elif value is None:
            continue
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= HIGHEST_LIMIT:
            faults.add(f"{where}.{name} is {shown(value)}: give a whole number from 0 (no limit) to {HIGHEST_LIMIT}.")
        else:
            values[name] = value
    return KeyLimit(**values)


def gateway_of(given: GatewayInputs, head: Node, ports: Ports, engines: Sequence[Engine]) -> Gateway:
    """The gateway of a plan, on its head."""
    return Gateway(
        node=head.name,
        url=f"{'https' if given.tls else 'http'}://{head.address}:{ports.gateway}",
        tls=given.tls,
        limit=given.limit,
        limits=given.limits,
        by_beginning=any(PREFIXES in engine.arguments for engine in engines),
        **given.options,
    )


def admin_socket(service: Service) -> str:
    """The socket on the host at which the gateway is asked and told."""
    return GATEWAY_ADMIN.replace(GATEWAY_RUN, service.source_of(GATEWAY_RUN))


def secret_paths(service: Service, *, tls: bool) -> dict[str, str]:
    """File name -> path on the host, of what is secret there."""
    files = service.source_of(GATEWAY_FILES)
    return {name: f"{files}/{name}" for name in (KEYS_FILE, *([CERTIFICATE_FILE] if tls else []))}
