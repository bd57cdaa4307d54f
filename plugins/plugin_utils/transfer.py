# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host gets the model from where, out of a plan and what was seen of it on every host. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .observed import Host
from .planning.environment import LOGIN
from .planning.types import Node, Plan

PRESENT, HUB, MODELSCOPE = "present", "hub", "modelscope"
EACH, FANOUT = "each", "fanout"
GIVEN = "/lmfleet-model"  # where the model's directory, or the cache, is in the container


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a person asked for. ``limit`` is bytes/s that a host takes in; 0 does not limit."""

    source: str = PRESENT
    strategy: str = EACH
    endpoint: str = ""
    port: int = 8730
    limit: float = 0.0
    verify: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """What one host does: a program of ``programs``, its configuration but for the key, and the mount that it needs."""

    program: str
    config: dict[str, Any]
    mount: str
    directory: str  # to be there before the mount


@dataclasses.dataclass(frozen=True)
class Transfer:
    """``jobs`` by host, all at once; ``lines`` say what is done and why; ``faults`` stop it. Nothing of all: it is there."""

    jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
    lines: list[str] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)


def decide_transfer(plan: Plan, hosts: Mapping[str, Host], wanted: Wanted, *, verified: bool = False) -> Transfer:
    """The next step: a download, a fan-out, nothing, or why there is none. ``verified``: the files were read by this run."""
    faults = _faults(plan, hosts, wanted)
    if faults:
        return Transfer(faults=faults)
    names = [node.name for node in plan.nodes]
    whole = [name for name in names if not hosts[name].model.get("faults", True)]
    digests = {name: str(hosts[name].model.get("digest")) for name in whole}
    verify = wanted.verify and not verified
    alike = len(set(digests.values())) == 1
    if len(whole) == len(names) and alike and not verify:
        return Transfer()
    if wanted.strategy == EACH and wanted.source != HUB and verify and len(whole) == len(names) and alike:
        return _fanout(plan, wanted, names, [], verify=True)  # each has it, and nothing but what is damaged is fetched
    if wanted.strategy == EACH:
        return _each(plan, hosts, wanted, [n for n in names if n not in whole or verify or not alike])
    if not whole:
        if wanted.source != HUB:
            return Transfer(
                faults=[
                    f"No host has {plan.model} whole, so none can give it: set model_source: hub, or copy it to one of them.",
                    *_why(hosts, names),
                ]
            )
        return _each(plan, hosts, wanted, [_first(plan, hosts)])
    # One of those that have it says what it is; the head, if it has it.
    giver = plan.head if plan.head in whole else whole[0]
    holders = [giver, *(name for name in whole if name != giver and digests[name] == digests[giver])]
    lacking = [name for name in names if name not in holders]
    return _fanout(plan, wanted, holders, lacking, verify=verify)


def _faults(plan: Plan, hosts: Mapping[str, Host], wanted: Wanted) -> list[str]:
    faults = []
    if wanted.source == MODELSCOPE:
        faults.append(
            "model_source: modelscope is not supported: its cache has another layout. Run modelscope download --model "
            f"{plan.model} --local_dir DIRECTORY on one host, set plan_model to that directory, mount it with "
            "plan_extra_mounts, and use model_strategy: fanout."
        )
    if wanted.source == HUB and plan.model.startswith("/"):
        faults.append(
            f"plan_model is the directory {plan.model}, which the hub does not have: set plan_model to ORG/NAME, or "
            "model_source: present."
        )
    for node in plan.nodes:
        host = hosts.get(node.name)
        if host is None:
            faults.append(f"{node.name} ({node.address}) was not looked at: run it without --limit.")
        elif host.unreachable or host.failed:
            faults.append(
                f"{node.name} ({node.address}) cannot be asked for the model: {host.unreachable or host.failed}."
            )
    return faults


def _why(hosts: Mapping[str, Host], names: Sequence[str]) -> list[str]:
    return [f"{name}: {fault}" for name in names for fault in hosts[name].model.get("faults") or ()]


def _first(plan: Plan, hosts: Mapping[str, Host]) -> str:
    """The host that downloads: the one that has most of it already, else the head."""
    return max(
        (node.name for node in plan.nodes),
        key=lambda name: (hosts[name].model.get("total_bytes") or 0, name == plan.head),
    )


def _each(plan: Plan, hosts: Mapping[str, Host], wanted: Wanted, names: Sequence[str]) -> Transfer:
    if wanted.source != HUB:
        found = (
            f"{plan.model} is not whole, or not the same, on every host, and model_source is present: set it to hub, or"
        )
        remedy = "model_strategy to fanout, to have it from a host that has it."
        return Transfer(faults=[f"{found} {remedy}", *_why(hosts, names)])
    if LOGIN.search(wanted.endpoint):
        readable = "model_hub_endpoint has a login in it, which this run would print"
        return Transfer(
            faults=[f"{readable}: take it out, and set model_hub_token, or model_hub_environment for a proxy."]
        )
    config = {
        "repo": plan.model,
        "revision": plan.model_revision,
        "cache_dir": f"{GIVEN}/hub",
        "endpoint": wanted.endpoint,
        "verify": wanted.verify,
    }
    jobs = {}
    for name in names:
        home = plan.node(name).hf_home
        jobs[name] = Job("download", config, f"{home}:{GIVEN}", home)
    where = wanted.endpoint or "the hub"
    return Transfer(jobs, [f"{name}: download {plan.model} at {plan.model_revision} from {where}" for name in names])


def _fanout(plan: Plan, wanted: Wanted, holders: list[str], lacking: list[str], *, verify: bool) -> Transfer:
    jobs, lines = {}, []
    order = [*holders, *lacking]
    for name in order:
        before = chain_before(holders, lacking, name)
        if name in holders and name != holders[0] and verify:
            before = [holders[0]]  # what a file has to be is told by one alone
        others = [each for each in order if each != name and each not in before]
        node = plan.node(name)
        root = directory_of(plan, node)
        config = {
            "root": GIVEN,
            "revision": "" if plan.model.startswith("/") else plan.model_revision,
            "host": node.address,
            "port": wanted.port,
            "before": [_url(plan.node(each), wanted.port) for each in before],
            "others": [_url(plan.node(each), wanted.port) for each in others],
            "limit": wanted.limit,
            "verify": verify,
        }
        if name in lacking or verify or any(chain_before(holders, lacking, each)[0] == name for each in lacking):
            jobs[name] = Job("fanout", config, f"{root}:{GIVEN}", root)
            if name in lacking:
                lines.append(f"{name}: take {plan.model} from {before[0]}")
            elif verify:
                lines.append(f"{name}: verify {plan.model}")
            else:
                lines.append(f"{name}: give {plan.model}")
    # Hosts that take no part are asked for nothing.
    urls = {_url(plan.node(name), wanted.port) for name in jobs}
    for job in jobs.values():
        job.config["others"] = [url for url in job.config["others"] if url in urls]
    return Transfer(jobs, lines)


def chain_before(holders: Sequence[str], lacking: Sequence[str], name: str) -> list[str]:
    """Whom a host takes from, the nearest first: as many chains side by side as hosts have the model."""
    if name in holders:
        return []
    place = lacking.index(name)
    nearest = [lacking[each] for each in range(place - len(holders), -1, -len(holders))]
    return [*nearest, holders[place % len(holders)]]


def directory_of(plan: Plan, node: Node) -> str:
    """The model's directory on a host: the one that the plan names, or the repository's in the cache."""
    if plan.model.startswith("/"):
        return plan.model
    return f"{node.hf_home}/hub/models--{plan.model.replace('/', '--')}"


def _url(node: Node, port: int) -> str:
    return f"http://{node.address}:{port}"


def progress_line(progress: Mapping[str, Any]) -> str:
    """How far a host is: ``copy 120.4 of 690.1 GB, 812 MB/s, 12 min left``."""
    if not progress["total"]:
        return "waits for the list of files"
    line = f"{progress['stage']} {progress['bytes'] / 1e9:.1f} of {progress['total'] / 1e9:.1f} GB"
    if progress["rate"]:
        left = progress["left_s"]
        line += f", {progress['rate'] / 1e6:.0f} MB/s, " + (
            f"{left} s left" if left < 120 else f"{left // 60} min left"
        )
    return line


def summary(result: Mapping[str, Any]) -> str:
    """What a host's part came to."""
    line = f"whole, {result['total'] / 1e9:.1f} GB, {result['needed'] / 1e9:.1f} GB of it fetched in {result['seconds']:.0f} s"
    if result.get("resumed"):
        line += f", {result['resumed'] / 1e9:.1f} GB were there from a transfer that was cut off"
    if result.get("twice"):
        line += f", {result['twice'] / 1e9:.1f} GB came twice"
    return line
