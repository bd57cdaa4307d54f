# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as M(observe) sees them: of a deployment that runs as planned, and of what can happen to it.

Made by what makes the real ones: containers out of ``docker_arguments`` and ``asked_of``, records by ``new_record``. ``World`` is
also a stand-in for the actions: ``carry_out`` does to it what ``act``, ``wait`` and ``record`` do to hosts.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import daemon
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import asked_of
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.model import EMPTY
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import changes
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.containers import docker_arguments
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Decision, Round, Step, decide
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.gateway.config import planned_description, server_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import SERVING, Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.gateway import GatewayInputs, secret_paths
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan, Service
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import new_record
from ansible_collections.lmfleet.lmdeploy.programs.starts import Starts

from . import host_trees
from .plans import Groups, Variables, plan_of

IMAGE, OTHER_IMAGE = (f"sha256:{letter * 64}" for letter in "ab")
PROBED = {
    "lmdeploy": "0.18.0",
    "ray_token_auth": True,
    "modules": {"deep_ep": True, "deep_gemm": True},
    "errors": [],
}
DOCKER_SAYS = {
    "ServerVersion": "28.5.1",
    "Driver": "overlay2",
    "DockerRootDir": "/var/lib/docker",
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "KernelVersion": "6.8.0-60-generic",
    "OperatingSystem": "Ubuntu 24.04.2 LTS",
    "Runtimes": {"io.containerd.runc.v2": {}, "nvidia": {}, "runc": {}},
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
}
# As settings_of gives them of a Docker that is as it was installed.
DOCKER = {
    "log_driver": "json-file",
    "log_cache": True,
    "userns": False,
    "rootless": False,
    "gpus": True,
    **daemon.described(DOCKER_SAYS),
}
KEYS = {"chat": "c" * 40, "batch": "b" * 40}
TOKEN = "the one token of this engine, which nobody knows"
FIRST = "20261124T222500-0000"  # the formation that runs


def h200_host(
    address: str = "10.0.0.10", peers: Sequence[str] = ("10.0.0.11",), count: int = 8, bonded: str = "bond0"
) -> dict[str, Any]:
    """``host`` of M(observe) of a healthy host with ``count`` (2 or 8) H200 and as many network cards; see host_trees."""
    return host_trees.h200_host(address, peers, count, bonded)


def on_gpus(world: World) -> World:
    """The same world, whose hosts are healthy ones with eight H200 each."""
    for node in world.plan.nodes:
        peers = [each.address for each in world.plan.nodes if each.name != node.name]
        world.answers[node.name]["host"] = h200_host(node.address, peers, bonded=node.interface or "bond0")
    return world


def bound(variables: Variables, *, groups: Groups | None = None, image: str = IMAGE) -> Plan:
    """The plan as it is when hosts and image were asked."""
    interfaces = {
        name: {variables[name].get("plan_interface") or "eth0": [variables[name]["plan_cluster_address"]]}
        for name in variables
    }
    seen = Observations(PROBED, image, interfaces, {}, {"num_attention_heads": 128})
    return plan_of(variables, seen, groups=groups)


