# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every TCP port that a plan has on its nodes: who listens there, what it would allow to strangers, and which are for everybody.

Pure: a plan in, ports out. The firewall closes them, and the closure tries them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from .planning.types import Node, Plan
from .reach import at_the_head

# Of no plan: Docker's own API, which some installations open over TCP.
DOCKER_PORTS = {2375: "without a password", 2376: "with a client's certificate"}


@dataclasses.dataclass(frozen=True)
class Exposure:
    """A port of a node, or all from ``first`` to ``last``.

    ``what`` listens there, by which ``variable``; ``allows`` is what who reaches it can do. ``planned``: the plan, or a playbook,
    listens there; what is not planned is tried, and not closed.
    """

    node: str
    first: int
    last: int
    what: str
    variable: str
    allows: str
    planned: bool = True

    @property
    def ports(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)


def public_ports(plan: Plan) -> dict[str, list[int]]:
    """Node -> its ports that everybody may reach: that of the deployment's URL."""
    door = plan.gateway or plan.proxy
    return {door.node if door else plan.head: [port_of(plan.url)]}


def port_of(url: str) -> int:
    """The port of a URL of the plan."""
    return int(url.rpartition(":")[2])


def exposures(plan: Plan, jobs: Mapping[str, int]) -> list[Exposure]:
    """Every port of every node, in the order of the nodes, each once.

    ``jobs`` are the ports of what goes from host to host for a while, by the variable that names each.
    """
    found = [exposure for node in plan.nodes for exposure in _of_node(plan, node, jobs)]
    return list({(exposure.node, exposure.first): exposure for exposure in reversed(found)}.values())[::-1]


def _of_node(plan: Plan, node: Node, jobs: Mapping[str, int]) -> Iterator[Exposure]:
    engine = plan.engine(node.engine)
    yield from _endpoints(plan, node)
    if plan.gateway and plan.gateway.node == node.name:
        yield _exposure(node, plan.ports.gateway, "the gateway", "plan_ports.gateway", "use the model, with a key")
        reads = "read how many requests there are, and of which endpoints"
        yield _exposure(node, plan.ports.gateway_metrics, "the gateway's metrics", "plan_ports.gateway_metrics", reads)
    if plan.proxy and plan.proxy.node == node.name:
        yield _exposure(
            node,
            plan.ports.proxy,
            "LMDeploy's proxy",
            "plan_ports.proxy",
            "use the model, add nodes of their own, which are then given users' prompts, remove nodes, and end them "
            "(/nodes/add, /nodes/remove, /nodes/terminate)",
        )
    if engine.topology == "tp":
        yield from _ray(plan, node)
    if node.name == engine.head:
        for name in at_the_head(engine):
            if name != "ray":
                yield _exposure(
                    node,
                    getattr(plan.ports, name),
                    "the store where the ranks meet",
                    f"plan_ports.{name}",
                    "read and change what the ranks tell each other, and so stop the engine",
                )
    for variable, port in jobs.items():
        yield _exposure(
            node,
            port,
            "what gives image or model to the next host",
            variable,
            "try to have a copy of the image or the model",
        )
    for port, how in DOCKER_PORTS.items():
        yield dataclasses.replace(
            _exposure(node, port, f"Docker's own API ({how})", "not of the plan", "be root on the host"), planned=False
        )


def _exposure(node: Node, port: int, what: str, variable: str, allows: str) -> Exposure:
    return Exposure(node.name, port, port, what, variable, allows)


def _endpoints(plan: Plan, node: Node) -> Iterator[Exposure]:
    for each in plan.endpoints:
        if each.node == node.name:
            port = port_of(each.url)
            variable = "plan_ports.api" if port == plan.ports.api else f"rank {each.rank}, counted from plan_ports.api"
            yield _exposure(
                node,
                port,
                "LMDeploy's api_server",
                variable,
                "use the model, change its weights and put it to sleep (/update_weights, /sleep)",
            )


def runs_programs(plan: Plan, node: Node) -> str:
    """What Ray allows to who reaches it, on the nodes of an engine."""
    privileged = any(each.privileged for each in plan.services_on(node.name) if each.gpus)
    where = "a privileged container, which is root on the host" if privileged else "the engine's container"
    token = " (Ray asks for its token, which goes unencrypted)" if plan.ray_token_auth else ""
    return f"run any program as root in {where}{token}"


def _ray(plan: Plan, node: Node) -> Iterator[Exposure]:
    runs, reads = runs_programs(plan, node), "read figures of the host and of its processes"
    known = {
        **(
            {"ray": ("Ray's GCS", runs), "ray_dashboard": ("Ray's dashboard and job API", runs)} if node.is_head else {}
        ),
        "ray_node_manager": ("Ray's node manager", runs),
        "ray_object_manager": ("Ray's object manager", "read and change the objects that Ray's workers hand on"),
        "ray_runtime_env_agent": ("Ray's agent of runtime environments", runs),
        "ray_metrics": ("Ray's metrics", reads),
        "ray_dashboard_agent": ("Ray's dashboard agent, with its job API", runs),
        "ray_dashboard_agent_grpc": ("Ray's dashboard agent (gRPC)", reads),
    }
    for name, (what, allows) in known.items():
        yield _exposure(node, getattr(plan.ports, name), what, f"plan_ports.{name}", allows)
    yield Exposure(
        node.name,
        plan.ports.ray_worker_first,
        plan.ports.ray_worker_last,
        "Ray's workers",
        "plan_ports.ray_worker_first to ray_worker_last",
        runs,
    )
