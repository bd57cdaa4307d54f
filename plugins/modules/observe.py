#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin module over _observe."""

from __future__ import annotations

DOCUMENTATION = r"""
module: observe
short_description: What is there on one host, in one look
version_added: 0.1.0
description:
  - Answers everything that a decision or a wait has to know about one host, in one call. What is asked is found out side by
    side; what is not asked is not in the answer.
  - It gives facts and judges nothing. Of an engine the fact is whether it gives a token, and if not, whether it is proven dead.
  - It does not fail when Docker, a command, a file or a URL does. The answer says so in their place, with what to do.
author:
  - lmfleet contributors (@lmfleet)
requirements:
  - Docker SDK for Python 5.0 or newer, where something of Docker is asked
  - iproute2, for O(host)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  deployment:
    description: Name of a deployment, all of whose containers RV(containers) is to have.
    type: str
  names:
    description: Names of containers that RV(containers) is to have, be they there or not.
    type: list
    elements: str
    default: []
  logs:
    description:
      - Names of containers whose new log lines are wanted, each with the time stamp (RV(containers) has it as C(cursor))
        after which
        they are; with an empty string, all of the current run. These are in RV(containers) too.
    type: dict
    default: {}
  measure:
    description: Measure how much each container of O(logs) has read and holds; takes seconds.
    type: bool
    default: false
  docker_settings:
    description: Ask Docker for those of its settings that decide whether it can run the containers of a deployment.
    type: bool
    default: false
  gpu_users:
    description: Ask Docker for the running containers that were given GPUs, whoever made them.
    type: bool
    default: false
  image:
    description: An image to look for.
    type: dict
    suboptions:
      reference:
        description: Its name, as in C(docker pull).
        type: str
        required: true
      state_dir:
        description: The directory whose C(images) has the answers of images that were asked what they hold, by id.
          Its C(docker/config.json), if there is one, has the login for the registry.
        type: path
        required: true
      ask_registry:
        description: Ask the registry whether it has another image under this name by now.
        type: bool
        default: false
      registry_reference:
        description: The reference to ask a registry for, where that is a mirror's.
        type: str
        default: ""
  image_ids:
    description: Ids of images of which it is asked whether the host has them.
    type: list
    elements: str
    default: []
  host:
    description: Look at the host itself.
    type: bool
    default: false
  host_peers:
    description: With O(host), the addresses of other hosts to which the routes are asked.
    type: list
    elements: str
    default: []
  host_disks:
    description: With O(host), the paths whose file systems are looked at, be they there yet or not. With O(docker_settings),
      Docker's own directory is one more.
    type: list
    elements: path
    default: []
  files:
    description: Paths of files whose digests are wanted.
    type: list
    elements: path
    default: []
  paths:
    description: Paths of which it is asked whether they are there.
    type: list
    elements: path
    default: []
  inside:
    description: Files of which is asked whether the containers find them, along links as they would follow them.
    type: dict
    suboptions:
      mounts:
        description: The bind mounts of these containers.
        type: list
        elements: dict
        default: []
        suboptions:
          source:
            description: The path on the host.
            type: str
            required: true
          target:
            description: The path in the container.
            type: str
            required: true
      paths:
        description: By path in the container what it has to be, V(file), V(json) (a file with one object) or V(directory).
        type: dict
        required: true
  model:
    description: A model whose files are checked, by their headers. Either O(model.path), or O(model.repo) and O(model.hf_home).
    type: dict
    suboptions:
      repo:
        description: Its repository id in the Hugging Face cache, as C(owner/name).
        type: str
      revision:
        description: Branch, tag or commit of O(model.repo).
        type: str
        default: main
      hf_home:
        description: The Hugging Face home on the host, whose directory C(hub) is the cache.
        type: path
      path:
        description: The directory that holds the files themselves, on the host, or with O(model.mounts) in the container.
        type: path
      mounts:
        description: The bind mounts of the containers that read the model. With them the files are looked for where those
          containers would find them, along links as they would follow them.
        type: list
        elements: dict
        default: []
        suboptions:
          source:
            description: Path on the host.
            type: str
            required: true
          target:
            description: Path in the container.
            type: str
            required: true
      hub:
        description: >-
          The cache's directory in the container, with O(model.mounts); with O(model.path), code of other repositories is there.
        type: str
      code:
        description: Whether the engine runs the model's own code. Where it does not, it is no fault that there is none.
        type: bool
        default: true
  tokens:
    description: Engines to be asked for one token each, all at once. LMDeploy's server outlives its engine, so only a token
      is proof.
    type: dict
    suboptions:
      model:
        description: The name that they serve their model under.
        type: str
        required: true
      urls:
        description: URLs of api_servers, without C(/v1), each with the name of its container. One whose container does not
          run is not asked.
        type: dict
        required: true
      public:
        description: The URL that users have, without C(/v1), when it is to be asked in the same moment.
        type: str
      public_key:
        description: The key that O(tokens.public) wants, where that is a gateway's.
        type: str
      timeout_s:
        description: Seconds that the token may take before anything else is asked.
        type: float
        default: 20
      stall_s:
        description: Seconds beyond O(tokens.timeout_s) without a token and without progress that make an engine dead, when
          its processors
          are idle. With 0 it is V(unknown) then, and never dead for its
          silence. Progress is a change of its token counters, or growth of its scheduler's gauges, in C(/metrics).
        type: float
        default: 30
      patience_s:
        description: The same, when processors work in the containers, or nobody can measure them, as a long prompt may move nothing
          else. Set it above what the longest prompt takes. Never less than O(tokens.stall_s).
        type: float
        default: 300
  tcp:
    description: Ports to connect to from this host, as C(address:port).
    type: list
    elements: str
    default: []
  http:
    description: Base URLs of api_servers, without C(/v1).
    type: list
    elements: str
    default: []
  gateway:
    description: The socket at which the gateway (HAProxy) is asked, when it is to say what it has read and how its servers are.
    type: path
  proxy:
    description: Base URL of LMDeploy's proxy, when its list is wanted.
    type: str
  ray_container:
    description: The container in which Ray's head runs, when its members are wanted.
    type: str
  ray_address:
    description: Address and port of Ray's head; needed with O(ray_container).
    type: str
  ray_claim:
    description: >-
      Wait up to four seconds until Ray counts this many GPUs, ask it for all of them at once, and give them back, to see whether an
      engine would get them.
    type: int
    default: 0
  ray_claim_unless:
    description: Do not, while this container runs, because it holds them.
    type: str
  record:
    description: Path of a JSON file, the record of the deployment.
    type: path
  starts:
    description: Container's name -> path of the file where it is kept when its engine was started, and why.
    type: dict
    default: {}
  lock:
    description: Path of a JSON file, the lock of the deployment.
    type: path
  limit_s:
    description: Seconds that the whole look may take, beyond what O(tokens) may. What hangs longer is told as an error in
      its place.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: Look at everything that a decision needs
  lmfleet.lmdeploy.observe:
    deployment: lmdeploy
    names: [lmdeploy-ray, lmdeploy-api]
    host: true
    image:
      reference: openmmlab/lmdeploy:v0.10.1-cu12
      state_dir: /var/lib/lmfleet
    model:
      repo: deepseek-ai/DeepSeek-V3
      hf_home: /data/huggingface
    tokens:
      model: deepseek-ai/DeepSeek-V3
      urls:
        http://10.0.0.10:23333: lmdeploy-api
  register: observed

- name: One round of a wait
  lmfleet.lmdeploy.observe:
    logs:
      lmdeploy-api: "2026-11-24T22:25:01.000000000Z"
    http: ["http://10.0.0.10:23333"]
"""

