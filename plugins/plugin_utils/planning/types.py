# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a contract: what it is made of, to JSON and back.

``docs/plan.md`` is made from these types (tools/plan_doc.py). A change that a reader of the JSON could notice raises
``PLAN_FORMAT``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .codec import decode

PLAN_FORMAT = 6
EARLIER_FORMAT = 5  # without gateway; what a record has of that time can still be read
# Compiled kernels are worth minutes at every start: they are kept on the host. Directory there -> in containers.
KERNEL_CACHES = {"cache": "/root/.cache", "triton": "/root/.triton", "deep_gemm": "/root/.deep_gemm", "nv": "/root/.nv"}
HF_CACHE = "/root/.cache/huggingface"  # in containers; plan_hf_home is mounted there
# In the containers of engines: the programs that keep them running, and what those write down of each start.
PROGRAMS_TARGET = "/opt/lmfleet"
RANK_PROGRAM_TARGET = f"{PROGRAMS_TARGET}/rank.py"
STARTS_TARGET = "/var/lib/lmfleet/starts"
# In the gateway's container: what it reads, and the directory of the socket at which it is asked and told.
GATEWAY_FILES = "/etc/lmfleet/gateway"
GATEWAY_RUN = "/run/lmfleet"
GATEWAY_ADMIN = f"{GATEWAY_RUN}/admin.sock"
# As huggingface_hub takes them: no "--", no "..", a name of 96 characters at most.
REPO_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
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
        return list(self.by_nodes())

    def by_nodes(self) -> dict[str, list[str]]:
        """The same, with its nodes; none where it is of the whole deployment."""
        return {f"{some(nodes, 16)}: {message}" if nodes else message: nodes for message, nodes in self._nodes.items()}


def some(names: Sequence[str], most: int = 8) -> str:
    """Names, or of many the first few and how many more there are."""
    return ", ".join(names if len(names) <= most else [*names[:4], f"and {len(names) - 4} more"])


@dataclasses.dataclass(frozen=True)
class Ports:
    """Every TCP port of a deployment, all on the cluster address of the node that listens there.

    ``api`` is that of TP's api_server and of DP rank 0, from which those of the other ranks are counted. The Ray ports
    are listened on by every node of a TP engine; ``proxy``, ``torch`` and ``dp_master`` by the head alone. ``gateway`` is the
    one that clients use where there is one, on every address of its node.
    """

    api: int = 23333
    proxy: int = 8000
    gateway: int = 8443
    gateway_metrics: int = 8405
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
    """The image of an engine.

    ``reference`` is what is pulled. ``id`` is its identity, once a host was asked: one image has many names, and digests
    come and go with pulls. ``release`` is the LMDeploy inside (None: not known before the image was asked); ``moving``: the
    reference is a tag that is published again.
    """

    reference: str
    id: str | None
    release: str | None
    moving: bool

    @property
    def run(self) -> str:
        """What containers are started from."""
        return self.id or self.reference


@dataclasses.dataclass(frozen=True)
class Rdma:
    """The RDMA devices of a host, as in mlx5_0:1: those that its engine uses, and those that are ``left_out``, with the reason.

    ``gid_index`` is that of RoCE v2 and IPv4 where it is one for all of them. ``environment`` is what containers get for it.
    ``nearest`` has, in the order of the GPUs, the one that is nearest to each and, where there are enough, no other GPU's; it is
    empty where the ways between them are not known.
    """

    devices: list[str]
    left_out: dict[str, str]
    gid_index: int | None
    environment: dict[str, str]
    nearest: list[str]


@dataclasses.dataclass(frozen=True)
class Node:
    """A GPU host. ``rank`` is its place in its engine, 0 is the engine's head; ``gpus`` is a count.

    ``rdma`` is known once the host was asked, where its engine has other hosts.
    """

    name: str
    engine: str
    rank: int
    address: str
    gpus: int
    interface: str | None
    hf_home: str
    state_dir: str
    rdma: Rdma | None = None

    @property
    def is_head(self) -> bool:
        """Whether it is its engine's head."""
        return self.rank == 0


