# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway of a plan as a process on this machine, before endpoints that run here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu.deployment import Deployment

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._gateway import GatewayError, state_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.certificate import self_signed
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.config import files_of, keys_map
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.gateway import (
    CERTIFICATE_FILE,
    KEYS_FILE,
    admin_socket,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import GATEWAY_FILES, GATEWAY_RUN, Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.steps import mark_of

if TYPE_CHECKING:
    from gpu.scenarios import Run

KEYS = {"gpu": "g" * 40}  # inventory/replicas.yml
UP_S = 60.0


@contextlib.contextmanager
def gateway(run: Run, urls: Sequence[str], name: str, number: int, **variables: Any) -> Iterator[Deployment]:
    """The gateway of a plan before these endpoints, in the place of the plan's own; ``url`` and ``process`` are its."""
    ports = {"gateway": 8440 + 10 * number, "gateway_metrics": 8441 + 10 * number}
    given = run.machine.plan("replicas", plan_name=name, plan_ports=ports, **variables)
    endpoints = [{**each, "url": url} for each, url in zip(given["endpoints"], urls)]
    at = Deployment(run.machine, {**given, "endpoints": endpoints}, only=["gateway"])
    admin = place(Plan.from_json({**given, "endpoints": endpoints}))
    at.start("gateway")
    try:
        began = time.monotonic()
        while not all_up(admin):
            assert time.monotonic() < began + UP_S, at.process("gateway").logs(timestamps=False, tail=20)
            time.sleep(0.2)
        yield at
    finally:
        at.stop()


def all_up(admin: str) -> bool:
    """Whether it answers, and has found every endpoint well."""
    with contextlib.suppress(GatewayError):
        return all(each["up"] for each in state_of(admin)["servers"].values())
    return False


def place(plan: Plan) -> str:
    """Write the files of a plan's gateway to where its service mounts them, with paths as they are here; its admin socket."""
    service, planned = plan.only("gateway"), plan.gateway
    assert planned
    files, run = service.source_of(GATEWAY_FILES), service.source_of(GATEWAY_RUN)
    secrets = {KEYS_FILE: keys_map(KEYS)}
    if planned.tls:
        secrets[CERTIFICATE_FILE] = self_signed("gpu", plan.node(planned.node).address)
    texts = {**secrets, **files_of(plan, planned, {name: mark_of(text) for name, text in secrets.items()})}
    Path(files).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        own = text.replace(GATEWAY_FILES, files).replace(GATEWAY_RUN, run)
        (Path(files) / name).write_text(own, encoding="utf-8")
    return admin_socket(service)