def inspected(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What Docker says on inspection of a container that community.docker.docker_container made of ``arguments``."""
    requests = [
        {"Count": each["count"], "Capabilities": each["capabilities"]} for each in arguments.get("device_requests", [])
    ]
    return {
        "Config": {
            "Cmd": arguments["command"],
            "Env": [f"{key}={value}" for key, value in arguments["env"].items()],
            "Labels": arguments["labels"],
        },
        "HostConfig": {
            "NetworkMode": arguments["network_mode"],
            "IpcMode": arguments["ipc_mode"],
            "PidMode": arguments.get("pid_mode", ""),
            "Privileged": arguments["privileged"],
            "RestartPolicy": {"Name": arguments["restart_policy"], "MaximumRetryCount": 0},
            "DeviceRequests": requests,
            "CapAdd": [f"CAP_{right}" for right in arguments.get("capabilities", [])],
            "Devices": [{"PathOnHost": each.partition(":")[0]} for each in arguments.get("devices", [])],
        },
        "Mounts": [
            {"Source": each["source"], "Destination": each["target"], "RW": not each["read_only"]}
            for each in arguments["mounts"]
        ],
    }


class World:
    """All hosts of a deployment, which may be broken, and to which steps may be done. ``answers`` are M(observe)'s, by host."""

    def __init__(self, plan: Plan) -> None:
        """Hosts that have image and model, and on which nothing runs yet."""
        self.plan = plan
        self._clock = itertools.count()
        self.answers: dict[str, dict[str, Any]] = {}
        self._contents: dict[str, str | None] = {}
        self._tokens: dict[str, dict[str, Any]] = {}
        self._of_gateway: dict[str, str] = {}
        self.door: GatewayInputs | None = None  # what the inventory says of the gateway
        for node in plan.nodes:
            self.answers[node.name] = {
                "unreachable": "",
                "failed": "",
                "docker": {"version": "28.5.1", "api": "1.51"},
                "docker_settings": copy.deepcopy(DOCKER),
                "gpu_users": [],
                "containers": {},
                "image": {"id": plan.engine(node.engine).image.run, "digests": [], "answer": PROBED},
                "host": {
                    "interfaces": {node.interface or "eth0": [node.address]},
                    "source": node.address,
                    "listening": [22],
                    "gpus": None,
                    "boot_id": "1",
                    "uptime": 1000.0,
                    "error": "",
                },
                "files": {secret.source: None for s in plan.services_on(node.name) for secret in s.secrets},
                "model": {**EMPTY, "path": "/model", "config": {"num_attention_heads": 128}, "digest": "1"},
                "tokens": {},
                "record": None,
            }
        if plan.gateway:
            gateway, answer = plan.gateway, self.answers[plan.gateway.node]
            self.door = GatewayInputs("", KEYS, gateway.tls, "", gateway.limit, gateway.limits, {})
            answer["image_ids"] = {plan.only("gateway").image: True}
            answer["files"].update(dict.fromkeys(secret_paths(plan.only("gateway"), tls=gateway.tls).values()))
        self._settle()

    # ---- what is there

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts as they are now; later changes do not reach them."""
        return {name: Host(name, copy.deepcopy(answer)) for name, answer in self.answers.items()}

    def entry(self, node: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.answers[node]["containers"][name]
        return found

    def runs(self, node: str, name: str) -> bool:
        found = self.answers[node]["containers"].get(name, {})
        return bool(found.get("present")) and found["status"] == "running"

    def follow(self, plan: Plan) -> World:
        """The same hosts under another plan, which may have more of them."""
        new = World(plan)
        new._clock, new._contents = self._clock, self._contents
        for name in new.answers.keys() & self.answers.keys():
            files = {**new.answers[name]["files"], **self.answers[name]["files"]}
            new.answers[name] = {**copy.deepcopy(self.answers[name]), "files": files}
            if "image_ids" in self.answers[name] or (plan.gateway and plan.gateway.node == name):
                new.answers[name]["image_ids"] = {plan.only("gateway").image: True} if plan.gateway else {}
        new._settle()
        return new

    def _now(self) -> str:
        moment = next(self._clock)
        return f"2026-11-24T{22 + moment // 3600}:{moment // 60 % 60:02d}:{moment % 60:02d}.5Z"

    def make(self, arguments: Mapping[str, Any], node: str) -> None:
        """Start a container that ``docker_arguments`` describe."""
        now = self._now()
        self.answers[node]["containers"][arguments["name"]] = {
            "present": True,
            "id": f"{arguments['name']} of {now}",
            "labels": dict(arguments["labels"]),
            "image": arguments["image"],
            "created": now,
            "status": "running",
            "exit_code": 0,
            "oom_killed": False,
            "restarts": 0,
            "started_at": now,
            "asked": copy.deepcopy(asked_of(inspected(arguments))),
        }
        if "on-failure" in arguments["restart_policy"]:
            self.note(node, arguments["name"], "start", "the container was made", new=True)
        if self.plan.proxy and arguments["name"] == f"{self.plan.name}-proxy":
            self.answers[node]["proxy"] = {"nodes": {}}  # it knows no rank when it starts
        if self.plan.gateway and arguments["name"] == f"{self.plan.name}-gateway":
            self.read_files()

    def read_files(self) -> None:
        """What the gateway does when it starts, and when it is told to."""
        gateway = self.plan.gateway
        assert gateway
        self.answers[gateway.node]["gateway"] = {
            "description": planned_description(self.plan, gateway, self.hosts[gateway.node]),
            "waiting": 0,
            "servers": {server_of(each): {"up": True, "aside": False, "requests": 0} for each in self.plan.endpoints},
        }

    def note(self, node: str, name: str, event: str, why: str, **more: Any) -> None:
        """What the supervisor in a container writes down of its engine's starts."""
        starts = Starts(Path("/nowhere/starts.jsonl"), clock=lambda: float(next(self._clock)))
        starts.events = self.answers[node].setdefault("starts", {}).get(name, [])
        starts.note(event, why, **more)
        self.answers[node]["starts"][name] = starts.events

    def start(self, service: Service, formation: str) -> None:
        self.make(docker_arguments(self.plan.name, service, formation), service.node)

    def register(self, *urls: str) -> None:
        """Ranks that come up register at the proxy, where it runs."""
        proxy = self.plan.proxy
        if proxy and self.runs(proxy.node, f"{self.plan.name}-proxy"):
            listed = self.answers[proxy.node]["proxy"]["nodes"]
            listed.update({url: [self.plan.served_model_name] for url in urls})

    def _settle(self) -> None:
        """What observe says of an endpoint whose container does not run."""
        for each in self.plan.endpoints:
            tokens = self.answers[each.node]["tokens"]
            if not self.runs(each.node, each.container):
                tokens[each.url] = {"state": "absent", "reason": f"{each.container} does not run", "seconds": 0.0}
            elif tokens.get(each.url, {}).get("state", "absent") == "absent":
                tokens[each.url] = {"state": "loading", "reason": "it is initializing", "seconds": 0.1}

    # ---- what happens to it

    def stop(self, node: str, name: str, code: int = 1) -> None:
        self.entry(node, name).update(status="exited", exit_code=code)
        self._settle()

    def remove(self, node: str, name: str) -> None:
        self.answers[node]["containers"].pop(name)
        self._settle()

    def restart(self, node: str, name: str) -> None:
        """Docker started it again, as after a reboot."""
        self.entry(node, name).update(status="running", exit_code=0, started_at=self._now())
        if name == f"{self.plan.name}-proxy":
            self.answers[node]["proxy"] = {"nodes": {}}
        self._settle()

    def relabel(self, node: str, name: str, label: str, value: str | None) -> None:
        labels = self.entry(node, name)["labels"]
        labels.pop(label, None)
        if value is not None:
            labels[label] = value

    def state(self, url: str, state: str, reason: str = "", lines: Sequence[str] = ()) -> None:
        node = next(each.node for each in self.plan.endpoints if each.url == url)
        self.answers[node]["tokens"][url] = {"state": state, "reason": reason or f"it is {state}", "lines": list(lines)}

    def states(self, state: str, engine: str | None = None) -> None:
        """Every endpoint's, or those of one engine."""
        for each in self.plan.endpoints:
            if engine in (None, each.engine):
                self.state(each.url, state)

    def stranger(self, node: str, name: str, **labels: str) -> None:
        """A container that somebody else made."""
        labels = {key.replace("_", "."): value for key, value in labels.items()}
        service = self.plan.services_on(node)[0]
        self.make({**docker_arguments(self.plan.name, service, ""), "name": name, "labels": labels}, node)

    def no_image(self, node: str) -> None:
        self.answers[node]["image"].update(id=None, answer=None)

    def no_model(self, node: str) -> None:
        self.answers[node]["model"]["faults"] = ["config.json is missing."]

    def secret(self, node: str, content: str | None) -> None:
        """Put another content into the token's file, or take the file away."""
        path = steps.token_path(self.plan, node)
        assert path
        self._contents[node] = content
        self.answers[node]["files"][path] = None if content is None else steps.mark_of(content)

    # ---- decide, act, wait, record

    def decide(self, formation: str = "F", given: str = "", *, image_brought: bool = False) -> Decision:
        """What the action decide decides."""
        hosts = self.hosts
        self._tokens = steps.tokens(self.plan, hosts, given)
        self._of_gateway = steps.gateway_secrets(self.plan, hosts, self.door)
        brought = steps.as_brought(self.plan, hosts, self._tokens, self._of_gateway)
        return decide(self.plan, brought, formation, image_brought=image_brought)

    def carry_out(self, decision: Decision) -> None:
        """Do all of a decision; every wait ends well."""
        looked = self.hosts  # once, before all
        for each in decision.rounds:
            self._do(each)
            self.wait(each)
            self.act([step for step in each.steps if step.act == "list"])
            self.record(each, looked)

    def carry_out_but_the_wait(self, decision: Decision) -> None:
        """The wait for the first round was given up: the engines load on, and nothing was recorded."""
        self._do(decision.rounds[0])

    def carry_out_but_the_record(self, decision: Decision) -> None:
        """The warm-up of the first round was interrupted: the engines serve, and nothing was recorded."""
        self._do(decision.rounds[0])
        self.wait(decision.rounds[0])

    def _do(self, each: Round) -> None:
        self._bring()
        self.act([step for step in each.steps if step.act == "remove"])
        doors = ("proxy", "gateway")
        self.act([step for step in each.steps if step.act == "start" and step.service in doors])
        self.act([step for step in each.steps if step.act in ("list", "reload", "open")])
        self.act([step for step in each.steps if step.act == "start" and step.service not in doors])

    def _bring(self) -> None:
        if self.plan.gateway:
            marks = {path: steps.mark_of(text) for path, text in self._of_gateway.items()}
            self.answers[self.plan.gateway.node]["files"].update(marks)
        for need in self._tokens.values():
            if need["from"] == "kept":
                need["content"] = self._contents[need["holder"]]
            for host in need["hosts"]:
                self.secret(host, need["content"])

    def act(self, todo: Sequence[Step]) -> None:
        for step in todo:
            if step.act == "remove":
                self.answers[step.host]["containers"].pop(step.name)
            elif step.act == "start":
                assert step.name not in self.answers[step.host]["containers"], f"{step.name} is there already"
                service = next(s for s in self.plan.services_on(step.host) if s.name == step.name)
                assert self.hosts[step.host].has_image(service.image)
                assert all(self.answers[step.host]["files"][secret.source] for secret in service.secrets)
                self.start(service, step.formation)
            elif step.act == "reload":
                assert self.runs(step.host, step.name)
                self.read_files()
            elif step.act == "open":
                for server in self.answers[step.host]["gateway"]["servers"].values():
                    server["aside"] = False
            else:
                self._put_list_right(step)
        self._settle()

    def _put_list_right(self, step: Step) -> None:
        proxy = self.plan.proxy
        assert proxy
        assert self.runs(step.host, step.name)
        listed = self.answers[step.host]["proxy"]["nodes"]
        up = {
            each.url: {"health": 200, "models": [self.plan.served_model_name]}
            if self.hosts[each.node].tokens(each.url).state in SERVING
            else {"error": "[Errno 111] Connection refused"}
            for each in self.plan.endpoints
        }
        wrong = changes(proxy.ranks, listed, up, self.plan.served_model_name)
        for url in wrong.remove:
            del listed[url]
        self.register(*wrong.add)

    def wait(self, each: Round) -> None:
        for name in each.engines:
            assert all(self.runs(s.node, s.name) for s in self.plan.services_of(name)), f"{name} waits for ever"
            self.states("alive", name)
            self.register(*(endpoint.url for endpoint in self.plan.endpoints_of(name)))

    def record(self, each: Round, looked: Mapping[str, Host]) -> None:
        for host in (node.name for node in self.plan.nodes):
            seen = Host(host, {**looked[host].answer, "record": self.answers[host]["record"]})
            containers = self.answers[host]["containers"]
            started = {each.name: each.began for each in Host(host, self.answers[host]).containers.values()}
            assert started.keys() == containers.keys()
            self.answers[host]["record"] = new_record(
                self.plan, host, seen, each, started, self._tokens, "2026-11-24T22:25:00Z", 60.0
            )


def running(plan: Plan, formation: str = FIRST) -> World:
    """A deployment that runs as planned, was recorded, and serves."""
    world = World(plan)
    every = [engine.name for engine in plan.engines]
    world._of_gateway = steps.gateway_secrets(plan, world.hosts, world.door)
    world._bring()
    for service in plan.services:
        world.start(service, formation if service.engine else "")
        if service.secrets:
            world.secret(service.node, TOKEN)
    world.states("alive")
    world.register(*(each.url for each in plan.endpoints))
    made = [Step(s.node, "start", s.name, s.service, s.engine, "", formation) for s in plan.services if s.engine]
    world.record(Round(every, every, made), world.hosts)
    return world


def former(world: World) -> World:
    """The same, made by the version before formation ids: other labels, all nodes in NO_PROXY, the rank program by digest."""
    everyone = ",".join(["localhost", "127.0.0.1", *(node.address for node in world.plan.nodes)])
    for answer in world.answers.values():
        for found in answer["containers"].values():
            found["labels"] = {
                "lmfleet.lmdeploy.deployment": world.plan.name,
                "lmfleet.lmdeploy.service": found["labels"]["lmfleet.lmdeploy.service"],
                "lmfleet.lmdeploy.identity": "0123456789ab",
            }
            found["asked"]["environment"].update(NO_PROXY=everyone, no_proxy=everyone)
            for mount in found["asked"]["mounts"]:
                mount[0] = mount[0].replace("/programs/rank.py", "/programs/rank-0123456789ab.py")
        answer["record"] = None
    return world


# What a look tells of hosts with GPUs, beside what World has ----------------------------------------------------------

GIB = 2**30


def gpu_details(index: int, **changed: Any) -> dict[str, Any]:
    """A GPU of an HGX H100, at rest."""
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "bus": f"0000:{0x18 + index:02x}:00.0",
        "numa": index // 4,
        "memory_total_mib": 81559,
        "memory_used_mib": 4,
        "mig": False,
        "compute_mode": "Default",
        "persistence": True,
        "ecc": True,
        "ecc_uncorrected": 0,
        "remap_pending": False,
        "remap_failed": False,
        "recovery": "None",
        "fabric": "Completed",
        "fabric_status": "Success",
        "slowdown": [],
        "nvlinks_down": 0,
        "processes": [],
        **changed,
    }


