# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the ``plan_*`` variables of every node to checked inputs, or to every fault at once."""

from __future__ import annotations

import dataclasses
import ipaddress
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..releases import did_you_mean
from ..rules.judging import waiver_faults
from .environment import PROXY_VARIABLE, environment_of
from .gateway import SECRETS, GatewayInputs, read_gateway
from .model import KNOWN
from .options import read_options
from .types import (
    HF_CACHE,
    KERNEL_CACHES,
    PROGRAMS_TARGET,
    REPO_ID,
    STARTS_TARGET,
    Faults,
    Mount,
    Node,
    PlanError,
    Ports,
    some,
)
from .values import WrongValue, quoted, read_value, shown, text_keys

# The variables that may differ from node to node; all others describe the deployment and must agree.
NODE_VARIABLES = frozenset(
    {
        *("plan_cluster_address", "plan_interface", "plan_gpus", "plan_hf_home", "plan_state_dir", "plan_environment"),
        "plan_waive",
    }
)
# What a container name, a directory and a label can all hold.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
# What people copy with a model's name.
HUB = re.compile(r"^(?:https?://(?:[^/@]*@)?(?:huggingface\.co|hf\.co)/|hf://(?:models/)?)")
REVISION = re.compile(
    r"(?=.{1,200}$)(?!.*\.\.)[^\s/~^:?*\[\\](?:[^\s~^:?*\[\\]*[^\s/~^:?*\[\\])?"
)  # what Git forbids in a name
INTERFACE = re.compile(r"[^\s/:,=^*@]{1,15}")  # Linux's limit; an alias, a list, or what NCCL's notation is, is none
PROXY_SECONDS = ("LMDEPLOY_CONTROLLER_HEART_BEAT_EXPIRATION", "AIOHTTP_TIMEOUT")
HIGHEST_PORT = 65535
LONGEST_LINE = 4096  # characters; Linux takes no longer path
SHORTEST_NAME = 5  # of a model, that says which one is meant
MOST_GPUS = 64  # of one host: more is a slip of the keyboard
NO_NETWORK = ipaddress.ip_network("0.0.0.0/8")  # "this host"
DP_PORTS = frozenset({"api", "proxy", "torch", "dp_master"})
GATEWAY_PORTS = frozenset({"gateway", "gateway_metrics"})
# A DP rank's Ray is its own, on ports that it finds by itself.
PORTS_OF = {"dpep": DP_PORTS, "tp": frozenset(Ports.__dataclass_fields__) - {"dp_master"} - GATEWAY_PORTS}
PLAYBOOKS = {"tp": "deploy_tp16.yml", "dpep": "deploy_dpep.yml"}
# Variables without which nobody can say how large the engines are, or what is right for them.
SIZES = frozenset({"plan_topology", "plan_replicas", "plan_tp", "plan_dp", "plan_ep", "plan_gpus", "plan_launcher"})
UNKNOWN = (
    "lmfleet/unknown"  # for a model or an image that could not be read: nothing is known of it, so nothing is wrong
)
OPTIONS = ("plan_api_server_options", "plan_proxy_options")
# What may stand in these is one line that can be seen: they end up in commands, names and paths.
# Of these Docker refuses a second mount.
PLANNED_TARGETS = {
    HF_CACHE: "set plan_hf_home to the cache on the host",
    **dict.fromkeys(
        (*KERNEL_CACHES.values(), "/tmp/ray", "/run/lmfleet/secrets/ray_token", PROGRAMS_TARGET, STARTS_TARGET),  # noqa: S108
        "take another target; plan_state_dir is where the plan keeps that on the host",
    ),
}
# Where images have their programs and their kernel's files.
_HIDES = "bin boot dev etc lib lib64 opt proc sbin sys usr usr/bin usr/lib usr/lib64 usr/local usr/local/bin usr/local/lib usr/sbin"
HIDES = frozenset(f"/{name}" for name in ("", *_HIDES.split(" ")))
NOT_KEPT = ("/dev", "/proc", "/sys")  # nothing stays in these
LINES = (
    *("plan_name", "plan_model", "plan_model_revision", "plan_served_model_name", "plan_image", "plan_head"),
    "plan_gateway_image",
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
    restarts: int = 0
    gateway: GatewayInputs | None = None


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
                f"the host {name!r} cannot be a node: rename it in the inventory, with printable characters and without '/'."
            )
        faults.extend(_node_faults(name, node, owners, lost[name]), name)
    environments = {}
    mounted = [mount["target"] for mount in deployment["plan_extra_mounts"]]
    for name, node in values.items():
        environments[name], wrong_ones = environment_of(
            node["plan_environment"], mounted=mounted, alone=len(values) == 1
        )
        faults.extend([*wrong_ones, *waiver_faults(node["plan_waive"])], name)
    proxy_environment, wrong_ones = environment_of(deployment[PROXY_VARIABLE], PROXY_VARIABLE)
    faults.extend([*wrong_ones, *_proxy_number_faults(proxy_environment)])
    most_gpus = max(node["plan_gpus"] for node in values.values())
    gateway = read_gateway(deployment, missing, faults)
    used = PORTS_OF[deployment["plan_topology"]] | (GATEWAY_PORTS if gateway else frozenset())
    ports = _ports(deployment["plan_ports"] or {}, deployment["plan_topology"], used, most_gpus, faults)

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
        restarts=deployment["plan_restarts"],
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
        gateway=gateway,
        waivers={name: {rule: str(why) for rule, why in values[name]["plan_waive"].items()} for name in order},
    )


