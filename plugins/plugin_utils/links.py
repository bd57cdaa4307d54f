# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the link test measures, and what its figures mean: which groups of hosts, in which rounds, and which is slow or broken.

Pure: a plan and what programs/link_test.py said on each host in, figures and sentences out. Bandwidths are in GB/s (1e9 bytes
a second) by nccl-tests' arithmetic: algbw is the bytes of an all-reduce by its seconds, busbw is algbw * 2 (n - 1) / n for n
ranks, which can be held against the rate of the links whatever n is.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .logs import decisive, explain
from .observed import Host
from .planning.types import Node, Plan
from .text import columns

FORMAT = 1
HCA = re.compile(r"\[\d+\](\w+):(\d+)/\w+")  # in NCCL's list of devices
RATE = re.compile(r"([\d.]+)\s*(Gb|Mb)/s")
ECHO = re.compile(r"Connection (closed|reset) by peer|ncclRemoteError|remote process exited|Broken pipe|StoreTimeout")
LATE_TIMES, LATE_BY_S = 3.0, 30e-6
# Not NCCL's business, or another's: the test has its own rendezvous.
LEFT_OUT = ("RAY_", "LMDEPLOY_", "HF_")


@dataclasses.dataclass(frozen=True)
class Group:
    """Hosts that are measured together, the first with rank 0. ``kind``: host (its own GPUs), pair, or all (of an engine)."""

    kind: str
    engine: str
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return " and ".join(self.nodes) if len(self.nodes) < 3 else f"all {len(self.nodes)} hosts of {self.engine}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One size of all-reduce: the mean seconds of its ranks, algbw and busbw in GB/s."""

    bytes: int
    seconds: float
    algbw: float
    busbw: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came of a group. ``error`` is empty where all its ranks were done; ``stage`` is how far the last of them was.

    ``network`` is what NCCL used between hosts, ``transports`` its channels by kind, ``wrong`` the ranks with a wrong sum,
    ``allowed`` the GB/s of the slowest host's links (None: unknown).
    """

    group: Group
    gpus: int
    backend: str
    rows: list[Row]
    error: str = ""
    stage: str = "done"
    wrong: tuple[int, ...] = ()
    network: str = ""
    devices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    transports: Mapping[str, int] = dataclasses.field(default_factory=dict)
    allowed: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it was measured, and every sum was right."""
        return not self.error and not self.wrong

    @property
    def busbw(self) -> float:
        """The best size's busbw, GB/s; 0 where there is none."""
        return max((row.busbw for row in self.rows), default=0.0)

    @property
    def latency(self) -> float:
        """The smallest size's seconds; 0 where there is none."""
        return self.rows[0].seconds if self.rows else 0.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """From which share on it is slow: ``slow`` of the median, ``links`` of what the hosts' links allow."""

    slow: float = 0.7
    links: float = 0.5


@dataclasses.dataclass(frozen=True)
class Findings:
    """``faults``: broken. ``warnings``: slow, or not over what it should be. ``notes``: what else was seen."""

    faults: list[str]
    warnings: list[str]
    notes: list[str]


# ---- what is measured


def rounds(plan: Plan, engines: Collection[str]) -> list[list[Group]]:
    """Groups without a host in common are measured at the same moment: every host's own GPUs, every pair of an engine, all.

    Of an engine on two hosts the pair is all of it. None where there is nothing to measure: one GPU alone.
    """
    chosen = [engine for engine in plan.engines if engine.name in engines]
    first = [Group("host", e.name, (name,)) for e in chosen for name in e.nodes if plan.node(name).gpus > 1]
    found = [first] if first else []
    pairs = [[[Group("pair", e.name, pair) for pair in each] for each in tournament(e.nodes)] for e in chosen]
    longest = max(map(len, pairs), default=0)
    found += [[group for each in pairs if number < len(each) for group in each[number]] for number in range(longest)]
    last = [Group("all", e.name, tuple(e.nodes)) for e in chosen if len(e.nodes) > 2]
    return [*found, last] if last else found