def hca(index: int, address: str, **port: Any) -> dict[str, Any]:
    """A ConnectX-7 on Ethernet, as observe tells it."""
    netdev = f"ens{index}np0"
    gids = [
        {"index": 2, "gid": "fe80::1", "type": "RoCE v2", "address": "", "netdev": netdev},
        {"index": 3, "gid": "::ffff:0a00:0001", "type": "RoCE v2", "address": address, "netdev": netdev},
    ]
    plain = {"port": 1, "state": "ACTIVE", "physical": "LinkUp", "layer": "Ethernet", "rate_gbps": 400.0, "gids": gids}
    return {
        "device": f"mlx5_{index}",
        "driver": "mlx5_core",
        "numa": 0,
        "bus": f"0000:{0x50 + index:02x}:00.0",
        "netdevs": [netdev],
        "bond": "",
        "ports": [{**plain, **port}],
    }


WAYS = ("SYS", "PXB")  # across the processors, and on the same side


def with_gpus(world: World) -> World:
    """Every host of it with GPUs, RDMA and all that a look can tell, and nothing wrong."""
    plan = world.plan
    listing = "".join(f"GPU {n}: NVIDIA H100 80GB HBM3 (UUID: GPU-{n})\n" for n in range(8))
    plain = {
        "name": "NVIDIA H100 80GB HBM3",
        "mig": "Disabled",
        "compute_mode": "Default",
        "used": "4",
        "total": "81559",
    }
    for node in plan.nodes:
        answer = world.answers[node.name]
        interface = node.interface or "eth0"
        peers = [each.address for each in plan.nodes if each.name != node.name]
        disk = {"device": "/dev/nvme0n1p2", "type": "ext4", "total_bytes": 4000 * GIB, "free_bytes": 2000 * GIB}
        disk = {**disk, "free_inodes": 10**8, "writable": True}
        answer["looked"] = [1000.0, 1001.0]
        answer["paths"] = {node.hf_home: True}
        answer["gpu_users"] = []
        answer["docker_settings"].update(
            version="28.5.1",
            storage_driver="overlay2",
            root_dir="/var/lib/docker",
            cgroup_driver="systemd",
            cgroup_version="2",
            runtimes=["runc", "nvidia"],
            cdi=True,
            kernel="6.8.0-60-generic",
            os="Ubuntu 24.04",
        )
        answer["host"].update(
            uid=0,
            time=1000.5,
            gpus={
                "listing": listing,
                "names": ["NVIDIA H100 80GB HBM3"] * 8,
                "driver": "570.148.08",
                "error": "",
                "devices": [{"index": str(n), **plain} for n in range(8)],
                "cuda": "12.8",
                "links": {f"GPU{n}": {"mlx5_0": WAYS[n < 4], "mlx5_1": WAYS[n >= 4]} for n in range(8)},
                "details": [gpu_details(n) for n in range(8)],
            },
            rdma={
                "modules": ["nvidia_peermem"],
                "parameters": {"EnableStreamMemOPs": "1", "RegistryDwords": "PeerMappingOverride=1;"},
                "open": True,
                "devices": ["mlx5_0", "mlx5_1"],
            },
            fabric_manager={"needed": True, "running": True, "version": "570.148.08"},
            hcas=[hca(0, node.address), hca(1, "10.1.0.1")],
            mtus={interface: 9000, "lo": 65536},
            parents={},
            routes={each: {"interface": interface, "source": node.address, "gateway": ""} for each in peers},
            names={"hostname": node.name, "addresses": [node.address], "loopback": False},
            kernel={
                "release": "6.8.0-60-generic",
                "cgroups": 2,
                "xids": [],
                "sxids": [],
                "iommu": "identity",
                "numa_balancing": False,
            },
            limits={"memlock_bytes": -1, "nofile": 1048576},
            memory={"total_bytes": 2000 * GIB, "available_bytes": 1900 * GIB, "shm_bytes": 1000 * GIB},
            disks={path: dict(disk) for path in (node.hf_home, node.state_dir, "/var/lib/docker")},
            acs=[],
            ephemeral={"first": 32768, "last": 60999, "reserved": []},
            clock={"synchronized": True},
            proxies={},
        )
        if answer["image"]["answer"]:
            answer["image"]["answer"] = {**answer["image"]["answer"], "cuda": "12.8"}
    return world