def _validated(
    spec: Mapping[str, Mapping[str, Any]], node: str, given: Mapping[str, Any], faults: Faults
) -> tuple[dict[str, Any], set[str]]:
    """The variables of one node with types and defaults applied, and the names of those that are of no use."""
    for key in given:
        if key not in spec:
            name = key if key.isprintable() else shown(key)
            near = did_you_mean(
                key.removeprefix("plan_"), [known.removeprefix("plan_") for known in sorted(spec)], "plan_"
            )
            faults.add(f"{name} is not a variable of the plan{near}: correct or remove it.")
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
            hidden = [
                f"{key} has to be a {rule['type']} (its value is secret, so it is not shown): see docs/variables.md."
            ]
            faults.extend(hidden if key in SECRETS else error.args, node)
            wrong.add(key)
    return validated, wrong


def _check_use(key: str, value: Any) -> None:
    """Raise ``WrongValue`` for what no variable of this name may be, whatever the others are."""
    if key in LINES:
        _check_line(key, value)
    if key in WORDS and value.startswith("-"):
        raise WrongValue(f"{key} is {shown(value)}: LMDeploy would take it for an option, for it starts with '-'.")
    if key == "plan_model_revision" and not REVISION.fullmatch(value):
        raise WrongValue(f"{key} is {shown(value)}: give a branch, a tag or a commit of the model, such as main.")
    if key == "plan_interface" and value and not INTERFACE.fullmatch(value):
        raise WrongValue(
            f"{key} is {shown(value)}: give the name of one interface, as ip -br address shows it, or leave it empty for the one "
            "that has plan_cluster_address."
        )
    if key == "plan_gpus" and value > MOST_GPUS:
        raise WrongValue(f"plan_gpus is {value}: give the number of GPUs of this host, at most {MOST_GPUS}.")
    if key == "plan_extra_mounts":
        for mount in value:
            for side in ("source", "target"):
                _check_line(f"{key}: {side}", mount[side])


def _check_line(what: str, text: str) -> None:
    if not text.isprintable():
        raise WrongValue(
            f"{what} is {shown(text)}, which has a line break or another character in it that nobody can see: write it again."
        )
    if len(text) > LONGEST_LINE:
        raise WrongValue(f"{what} has {len(text)} characters, and {LONGEST_LINE} is the most: shorten it.")
    if text != text.strip():
        raise WrongValue(f"{what} is {shown(text)}, with a blank at its beginning or end: take the blank out.")


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
    faults = []
    for key in sorted(next(iter(values.values()))):
        if key in NODE_VARIABLES or key in missing:
            continue
        found: list[tuple[Any, list[str]]] = []  # a value, and the nodes that have it
        for name, node in values.items():
            same = next((names for value, names in found if value == node[key]), None)
            if same is None:
                found.append((node[key], same := []))
            same.append(name)
        if len(found) > 1 and key in SECRETS:
            faults.append(
                f"{key} is not the same on {' and '.join(some(names) for __, names in found)}: set it once, for the group."
            )
        elif len(found) > 1:
            told = " and ".join(f"{shown(_given(value))} on {some(names)}" for value, names in found)
            faults.append(f"{key} is {told}: set it once, for the whole group.")
    return faults


def _given(value: Any) -> Any:
    """A value without the parts that nobody gave."""
    if isinstance(value, Mapping):
        return {key: each for key, each in value.items() if each is not None}
    return value


