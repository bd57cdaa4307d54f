# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the ``plan_*`` variables of every node to checked inputs, or to every fault at once."""

from __future__ import annotations

import dataclasses
import ipaddress
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..releases import did_you_mean
from ..rules.judging import waiver_faults
from .environment import PROXY_VARIABLE, environment_of
from .options import read_options
from .types import Faults, Mount, Node, PlanError, Ports
from .values import WrongValue, read_value, shown, text_keys

# The variables that may differ from node to node; all others describe the deployment and must agree.
NODE_VARIABLES = frozenset(
    {
        *("plan_cluster_address", "plan_interface", "plan_gpus", "plan_hf_home", "plan_state_dir", "plan_environment"),
        "plan_waive",
    }
)
# What a container name, a directory and a label can all hold.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PROXY_SECONDS = ("LMDEPLOY_CONTROLLER_HEART_BEAT_EXPIRATION", "AIOHTTP_TIMEOUT")
HIGHEST_PORT = 65535
MOST_GPUS = 64  # of one host: more is a slip of the keyboard
DP_PORTS = frozenset({"api", "proxy", "torch", "dp_master"})
# A DP rank's Ray is its own, on ports that it finds by itself.
PORTS_OF = {"dpep": DP_PORTS, "tp": frozenset(Ports.__dataclass_fields__) - {"dp_master"}}
PLAYBOOKS = {"tp": "deploy_tp16.yml", "dpep": "deploy_dpep.yml"}
# Variables without which nobody can say how large the engines are, or what is right for them.
SIZES = frozenset({"plan_topology", "plan_replicas", "plan_tp", "plan_dp", "plan_ep", "plan_gpus", "plan_launcher"})
UNKNOWN = (
    "lmfleet/unknown"  # for a model or an image that could not be read: nothing is known of it, so nothing is wrong
)
OPTIONS = ("plan_api_server_options", "plan_proxy_options")
# What may stand in these is one line that can be seen: they end up in commands, names and paths.
LINES = (
    *("plan_name", "plan_model", "plan_model_revision", "plan_served_model_name", "plan_image", "plan_head"),
    *("plan_cluster_address", "plan_interface", "plan_hf_home", "plan_state_dir"),
)
# These are words of LMDeploy's command.
WORDS = ("plan_model", "plan_model_revision", "plan_served_model_name")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Variables that have been checked, with nothing computed from them yet but the head and the order of nodes.

    ``waivers`` are by node and rule the reason why its fault does not count.
    """

    name: str
    topology: str
    model: str
    model_revision: str
    served_model_name: str
    image: str
    tp: int
    dp: int
    ep: int
    launcher: str
    proxy: bool
    routing_strategy: str
    nodes: list[Node]
    environments: dict[str, dict[str, str]]
    proxy_environment: dict[str, str]
    ports: Ports
    api_server_options: dict[str, Any]
    proxy_options: dict[str, Any]
    privileged: bool
    extra_mounts: list[Mount]
    waivers: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)


def read_inputs(
    spec: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, Mapping[str, Any]],
    faults: Faults,
    group: str = "the group",
    groups: Mapping[str, Sequence[str]] | None = None,
    topology: str | None = None,
    unread: Mapping[str, Collection[str]] | None = None,
) -> Inputs:
    """Check the variables of every node and bring them into one shape; what is wrong goes to ``faults``.

    ``spec`` is the argument spec of the role ``plan``, ``variables`` maps each node's name, in inventory order, to its
    ``plan_*`` variables, ``groups`` are the inventory's, and ``topology`` is the one that the playbook deploys. ``unread``
    names the variables of each node that stand in the inventory and could not be read, which is a fault already. A value that
    is no use is replaced by one that nothing is wrong with, so that later checks find only real faults.
    Raises ``PlanError`` where there is no node at all.
    """
    if not variables:
        raise PlanError([f"{group} has no hosts: put the GPU hosts under it in the inventory."])
    values: dict[str, dict[str, Any]] = {}
    lost: dict[str, set[str]] = {}
    for name, given in variables.items():
        values[name], wrong = _validated(spec, name, given, faults)
        lost[name] = {*wrong, *(unread or {}).get(name, ())}
        if "plan_cluster_address" in lost[name]:  # one that nobody has
            values[name]["plan_cluster_address"] = str(ipaddress.IPv4Address("240.0.0.1") + len(lost))
    missing: set[str] = set().union(*lost.values())
    faults.extend(_disagreements(values, missing))
    deployment = _without({**next(iter(values.values()))}, missing, topology)
    if missing & SIZES:
        for node in values.values():
            node["plan_gpus"] = spec["plan_gpus"]["default"]
        _without_sizes(deployment, len(values) * spec["plan_gpus"]["default"])
    faults.extend(_deployment_faults(deployment, list(values)))
    options = {name: read_options(name, deployment[name], deployment["plan_image"], faults) for name in OPTIONS}
    if topology and topology != deployment["plan_topology"]:
        faults.add(
            f"plan_topology is {deployment['plan_topology']} for {group}, but this playbook deploys {topology}: "
            f"set plan_topology: {topology} in the group's variables, or run {PLAYBOOKS[deployment['plan_topology']]}."
        )
    owners: dict[str, str] = {}
    for name, node in values.items():
        if not name.isprintable() or "/" in name:
            faults.add(
                f"the host {name!r} cannot be a node: give it a name in the inventory that can be seen, without '/'."
            )
        faults.extend(_node_faults(name, node, owners), name)
    environments = {}
    mounted = [mount["target"] for mount in deployment["plan_extra_mounts"]]
    for name, node in values.items():
        environments[name], wrong_ones = environment_of(node["plan_environment"], mounted=mounted)
        faults.extend([*wrong_ones, *waiver_faults(node["plan_waive"])], name)
    proxy_environment, wrong_ones = environment_of(deployment[PROXY_VARIABLE], PROXY_VARIABLE)
    faults.extend([*wrong_ones, *_proxy_number_faults(proxy_environment)])
    ports = _ports(deployment["plan_ports"] or {}, deployment["plan_topology"], faults)

    head = deployment["plan_head"] if deployment["plan_head"] in values else next(iter(values))
    # By address, so that a deployment does not depend on the order of an inventory, which sorts, merges and renames.
    others = sorted((name for name in values if name != head), key=lambda name: _by_address(values[name]))
    order = [head, *others]
    engines = _engines(deployment, order, groups or {}, faults)
    return Inputs(
        name=deployment["plan_name"],
        topology=deployment["plan_topology"],
        # Which sizes go with a model is no matter where nobody knows the sizes.
        model=UNKNOWN if missing & SIZES else deployment["plan_model"],
        model_revision=deployment["plan_model_revision"],
        served_model_name=deployment["plan_served_model_name"] or deployment["plan_model"],
        image=deployment["plan_image"],
        tp=max(deployment["plan_tp"], 0),
        dp=max(deployment["plan_dp"], 0),
        ep=max(deployment["plan_ep"], 0),
        launcher=deployment["plan_launcher"],
        proxy=deployment["plan_proxy"] or deployment["plan_topology"] == "dpep" or len(engines) > 1,
        routing_strategy=deployment["plan_routing_strategy"],
        nodes=[
            Node(
                name=name,
                engine=engine,
                rank=rank,
                address=values[name]["plan_cluster_address"],
                gpus=values[name]["plan_gpus"],
                interface=values[name]["plan_interface"] or None,
                hf_home=posixpath.normpath(values[name]["plan_hf_home"]),
                state_dir=posixpath.normpath(values[name]["plan_state_dir"]),
            )
            for engine, members in engines.items()
            for rank, name in enumerate(members)
        ],
        environments={name: environments[name] for name in order},
        proxy_environment=proxy_environment,
        ports=ports,
        api_server_options=options["plan_api_server_options"],
        proxy_options=options["plan_proxy_options"],
        privileged=deployment["plan_privileged"],
        extra_mounts=[Mount(**mount) for mount in deployment["plan_extra_mounts"]],
        waivers={name: {rule: str(why) for rule, why in values[name]["plan_waive"].items()} for name in order},
    )


def _validated(
    spec: Mapping[str, Mapping[str, Any]], node: str, given: Mapping[str, Any], faults: Faults
) -> tuple[dict[str, Any], set[str]]:
    """The variables of one node with types and defaults applied, and the names of those that are of no use."""
    for key in given:
        if key not in spec:
            name = key if key.isprintable() else shown(key)
            faults.add(f"{name} is not a variable of the plan{did_you_mean(key, sorted(spec))}: correct or remove it.")
    validated, wrong = {}, set()
    for key, rule in spec.items():
        validated[key] = rule.get("default")
        if key not in given:
            continue
        try:
            value = read_value(rule, given[key], key)
            if rule["type"] == "dict" and "options" not in rule:
                value, strange = text_keys(value, key)
                faults.extend(strange, node)
            _check_use(key, value)
            validated[key] = value
        except WrongValue as error:
            faults.extend(error.args, node)
            wrong.add(key)
    return validated, wrong


def _check_use(key: str, value: Any) -> None:
    """Raise ``WrongValue`` for what no variable of this name may be, whatever the others are."""
    if key in LINES:
        _check_line(key, value)
    if key in WORDS and value.startswith("-"):
        raise WrongValue(f"{key} is {shown(value)}: LMDeploy would take it for an option, for it starts with '-'.")
    if key == "plan_gpus" and value > MOST_GPUS:
        raise WrongValue(f"plan_gpus is {value}: give the number of GPUs of this host, at most {MOST_GPUS}.")
    if key == "plan_extra_mounts":
        for mount in value:
            for side in ("source", "target"):
                _check_line(f"{key}: {side}", mount[side])


def _check_line(what: str, text: str) -> None:
    if not text.isprintable():
        raise WrongValue(
            f"{what} is {shown(text)}, which has a line break or another character in it that nobody can see: write it anew."
        )


def _without(deployment: dict[str, Any], missing: set[str], topology: str | None) -> dict[str, Any]:
    """The deployment's variables, with what is neutral for those that could not be read."""
    neutral = {
        "plan_model": UNKNOWN,
        "plan_image": f"{UNKNOWN}:unknown",
        "plan_topology": topology or deployment["plan_topology"],
    }
    deployment.update({key: value for key, value in neutral.items() if key in missing})
    of_the_proxy = deployment["plan_proxy_options"] or deployment["plan_proxy_environment"]
    if of_the_proxy and missing & {"plan_proxy", "plan_topology", "plan_replicas"}:
        deployment["plan_proxy"] = True
    return deployment


