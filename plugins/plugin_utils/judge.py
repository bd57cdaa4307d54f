# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the hosts: every fault of every host at once, before anything is started.

Pure: a plan and what was seen in, sentences out. Each names host, cause and remedy.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from . import connection
from .docker_errors import GPU_RUNTIME
from .gpus import device_faults, device_warnings, rdma_warnings
from .look import engine_of, hub_of
from .network import address_faults, address_warnings, binding_faults, route_fault
from .observed import DEPLOYMENT, IDENTITY, Container, Host
from .planning.types import Node, Plan, Service

PLAIN = re.compile(r"[\w./@+-]+")  # text that YAML takes without quotes
MOST_REMOVED = 8  # damaged files that are removed one by one
OLDEST_API = (1, 40)  # Docker 19.03: device requests, for --gpus
# Docker 20.10 keeps a copy of logs that a driver sends away. With the driver none it keeps nothing.
FIRST_CACHE_API = (1, 41)
READABLE = ("json-file", "local", "journald")


def host_faults(plan: Plan, hosts: Mapping[str, Host]) -> list[str]:
    """Every fault of every host, but for what the image would show."""
    found = [fault for node in plan.nodes for fault in _of_host(plan, node, hosts)]
    return [*found, *model_faults(plan, [hosts[node.name] for node in plan.nodes if node.name in hosts])]


def _of_host(plan: Plan, node: Node, hosts: Mapping[str, Host]) -> Iterator[str]:
    where = f"{node.name} ({node.address})"
    host = hosts.get(node.name)
    if host is None:
        yield f"{where} was not looked at: a deployment is one unit of all its nodes, so run it without --limit."
    elif host.unreachable or host.failed:
        yield _no_answer(where, plan, node, hosts)
    else:
        for fault in (
            *_docker_faults(plan, node, host),
            *_gpu_faults(node, host),
            *_network_faults(plan, node, host),
        ):
            yield f"{where}: {fault}"
        for fault in (*foreign_faults(plan, host), *port_faults(plan, host), *mount_faults(plan, host)):
            yield f"{where}: {fault}"


def _no_answer(where: str, plan: Plan, node: Node, hosts: Mapping[str, Host]) -> str:
    """Why a host gave no answer, what it would be missed for, and what to do."""
    host = hosts[node.name]
    if host.failed:
        return f"{where} gave no answer: {connection.failed(host.failed).told()}"
    trouble = connection.unreachable(host.unreachable)
    if trouble.kind in connection.REACHED:
        return f"{where} gave no answer: {trouble.told()}"
    remedy = trouble.remedy or "Bring the host up, or take it out of the inventory group."
    if trouble.kind in connection.GONE:
        remedy = f"{remedy} A host that is gone for good is to be taken out of the inventory group."
    return f"{where} cannot be reached: {trouble.said.rstrip('.')}. {_without(plan, node, hosts)} {remedy}"


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


def _docker_faults(plan: Plan, node: Node, host: Host) -> Iterator[str]:
    docker = host.answer.get("docker") or {}
    if "error" in docker:
        yield docker["error"]  # with its remedy, which is another for each kind
    elif "api" in docker and _api(host) < OLDEST_API:
        yield f"Docker is too old (API {docker['api']}): install 19.03 or newer."
    else:
        yield from settings_faults(plan, node, host)


def _api(host: Host) -> tuple[int, ...]:
    return tuple(map(int, host.answer["docker"]["api"].split(".")))


def settings_faults(plan: Plan, node: Node, host: Host) -> Iterator[str]:
    """Settings of Docker with which containers of this kind cannot run, or cannot be watched."""
    seen = host.answer.get("docker_settings") or {}
    if not seen:
        return
    if seen["userns"]:
        yield (
            "Docker maps users (userns-remap), and refuses containers with the host's network then: take userns-remap out of "
            "/etc/docker/daemon.json and restart Docker (systemctl restart docker; containers and images of before are seen again)."
        )
    if seen["rootless"]:
        yield (
            "Docker runs rootless, and its containers get neither the host's network nor its GPUs: install Docker Engine for the "
            "whole host, and unset DOCKER_HOST for Ansible's user."
        )
    driver, cached = seen["log_driver"], _api(host) >= FIRST_CACHE_API
    if driver == "none" or (driver not in READABLE and not (cached and seen["log_cache"])):
        off = " and cache-disabled" if cached and driver != "none" else ""
        yield (
            f"Docker logs with the driver {driver}{off}, and cannot read such logs back, so a start could be neither followed nor "
            'explained: set "log-driver": "json-file" (or local, or journald) in /etc/docker/daemon.json'
            f"{', or take cache-disabled out of log-opts,' if off else ''} and restart Docker (systemctl restart docker)."
        )
    if seen["gpus"] is False and any(service.gpus for service in plan.services_on(node.name)):
        yield (
            "Docker has no GPU runtime, and would refuse the containers "
            '(could not select device driver "" with capabilities: [[gpu]]): '
            f"{GPU_RUNTIME}."
        )


