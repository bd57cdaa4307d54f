# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the hosts: every fault of every host at once, before anything is started.

Pure: a plan and what was seen in, sentences out. Each names host, cause and remedy.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from .observed import DEPLOYMENT, IDENTITY, Container, Host
from .planning.types import Node, Plan, Service

OLDEST_API = (1, 40)  # Docker 19.03: device requests, for --gpus


def host_faults(plan: Plan, hosts: Mapping[str, Host]) -> list[str]:
    """Every fault of every host, but for what the image would show."""
    found = [fault for node in plan.nodes for fault in _of_host(plan, node, hosts)]
    return [*found, *model_faults(plan, [hosts[node.name] for node in plan.nodes if node.name in hosts])]


def _of_host(plan: Plan, node: Node, hosts: Mapping[str, Host]) -> Iterator[str]:
    where = f"{node.name} ({node.address})"
    host = hosts.get(node.name)
    if host is None:
        yield f"{where} was not looked at: a deployment is one unit of all its nodes, so run it without --limit."
    elif host.unreachable:
        yield (
            f"{where} cannot be reached: {host.unreachable.rstrip('.')}. {_without(plan, node, hosts)} "
            "Bring the host up, or take it out of the inventory group."
        )
    elif host.failed:
        yield f"{where}: {host.failed}"
    else:
        for fault in (*_docker_faults(host), *_gpu_faults(node, host), *_network_faults(host)):
            yield f"{where}: {fault}"
        for fault in (*foreign_faults(plan, host), *port_faults(plan, host), *mount_faults(plan, host)):
            yield f"{where}: {fault}"


def _without(plan: Plan, node: Node, hosts: Mapping[str, Host]) -> str:
    """What the engine would be without a host, and so why there is none."""
    engine = plan.engine(node.engine)
    if engine.topology == "dpep":
        ranks = [each.rank for each in plan.endpoints_of(engine.name) if each.node == node.name]
        which = f"Ranks {ranks[0]} to {ranks[-1]} are" if len(ranks) > 1 else f"Rank {ranks[0]} is"
        return f"{which} on it, and all other ranks would wait for it."
    left = [plan.node(name) for name in engine.nodes if name in hosts and not hosts[name].unreachable]
    gpus = sum(each.gpus for each in left)
    return f"Without it Ray would count {len(left)} of {len(engine.nodes)} nodes and {gpus} of {engine.gpus} GPUs."


def _docker_faults(host: Host) -> Iterator[str]:
    docker = host.answer.get("docker") or {}
    if "error" in docker:
        yield docker["error"]  # with its remedy, which is another for each kind
    elif "api" in docker and tuple(map(int, docker["api"].split("."))) < OLDEST_API:
        yield f"Docker is too old (API {docker['api']}): install 19.03 or newer."


def _gpu_faults(node: Node, host: Host) -> Iterator[str]:
    gpus = host.network.get("gpus")
    if not gpus:  # no nvidia-smi: the sandbox, or a host whose driver is in a container
        return
    if gpus.get("error"):
        yield f"nvidia-smi: {gpus['error']}: mend the driver first (a reboot after its update, nvidia-fabricmanager)."
        return
    # The parts of a MIG device are indented.
    has = sum(line.startswith("GPU ") for line in gpus["listing"].splitlines())
    if has < node.gpus:
        missing = f"nvidia-smi -L lists {has} of the {node.gpus} GPUs that plan_gpus says"
        yield f"{missing}: lower it, or find the missing ones (dmesg | grep -i nvrm)."


def _network_faults(host: Host) -> Iterator[str]:
    if host.network and not host.network.get("interfaces"):
        yield host.network.get("error") or "ip -json -4 address shows no interface with an IPv4 address."


def foreign_faults(plan: Plan, host: Host) -> Iterator[str]:
    """Containers that bear a planned name, but were not made for this deployment; each is left alone."""
    planned = {service.name for service in plan.services_on(host.name)}
    for name, container in host.containers.items():
        if name in planned and container.labels.get(DEPLOYMENT) != plan.name:
            yield (
                f"a container {name} exists that the deployment {plan.name} did not make; it was left alone: "
                "rename or remove it, or set plan_name to another name."
            )


def mount_faults(plan: Plan, host: Host) -> Iterator[str]:
    """Sources of mounts that are not there: Docker would refuse the container, and the one before it would be gone."""
    there = host.answer.get("paths") or {}
    home = plan.node(host.name).hf_home
    # Of a model that is looked for below it, its absence is told already.
    told = {home} if not plan.model.startswith("/") else set()
    for path in (path for path, exists in there.items() if not exists and path not in told):
        variable = "plan_hf_home" if path == home else "plan_extra_mounts"
        yield f"{path} does not exist on this host, and containers mount it: make it, or correct {variable}."