def _without_sizes(deployment: dict[str, Any], gpus: int) -> None:
    """Sizes that nothing is wrong with, for nobody knows how large the engines are meant to be."""
    dpep = deployment["plan_topology"] == "dpep"
    deployment.update(plan_tp=gpus if dpep else 1, plan_dp=gpus if dpep else 0, plan_ep=1 if dpep else 0)
    deployment["plan_launcher"] = "torchrun"


def _disagreements(values: Mapping[str, Mapping[str, Any]], missing: Collection[str]) -> list[str]:
    first, *others = values
    return [
        f"{key} is {shown(values[first][key])} on {first} and {shown(values[other][key])} on {other}: "
        f"set it once, for the whole group."
        for key in sorted(values[first])
        if key not in NODE_VARIABLES and key not in missing
        for other in others
        if values[other][key] != values[first][key]
    ]


def _deployment_faults(deployment: Mapping[str, Any], names: list[str]) -> list[str]:
    faults = []
    if not NAME.fullmatch(deployment["plan_name"]):
        faults.append(
            f"plan_name {deployment['plan_name']!r} is not usable in a container name: "
            "take lower-case letters, digits and '-', starting with a letter or digit, at most 41."
        )
    head = deployment["plan_head"]
    if head and head not in names:
        faults.append(f"plan_head {head!r} is not a node{did_you_mean(head, names)}: the nodes are {', '.join(names)}.")
    model = deployment["plan_model"]
    if model.startswith("/"):
        targets = [mount["target"] for mount in deployment["plan_extra_mounts"]]
        if not any(_is_under(model, target) for target in [*targets, "/root/.cache/huggingface"]):
            inside = _in_container(model, deployment["plan_extra_mounts"])
            faults.append(
                f"plan_model {model!r} is a path that no container would see: "
                + (
                    f"its mount has it at {inside} there, so set plan_model: {inside}."
                    if inside
                    else "mount its directory at the same path with plan_extra_mounts, or give a repository id of the "
                    "Hugging Face cache."
                )
            )
    elif not REPO_ID.fullmatch(model):
        faults.append(
            f"plan_model {model!r} is neither a Hugging Face repository id (owner/name) nor an absolute path."
        )
    faults.extend(
        f"{key} is {deployment[key]}: give 0 for {zero}, or a number."
        for key, zero in {
            "plan_tp": "all GPUs of an engine (1 in DP+EP)",
            "plan_dp": "all GPUs of the plan",
            "plan_ep": "plan_dp",
        }.items()
        if deployment[key] < 0
    )
    for mount in deployment["plan_extra_mounts"]:
        faults.extend(
            f"plan_extra_mounts: {side} {mount[side]!r} is not an absolute path: "
            "start it with '/', Docker takes anything else for the name of a volume."
            for side in ("source", "target")
            if not mount[side].startswith("/")
        )
        faults.extend(
            f"plan_extra_mounts: {side} {mount[side]!r} has a ':' in it, which ends the path in Docker's notation of mounts."
            for side in ("source", "target")
            if ":" in mount[side]
        )
    return faults