def _gpu_faults(node: Node, host: Host) -> Iterator[str]:
    gpus = host.network.get("gpus")
    if gpus:  # no nvidia-smi: the sandbox, or a host whose driver is in a container
        yield from device_faults(gpus, node.gpus)


def _network_faults(plan: Plan, node: Node, host: Host) -> Iterator[str]:
    if not host.network:
        return
    if not host.network.get("interfaces"):
        yield host.network.get("error") or "ip -json -4 address shows no interface with an IPv4 address."
        return
    yield from address_faults(node, host.network, alone=_alone(plan, node))
    native = plan.engine(node.engine).launcher == "native"
    fault = route_fault(node, host.network["source"]) if native and "source" in host.network else None
    if fault:
        yield fault


def lacks_addresses(plan: Plan, hosts: Mapping[str, Host]) -> bool:
    """Whether a host has not the address or the interface that is planned, so that the plan cannot be bound to it."""
    seen = ((node, hosts[node.name].network.get("interfaces")) for node in plan.nodes if node.name in hosts)
    return any(binding_faults(node, interfaces) for node, interfaces in seen if interfaces)


def _alone(plan: Plan, node: Node) -> bool:
    return len(plan.engine(node.engine).nodes) == 1


def host_warnings(plan: Plan, hosts: Mapping[str, Host]) -> list[str]:
    """What should be known before something is started, and does not stop it."""
    found = []
    for node in plan.nodes:
        host = hosts.get(node.name)
        if host is None or host.unreachable or host.failed:
            continue
        idle = not any(container.running for container in host.own(plan.name).values())
        engine = plan.engine(node.engine)
        several = engine.ep > 1 and len(engine.nodes) > 1
        told = [
            *device_warnings(host.network.get("gpus") or {}, idle),
            *(rdma_warnings(host.network.get("rdma")) if several else ()),
            *address_warnings(node, host.network, alone=_alone(plan, node)),
        ]
        found += [f"{node.name} ({node.address}): {each}" for each in told]
    kinds: dict[str, list[str]] = {}
    for name, host in hosts.items():
        for kind in dict.fromkeys((host.network.get("gpus") or {}).get("names") or ()):
            kinds.setdefault(kind, []).append(name)
    if len({tuple(names) for names in kinds.values()}) > 1:
        each = "; ".join(f"{kind} on {', '.join(names)}" for kind, names in kinds.items())
        found.append(f"The hosts have GPUs of different kinds ({each}); an engine is as fast as its slowest.")
    return found


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
    # Of what the model is looked for in, the absence is told already.
    told = {_source_of_model(plan, plan.node(host.name))}
    for path in (path for path, exists in there.items() if not exists and path not in told):
        variable = "plan_hf_home" if path == home else "plan_extra_mounts"
        yield f"{path} does not exist on this host, and containers mount it: make it, or correct {variable}."


def _source_of_model(plan: Plan, node: Node) -> str | None:
    """The source of the mount by which containers see the directory that the model is looked for in."""
    inside = posixpath.normpath(plan.model if plan.model.startswith("/") else hub_of(plan, node))
    over = [each for each in engine_of(plan, node).mounts if f"{inside}/".startswith(f"{each.target.rstrip('/')}/")]
    return max(over, key=lambda mount: len(mount.target.rstrip("/"))).source if over else None