RETURN = r"""
docker:
  description:
    - C(version) and C(api) of the Docker engine.
    - Or C(error), what is wrong and what to do, and its C(kind), V(sdk), V(permission), V(socket), V(daemon), V(podman) or
      V(timeout).
      RV(containers), RV(docker_settings), RV(gpu_users), RV(image), RV(image_ids) and RV(ray) are missing then.
  returned: when something of Docker is asked
  type: dict
  sample: {version: 28.5.1, api: "1.51"}
docker_settings:
  description:
    - C(log_driver), what containers log with unless they say otherwise; C(log_cache), whether Docker keeps a copy of logs that
      it sends away; C(userns), whether C(userns-remap) is on; C(rootless); C(gpus), whether Docker has what gives containers
      GPUs, none where that cannot be known.
    - C(version), C(storage_driver), C(root_dir), C(cgroup_driver), C(cgroup_version), C(kernel) and C(os) in Docker's words,
      none where it does not say; C(runtimes), their names; C(cdi), whether devices are given by CDI, none before Docker 25;
      C(proxies), those of Docker itself, without passwords.
  returned: when O(docker_settings) is set
  type: dict
  sample: {log_driver: json-file, log_cache: true, userns: false, rootless: false, gpus: true}
gpu_users:
  description:
    - The running containers that were given GPUs, each C(name), C(image), C(deployment) (empty where it is of none) and
      C(gpus), V(all) or a list of indices and UUIDs.
    - Given is what Docker was asked for (C(--gpus), CDI, a device), or what NVIDIA's runtime was
      (C(NVIDIA_VISIBLE_DEVICES)).
  returned: when O(gpu_users) is set
  type: list
  elements: dict
  sample: [{name: trainer, image: "pytorch:2.8", deployment: "", gpus: all}]
containers:
  description:
    - By name, C(present), and of one that is there C(id), C(labels), C(image) (its id), C(created), C(status), C(exit_code),
      C(oom_killed), C(restarts), C(started_at) and C(asked).
    - C(asked) is what Docker was asked for when the container was made, C(command), C(environment) (without what the image
      sets to the
      same value), C(mounts) (each C([source, target, read_only]), sorted by target), C(network_mode), C(ipc_mode), C(pid_mode),
      C(privileged), C(restart_policy) (as V(on-failure:3)), C(gpus) and C(rdma) (by single rights).
    - Of those in O(logs) also C(lines), C(cursor), C(touched) (bytes, 0 unless O(measure)) and C(up_after_s), the seconds
      from its start
      until the last of its servers said that it is up; and C(log_error) where Docker cannot read the log.
  returned: when O(deployment), O(names) or O(logs) is given
  type: dict
image:
  description:
    - C(id), none where the image is not there; its C(digests); and C(answer), what the image said that it holds when it was
      asked,
      none where it has to be asked (again).
    - With O(image.ask_registry) also C(current), whether the registry has the same; none, with C(registry_error), where it
      cannot be asked.
  returned: when O(image) is given
  type: dict
image_ids:
  description: By id, whether the host has that image.
  returned: when O(image_ids) is given
  type: dict
host:
  description:
    - C(interfaces), by name their IPv4 addresses in the kernel's order; C(interfaces6), the IPv6 addresses of those that have
      one which is not of the link alone; C(networks), by address its network, as in V(10.0.0.0/24); C(down), the interfaces
      without a carrier; C(bridges), those that no other host is behind; C(source), the host's own address on its default
      route, or empty; C(listening), the TCP ports in use; C(listeners), by port its process, as C(pid), C(command) and
      C(container) (an id, or empty); C(links) with their speeds; C(boot_id); C(time), in seconds since 1970; C(uid) of who
      looks; C(error), what could not be found out, or empty.
    - C(gpus), none where C(nvidia-smi) is not installed, has C(listing) (the text of C(nvidia-smi -L)), C(devices), a list of
      C(index), C(name), C(mig), C(compute_mode), C(used) and C(total) (memory in MiB) as C(nvidia-smi) says them;
      C(names), C(driver), and C(error), one line, or empty.
    - C(gpus) also has C(cuda), the highest version of CUDA that the driver has; C(links), by GPU and device the way between
      them in the words of C(nvidia-smi topo -m), as in C(GPU0), C(mlx5_0), V(PIX); and C(details), a list with a row for each
      GPU; C(index), C(uuid), C(name), C(bus) (as V(0000:18:00.0)), C(numa), C(memory_total_mib), C(memory_used_mib),
      C(mig), C(compute_mode), C(persistence), C(ecc), C(ecc_uncorrected) (errors since the driver was loaded),
      C(remap_pending), C(remap_failed), C(recovery) (what the driver says has to be done, V(None) for nothing), C(fabric) and
      C(fabric_status), C(slowdown) (what slows its clocks down, empty for a healthy one), C(nvlinks) that are up,
      C(nvlinks_down) (none where all are, which links that lead nowhere are too), and C(processes), each C(pid), C(name),
      C(used_mib) and C(container) (an id, or empty). What a driver does not say is none.
    - C(rdma), none without a driver of NVIDIA, has what GPUs need to speak RDMA themselves; C(modules), those of the kernel;
      C(parameters) of the driver; C(open), whether it is the open kernel module; C(devices), of InfiniBand or RoCE.
    - C(hcas), a list of the devices of InfiniBand and RoCE, each C(device), C(driver), C(numa), C(bus), C(netdevs), C(bond)
      (that they are in, or empty) and C(ports). A port has C(port), C(state), C(physical), C(layer), C(rate_gbps) and
      C(gids), those that are set, each C(index), C(gid), C(type), C(address) (the IPv4 address that it is made of, or empty)
      and C(netdev).
    - C(fabric_manager) has C(switches), whether NVSwitches are on PCI; C(needed), whether these or a state of the fabric in
      C(gpus) ask for one; C(running), and C(version) of what is installed. In a virtual machine the manager may be its
      host's; what counts is the state of the fabric.
    - C(mtus) by interface; C(parents), by interface those that it is stacked on; C(routes), by address of O(host_peers)
      C(interface), C(source) and C(gateway), empty where there is no route, or none where it cannot be known.
    - C(names) has C(hostname), the C(addresses) that it resolves to here, and C(loopback), whether one of them is.
    - C(kernel) has C(release); C(cgroups), V(1) or V(2); C(xids), the errors of GPUs in the kernel's log as far back as it
      goes, each C(bus), C(xid), C(count) and the last C(text), none where the log cannot be read or there is no driver;
      C(sxids), the same of NVSwitches, with C(sxid) and C(fatal);
      C(iommu), what it does to the GPUs, V(off), V(identity) or V(DMA); C(numa_balancing).
    - C(limits), as containers inherit them, has C(memlock_bytes) and C(nofile), V(-1) for no limit. C(memory) has
      C(total_bytes), C(available_bytes), C(shm_bytes) (the size of C(/dev/shm)), C(hugepages) and C(hugepage_bytes).
    - C(disks), by path of O(host_disks) C(device), C(type), C(total_bytes), C(free_bytes), C(free_inodes) and C(writable), of
      the file system that it is on or will be on; none where that does not answer.
    - C(acs), the ports of PCI switches above GPUs and RDMA devices that send what one device writes to another up to the
      processor (Access Control Services), by address; none without a GPU, or where who looks is not root.
    - C(ephemeral), the ports that the kernel gives to connections that go out, has C(first), C(last) and C(reserved), the ranges
      that it leaves out.
    - C(clock) has C(synchronized); C(proxies), by variable those in C(/etc/environment) and in the environment of Docker's
      daemon, without passwords.
    - A part or a value that could not be read is none, which is neither zero nor good.
  returned: when O(host) is set
  type: dict
paths:
  description: By path, whether it is there.
  returned: O(paths) is given
  type: dict
files:
  description: By path, the first 12 digits of its sha256; none where it is missing or cannot be read.
  returned: when O(files) is given
  type: dict
inside:
  description: By path of O(inside.paths) what keeps a container from reading it, empty where nothing does.
  returned: when O(inside) is given
  type: dict
  sample: {/data/chat.json: "/data/chat.json does not exist: put it there, or correct the path"}
model:
  description:
    - C(path) and C(commit) of the model; C(config), what a plan asks of its C(config.json); C(files), those that an engine
      may read, with
      their bytes; C(total_bytes); C(digest), equal on two hosts exactly if commit, names, sizes and C(config.json) are.
    - C(faults), everything that is wrong with what an engine reads, a sentence each; empty for a whole model.
    - Of a model in the cache, C(hub), the cache's directory on the host, and C(snapshots), by commit whether it is whole (none,
      not checked).
    - Where there are faults, C(mounts), what would have to be mounted for links to lead to their files, each C(source) and
      C(target); C(settings), variables as YAML with which the model would be found elsewhere on the host; C(damaged), paths of
      files that a download leaves as they are until they are removed; C(unread), whether nothing is wrong but that it cannot be
      read.
  returned: when O(model) is given
  type: dict
tokens:
  description:
    - By URL, C(state), C(reason) and C(seconds).
    - V(alive), a token came. V(busy), none yet, but the engine makes progress. V(loading), it is initializing or sleeping.
      V(dead), an engine error given twice, or no token and no progress. V(unreachable), no HTTP answer. V(unknown), the
      request was
      refused (a wrong name or key), or no counters are there to judge a time-out. V(absent), its container does not run.
    - Of V(dead), V(unreachable) and V(unknown) also C(lines), the log of the container's current run until its server was up.
  returned: when O(tokens) is given
  type: dict
  sample:
    http://10.0.0.11:23333:
      state: dead
      reason: "engine error: HTTP 503: The inference engine is unavailable."
      seconds: 1.1
      lines: []
public:
  description: C(state) and C(reason) of O(tokens.public), as in RV(tokens).
  returned: when O(tokens.public) is given
  type: dict
tcp:
  description: By C(address:port), an empty string or why it takes no connection.
  returned: when O(tcp) is given
  type: dict
http:
  description: By URL, C(health) and C(models), or C(error).
  returned: when O(http) is given
  type: dict
gateway:
  description: C(description), what the gateway has read, C(waiting), how many requests no server has yet, and by name C(servers),
    each with C(up), C(aside) and C(requests); or C(error).
  returned: when O(gateway) is given
  type: dict
proxy:
  description: C(nodes), by URL the models that the proxy has them listed with; or C(error).
  returned: when O(proxy) is given
  type: dict
ray:
  description: C(nodes), each with C(address), C(alive) and C(gpus), and C(given); or C(error).
  returned: when O(ray_container) is given
  type: dict
record:
  description: What the file holds; none where there is none, C(error) where it cannot be read.
  returned: when O(record) is given
  type: raw
starts:
  description: Container's name -> its last events, the oldest first, as programs/starts.py writes them.
  returned: when O(starts) is given
  type: dict
lock:
  description: As RV(record).
  returned: when O(lock) is given
  type: raw
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look

STRINGS = {"type": "list", "elements": "str", "default": []}
MOUNTS = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"source": {"type": "str", "required": True}, "target": {"type": "str", "required": True}},
}
SPEC = {
    "deployment": {"type": "str"},
    "names": STRINGS,
    "logs": {"type": "dict", "default": {}},
    "measure": {"type": "bool", "default": False},
    "docker_settings": {"type": "bool", "default": False},
    "gpu_users": {"type": "bool", "default": False},
    "image": {
        "type": "dict",
        "options": {
            "reference": {"type": "str", "required": True},
            "state_dir": {"type": "path", "required": True},
            "ask_registry": {"type": "bool", "default": False},
            "registry_reference": {"type": "str", "default": ""},
        },
    },
    "image_ids": STRINGS,
    "host": {"type": "bool", "default": False},
    "host_peers": STRINGS,
    "host_disks": {"type": "list", "elements": "path", "default": []},
    "files": {"type": "list", "elements": "path", "default": []},
    "paths": {"type": "list", "elements": "path", "default": []},
    "inside": {
        "type": "dict",
        "options": {"mounts": MOUNTS, "paths": {"type": "dict", "required": True}},
    },
    "model": {
        "type": "dict",
        "options": {
            "repo": {"type": "str"},
            "revision": {"type": "str", "default": "main"},
            "hf_home": {"type": "path"},
            "path": {"type": "path"},
            "mounts": MOUNTS,
            "hub": {"type": "str"},
            "code": {"type": "bool", "default": True},
        },
        "mutually_exclusive": [("repo", "path")],
        "required_one_of": [("repo", "path")],
        "required_by": {"repo": "hf_home"},
    },
    "tokens": {
        "type": "dict",
        "no_log": False,  # they are the engine's, no secrets
        "options": {
            "model": {"type": "str", "required": True},
            "urls": {"type": "dict", "required": True},
            "public": {"type": "str"},
            "public_key": {"type": "str", "no_log": True},
            "timeout_s": {"type": "float", "default": 20},
            "stall_s": {"type": "float", "default": 30},
            "patience_s": {"type": "float", "default": 300},
        },
    },
    "tcp": STRINGS,
    "http": STRINGS,
    "proxy": {"type": "str"},
    "gateway": {"type": "path"},
    "ray_container": {"type": "str"},
    "ray_address": {"type": "str"},
    "ray_claim": {"type": "int", "default": 0},
    "ray_claim_unless": {"type": "str"},
    "record": {"type": "path"},
    "starts": {"type": "dict", "default": {}},
    "lock": {"type": "path"},
    "limit_s": {"type": "float", "default": 120},
}


def main() -> None:
    """Look once."""
    module = AnsibleModule(
        argument_spec=SPEC,
        required_together=[("ray_container", "ray_address")],
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **look(None, module.params))


if __name__ == "__main__":
    main()