def _deployment_faults(deployment: Mapping[str, Any], names: list[str]) -> list[str]:
    faults = []
    if not NAME.fullmatch(deployment["plan_name"]):
        faults.append(
            f"plan_name {quoted(deployment['plan_name'])} is not usable in a container name: "
            "take lower-case letters, digits and '-', starting with a letter or digit, at most 41."
        )
    head = deployment["plan_head"]
    if head and head not in names:
        faults.append(
            f"plan_head {quoted(head)} is not a node{did_you_mean(head, names)}: the nodes are {', '.join(names)}."
        )
    model = deployment["plan_model"]
    if model.startswith("/"):
        targets = [mount["target"] for mount in deployment["plan_extra_mounts"]]
        if not any(is_under(model, target) for target in [*targets, HF_CACHE]):
            inside = in_container(model, deployment["plan_extra_mounts"])
            faults.append(
                f"plan_model {quoted(model)} is a path that no container would see: "
                + (
                    f"its mount has it at {inside} there, so set plan_model: {inside}."
                    if inside
                    else "mount its directory at the same path with plan_extra_mounts, or give a repository id of the "
                    "Hugging Face cache."
                )
            )
    elif not REPO_ID.fullmatch(model):
        faults.append(_no_model(model))
    faults.extend(
        f"{key} is {deployment[key]}: give 0 for {zero}, or a number."
        for key, zero in {
            "plan_tp": "all GPUs of an engine (1 in DP+EP)",
            "plan_dp": "all GPUs of the plan",
            "plan_ep": "plan_dp",
        }.items()
        if deployment[key] < 0
    )
    return [*faults, *_mount_faults(deployment["plan_extra_mounts"])]


def _no_model(given: str) -> str:
    """What is wrong with a model that is neither a repository nor a path, and what was meant, where that can be seen."""
    told = re.sub(r"//[^/@]*@", "//", given)  # an address may have a password in it
    wrong = f"plan_model {shown(told)} is neither a Hugging Face repository id (owner/name) nor an absolute path"
    words = HUB.sub("", given.strip("'\" /"))
    if words.startswith("models--"):
        words = words.removeprefix("models--").replace("--", "/", 1)
    repo, __, revision = re.sub(r"/(?:tree|blob|resolve)/", "@", words).replace(":", "@").partition("@")
    if REPO_ID.fullmatch(repo):
        also = f" and plan_model_revision: {revision}" if revision and REVISION.fullmatch(revision) else ""
        return f"{wrong}: set plan_model: {repo}{also}."
    owners = [name.partition("/")[0] for name in KNOWN] if len(given) >= SHORTEST_NAME and "/" not in given else []
    near = did_you_mean(given, KNOWN) or next((did_you_mean(f"{owner}/{given}", KNOWN) for owner in owners), "")
    return f"{wrong}{near}: correct it."