def _node_faults(name: str, node: Mapping[str, Any], owners: dict[str, str]) -> list[str]:
    faults = _address_faults(name, node["plan_cluster_address"], owners)
    if node["plan_gpus"] < 1:
        faults.append(f"plan_gpus is {node['plan_gpus']}: give the number of GPUs that a node contributes, 1 or more.")
    for key in ("plan_hf_home", "plan_state_dir"):
        if not node[key].startswith("/"):
            faults.append(f"{key} {node[key]!r} is not an absolute path: it has to start with '/'.")
        elif ":" in node[key]:
            faults.append(f"{key} {node[key]!r} has a ':' in it, which ends the path in Docker's notation of mounts.")
    return faults


def _proxy_number_faults(given: Mapping[str, Any]) -> list[str]:
    """The proxy ends at its start where one of these is no whole number, and checks without a pause where it is 0."""
    return [
        f"plan_proxy_environment has {key} {given[key]!r}: give the seconds as a whole number of 1 or more."
        for key in PROXY_SECONDS
        if key in given and not re.fullmatch(r"0*[1-9][0-9]*", str(given[key]))
    ]


def _address_faults(name: str, address: str, owners: dict[str, str]) -> list[str]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        wrong = f"plan_cluster_address {address!r} is not an IP address, and Ray knows nodes by theirs"
        return [
            f"{wrong}: set it to the address on which the nodes reach each other (it may differ from ansible_host)."
        ]
    if parsed.version != 4:
        return [f"plan_cluster_address {address} is IPv6, which this collection does not deploy on yet."]
    if parsed.is_loopback or parsed.is_unspecified:
        return [f"plan_cluster_address {address} cannot be reached from other nodes: give the cluster address."]
    if address in owners:
        return [f"plan_cluster_address {address} is the address of {owners[address]} as well: each needs its own."]
    owners[address] = name
    return []