@dataclasses.dataclass(frozen=True)
class DeepEP:
    """What an engine with expert parallelism needs of DeepEP.

    ``tokens_per_rank`` is how many tokens a rank may send in one decoding step, ``buffer_bytes`` what DeepEP's buffer takes of
    every GPU for that (None where the model's sizes are not known yet), ``environment`` what the plan sets for it.
    """

    tokens_per_rank: int
    buffer_bytes: int | None
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Engine:
    """What lives and dies together: a TP engine over Ray (``topology`` tp), or a group of DP ranks (``dpep``).

    ``nodes`` are names, the head's first; ``tp``, ``dp`` and ``ep`` are the sizes that LMDeploy is given, ``launcher`` is what
    starts DP ranks, and ``arguments`` are what every api_server of it gets beside sizes and addresses. ``deepep`` is None
    without expert parallelism.
    """

    name: str
    topology: str
    launcher: str | None
    head: str
    nodes: list[str]
    gpus: int
    tp: int
    dp: int
    ep: int
    image: Image
    arguments: list[str]
    deepep: DeepEP | None = None

    def option(self, name: str) -> str | None:
        """What it gives an option of the api_server, without the dashes; None where it is left out."""
        for word, following in zip(self.arguments, [*self.arguments[1:], ""]):
            option, __, value = word.partition("=")
            if option == f"--{name}":
                return value or following
        return None


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A URL that answers: a DP rank's, or a whole TP engine's.

    ``url`` has no ``/v1``; ``gpus`` are indices on the node; ``container`` is the one whose log the rank writes to.
    """

    rank: int
    engine: str
    node: str
    url: str
    gpus: list[int]
    container: str


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The one URL in front of several endpoints; ``node`` is where it runs, ``ranks`` are the URLs that it has to list."""

    node: str
    url: str
    ranks: list[str]


@dataclasses.dataclass(frozen=True)
class KeyLimit:
    """What one key of the gateway may do; 0: no limit."""

    requests_per_minute: int = 0
    concurrent: int = 0


@dataclasses.dataclass(frozen=True)
class Gateway:
    """The door for clients, before all endpoints: ``node`` is where it runs. Its keys are in no plan.

    ``limit`` is every key's, but of those in ``limits``, by name. ``by_beginning``: requests that begin alike go to the same
    endpoint while load allows. ``connections`` are held at once, ``queue`` is how many requests may wait, ``queue_s`` for how
    long; a connection ends after ``silence_s`` seconds without a byte. ``body_mb`` MiB is the longest request,
    ``endpoint_requests`` the most that one endpoint is given at once (0: no limit).
    """

    node: str
    url: str
    tls: bool
    limit: KeyLimit
    limits: dict[str, KeyLimit]
    by_beginning: bool
    connections: int
    queue: int
    queue_s: int
    silence_s: int
    body_mb: int
    endpoint_requests: int


@dataclasses.dataclass(frozen=True)
class Earlier:
    """What a service asked Docker for before it was supervised, where that differs."""

    command: list[str]
    mounts: list[Mount]
    restart_policy: str