def _mount_faults(mounts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    taken: set[str] = set()
    for mount in mounts:
        for side in ("source", "target"):
            if not mount[side].startswith("/"):
                yield (
                    f"plan_extra_mounts: {side} {quoted(mount[side])} is not an absolute path: "
                    "start it with '/', Docker takes anything else for the name of a volume."
                )
            elif ":" in mount[side]:
                yield f"plan_extra_mounts: {side} {quoted(mount[side])} has a ':' in it, which ends the path for Docker."
        target = posixpath.normpath(f"/{mount['target'].lstrip('/')}")
        if not mount["target"].startswith("/"):
            continue
        if target in PLANNED_TARGETS:
            yield f"plan_extra_mounts: target {quoted(mount['target'])} is mounted by the plan itself: {PLANNED_TARGETS[target]}."
        elif target in HIDES or target.startswith(("/proc/", "/sys/")):
            yield (
                f"plan_extra_mounts: target {quoted(mount['target'])} would hide what the container itself needs "
                "there: take a directory of its own, such as /models."
            )
        elif target in taken:
            yield f"plan_extra_mounts: {target} is the target of two mounts, and Docker takes one: take one of them out."
        taken.add(target)


def _node_faults(name: str, node: Mapping[str, Any], owners: dict[str, str], lost: Collection[str]) -> list[str]:
    faults = [] if "plan_cluster_address" in lost else _address_faults(name, node["plan_cluster_address"], owners)
    if node["plan_gpus"] < 1:
        faults.append(f"plan_gpus is {node['plan_gpus']}: give the number of GPUs that a node contributes, 1 or more.")
    for key in ("plan_hf_home", "plan_state_dir"):
        if not node[key].startswith("/"):
            faults.append(f"{key} {quoted(node[key])} is not an absolute path: it has to start with '/'.")
        elif ":" in node[key]:
            faults.append(
                f"{key} {quoted(node[key])} has a ':' in it, which ends the path in Docker's notation of mounts."
            )
        elif (path := posixpath.normpath(f"/{node[key].lstrip('/')}")) == "/" or _is_in(path, NOT_KEPT):
            faults.append(
                f"{key} {quoted(node[key])} cannot be mounted into containers: give a directory of its own on a disk."
            )
    return faults


def _proxy_number_faults(given: Mapping[str, Any]) -> list[str]:
    """The proxy ends at its start where one of these is no whole number, and checks without a pause where it is 0."""
    return [
        f"plan_proxy_environment has {key} {shown(given[key])}: give the seconds as a whole number of 1 or more."
        for key in PROXY_SECONDS
        if key in given and not re.fullmatch(r"0*[1-9][0-9]{0,8}", str(given[key]))
    ]


def _address_faults(name: str, address: str, owners: dict[str, str]) -> list[str]:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        wrong = f"plan_cluster_address {quoted(address)} is not an IP address, and Ray knows nodes by theirs"
        return [
            f"{wrong}: set it to the address on which the nodes reach each other (it may differ from ansible_host)."
        ]
    if parsed.version != 4:
        return [f"plan_cluster_address {address} is IPv6, which this collection does not deploy on yet."]
    if parsed.is_loopback or parsed in NO_NETWORK:
        return [f"plan_cluster_address {address} cannot be reached from other nodes: give the cluster address."]
    if parsed.is_multicast or parsed.is_reserved:
        return [
            f"plan_cluster_address {address} is no host's address (multicast or reserved): give the cluster address."
        ]
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
    unknown = [replica for replica in replicas if replica not in groups]
    for replica in replicas:
        if replica not in groups:
            faults.add(
                f"plan_replicas names {quoted(replica)}, which is no group of the inventory{did_you_mean(replica, groups)}."
            )
            continue
        members = [node for node in order if node in groups[replica]]
        name = f"{deployment['plan_name']}-{replica.replace('_', '-')}"
        if name in engines:
            if replicas.count(replica) > 1:
                faults.add(f"plan_replicas names {quoted(replica)} twice: take one of them out.")
            else:
                faults.add(f"plan_replicas: {replica} and another group are both called {name}: rename one of them.")
                owners.update(dict.fromkeys(members, replica))
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
    if left and not unknown:  # else it is that group which they are in
        faults.add(f"{', '.join(left)}: in no group of plan_replicas: put every node of the plan into one.")
    # The head's engine first: the plan's head is the first of all.
    return dict(sorted(engines.items(), key=lambda engine: order[0] not in engine[1])) or {
        deployment["plan_name"]: order
    }


def _ports(given: Mapping[str, Any], topology: str, used: Collection[str], gpus: int, faults: Faults) -> Ports:
    ports = dataclasses.replace(Ports(), **{key: value for key, value in given.items() if value is not None})
    owners: dict[int, str] = {}
    for key, port in dataclasses.asdict(ports).items():
        if key not in used:
            continue
        if not 1 <= port <= HIGHEST_PORT:
            faults.add(f"plan_ports.{key} is {port}: a port lies in 1..{HIGHEST_PORT}.")
        elif port in owners and key != "ray_worker_last":  # how long the range is, is asked below
            faults.add(f"plan_ports.{key} and plan_ports.{owners[port]} are both {port}: each needs its own.")
        owners.setdefault(port, key)
    if topology != "tp":
        return ports
    first, last = ports.ray_worker_first, ports.ray_worker_last
    if first > last:
        faults.add(
            f"plan_ports.ray_worker_first ({first}) is above plan_ports.ray_worker_last ({last}): Ray's workers take the ports "
            "between them, so the first is the lower one."
        )
    elif last - first < gpus:  # a worker for each GPU, and the api_server
        faults.add(
            f"plan_ports.ray_worker_first ({first}) to plan_ports.ray_worker_last ({last}): {last - first + 1} ports are too few, "
            f"Ray needs one for each of {gpus} GPUs and more beside them. Leave both out, or give them a hundred ports or more."
        )
    inside = [f"plan_ports.{key} ({port})" for port, key in owners.items() if first < port < last <= HIGHEST_PORT]
    if inside:
        verb = "lies" if len(inside) == 1 else "lie"
        faults.add(f"{', '.join(inside)} {verb} in Ray's worker ports {first}..{last}: move the range, or the port.")
    return ports


def in_container(path: str, mounts: Sequence[Mapping[str, Any]]) -> str | None:
    """Where containers have a path of the hosts; None where no mount brings it there."""
    over = [mount for mount in mounts if path.startswith("/") and is_under(path, mount["source"])]
    if not over:
        return None
    mount = max(over, key=lambda each: len(posixpath.normpath(each["source"])))
    return posixpath.normpath(posixpath.join(mount["target"], posixpath.relpath(path, mount["source"])))


def is_under(path: str, directory: str) -> bool:
    """Whether a path is a directory, which is absolute, or lies in it."""
    path = posixpath.normpath(path)
    return directory.startswith("/") and posixpath.commonpath([path, directory]) == posixpath.normpath(directory)


def _is_in(path: str, places: Collection[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)