def port_faults(plan: Plan, host: Host) -> Iterator[str]:
    """Planned ports that something other than this deployment's own containers listens on."""
    own = [container for container in host.own(plan.name).values() if container.running]
    held = _ports_of(plan, host, own)
    if held is None:
        return  # containers of an earlier plan hold ports that are no longer known, and go before theirs are needed
    taken = set(host.network.get("listening", ())) - held
    listeners = host.network.get("listeners") or {}
    foreign = {name: each for name, each in host.containers.items() if each.labels.get(DEPLOYMENT) != plan.name}
    # Theirs are freed, or told, with the containers themselves.
    known = {each.id for each in (*own, *foreign.values())}
    for service in plan.services_on(host.name):
        found: dict[tuple[str, int], list[int]] = {}
        for port in service.listens if service.name not in foreign else ():
            holder = listeners.get(str(port)) or {}
            if port in taken and not (holder.get("container") and holder["container"] in known):
                found.setdefault((holder.get("command", ""), holder.get("pid", 0)), []).append(port)
        for (command, pid), ports in found.items():
            one = len(ports) == 1
            numbers = ", ".join(map(str, ports))
            by = f" by {command} (pid {pid})" if command else ""
            filters = " or ".join(f"sport = :{port}" for port in ports)
            yield (
                f"port{'' if one else 's'} {numbers} of {service.name} {'is' if one else 'are'} in use on this host{by}: stop what "
                f"listens there (ss -ltnp '{filters}'), or choose {'another' if one else 'others'} with plan_ports."
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
        lines += _together((host, fault) for host in faulty for fault in host.model["faults"])
        return ["\n".join([*lines, *_model_remedies(plan, asked, faulty)])]
    groups: dict[str, list[Host]] = {}
    for host in asked:
        groups.setdefault(str(host.model["digest"]), []).append(host)
    if len(groups) < 2:
        return _path_faults(plan, asked)
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


def _path_faults(plan: Plan, asked: Sequence[Host]) -> list[str]:
    """Where a TP engine's workers would look for the model in vain: its head hands them its own path."""
    faults = []
    for engine in plan.engines:
        places = {host.name: host.model.get("reads") for host in asked if host.name in engine.nodes}
        head = places.get(engine.head)
        others = {name: place for name, place in places.items() if head and place and place != head}
        if engine.topology == "tp" and others:
            told = ", ".join(f"{place} on {name}" for name, place in others.items())
            faults.append(
                f"{plan.model} is at {head} in the containers of {engine.head}, and at {told}, where links are followed. Ray's "
                f"workers get the path of {engine.head}: make the links in plan_hf_home the same on all hosts."
            )
    return faults


def _together(said: Iterable[tuple[Host, str]]) -> list[str]:
    """Lines, one for what holds on several hosts, with their names before it."""
    names: dict[str, list[str]] = {}
    for host, line in said:
        names.setdefault(line, []).append(host.name)
    return [f"  {', '.join(found)}: {line}" for line, found in names.items()]


def _model_remedies(plan: Plan, asked: Sequence[Host], faulty: Sequence[Host]) -> Iterator[str]:
    """What to do, for each host the cheapest: mount, set, and only what is on the host nowhere is fetched."""
    mounts = {
        f"{{source: {_yaml(each['source'])}, target: {_yaml(each['target'])}}}"
        for host in faulty
        for each in host.model.get("mounts") or ()
    }
    if mounts:
        yield "Have the containers see what the links lead to: add to plan_extra_mounts"
        yield from (f"  - {each}" for each in sorted(mounts))
    commit = _common_commit(asked, faulty)
    if commit:
        yield f"Each of these hosts has a commit of it that is whole: set plan_model_revision: {commit}, and run again."
        return
    placed = [host for host in faulty if host.model.get("settings")]
    if placed:
        settings = _together((host, ", ".join(host.model["settings"][0].splitlines())) for host in placed)
        beside = " (beside the entries of plan_extra_mounts that are there)" if "_extra_" in "".join(settings) else ""
        yield f"Do not fetch it again: it is on these hosts already. Set this{beside}, and run again:"
        yield from settings
    left = [host for host in faulty if host not in placed and not _only_mounts(host) and not host.model.get("unread")]
    if not left:
        return
    if plan.model.startswith("/"):
        yield "Copy the missing files there on each of these hosts, and run again."
        return
    whole = len(faulty) < len(asked)
    how = "-e model_strategy=fanout, from a host that has it" if whole else "-e model_source=hub"
    yield f"Have it brought by playbooks/model.yml {how}. Or fetch it by hand; files that are whole are not fetched twice:"
    for host in left:
        damaged = host.model.get("damaged") or []
        # huggingface_hub takes a file for whole that bears the right name.
        few = 0 < len(damaged) <= MOST_REMOVED
        remove = f"rm {' '.join(map(shlex.quote, damaged))} && " if few else ""
        anew = " --force-download" if damaged and not few else ""
        yield (
            f"  {host.name}: {remove}{_cache_of(plan, host)} hf download {shlex.quote(plan.model)} "
            f"--revision {shlex.quote(plan.model_revision)}{anew}"
        )


def _yaml(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _only_mounts(host: Host) -> bool:
    """Whether the host lacks nothing but mounts, each of which is one fault."""
    return len(host.model["faults"]) == len(host.model.get("mounts") or ())


def _cache_of(plan: Plan, host: Host) -> str:
    """The variable that has a download go where the engine looks."""
    home, hub = plan.node(host.name).hf_home, host.model.get("hub")
    if hub and posixpath.basename(hub) != "hub":
        return f"HF_HUB_CACHE={shlex.quote(hub)}"
    return f"HF_HOME={shlex.quote(home)}"


def _common_commit(asked: Sequence[Host], faulty: Sequence[Host]) -> str | None:
    """A commit that is whole where the one that was asked for is not, and there on all other hosts."""
    lacking = [host for host in faulty if not _only_mounts(host)]
    held = [host.model.get("snapshots") or {} for host in asked]
    whole = [
        commit for host in lacking[:1] for commit, is_whole in (host.model.get("snapshots") or {}).items() if is_whole
    ]
    return next(
        (
            commit
            for commit in whole
            if all(commit in each for each in held)
            and all((host.model.get("snapshots") or {}).get(commit) for host in lacking)
        ),
        None,
    )


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
