#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how the control node's own work grows with the number of hosts: plan, judge, decide, and what actions hand over.

Pure Python on this machine, no host. Of each size there are TP replicas of two nodes, and one DP+EP engine, eight GPUs a
node, bound, and running as planned: containers, records, tokens and the proxy's list are made by what makes the real ones, so a
decision has nothing to do. The model has the 163 files of DeepSeek-V3. Each number is the best of --repeat runs, in seconds:

  plan    inputs and observations -> the plan
  judge   every fault of every host
  decide  the steps, which are none
  status  all that playbooks/status.yml tells
  looks   what the look's action does on the control node for all hosts, one after the other: read the plan, make the
          questions, keep the answer (Ansible does these side by side, in forks)
  read    what the decision's action reads of the run: the plan, and what was seen of every host

Below each size beyond the first, the same for each further host (milliseconds), since the size before.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))
import yaml  # noqa: E402

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.model import EMPTY  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.containers import docker_arguments  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Decision, Round, decide  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import host_faults, image_faults  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import Patience, with_patience  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import (  # noqa: E402
    Observations,
    build_plan,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.group import SPECS  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.inputs import Inputs, read_inputs  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, Plan  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import new_record  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status import AS_PLANNED, status_of  # noqa: E402
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns  # noqa: E402

SIZES = (2, 16, 64, 128)
MOST_RANKS = 160  # that DeepEP has kernels for
PARTS = ("plan", "judge", "decide", "status", "looks", "read")
IMAGE = "sha256:" + "a" * 64
FORMATION, BEGAN, STARTED = "20261124T222500-0000", "2026-11-24T22:31:00Z", "2026-11-24T22:25:01.000000001Z"
TOKEN = "what nobody guesses"  # noqa: S105  (of no engine)
PROBED = {
    "lmdeploy": "0.18.0",
    "ray_token_auth": True,
    "modules": {"deep_ep": True, "deep_gemm": True},
    "errors": [],
}
SPEC = yaml.safe_load(SPECS.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Hosts that run as planned: what the plan is made of, the plan, and the answer of each host's look."""

    inputs: Inputs
    seen: Observations
    plan: Plan
    answers: dict[str, dict[str, Any]]

    @property
    def hosts(self) -> dict[str, Host]:
        """As the actions have them."""
        return {name: Host(name, answer) for name, answer in self.answers.items()}


def fleet(topology: str, count: int, **variables: Any) -> Fleet:
    """``count`` nodes of TP replicas of two nodes each (tp; two are one engine), or of one DP+EP engine (dpep)."""
    addresses = {f"node{number:03}": f"10.0.{number // 200}.{number % 200 + 10}" for number in range(count)}
    names = list(addresses)
    groups = {f"replica{number:03}": names[2 * number : 2 * number + 2] for number in range(count // 2)}
    replicas = {"plan_replicas": list(groups)} if topology == "tp" and count > 2 else {}
    # Beyond those that DeepEP has kernels for there is DP alone, of a model that nothing is known of.
    more = topology == "dpep" and 8 * count > MOST_RANKS
    alone = {"plan_ep": 1, "plan_tp": 8 * count, "plan_model": "example/model"} if more else {}
    common = {"plan_topology": topology, **alone, **replicas, **variables}
    faults = Faults()
    values = {name: {"plan_cluster_address": address, **common} for name, address in addresses.items()}
    inputs = read_inputs(SPEC, values, faults, groups=groups)
    seen = Observations(
        PROBED,
        IMAGE,
        {name: {"lo": ["127.0.0.1"], "eth0": [address]} for name, address in addresses.items()},
        addresses,
        {"num_attention_heads": 128},
    )
    plan = build_plan(inputs, seen, faults)
    return Fleet(inputs, seen, plan, {node.name: answer_of(plan, node.name) for node in plan.nodes})


def answer_of(plan: Plan, name: str) -> dict[str, Any]:
    """What a look at a node says, where all runs as planned, and was warmed up and recorded."""
    node, services = plan.node(name), plan.services_on(name)
    files = {f"model-{number:05}-of-000163.safetensors": 4_300_000_000 for number in range(163)}
    answer: dict[str, Any] = {
        "docker": {"version": "28.5.1", "api": "1.51"},
        "containers": {
            service.name: {
                "present": True,
                "id": f"{plan.nodes.index(node):064x}",
                "labels": docker_arguments(plan.name, service, FORMATION)["labels"],
                "image": IMAGE,
                "created": STARTED,
                "status": "running",
                "exit_code": 0,
                "oom_killed": False,
                "restarts": 0,
                "started_at": STARTED,
                "asked": {key: value for key, value in service.asked.items() if key != "image"},
            }
            for service in services
        },
        "image": {"id": IMAGE, "digests": [], "answer": PROBED},
        "host": {
            "interfaces": {"lo": ["127.0.0.1"], "eth0": [node.address]},
            "source": node.address,
            "listening": sorted({22, *(port for service in services for port in service.listens)}),
            "gpus": None,
            "links": {},
            "boot_id": "1",
            "time": 0.0,
            "uptime": 1000.0,
            "uid": 0,
            "error": "",
        },
        "files": {secret.source: steps.mark_of(TOKEN) for service in services for secret in service.secrets},
        "model": {**EMPTY, "path": "/m", "commit": "c", "digest": "d", "files": files},
        "tokens": {
            each.url: {"state": "alive", "reason": "a token came", "seconds": 0.1}
            for each in plan.endpoints
            if each.node == name
        },
        "lock": None,
    }
    if plan.proxy and plan.proxy.node == name:
        answer["proxy"] = {"nodes": {url: [plan.served_model_name] for url in plan.proxy.ranks}}
        answer["public"] = {"state": "alive", "reason": "a token came"}
    engine = plan.engine_on(name).name
    each = Round([engine], [engine], [])
    started = {service.name: STARTED for service in services}
    record = new_record(plan, name, Host(name, answer), each, started, {}, BEGAN, 312.0)
    record["engines"][engine]["formation"] = FORMATION
    return {**answer, "record": record}


def decided(plan: Plan, hosts: dict[str, Host]) -> Decision:
    """As the decision's action does it."""
    steps.to_pull(plan, hosts)
    steps.tokens(plan, hosts, "")
    return decide(plan, hosts, FORMATION)


def looks(run: Run, answers: dict[str, dict[str, Any]]) -> None:
    """What the look's action does for each host, but for asking it."""
    for name, answer in answers.items():
        with_patience(run.questions(name), Patience(), ask_registry=False)
        run.saw(name, {"unreachable": "not asked"})
        run.saw(name, {"unreachable": "", "failed": "", **answer})


def read(run: Run) -> tuple[Plan, dict[str, Host]]:
    """What the decision's action reads."""
    return run.plan, run.hosts()


def best(call: Callable[[], Any], repeat: int) -> float:
    """Seconds of the fastest of ``repeat`` calls."""
    found = []
    for __ in range(repeat):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def measure(every: Fleet, repeat: int) -> dict[str, float]:
    """Part -> seconds. Fails where a deploy would do something, for then it is not what is to be measured."""
    plan, hosts = every.plan, every.hosts
    found = status_of(plan, hosts)
    if found.state != AS_PLANNED:
        raise SystemExit(f"bench_growth: not as planned: {found.faults} {found.deploy}")
    reference = plan.engines[0].image.reference
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        run.keep_inputs(every.inputs, plan)
        return {
            "plan": best(lambda: build_plan(every.inputs, every.seen, Faults()), repeat),
            "judge": best(lambda: (host_faults(plan, hosts), image_faults(plan, reference, hosts)), repeat),
            "decide": best(lambda: decided(plan, hosts), repeat),
            "status": best(lambda: status_of(plan, hosts), repeat),
            "looks": best(lambda: looks(run, every.answers), repeat),
            "read": best(lambda: read(run), repeat),
        }


def table(found: Sequence[tuple[str, int, dict[str, float]]]) -> list[str]:
    """One table of all topologies and sizes (in that order): seconds, and ms for each further host."""
    rows: list[tuple[str, ...]] = [("topology", "hosts", *PARTS)]
    before: tuple[str, int, dict[str, float]] | None = None
    for topology, count, seconds in found:
        rows.append((topology, str(count), *(f"{seconds[part]:.3f} s" for part in PARTS)))
        if before and before[0] == topology:
            more = count - before[1]
            each = (f"{(seconds[part] - before[2][part]) / more * 1000:.2f} ms" for part in PARTS)
            rows.append(("", "a host", *each))
        before = (topology, count, seconds)
    return columns(rows)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of hosts, each even")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts (default 3)")
    parser.add_argument("--topology", choices=["tp", "dpep"], action="append", help="only this one")
    options = parser.parse_args(arguments)
    odd = [count for count in options.sizes if count < 2 or count % 2]
    if odd or options.repeat < 1:
        parser.error("--sizes are even, and --repeat is 1 or more")
    return options


def main() -> None:
    """Measure, and print the table."""
    options = parsed()
    found = [
        (topology, count, measure(fleet(topology, count), options.repeat))
        for topology in options.topology or ("tp", "dpep")
        for count in sorted(set(options.sizes))
    ]
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
