# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus scrapes of a deployment: a job for each kind of exporter, its targets out of the plan."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..planning.types import Engine, Plan
from ..releases import at_least

# The kinds of what is scraped, as the label ``role`` says them; the job is lmfleet-ROLE.
ROLES = {
    "engine": "an api_server of LMDeploy: a TP engine's, or a DP rank's",
    "ray": "Ray on a node of a TP engine, where the image has ray[default]",
    "node": "node_exporter on a node",
    "gpu": "dcgm-exporter on a node",
    "gateway": "the planned gateway, and others before the engines",
}
# LMDeploy's metrics are called lmdeploy:NAME. To a Prometheus that asks for OpenMetrics and names no escaping, as those before 3.0
# do, prometheus_client 0.22 and later say lmdeploy_NAME.
COLONS = {
    "source_labels": ["__name__"],
    "regex": "lmdeploy_(.+)",
    "target_label": "__name__",
    "replacement": "lmdeploy:${1}",
}
_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Exporters:
    """Ports of the exporters that the nodes have (0: they have none), and HOST:PORT of what else is scraped.

    ``ray``: the image has ``ray[default]``. LMDeploy requires plain Ray, whose agent opens no port for its metrics.
    """

    node_port: int = 9100
    gpu_port: int = 0
    gateways: Sequence[str] = ()
    ray: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """``address`` as HOST:PORT, scraped at /metrics; ``labels`` are on each of its series."""

    address: str
    labels: Mapping[str, str]


def targets_of(plan: Plan, exporters: Exporters) -> dict[str, list[Target]]:
    """The targets of each role in ``ROLES``, in the plan's order; a role of which there are none has an empty list."""
    found: dict[str, list[Target]] = {role: [] for role in ROLES}
    for target in _targets(plan, exporters):
        found[target.labels["role"]].append(target)
    return found


def _targets(plan: Plan, exporters: Exporters) -> Iterator[Target]:
    def of(role: str, **labels: str) -> dict[str, str]:
        return {"deployment": plan.name, "role": role, **labels}

    for endpoint in plan.endpoints:
        if has_metrics(plan.engine(endpoint.engine)):
            where = {"engine": endpoint.engine, "node": endpoint.node, "rank": str(endpoint.rank)}
            yield Target(urlsplit(endpoint.url).netloc, of("engine", **where, gpu=gpus_told(endpoint.gpus)))
    for node in plan.nodes:
        where = {"engine": node.engine, "node": node.name}
        if exporters.ray and plan.engine(node.engine).topology == "tp":
            yield Target(f"{node.address}:{plan.ports.ray_metrics}", of("ray", **where))
        if exporters.node_port:
            yield Target(f"{node.address}:{exporters.node_port}", of("node", **where))
        if exporters.gpu_port:
            # Without `gpu`: dcgm-exporter says on each series which one it is.
            yield Target(f"{node.address}:{exporters.gpu_port}", of("gpu", **where))
    if plan.gateway:
        address = f"{plan.node(plan.gateway.node).address}:{plan.ports.gateway_metrics}"
        yield Target(address, of("gateway", node=plan.gateway.node))
    for address in exporters.gateways:
        yield Target(address, of("gateway"))


def has_metrics(engine: Engine) -> bool:
    """Whether its api_servers answer at /metrics: 0.9.2 to 0.10.2 when told to, later ones unless told not to.

    An image whose release nobody knows yet counts as a newer one.
    """
    release = engine.image.release
    if at_least(release, "0.11.0"):
        return "--disable-metrics" not in engine.arguments
    return at_least(release, "0.9.2") and "--enable-metrics" in engine.arguments


def without_metrics(plan: Plan) -> list[str]:
    """A sentence for each engine that cannot be scraped, with what to do."""
    return [
        f"{engine.name}: its LMDeploy {engine.image.release or ''} has no /metrics, so nothing tells of its requests and tokens: "
        + (
            "take disable_metrics out of plan_api_server_options."
            if "--disable-metrics" in engine.arguments
            else "take enable_metrics: false out of plan_api_server_options."
            if at_least(engine.image.release, "0.9.2")
            else "take an image with 0.9.2 or later."
        )
        for engine in plan.engines
        if not has_metrics(engine)
    ]


def gpus_told(gpus: Sequence[int]) -> str:
    """Indices of GPUs in one word: 3, 0-7, or 0,2,4."""
    if len(gpus) > 2 and list(gpus) == list(range(gpus[0], gpus[-1] + 1)):
        return f"{gpus[0]}-{gpus[-1]}"
    return ",".join(map(str, gpus))


def address_faults(variable: str, addresses: Sequence[str]) -> list[str]:
    """What is wrong with each that is no HOST:PORT."""
    wrong = []
    for address in addresses:
        matched = _ADDRESS.fullmatch(address)
        if not matched or not 0 < int(matched["port"]) < 65536:
            wrong.append(f"{variable}: {address!r} is no HOST:PORT. Write it as 10.0.0.5:9093.")
    return wrong


def scrape_configs(folder: str) -> list[dict[str, Any]]:
    """Prometheus' ``scrape_configs``: a job for each role, the same for every deployment, with targets out of files in ``folder``.

    LMDeploy's own label ``engine`` (the DP rank) becomes ``exported_engine``, for ``engine`` is the plan's; and its metrics have
    their own names again, whatever Prometheus was told.
    """
    return [
        {
            "job_name": f"lmfleet-{role}",
            "file_sd_configs": [{"files": [f"{folder}/*-{role}.json"]}],
            **({"metric_relabel_configs": [COLONS]} if role == "engine" else {}),
        }
        for role in ROLES
    ]


def file_sd(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """Targets as Prometheus reads them from a file."""
    return [{"targets": [target.address], "labels": dict(target.labels)} for target in targets]