@dataclasses.dataclass(frozen=True)
class Service:
    """One planned container. ``service`` is its kind (ray, api, dp, proxy, gateway), ``engine`` what it is part of (None: none).

    ``command`` is the argument vector, ``environment`` what the container gets on top of the image's own, ``directories``
    the host directories that have to exist before it starts (created, never emptied), ``listens`` its TCP ports. ``derived``
    are the variables whose values were taken from the host: while it serves, other ones are no reason to start it again.
    ``starts`` is the file on the host where it is kept when its engine was started, and why; None: nothing starts it again by
    itself. ``earlier``: one that serves and was made so is left as it is. ``user`` is who it runs as, where not the image's own.
    """

    service: str
    node: str
    name: str
    engine: str | None
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
    derived: list[str] = dataclasses.field(default_factory=list)
    starts: str | None = None
    earlier: Earlier | None = None
    user: str = ""

    @property
    def sources(self) -> list[str]:
        """The paths on the host that have to be there already: the user's, and the model's."""
        return [mount.source for mount in self.mounts if mount.source not in self.directories]

    def source_of(self, target: str) -> str:
        """Where the host has what is mounted at ``target``."""
        return next(mount.source for mount in self.mounts if mount.target == target)

    @property
    def as_earlier(self) -> Service | None:
        """The service as it was before it was supervised."""
        if self.earlier is None:
            return None
        return dataclasses.replace(self, **vars(self.earlier), earlier=None)

    @property
    def asked(self) -> dict[str, Any]:
        """What Docker is asked for, in the shape in which M(observe) tells it of a container; see ``identity``."""
        binds = [*self.mounts, *(Mount(secret.source, secret.target, read_only=True) for secret in self.secrets)]
        return {
            "image": self.image,
            "command": self.command,
            "environment": self.environment,
            "mounts": sorted([mount.source, mount.target, mount.read_only] for mount in binds),
            "network_mode": "host",
            "ipc_mode": "host",
            "pid_mode": self.pid_mode or "",
            "privileged": self.privileged,
            "restart_policy": self.restart_policy,
            "gpus": self.gpus,
            "rdma": self.gpus and not self.privileged,
            **({"user": self.user} if self.user else {}),
        }

    @property
    def identity(self) -> str:
        """Changes exactly when Docker is asked for another container, and with nothing else that a plan holds."""
        return digest_of(self.asked)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole deployment. ``services`` are in the order of their start; ``head`` is the first engine's.

    ``bound``: hosts and image were asked. ``unverified`` lists what only they can confirm.
    """

    format: int
    bound: bool
    name: str
    model: str
    served_model_name: str
    model_revision: str
    head: str
    engines: list[Engine]
    nodes: list[Node]
    ports: Ports
    services: list[Service]
    endpoints: list[Endpoint]
    proxy: Proxy | None
    gateway: Gateway | None
    url: str
    ray_token_auth: bool
    unverified: list[str]
    warnings: list[str]

    @property
    def gpus(self) -> int:
        """The GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def topology(self) -> str:
        """The topology of its engines, which is one today."""
        return self.engines[0].topology

    @property
    def identity(self) -> str:
        """Changes with what is served and how: with any container, endpoint or name."""
        return digest_of([[s.node, s.name, s.identity] for s in self.services])

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def engine(self, name: str) -> Engine:
        """The engine of that name."""
        return next(engine for engine in self.engines if engine.name == name)

    def engine_on(self, node: str) -> Engine:
        """The engine that a node is part of."""
        return self.engine(self.node(node).engine)

    def services_on(self, node: str) -> list[Service]:
        """The services of a node, in the order of their start."""
        return [service for service in self.services if service.node == node]

    def services_of(self, engine: str) -> list[Service]:
        """The services of an engine, in the order of their start."""
        return [service for service in self.services if service.engine == engine]

    def only(self, kind: str) -> Service:
        """The service of a kind of which a deployment has one: the proxy, or the gateway."""
        return next(each for each in self.services if each.service == kind)

    def endpoints_of(self, engine: str) -> list[Endpoint]:
        """The endpoints of an engine."""
        return [endpoint for endpoint in self.endpoints if endpoint.engine == engine]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, with what readers would otherwise compute (``DERIVED``)."""
        data = dataclasses.asdict(self)
        for entry, service in zip(data["services"], self.services):
            entry["identity"] = service.identity
        return {**data, "gpus": self.gpus, "identity": self.identity}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan out of ``to_json``. Raises ``PlanFormatError`` at another format, and at keys or types that are not its."""
        if isinstance(data, Mapping) and data.get("format") == EARLIER_FORMAT:
            data = _from_earlier(data)
        if not isinstance(data, Mapping) or data.get("format") != PLAN_FORMAT:
            data = data if isinstance(data, Mapping) else {}
            raise PlanFormatError(f"a plan of format {data.get('format')!r}, and this collection reads {PLAN_FORMAT}")
        plain = {key: value for key, value in data.items() if key not in DERIVED}
        if isinstance(data.get("services"), list):
            plain["services"] = [
                {k: v for k, v in each.items() if k != "identity"} if isinstance(each, Mapping) else each
                for each in data["services"]
            ]
        try:
            return decode(cls, plain)
        except (TypeError, ValueError) as error:
            raise PlanFormatError(f"no plan of format {PLAN_FORMAT}: {error}") from None


def _from_earlier(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan of the format before, which had no gateway."""
    ports, services = data.get("ports"), data.get("services")
    if not isinstance(ports, Mapping) or not isinstance(services, list):
        return data
    own = {"gateway": Ports.gateway, "gateway_metrics": Ports.gateway_metrics}
    return {
        **data,
        "format": PLAN_FORMAT,
        "gateway": None,
        "ports": {**own, **ports},
        "services": [{"user": "", **each} if isinstance(each, Mapping) else each for each in services],
    }


class PlanFormatError(Exception):
    """Data that is no plan of this format; the message says where."""


# In the JSON of plan and services, for its readers; computed, so never read back.
DERIVED = frozenset({"gpus", "identity"})


def digest_of(data: Any) -> str:
    """12 hex digits over the canonical JSON of ``data``."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]