def tournament(names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Every pair once, in as few rounds as can be, each name at most once a round; a pair's order is that of ``names``."""
    if len(names) < 2:
        return []
    order = {name: number for number, name in enumerate(names)}
    ring: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    found = []
    for __ in range(len(ring) - 1):
        met = [(a, b) for a, b in zip(ring[: len(ring) // 2], reversed(ring)) if a is not None and b is not None]
        found.append([(a, b) if order[a] < order[b] else (b, a) for a, b in met])
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return found


def given_up(done: Iterable[Measured]) -> set[str]:
    """Hosts that are left out of what follows, each of whose failures costs the time limit: alone, or with two others."""
    failed = [each.group for each in done if each.error]
    alone = {each.nodes[0] for each in failed if each.kind == "host"}
    often = [name for each in failed if each.kind == "pair" for name in each.nodes]
    worked = {name for each in done if each.group.kind == "pair" and not each.error for name in each.group.nodes}
    return alone | {name for name in often if often.count(name) > 1 and name not in worked}


def still(groups: Iterable[Group], done: Sequence[Measured]) -> list[Group]:
    """What of a round is worth its time: not with hosts that were given up, nor all together where a part has failed."""
    without = given_up(done)
    failed = {each.group.engine for each in done if each.error}
    return [
        group
        for group in groups
        if not without.intersection(group.nodes) and not (group.kind == "all" and group.engine in failed)
    ]


def configuration(plan: Plan, group: Group, node: str, port: int, **settings: Any) -> dict[str, Any]:
    """What the program is told on one host of a group."""
    nodes = [plan.node(name) for name in group.nodes]
    before = nodes[: group.nodes.index(node)]
    return {
        "world": sum(each.gpus for each in nodes),
        "first_rank": sum(each.gpus for each in before),
        "gpus": plan.node(node).gpus,
        "address": nodes[0].address,
        "port": port,
        **settings,
    }


def environment(plan: Plan, node: str) -> dict[str, str]:
    """What the engine's container on that host has that the libraries below it read: interfaces, NCCL's and the user's."""
    service = next(each for each in plan.services_on(node) if each.gpus)
    return {name: value for name, value in service.environment.items() if not name.startswith(LEFT_OUT)}


def running_engines(plan: Plan, hosts: Mapping[str, Host]) -> dict[str, list[str]]:
    """Engine -> its containers that run, as ``lmdeploy-ray on node0``: they hold the GPUs' memory."""
    found: dict[str, list[str]] = {}
    for node in plan.nodes:
        kept = {service.name for service in plan.services_on(node.name) if not service.gpus}
        own = hosts[node.name].own(plan.name) if node.name in hosts else {}
        names = [name for name, each in own.items() if each.running and name not in kept]
        if names:
            found.setdefault(node.engine, []).extend(f"{name} on {node.name}" for name in names)
    return found


# ---- out of what the program said


def measured(plan: Plan, group: Group, answers: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, Host]) -> Measured:
    """A group's result, out of each host's ``result`` event, or ``{"error": why there is none}``."""
    ranks = [rank for name in group.nodes for rank in answers.get(name, {}).get("ranks", [])]
    gpus = sum(plan.node(name).gpus for name in group.nodes)
    error, stage = _failure(group, answers)
    networks = [rank["network"] for rank in ranks]
    transports: dict[str, int] = {}
    for each in networks:
        for name, count in each["transports"].items():
            transports[name] = transports.get(name, 0) + count
    network = next((each["network"] for each in networks if each["network"]), "")
    devices = {name: each["devices"].get(network, "") for name in group.nodes for each in _of(answers, name)[:1]}
    return Measured(
        group=group,
        gpus=gpus,
        backend=next(
            (str(answers[name]["backend"]) for name in group.nodes if answers.get(name, {}).get("backend")), ""
        ),
        rows=rows_of(ranks, gpus) if not error else [],
        error=error,
        stage=stage,
        wrong=tuple(sorted({rank["rank"] for rank in ranks if any(row["wrong"] for row in rank["rows"])})),
        network=network,
        devices=devices,
        transports=transports,
        allowed=_allowed(plan, group, network, devices, hosts),
    )


def _of(answers: Mapping[str, Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [rank["network"] for rank in answers.get(name, {}).get("ranks", [])]


def rows_of(ranks: Sequence[Mapping[str, Any]], gpus: int) -> list[Row]:
    """Every size, out of the ``rows`` of all ranks: the mean of their seconds, as nccl-tests take it."""
    by_size: dict[int, list[float]] = {}
    for rank in ranks:
        for row in rank["rows"]:
            by_size.setdefault(row["bytes"], []).append(row["seconds"])
    found = []
    for size, seconds in sorted(by_size.items()):
        mean = statistics.fmean(seconds)
        algbw = size / mean / 1e9
        found.append(Row(size, mean, algbw, algbw * 2 * (gpus - 1) / gpus))
    return found


def _failure(group: Group, answers: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """(what went wrong, a line a host, the cause before its echoes; the stage of the rank that is least far)."""
    found: list[tuple[int, str]] = []
    stages = []
    for name in group.nodes:
        answer = answers.get(name, {"error": "it gave no answer"})
        if "ranks" not in answer:
            found.append((0, f"{name}: {answer.get('error') or 'it gave no result'}"))
            stages.append("start")
            continue
        bad = [rank for rank in answer["ranks"] if rank["stage"] != "done"]
        stages += [rank["stage"] for rank in bad]
        if bad:
            worst = min(bad, key=_telling)
            said = decisive(str(worst["error"]).splitlines())[-1].strip()
            found.append((_telling(worst), f"{name}: rank {worst['rank']} at {told_stage(worst['stage'])}: {said}"))
    order = {"start": 0, "meeting": 1, "first": 2}
    least = min(stages, key=lambda stage: order.get(stage, 3), default="done")
    return "\n".join(line for __, line in sorted(found, key=lambda each: each[0])), least


def _telling(rank: Mapping[str, Any]) -> int:
    """The lower, the nearer to the cause: a rank that lost another one only says so."""
    if rank["ended"] == "exit":
        return 2 if ECHO.search(rank["error"]) else 1
    return {"signal": 0, "hung": 3}.get(rank["ended"], 4)


def told_stage(stage: str) -> str:
    """Where a rank was, for a person."""
    words = {
        "start": "the start of Python and torch",
        "meeting": "the rendezvous of all ranks",
        "first": "the first all-reduce, in which the ranks connect",
    }
    return words.get(stage, f"the all-reduce of {stage}")


def _allowed(
    plan: Plan, group: Group, network: str, devices: Mapping[str, str], hosts: Mapping[str, Host]
) -> float | None:
    """GB/s that the slowest host's links have in one direction; None where a host's are unknown, or none is used."""
    if len(group.nodes) < 2:
        return None
    found = []
    for name in group.nodes:
        speeds = hosts[name].network.get("links") or {} if name in hosts else {}
        rate = link_rate(plan.node(name), network, devices.get(name, ""), speeds)
        if rate is None:
            return None
        found.append(rate)
    return min(found)


def link_rate(node: Node, network: str, devices: str, speeds: Mapping[str, str]) -> float | None:
    """GB/s of one host's links that are used: of NCCL's HCAs one for each GPU, the fastest; else of the cluster's interface.

    ``speeds`` is ``links`` of M(observe): ``{"eth0": "25000 Mb/s", "mlx5_0/1": "400 Gb/sec (4X NDR)"}``.
    """
    if network == "IB":
        named = [f"{name}/{port}" for name, port in HCA.findall(devices)]
        rates = sorted(filter(None, (_rate(speeds.get(each, "")) for each in named)), reverse=True)
        return sum(rates[: node.gpus]) or None
    return _rate(speeds.get(node.interface or "", "")) if network in ("", "Socket") else None


def _rate(text: str) -> float | None:
    match = RATE.search(text.replace("/sec", "/s"))
    return float(match[1]) / (8 if match[2] == "Gb" else 8000) if match else None


# ---- what it means


def judge(done: Sequence[Measured], hosts: Mapping[str, Host], limits: Limits) -> Findings:
    """What is broken, what is slow, and over what it went; each told once."""
    faults = _broken(done)
    warnings, notes = [], []
    for kind in ("host", "pair"):
        for engine in dict.fromkeys(each.group.engine for each in done):
            members = [each for each in done if each.group.kind == kind and each.group.engine == engine and each.ok]
            warnings += _slow(members, limits)
    for each in done:
        if each.ok and each.allowed and each.backend == "nccl" and each.busbw < limits.links * each.allowed:
            warnings.append(
                f"{each.group}: {each.busbw:.1f} GB/s is {each.busbw / each.allowed:.0%} of the {each.allowed:.1f} GB/s that "
                f"their links have ({over(each)}). Compare NCCL_IB_HCA, the GID index and the MTU; nvidia-smi topo -m shows "
                "which NIC is near which GPU."
            )
    between = [each for each in done if each.ok and each.backend == "nccl" and len(each.group.nodes) > 1]
    warnings += _fallbacks(between, hosts)
    alone = [each for each in done if each.ok and each.backend == "nccl" and each.group.kind == "host"]
    slow_way = [each.group.nodes[0] for each in alone if any(name.startswith("SHM") for name in each.transports)]
    if slow_way:
        warnings.append(
            f"{', '.join(slow_way)}: GPUs of one host reach each other through main memory (SHM), not over NVLink or P2P. "
            "Look at nvidia-smi topo -m, and at nvidia-fabricmanager."
        )
    ways = sorted({over(each) for each in between})
    if ways:
        notes.append(f"Between hosts NCCL went over {' and '.join(ways)}.")
    if any(each.backend == "gloo" for each in done):
        notes.append("torch has no CUDA there: this was gloo on the processors, whose figures say nothing about GPUs.")
    return Findings(faults, warnings, notes)


def over(each: Measured) -> str:
    """What NCCL used between hosts, for a person."""
    ways = sorted(name for name in each.transports if name.startswith("NET/"))
    names = {"IB": "InfiniBand or RoCE (NET/IB)", "Socket": "TCP sockets (NET/Socket)"}
    said = names.get(each.network, each.network or "what its log does not say")
    return f"{said} with GPUDirect RDMA" if any("GDRDMA" in name for name in ways) else said


def _broken(done: Sequence[Measured]) -> list[str]:
    lines = []
    told: set[Group] = set()
    failed = [each for each in done if each.error]
    pairs = [each for each in done if each.group.kind == "pair"]
    for name in dict.fromkeys(name for each in failed for name in each.group.nodes):
        mine = [each for each in pairs if name in each.group.nodes]
        if len(mine) > 1 and all(each.error for each in mine):
            others = ", ".join(other for each in mine for other in each.group.nodes if other != name)
            lines.append(f"{name} fails with every host that it was tried with ({others}). {_why(mine[0])}")
            told.update(each.group for each in mine)
    lines += [f"{each.group}: {_why(each)}" for each in failed if each.group not in told]
    for each in done:
        if each.wrong:
            ranks = ", ".join(map(str, each.wrong))
            lines.append(
                f"{each.group}: the sum of an all-reduce was WRONG on rank {ranks}: a GPU, its memory or a link corrupts data. "
                "Take the host out; nvidia-smi -q -d ECC, dmesg | grep -i xid."
            )
    return lines


def _why(each: Measured) -> str:
    known = explain(each.error.splitlines())
    meaning = f" {known.means} {known.remedy}" if known else ""
    return (
        f"no result, at {told_stage(each.stage)}:\n    "
        + "\n    ".join(each.error.splitlines())
        + (f"\n   {meaning}" if meaning else "")
    )


def _slow(members: Sequence[Measured], limits: Limits) -> list[str]:
    """Groups of one kind and engine, against the median of what each host reaches with its best partner."""
    if len(members) < 2:
        return []
    best: dict[str, Measured] = {}
    for each in members:
        for name in each.group.nodes:
            best[name] = max(best.get(name, each), each, key=lambda found: found.busbw)
    usual = statistics.median(each.busbw for each in best.values())
    prompt = statistics.median(min(m.latency for m in members if name in m.group.nodes) for name in best)
    slow = [each for each in members if each.busbw < limits.slow * usual]
    lines = []
    left = list(members)
    # The slowest first: what it is to blame for is no fault of others.
    for name in sorted(best, key=lambda each: best[each].busbw):
        mine = [each for each in left if name in each.group.nodes]
        if len(mine) > 1 and all(each in slow for each in mine):
            lines.append(
                f"{name} is slow with every other host: at best {_gbs(best[name].busbw)} GB/s, where the median of the hosts is "
                f"{_gbs(usual)}. Look at its links first (rate, errors, PCIe width)."
            )
            slow = [each for each in slow if each not in mine]
            left = [each for each in left if each not in mine]
    lines += [
        f"{each.group}: {_gbs(each.busbw)} GB/s, where the median of the hosts is {_gbs(usual)}"
        + (": what is between them is slow." if each.group.kind == "pair" else ": its own GPUs' links are slow.")
        for each in slow
    ]
    lines += [
        f"{each.group}: an all-reduce of {each.rows[0].bytes} bytes takes {1e6 * each.latency:.0f} us, where the median is "
        f"{1e6 * prompt:.0f}: what is between them is slow to answer."
        for each in members
        if each.backend == "nccl" and each.latency > max(LATE_TIMES * prompt, prompt + LATE_BY_S)
    ]
    return lines


def _gbs(rate: float) -> str:
    """GB/s, with two digits at least."""
    return f"{rate:.2f}" if rate >= 0.1 else f"{rate:.2g}"


def _fallbacks(between: Sequence[Measured], hosts: Mapping[str, Host]) -> list[str]:
    """Where NCCL went over sockets though there are HCAs, or over RDMA without the GPUs' memory."""
    lines = []
    sockets = [each for each in between if each.network == "Socket"]
    names = sorted({name for each in sockets for name in each.group.nodes})
    has = {
        name: [link for link in hosts[name].network.get("links") or {} if "/" in link]
        for name in names
        if name in hosts
    }
    with_hca = [name for name in names if has.get(name)]
    if with_hca:
        lines.append(
            f"NCCL went over TCP sockets between {', '.join(names)}, though {with_hca[0]} has {', '.join(has[with_hca[0]])}. Is "
            "/dev/infiniband in the container (plan_privileged), the port active (ibstat), NCCL_IB_DISABLE or NCCL_IB_HCA set "
            "in plan_environment?"
        )
    elif names:
        lines.append(
            f"NCCL went over TCP sockets between {', '.join(names)}: these hosts show no InfiniBand or RoCE device."
        )
    copied = [
        each for each in between if each.network == "IB" and not any("GDRDMA" in name for name in each.transports)
    ]
    hosts_of = sorted({name for each in copied if each.transports for name in each.group.nodes})
    if hosts_of:
        lines.append(
            f"{', '.join(hosts_of)}: RDMA goes through main memory, not from the GPUs' (no GDRDMA in NCCL's log). "
            "modprobe nvidia_peermem, or a driver with dma-buf; DeepEP cannot do without."
        )
    return lines


# ---- for a person, and to be kept


def table(done: Sequence[Measured]) -> list[str]:
    """One line a group, then every size of the largest groups, as nccl-tests print them."""
    rows = [("HOSTS", "GPUS", "VIA", "LATENCY us", "BUSBW GB/s", "OF LINKS", "")]
    for each in done:
        share = f"{each.busbw / each.allowed:.0%}" if each.allowed and each.rows else "-"
        via = "/".join(dict.fromkeys(filter(None, (each.backend, _via(each)))))
        figures = (f"{1e6 * each.latency:.1f}", f"{each.busbw:.3f}") if each.rows else ("-", "-")
        rows.append((str(each.group), str(each.gpus), via or "-", *figures, share, "" if each.ok else "BROKEN"))
    lines = columns(rows)
    largest = max((each.gpus for each in done if each.rows), default=0)
    for each in done:
        if each.rows and each.gpus == largest and each.group.kind != "host":
            lines += ["", f"{each.group}, {each.gpus} GPUs:"]
            sizes = [("BYTES", "TIME us", "ALGBW GB/s", "BUSBW GB/s")]
            sizes += [(str(r.bytes), f"{1e6 * r.seconds:.1f}", f"{r.algbw:.3f}", f"{r.busbw:.3f}") for r in each.rows]
            lines += [f"  {line}" for line in columns(sizes)]
            break
    return lines


def _via(each: Measured) -> str:
    if len(each.group.nodes) > 1:
        return each.network
    return "+".join(sorted({name.partition("/")[0] for name in each.transports}))


def to_json(plan: Plan, done: Sequence[Measured], found: Findings, when: str) -> dict[str, Any]:
    """Everything, as plain data."""
    return {
        "format": FORMAT,
        "deployment": plan.name,
        "image": plan.engines[0].image.run,
        "when": when,
        "groups": [
            {**dataclasses.asdict(each), "ok": each.ok, "busbw": each.busbw, "latency": each.latency} for each in done
        ],
        **dataclasses.asdict(found),
    }
