# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan is made of. Every type turns into plain JSON with ``dataclasses.asdict``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

REFUSED = "The plan was refused before any host was touched"


class PlanError(Exception):
    """The inventory cannot be deployed.

    ``faults`` lists every reason, each a sentence that names the node and the variable to change.
    """

    def __init__(self, faults: list[str], what: str = REFUSED) -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{what}: {count}.\n" + "\n".join(f"  {n}. {fault}" for n, fault in enumerate(faults, 1)))


class Faults:
    """Collects every fault; one that several nodes share is listed once, with their names."""

    def __init__(self) -> None:
        self._nodes: dict[str, list[str]] = {}

    def add(self, message: str, node: str | None = None) -> None:
        """Note a fault, of a node where it is one."""
        nodes = self._nodes.setdefault(message, [])
        if node and node not in nodes:
            nodes.append(node)

    def extend(self, messages: Iterable[str], node: str | None = None) -> None:
        """Note several."""
        for message in messages:
            self.add(message, node)

    def listed(self) -> list[str]:
        """Every fault once, with the names of its nodes before it."""
        return [f"{', '.join(nodes)}: {message}" if nodes else message for message, nodes in self._nodes.items()]


@dataclasses.dataclass(frozen=True)
class Ports:
    """Every TCP port of a deployment, all on the cluster address of the node that listens there.

    ``api`` is that of TP's api_server and of DP rank 0, from which those of the other ranks are counted. The Ray ports
    are listened on by every node of a TP engine; ``proxy``, ``torch`` and ``dp_master`` by the head alone.
    """

    api: int = 23333
    proxy: int = 8000
    torch: int = 29500
    dp_master: int = 29555
    ray: int = 6379
    ray_node_manager: int = 6380
    ray_object_manager: int = 6381
    ray_runtime_env_agent: int = 6382
    ray_metrics: int = 6383
    ray_dashboard: int = 8265
    ray_dashboard_agent: int = 6384
    ray_dashboard_agent_grpc: int = 6385
    ray_worker_first: int = 10002
    ray_worker_last: int = 10999


@dataclasses.dataclass(frozen=True)
class Mount:
    """A bind mount: ``source`` on the host, ``target`` in the container, both absolute."""

    source: str
    target: str
    read_only: bool = False


@dataclasses.dataclass(frozen=True)
class Secret:
    """A file with a secret, by name only: its content never enters a plan."""

    name: str
    source: str
    target: str


@dataclasses.dataclass(frozen=True)
class Image:
    """The image that every node runs.

    ``reference`` is what is pulled, ``run`` what containers are started from (the digest once it is known),
    ``release`` the LMDeploy version inside (None: not known before the image was asked).
    """

    reference: str
    run: str
    release: str | None
    moving: bool
    word: str | None = None


@dataclasses.dataclass(frozen=True)
class Node:
    """A GPU host. ``rank`` is its place in its engine, 0 is the engine's head; ``gpus`` is a count."""

    name: str
    engine: str
    rank: int
    address: str
    gpus: int
    interface: str | None
    hf_home: str
    state_dir: str

    @property
    def is_head(self) -> bool:
        """Whether it is its engine's head."""
        return self.rank == 0


@dataclasses.dataclass(frozen=True)
class Engine:
    """One engine over some of the nodes: a TP engine, or all ranks of DP+EP. They live and die together.

    ``nodes`` are names, the head's first; ``tp``, ``dp`` and ``ep`` are the sizes that LMDeploy is given.
    """

    name: str
    head: str
    nodes: list[str]
    gpus: int
    tp: int
    dp: int = 1
    ep: int = 1


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where one rank answers: a DP rank, or a whole TP engine.

    ``url`` has no ``/v1``; ``gpus`` are indices on the node; ``container`` is the one whose log the rank writes to.
    """

    rank: int
    node: str
    url: str
    gpus: list[int]
    container: str


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The one URL in front of several ranks; ``node`` is where it runs, ``ranks`` are the URLs that it has to list."""

    node: str
    url: str
    ranks: list[str]


@dataclasses.dataclass(frozen=True)
class Service:
    """One LMDeploy container with one job.

    ``command`` is the argument vector, ``environment`` what the container gets on top of the image's own,
    ``directories`` the host directories that have to exist before it starts (created, never emptied).
    ``group`` names the services that live and die together.
    """

    service: str
    node: str
    name: str
    group: str
    image: str
    command: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    restart_policy: str
    pid_mode: str | None
    privileged: bool
    gpus: bool
    listens: list[int]
    secrets: list[Secret] = dataclasses.field(default_factory=list)
    directories: list[str] = dataclasses.field(default_factory=list)

    @property
    def identity(self) -> str:
        """Changes exactly when the container has to be replaced."""
        return digest_of(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole deployment. ``unverified`` lists what only the hosts or the image can confirm."""

    name: str
    topology: str
    launcher: str | None
    model: str
    served_model_name: str
    model_revision: str
    image: Image
    head: str
    engines: list[Engine]
    nodes: list[Node]
    ports: Ports
    services: list[Service]
    endpoints: list[Endpoint]
    proxy: Proxy | None
    url: str
    ray_token_auth: bool
    unverified: list[str]
    warnings: list[str]

    @property
    def gpus(self) -> int:
        """The GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, with what consumers would otherwise compute: identities and sums."""
        data = dataclasses.asdict(self)
        data["gpus"] = self.gpus
        for entry, service in zip(data["services"], self.services):
            entry["identity"] = service.identity
        data["identity"] = digest_of(data)
        return data


def engine_option(plan: Mapping[str, Any], name: str) -> str | None:
    """What the command lines of a plan's engines (as plain data) give an option of the api_server; None where it is left out."""
    commands = [service["command"] for service in plan["services"] if service["service"] in ("api", "dp")]
    for command in commands:
        for word, following in zip(command, [*command[1:], ""]):
            option, __, value = word.partition("=")
            if option == f"--{name}":
                return str(value or following)
    return None


def engine_plan(plan: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The part of a plan (as plain data) that is the engine of ``host``: a plan of that engine alone.

    ``head``, ``nodes``, ``services``, ``endpoints`` and ``gpus`` are the engine's, and ``tp``, ``dp`` and ``ep`` its sizes.
    """
    engine = next(each for each in plan["engines"] if host in each["nodes"])
    own = {key: [part for part in plan[key] if part["node"] in engine["nodes"]] for key in ("services", "endpoints")}
    nodes = [node for node in plan["nodes"] if node["name"] in engine["nodes"]]
    return {**plan, **own, "nodes": nodes, **{key: engine[key] for key in ("head", "gpus", "tp", "dp", "ep")}}


def digest_of(data: Any) -> str:
    """12 hex digits over the canonical JSON of ``data``."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]