def _by_address(node: Mapping[str, Any]) -> tuple[int, str]:
    address = node["plan_cluster_address"]
    try:
        return int(ipaddress.ip_address(address)), address
    except ValueError:  # a fault of its own
        return 0, address


def _engines(
    deployment: Mapping[str, Any], order: list[str], groups: Mapping[str, Sequence[str]], faults: Faults
) -> dict[str, list[str]]:
    """Engine -> its nodes, head first: one over all of them, or one for each group of ``plan_replicas``."""
    replicas = deployment["plan_replicas"]
    if not replicas:
        return {deployment["plan_name"]: order}
    if deployment["plan_topology"] != "tp":
        faults.add("plan_replicas is for TP engines; DP+EP is one engine over all nodes: leave it empty.")
    engines: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    for replica in replicas:
        if replica not in groups:
            faults.add(
                f"plan_replicas names {replica!r}, which is no group of the inventory{did_you_mean(replica, groups)}."
            )
            continue
        members = [node for node in order if node in groups[replica]]
        name = f"{deployment['plan_name']}-{replica.replace('_', '-')}"
        if name in engines:
            faults.add(f"plan_replicas: {replica} and another group are both called {name}: rename one of them.")
            continue
        if not members:
            faults.add(f"plan_replicas: the group {replica} has no node of the plan.")
            continue
        faults.extend(
            f"{node} is in two groups of plan_replicas, {owners[node]} and {replica}: a node has one engine."
            for node in members
            if node in owners
        )
        owners.update(dict.fromkeys(members, replica))
        engines[name] = members
    left = [node for node in order if node not in owners]
    if left:
        faults.add(f"{', '.join(left)}: in no group of plan_replicas: put every node of the plan into one.")
    # The head's engine first: the plan's head is the first of all.
    return dict(sorted(engines.items(), key=lambda engine: order[0] not in engine[1])) or {
        deployment["plan_name"]: order
    }


def _ports(given: Mapping[str, Any], topology: str, faults: Faults) -> Ports:
    ports = dataclasses.replace(Ports(), **{key: value for key, value in given.items() if value is not None})
    owners: dict[int, str] = {}
    for key, port in dataclasses.asdict(ports).items():
        if key not in PORTS_OF[topology]:
            continue
        if not 1 <= port <= HIGHEST_PORT:
            faults.add(f"plan_ports.{key} is {port}: a port lies in 1..{HIGHEST_PORT}.")
        elif port in owners:
            faults.add(f"plan_ports.{key} and plan_ports.{owners[port]} are both {port}: each needs its own.")
        owners.setdefault(port, key)
    if topology != "tp":
        return ports
    first, last = ports.ray_worker_first, ports.ray_worker_last
    if first > last:
        faults.add(f"plan_ports.ray_worker_first ({first}) is above plan_ports.ray_worker_last ({last}).")
    faults.extend(
        f"plan_ports.{key} ({port}) lies in Ray's worker ports {first}..{last}: move it or the range."
        for port, key in owners.items()
        if first < port < last
    )
    return ports


def _in_container(path: str, mounts: Sequence[Mapping[str, Any]]) -> str | None:
    """Where containers have a path of the hosts; None where no mount brings it there."""
    over = [mount for mount in mounts if path.startswith("/") and _is_under(path, mount["source"])]
    if not over:
        return None
    mount = max(over, key=lambda each: len(posixpath.normpath(each["source"])))
    return posixpath.normpath(posixpath.join(mount["target"], posixpath.relpath(path, mount["source"])))


def _is_under(path: str, directory: str) -> bool:
    return directory.startswith("/") and posixpath.commonpath([path, directory]) == posixpath.normpath(directory)