def port_faults(plan: Plan, host: Host) -> Iterator[str]:
    """Planned ports that something other than this deployment's own containers listens on."""
    own = [container for container in host.own(plan.name).values() if container.running]
    held = _ports_of(plan, host, own)
    if held is None:
        return  # containers of an earlier plan hold ports that are no longer known, and go before theirs are needed
    taken = set(host.network.get("listening", ())) - held
    named = {name for name, each in host.containers.items() if each.labels.get(DEPLOYMENT) != plan.name}
    for service in plan.services_on(host.name):
        for port in service.listens if service.name not in named else ():  # told already
            if port in taken:
                yield (
                    f"port {port} of {service.name} is in use on this host: stop what listens there "
                    f"(ss -ltnp 'sport = :{port}'), or choose another with plan_ports."
                )


def _ports_of(plan: Plan, host: Host, own: Iterable[Container]) -> set[int] | None:
    """The ports that this deployment's running containers may hold; None where nothing says so of one of them."""
    recorded = host.record.get("listens") or {}
    planned = {service.name: service for service in plan.services_on(host.name)}
    held: set[int] = set()
    for container in own:
        service = planned.get(container.name)
        if service and container.labels.get(IDENTITY) == service.identity:
            held.update(service.listens)
        elif container.name in recorded:
            held.update(recorded[container.name])
        elif service:  # made by a version that kept no record
            held.update(service.listens)
        else:
            return None
    return held


def model_faults(plan: Plan, hosts: Iterable[Host]) -> list[str]:
    """Where the model is not whole, or not the same, on every host; one message, with what to type."""
    asked = [host for host in hosts if host.model]
    faulty = [host for host in asked if host.model["faults"]]
    if faulty:
        lines = [f"{plan.model} is not whole on {len(faulty)} of {len(asked)} hosts:"]
        lines += [f"  {host.name}: {fault}" for host in faulty for fault in host.model["faults"]]
        if plan.model.startswith("/"):
            return ["\n".join([*lines, "Copy the missing files there on each of these hosts, and run again."])]
        lines.append("Fetch them, and run again; files that are whole are not fetched twice:")
        lines += [
            f"  {host.name}: HF_HOME={shlex.quote(plan.node(host.name).hf_home)} hf download {shlex.quote(plan.model)} "
            f"--revision {shlex.quote(plan.model_revision)}"
            for host in faulty
        ]
        return ["\n".join(lines)]
    groups: dict[str, list[Host]] = {}
    for host in asked:
        groups.setdefault(str(host.model["digest"]), []).append(host)
    if len(groups) < 2:
        return []
    lines = [f"The hosts hold different files of {plan.model}, and one engine cannot serve two models:"]
    for holders in groups.values():
        report = holders[0].model
        names = ", ".join(host.name for host in holders)
        lines.append(
            f"  {names}: commit {report.get('commit') or 'unknown'}, {len(report['files'])} files, {report['total_bytes']} bytes"
        )
    return [
        "\n".join([*lines, "Set plan_model_revision to one commit, or copy the model from one host to the others."])
    ]


def image_faults(plan: Plan, reference: str, hosts: Mapping[str, Host]) -> list[str]:
    """Where the hosts hold different images under one reference, or what they hold is no LMDeploy."""
    held = {node.name: hosts[node.name].image_id for node in plan.nodes}
    if len(set(held.values()) - {None}) > 1:
        return [
            f"The nodes hold different images under {reference}, and Ray and LMDeploy need one and the same everywhere:\n"
            + "".join(f"  {name}: {image or 'none'}\n" for name, image in held.items())
            + "Remedy: run with -e image_pull=always, or set plan_image to a digest."
        ]
    answer = next((hosts[name].image_answer for name in held if hosts[name].image_answer), None)
    if answer is not None and not answer.get("lmdeploy"):
        errors = "; ".join(answer.get("errors") or []) or "it said nothing"
        return [f"{reference} could not say which LMDeploy it holds: {errors}. Set plan_image to an image of LMDeploy."]
    return []


def lacks(service: Service, host: Host, *, image_brought: bool = False) -> list[str]:
    """What a container's start needs and was not seen on its host, but for an image that is brought before."""
    missing = []
    if host.unreachable or host.failed or "error" in (host.answer.get("docker") or {}):
        missing.append("a Docker engine that answers")
    if not image_brought and not host.has_image(service.image):
        missing.append(f"the image {service.image}")
    if service.gpus and host.model.get("faults", True):
        missing.append("the whole model")
    missing.extend(f"the file {secret.source}" for secret in service.secrets if not host.mark(secret.source))
    return missing
