# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured, by scenario. Each leaves its figures in the results as it gets them, and drops what the time does not allow."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu.deployment import CACHES, Deployment, Machine, Watch, get
from gpu.doors import doors
from gpu.load import SIZES, Prompts, Size, measure
from gpu.prefill import Asker, Sampler, Shorts, cpu_of, described, hang, spinning, stopped, table, what_moved
from gpu.prefixes import prefixes
from gpu.processes import command_of, members
from gpu.results import Results
from gpu.watched import watch

from ansible_collections.lmfleet.lmdeploy.plugins.action.warmup import failure_message
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import EngineProbe, Patience
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.gpus import gpus_work
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.services import KERNEL_CACHE_PLACES
from ansible_collections.lmfleet.lmdeploy.programs.warmup import measured_shapes

LOADING_S = 8  # an engine's process is surely still loading this long after its start
GUIDE_PROMPT = "The quick brown fox jumps over the lazy dog."
# Few tokens out: with many, a thousand streams wait for the api_server, whose throughput differs from turn to turn.
ROW = {"name": "gpu", "input_len": 1024, "output_len": 32, "num_prompts": 1000, "lengths": "fixed"}
Shapes = list[dict[str, Any]]


def shape(prompt_tokens: int, requests: int = 1, max_tokens: int = 32) -> dict[str, Any]:
    name = f"{requests}x{prompt_tokens}"
    return {"name": name, "prompt_tokens": prompt_tokens, "max_tokens": max_tokens, "requests": requests}


DEFAULT: Shapes = [dataclasses.asdict(each) for each in measured_shapes()]
WARM_UPS: dict[str, Shapes] = {
    "default": DEFAULT,
    # Less of it: the very sizes that are measured, fewer bursts, fewer lengths.
    "sizes": [shape(64), *(shape(size.tokens, size.requests) for size in SIZES)],
    "few-bursts": [each for each in DEFAULT if each["requests"] in (1, 2, 8, 64)],
    "few-lengths": [
        each for each in DEFAULT if each["requests"] > 1 or each["prompt_tokens"] % 500 not in (0, 1, 400, 401)
    ],
}


class Run:
    """A machine, the results, and the time that is left."""

    def __init__(self, machine: Machine, results: Results, seconds: float) -> None:
        self.machine, self.results = machine, results
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str, needs_s: float) -> Iterator[bool]:
        """A part of a scenario: False where the time is too short. A failure is kept, and the next step goes on."""
        if self.left < needs_s and needs_s:
            self.results.put(f"{name}.skipped", f"{self.left:.0f} s left, {needs_s:.0f} s needed")
            yield False
            return
        began = time.monotonic()
        print(f"--- {name} ({self.left:.0f} s left)", flush=True)
        try:
            yield True
        except Exception as error:  # noqa: BLE001  (a figure less, not a run less)
            self.results.put(f"{name}.error", f"{type(error).__name__}: {error}")
        self.results.put(f"{name}.step_seconds", round(time.monotonic() - began, 1))

    def ttft(self, name: str, at: Deployment, **more: Any) -> None:
        self.results.put(f"ttft.{name}", measure(at.url, at.model, at.tokenizer(), at.kernels, **more))

    def up(self, name: str, at: Deployment, seconds: float, *kinds: str) -> None:
        """Start services and wait; raises RuntimeError where they do not come up.

        Twice at most: LMDeploy 0.18's engine process now and then loses a race with its parent's end of its start.
        """
        for tried in ("up_failed", "up"):
            waited = at.up(max(min(self.left - 20, seconds), 20), *kinds)
            if not waited["failed"]:
                self.results.put(f"{name}.up", waited)
                return
            self.results.put(
                f"{name}.{tried}", {**waited, "log": tail(at) if at.plan["engines"][0]["topology"] == "tp" else []}
            )
        raise RuntimeError(next(iter(waited["failed"].values())))


def guide_warm_up(at: Deployment) -> dict[str, Any]:
    """The request of the guide's warmup_engine.py."""
    import openai

    began = time.monotonic()
    with openai.OpenAI(base_url=f"{at.url}/v1", api_key="none") as client:
        model = client.models.list().data[0].id
        messages: Any = [{"role": "user", "content": [{"type": "text", "text": GUIDE_PROMPT}]}]
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=20)
    tokens = answer.usage.completion_tokens if answer.usage else None
    return {"seconds": round(time.monotonic() - began, 2), "tokens": tokens}


def beside_others(run: Run, name: str, number: int, gpu: int = 0, **variables: Any) -> Deployment:
    """A deployment beside others: the api alone, for with tp 1 LMDeploy uses no Ray."""
    ports = {"api": 23333 + 10 * number, "torch": 29500 + number}
    # Unsupervised: a supervisor would wait for Ray.
    plan = run.machine.plan("one", plan_name=name, plan_ports=ports, plan_restarts=0, **variables)
    return Deployment(run.machine, plan, only=["api"], gpu=gpu)


def up_at_once(
    run: Run,
    scenario: str,
    servers: Mapping[str, Deployment],
    timeout_s: float,
    kinds: Mapping[str, Sequence[str]] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Start servers at the same moment, the api of each where ``kinds`` has no other services; note what failed."""
    with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
        starts = [
            pool.submit(run.up, f"{scenario}.{name}", server, timeout_s, *(kinds or {}).get(name, ["api"]))
            for name, server in servers.items()
        ]
        meanwhile()
    run.results.put(f"{scenario}.errors", [str(start.exception()) for start in starts if start.exception()])


# ---- one GPU


def ready(run: Run) -> None:
    """Time to ready alone from empty kernel caches; then four at once, which have all of its caches, one each, and none.

    Started at the same moment, they can be compared with each other; but not with the first, which had the machine alone.
    The server with all caches has the benchmark.
    """
    at = Deployment(run.machine, run.machine.plan("one"), gpu=0)
    at.forget_caches()
    with run.step("ready.cold", 170) as go:
        if go:
            at.start("ray")
            run.results.put("ready.ray", at.wait("ray", 60))
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                up = pool.submit(run.up, "ready.cold", at, 240, "api")
                run.results.put("benchmark.dataset", at.benchmark("dataset", ROW))
            up.result()
            run.results.put("ready.caches_at_ready", at.cache_sizes())
            run.results.put("ready.warm_up", at.warm_up(WARM_UPS["default"]))
            run.results.put("ready.caches", at.cache_sizes())
            run.results.put("ready.stop_seconds", at.stop())
    kept: dict[str, Sequence[str]] = {"all": CACHES, "triton": ("triton",), "inductor": ("cache",), "none": ()}
    copies = {
        f"kept-{name}": beside_others(run, f"kept-{name}", i, i % run.machine.gpus) for i, name in enumerate(kept, 1)
    }
    with run.step("ready.kept", 120) as go:
        if go:
            for name, names in kept.items():
                copies[f"kept-{name}"].take_caches(at, names)
            up_at_once(run, "ready", copies, 240)
    for name in ("triton", "inductor", "none"):
        copies[f"kept-{name}"].stop()
    with run.step("ready.kept-warm-up", 40) as go:
        if go:
            run.results.put("ready.kept-all.warm_up", copies["kept-all"].warm_up(WARM_UPS["default"]))
            benchmark(run, copies["kept-all"], "benchmark")
    copies["kept-all"].stop()


def benchmark(run: Run, at: Deployment, name: str, clients: Sequence[str] = ("lmdeploy", "aiperf") * 3) -> None:
    """Both load generators on the same server, in turn; the prompts are there. The first turn still pays for compiling."""
    for number, client in enumerate(clients):
        with run.step(f"{name}.{client}{number}", 40) as go:
            if go:
                run.results.put(f"{name}.{client}{number}", at.benchmark("row", ROW, client))


def certify(run: Run) -> None:
    """How many tokens a second the client may be believed for here."""
    at = Deployment(run.machine, run.machine.plan("one"))
    with run.step("certify", 60) as go:
        if go:
            run.results.put("certify", at.benchmark("certify", ROW, asked_tok_s=20000.0))


def warm_ups(run: Run, names: Sequence[str] = ("none", "guide", "default")) -> None:
    """TTFT after each warm-up, every server from empty caches. All start at once; on each GPU they are measured one by one.

    A GPU of 80 GB has room for three or four servers. The last server's engine is killed in the end.
    """
    gpus = run.machine.gpus
    servers = {name: beside_others(run, name, number, number % gpus) for number, name in enumerate(names, 1)}
    last = servers[names[-1]]
    for server in servers.values():
        server.forget_caches()
    with run.step("warm-ups.start", 200) as go:
        if not go:
            return
        limit = min(run.left - 60, 300)
        up_at_once(run, "warm-ups", servers, limit)

    def measured(gpu: int) -> None:
        for name, server in servers.items():
            if server.gpu != gpu:
                continue
            with run.step(f"warm-up.{name}", 40) as go:
                if go:
                    if name == "guide":
                        run.results.put(f"warm-up.{name}.run", guide_warm_up(server))
                    elif name != "none":
                        run.results.put(f"warm-up.{name}.run", server.warm_up(WARM_UPS[name]))
                    run.ttft(name, server)
                    run.results.put(f"warm-up.{name}.caches", server.cache_sizes())
            if server is not last:
                server.stop()

    with concurrent.futures.ThreadPoolExecutor(gpus) as pool:
        list(pool.map(measured, range(gpus)))
    run.results.text("metrics.txt", get(f"{last.url}/metrics", 10, length=200_000))
    run.results.put("warm-ups.gpu_processes", gpu_processes())
    with run.step("killed-serving", 40) as go:
        if go:
            killed_while_serving(run, last)
    last.stop()


# ---- faults of one GPU


def faults(run: Run) -> None:
    """An engine process killed while it loads; no memory for the weights, and too little for the cache and the rest."""
    killed, short = beside_others(run, "killed", 8), beside_others(run, "short", 9)

    def kill() -> None:
        with run.step("faults.killed-loading", 60) as go:
            if go:
                killed_while_loading(run, killed)
                killed.stop()

    killing = threading.Thread(target=kill)
    killing.start()
    for name, leave_gib in (("weights", 3.0), ("cache", 6.5)):
        with run.step(f"faults.no-memory-for-{name}", 80) as go:
            if go:
                no_memory(run, short, f"faults.no-memory-for-{name}", leave_gib)
    killing.join()


def engine_of(at: Deployment) -> int | None:
    """The process that holds the GPU, which LMDeploy names so; None while there is none."""
    found = [pid for pid in members(at.process("api").name) if comm_of(pid) == "ZMQMPEngine"]
    return found[0] if found else None


def comm_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def children_of(parent: int, name: str) -> list[int]:
    """The processes that ``parent``, of the service ``name``, has started itself."""
    found = [pid for pid in members(name) if _parent(pid) == parent]
    return [pid for pid in found if "resource_tracker" not in command_of(pid)]


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def killed_while_serving(run: Run, at: Deployment) -> None:
    """Kill the engine's process with -9 while a request runs; then what each part of this collection says."""
    name = "faults.killed-serving"
    server = at.process("api")
    run.results.put(f"{name}.processes", at.processes("api"))
    watch = Watch(at.url)
    prompts = Prompts(at.tokenizer(), SIZES[:1]).take(SIZES[0])
    asked: list[str] = []

    def ask_long() -> None:
        import openai

        began = time.monotonic()
        with openai.OpenAI(base_url=f"{at.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            try:
                body: Any = {"ignore_eos": True}
                client.completions.create(model=at.model, prompt=prompts[0], max_tokens=4000, extra_body=body)
                said = "answered"
            except openai.OpenAIError as error:
                said = f"{type(error).__name__}: {error}"
        asked.append(f"{time.monotonic() - began:.1f} s: {said}"[:500])

    running = threading.Thread(target=ask_long, daemon=True)
    running.start()
    time.sleep(1.0)
    victim = engine_of(at)
    assert victim, "there is no engine to kill"
    run.results.put(f"{name}.victim", command_of(victim))
    os.kill(victim, signal.SIGKILL)
    time.sleep(8)
    run.results.put(f"{name}.warm_up", _said(at.warm_up([shape(16)], timeout_s=20, retries=1)))
    verdict = EngineProbe(at.url, at.model, patience=Patience(10, 10, 10)).run()
    run.results.put(f"{name}.probe", [verdict.state.value, verdict.reason])
    running.join(5)
    run.results.put(f"{name}.request_in_flight", asked or "no answer yet")
    run.results.put(f"{name}.health", watch.stop())
    run.results.put(f"{name}.exit_code", server.code)
    if server.code is None:
        run.results.put(f"{name}.wait", at.wait("api", 5))
    run.results.put(f"{name}.log", tail(at))


def killed_while_loading(run: Run, at: Deployment) -> None:
    name = "faults.killed-loading"
    at.start("api")
    watch = Watch(at.url)
    began = time.monotonic()
    while engine_of(at) is None and time.monotonic() - began < 60:
        time.sleep(0.2)
    time.sleep(LOADING_S)
    victim = engine_of(at)
    assert victim, "there is no engine to kill"
    run.results.put(f"{name}.killed_after_s", round(time.monotonic() - began, 1))
    run.results.put(f"{name}.victim", command_of(victim))
    os.kill(victim, signal.SIGKILL)
    run.results.put(f"{name}.wait", at.wait("api", 40))
    run.results.put(f"{name}.health", watch.stop())
    run.results.put(f"{name}.exit_code", at.process("api").code)
    run.results.put(f"{name}.log", tail(at))


BALLAST = """
import sys, time, torch
free, __ = torch.cuda.mem_get_info()
held = torch.empty(int(free - float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(600)
"""


def no_memory(run: Run, at: Deployment, name: str, leave_gib: float) -> None:
    """Start while another process leaves so little of the GPU."""
    with subprocess.Popen(
        [sys.executable, "-c", BALLAST, str(leave_gib)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": str(at.gpu or 0)},
    ) as ballast:
        try:
            assert ballast.stdout is not None
            run.results.put(f"{name}.ballast", ballast.stdout.readline().decode().strip())
            run.results.put(f"{name}.up", at.up(min(run.left - 10, 100), "api"))
            run.results.put(f"{name}.exit_code", at.process("api").code)
            run.results.put(f"{name}.log", tail(at))
        finally:
            ballast.kill()
            at.stop()


def _said(warm_up: Mapping[str, Any]) -> Any:
    result = warm_up["result"]
    return failure_message(result) if result and not result["ok"] else warm_up


def tail(at: Deployment, lines: int = 25, kind: str = "api") -> list[str]:
    """The last lines of a log, without the requests that a watch makes four times a second."""
    log = at.process(kind).logs(timestamps=True, tail=20 * lines).decode(errors="replace").splitlines()
    return [line for line in log if '"GET /' not in line][-lines:]


def gpu_processes() -> list[str]:
    """What nvidia-smi lists as using a GPU, and how much memory is in use."""
    if shutil.which("nvidia-smi") is None:
        return ["no nvidia-smi"]
    found = []
    for query in ("--query-compute-apps=pid,process_name,used_memory", "--query-gpu=index,name,memory.used"):
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        found += done.stdout.splitlines()
    return found


# ---- several GPUs


def several(run: Run, names: Sequence[str] = ("planned", "by-hand", "ranks")) -> None:
    """TP over two raylets as planned, TP by hand, and DP ranks behind the proxy, all on the same GPUs.

    They start at the same moment, each from empty caches, and are measured one after another; then a worker of the first
    and a rank of the last are killed while requests run.
    """
    machine = run.machine
    ports = {"api": 24333, "torch": 29600, "dp_master": 29655}
    plans = {
        "planned": machine.plan("two_nodes"),
        "ranks": machine.plan("ranks", plan_name="ranks", plan_ports=ports),
    }
    engines = {name: by_hand(run) if name == "by-hand" else Deployment(machine, plans[name]) for name in names}
    for at in engines.values():
        at.forget_caches()
    with run.step("several.start", 200) as go:
        if not go:
            return
        if "planned" in names:
            engines["planned"].start("ray")
            run.results.put("several.ray", engines["planned"].wait("ray", 60))

        def make_the_prompts() -> None:
            run.results.put("benchmark.dataset", engines[names[0]].benchmark("dataset", ROW))

        up_at_once(run, "several", engines, 250, {"ranks": ["proxy", "dp"]}, make_the_prompts)
        run.results.put("several.gpu_processes", gpu_processes())
    for name in ("planned", "by-hand"):
        if name in names:
            with run.step(f"ttft.{name}", 30) as go:
                if go:
                    run.ttft(f"{name}-none", engines[name], sizes=SIZES, repeats=3)
    for name, at in engines.items():
        with run.step(f"warm-up.{name}", 40) as go:
            if go:
                run.results.put(f"warm-up.{name}.run", at.warm_up(WARM_UPS["default"]))
                run.ttft(f"{name}-default", at, sizes=SIZES, repeats=3)
    for turn in (1, 2):  # the first turn still pays for compiling
        for name, at in engines.items():
            benchmark(run, at, f"benchmark.{name}{turn}", ["lmdeploy"])
    with run.step("killed", 50) as go:
        if go:
            faulty = {"planned": worker_killed, "ranks": rank_killed}
            threads = [
                threading.Thread(target=fault, args=(run, engines[name]))
                for name, fault in faulty.items()
                if name in names
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    for name, at in engines.items():
        with run.step(f"stop.{name}", 0):
            run.results.put(f"stop.{name}.seconds", at.stop())
            run.results.put(f"stop.{name}.gpu_processes", gpu_processes())


def by_hand(run: Run) -> Deployment:
    """LMDeploy with --tp as a person starts it on one host: no Ray beforehand, nothing in its environment but the caches."""
    ports = {"api": 23433, "torch": 29700}
    plan = run.machine.plan("one", plan_name="byhand", plan_ports=ports, plan_gpus=run.machine.gpus, plan_restarts=0)
    api = next(service for service in plan["services"] if service["service"] == "api")
    kept = {key: value for key, value in api["environment"].items() if key in (*KERNEL_CACHE_PLACES, "HF_HUB_OFFLINE")}
    api = {**api, "environment": kept, "secrets": []}
    return Deployment(run.machine, {**plan, "services": [api]})


def workers_of(at: Deployment, node: str) -> list[int]:
    ray = at.process("ray", node)
    return [pid for pid in members(ray.name) if "RayWorkerWrapper" in command_of(pid)]


def worker_killed(run: Run, at: Deployment) -> None:
    """Kill the second node's worker while requests run."""
    name = "worker-killed"
    victims = workers_of(at, at.nodes[1])
    run.results.put(f"{name}.victims", [command_of(pid) for pid in victims])
    under_load(run, at, "api", name, [at.url], lambda: os.kill(victims[0], signal.SIGKILL))


def under_load(run: Run, at: Deployment, kind: str, name: str, urls: Sequence[str], strike: Callable[[], None]) -> None:
    """Requests one after another from a thread for each URL; what became of each around a fault, in seconds from it."""
    struck = time.monotonic() + 3
    over = struck + 22
    seen: dict[str, list[str]] = {url: [] for url in urls}
    watches = {url: Watch(url) for url in [each["url"] for each in at.plan["endpoints"]]}
    offset = struck - time.monotonic()

    def ask_on(url: str) -> None:
        import openai

        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=15) as client:
            while time.monotonic() < over:
                sent = time.monotonic()
                try:
                    body: Any = {"ignore_eos": True}
                    client.completions.create(model=at.model, prompt="one two three", max_tokens=64, extra_body=body)
                    said = "answered"
                except openai.OpenAIError as error:
                    said = f"{type(error).__name__}: {error}"[:200]
                    time.sleep(0.5)
                line = f"{sent - struck:+.1f} s, took {time.monotonic() - sent:.1f} s: {said}"
                if (
                    len(seen[url]) > 1
                    and seen[url][-1].endswith(f" s: {said}")
                    and seen[url][-2].endswith(f" s: {said}")
                ):
                    seen[url].pop()  # of several alike the first and the last
                seen[url].append(line)

    threads = [threading.Thread(target=ask_on, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, struck - time.monotonic()))
    strike()
    for thread in threads:
        thread.join(45)
    health = {url: [(round(at_s - offset, 2), said) for at_s, said in watch.stop()] for url, watch in watches.items()}
    run.results.put(f"{name}.requests", seen)
    run.results.put(f"{name}.health", health)
    verdicts = {
        each["url"]: EngineProbe(each["url"], at.model, patience=Patience(8, 8, 8)).run()
        for each in at.plan["endpoints"]
    }
    run.results.put(f"{name}.probe", {url: [each.state.value, each.reason] for url, each in verdicts.items()})
    if at.plan["proxy"]:
        run.results.put(f"{name}.proxy", get(f"{at.plan['proxy']['url']}/nodes/status", 5))
    run.results.put(f"{name}.exit_code", at.process(kind).code)
    run.results.put(f"{name}.log", tail(at, 40, kind))


def rank_killed(run: Run, at: Deployment) -> None:
    """Kill what runs the last rank: LMDeploy's launcher starts a process for each, a child of its own."""
    launcher = at.process("dp")
    children = children_of(launcher.pid, launcher.name)
    run.results.put("rank-killed.children", {pid: command_of(pid) for pid in children})
    urls = [*(each["url"] for each in at.plan["endpoints"]), at.url]
    under_load(run, at, "dp", "rank-killed", urls, lambda: os.kill(max(children), signal.SIGKILL))


# ---- a long prefill, and what looks like one


SESSION = 131072  # V3's longest; as much as the small model's cache takes with the options below
CHUNK = 512  # tokens of a prefill's step: the smaller, the longer the prefill
PATIENCE = Patience(5, 15, 30)
HUNG_S = 45.0


def prefill(run: Run, parts: Sequence[str] = ("one", "collective")) -> None:
    """What moves in an idle engine, in a long prefill, in a hang, and in a collective that never ends (gpu/prefill.py)."""
    options = {"session_len": SESSION, "max_prefill_token_num": CHUNK, "cache_max_entry_count": 0.5}
    if "one" in parts:
        ports = {"api": 23533, "torch": 29800}
        plan = run.machine.plan(
            "one", plan_name="prefill", plan_ports=ports, plan_api_server_options=options, plan_restarts=0
        )
        at = Deployment(run.machine, plan, only=["api"], gpu=0)
        with run.step("prefill.one", 240) as go:
            if go:
                run.up("prefill.one", at, 240, "api")
                one_engine(run, at)
        at.stop()
    if "collective" in parts and run.machine.gpus > 1:
        both = by_hand(run)
        with run.step("prefill.collective", 200) as go:
            if go:
                run.up("prefill.collective", both, 240, "api")
                collective(run, both)
        both.stop()


def probed(at: Deployment, names: Sequence[str]) -> list[str]:
    """The verdict of the engine probe, with the processor time of the service as it has it of containers."""
    probe = EngineProbe(
        at.url, at.model, patience=PATIENCE, cpu_s=lambda: cpu_of(names).get("cpu of all"), gpus_work=gpus_work
    )
    began = time.monotonic()
    verdict = probe.run()
    return [verdict.state.value, verdict.reason, f"{time.monotonic() - began:.1f} s"]


def one_engine(run: Run, at: Deployment) -> None:
    name, services = "prefill.one", [at.process("api").name]
    long = Size(SESSION - 256)
    prompts = Prompts(at.tokenizer(), [long], times=3)
    run.results.put(f"{name}.prompt_tokens", long.tokens)
    sampler = Sampler(at.url, services)
    try:
        with sampler.during("idle"):
            time.sleep(12)
        shorts = Shorts(at.url, at.model)
        with sampler.during("short"):
            time.sleep(12)
        with sampler.during("long+short"):
            out = Asker(at.url, at.model, prompts.take(long)[0], 8, 600)
            run.results.put(f"{name}.probe_beside", probed(at, services))
            out.thread.join(min(run.left, 200))
        run.results.put(f"{name}.long_beside", out.told())
        run.results.put(f"{name}.shorts", shorts.stop())
        with sampler.during("long"):
            out = Asker(at.url, at.model, prompts.take(long)[0], 8, 600)
            run.results.put(f"{name}.probe_alone", probed(at, services))
            out.thread.join(min(run.left, 200))
        run.results.put(f"{name}.long_alone", out.told())
        engine = engine_of(at)
        assert engine, "there is no engine to stop"
        run.results.put(f"{name}.engine", described([engine]))

        def ask() -> Asker:
            return Asker(at.url, at.model, "one two three", 8, 300)

        with stopped([engine]):
            found = hang(sampler, "hang", HUNG_S, ask, lambda: probed(at, services))
            run.results.put(f"{name}.hang", found)
        time.sleep(5)
        with stopped([engine]), spinning(at.gpu or 0) as said:
            found = hang(sampler, "hang+spin", HUNG_S, ask, lambda: probed(at, services))
            run.results.put(f"{name}.spin", {"spin": said, **found})
        time.sleep(5)
        run.results.put(f"{name}.afterwards", probed(at, services))
    finally:
        told(run, name, sampler.stop())


def collective(run: Run, at: Deployment) -> None:
    """TP 2, of which one worker is stopped while a request runs: the other one waits for it in a collective."""
    name, services = "prefill.collective", [at.process("api").name]
    sampler = Sampler(at.url, services)
    try:
        with sampler.during("idle"):
            time.sleep(10)
        workers = [pid for pid in members(services[0]) if "RayWorkerWrapper" in command_of(pid)]
        run.results.put(f"{name}.workers", described(workers))
        assert len(workers) > 1, "there are no two workers"

        def ask() -> Asker:
            return Asker(at.url, at.model, "one two three", 2000, 300)

        with stopped(workers[-1:]):
            found = hang(sampler, "collective", HUNG_S, ask, lambda: probed(at, services))
            run.results.put(f"{name}.hang", found)
    finally:
        told(run, name, sampler.stop())


def told(run: Run, name: str, readings: Sequence[Any]) -> None:
    """Keep the readings and what moved, and print that."""
    moved = what_moved(readings)
    phases = list(dict.fromkeys(each.phase for each in readings if each.phase))
    file = name.replace(".", "-")
    run.results.text(f"{file}.txt", table(moved, phases))
    run.results.text(f"{file}.json", json.dumps([dataclasses.asdict(each) for each in readings]))
    run.results.put(f"{name}.moved", {s: {p: str(m) for p, m in each.items()} for s, each in moved.items()})
    health = {phase: sorted({each.health[:60] for each in readings if each.phase == phase}) for phase in phases}
    run.results.put(f"{name}.health", health)
    print(table(moved, phases), flush=True)


# ---- engines that start again by themselves


HEALED_S = 300.0


def heals(run: Run, parts: Sequence[str] = ("tp", "ranks")) -> None:
    """TP over two raylets, and two DP ranks under torchrun, both supervised; then what serves is killed while requests run.

    ``tp``: a Ray worker, which LMDeploy's server outlives; then the api_server itself. ``ranks``: torchrun, then an
    engine, then a rank's program.
    """
    machine = run.machine
    ports = {"api": 24333, "torch": 29600, "dp_master": 29655}
    plans = {
        "tp": machine.plan("two_nodes", plan_restarts=5),
        "ranks": machine.plan("ranks", plan_name="ranks", plan_ports=ports, plan_launcher="torchrun", plan_restarts=5),
    }
    engines = {name: Deployment(machine, plans[name]) for name in parts}
    with run.step("heals.start", 200) as go:
        if not go:
            return
        kinds = {"tp": ["ray", "api"], "ranks": ["proxy", "dp"]}
        up_at_once(run, "heals", engines, 300, kinds)
        for name, at in engines.items():
            run.results.put(f"heals.{name}.first_proven_s", proven(at, 120))
    faults: dict[str, list[tuple[str, Callable[[Deployment], int]]]] = {
        "tp": [
            ("worker", lambda at: workers_of(at, at.nodes[1])[0]),
            ("api_server", lambda at: running(at, "api", "serve api_server")),
        ],
        "ranks": [
            ("torchrun", lambda at: running(at, "dp", "torchrun --nnodes")),
            ("engine", lambda at: running(at, "dp", "rank.py --engine 1")),
            ("rank_program", lambda at: running(at, "dp", "rank.py --first-rank", last=True)),
        ],
    }

    def strike(name: str) -> None:
        at = engines[name]
        for fault, victim_of in faults[name]:
            with run.step(f"heals.{name}.{fault}", 100) as go:
                if go:
                    heal(run, at, f"heals.{name}.{fault}", victim_of)

    threads = [threading.Thread(target=strike, args=(name,)) for name in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, at in engines.items():
        run.results.put(f"heals.{name}.starts", at.starts())
        run.results.put(f"heals.{name}.stop_seconds", at.stop())
    run.results.put("heals.gpu_processes_at_the_end", gpu_processes())


def running(at: Deployment, kind: str, text: str, *, last: bool = False) -> int:
    """A process of a service with these words in its command line, but for the supervisor's own, which has them too."""
    supervisor = at.process(kind).pid
    found = [pid for pid in members(at.process(kind).name) if text in command_of(pid) and pid != supervisor]
    return max(found) if last else min(found)


def proven(at: Deployment, timeout_s: float, starts: int = 0) -> float | str:
    """Seconds until every supervisor has seen a token after more than so many starts."""
    began = time.monotonic()
    while time.monotonic() < began + timeout_s:
        told = at.starts().values()
        if told and all(
            [e["event"] for e in each].count("start") > starts and each[-1]["event"] == "proven" for each in told
        ):
            return round(time.monotonic() - began, 1)
        time.sleep(0.2)
    return f"not within {timeout_s:g} s: {at.starts()}"


def heal(run: Run, at: Deployment, name: str, victim_of: Callable[[Deployment], int]) -> None:
    """Kill a process with -9 under a steady load on every endpoint; when each gives tokens again, and what is left behind."""
    import openai

    urls = [each["url"] for each in at.plan["endpoints"]]
    answers: dict[str, list[tuple[float, bool]]] = {url: [] for url in urls}
    over = threading.Event()

    def ask_on(url: str) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10) as client:
            while not over.is_set():
                try:
                    client.completions.create(model=at.model, prompt="one two three", max_tokens=8)
                    answers[url].append((time.monotonic(), True))
                except openai.OpenAIError:
                    answers[url].append((time.monotonic(), False))
                time.sleep(0.1)

    before = {pid: command_of(pid) for service in at.plan["services"] for pid in members(at.name_of(service))}
    starts = min([e["event"] for e in each].count("start") for each in at.starts().values())
    threads = [threading.Thread(target=ask_on, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    time.sleep(3)
    victim = victim_of(at)
    run.results.put(f"{name}.victim", command_of(victim))
    struck = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    healed = proven(at, min(HEALED_S, run.left - 30), starts)
    time.sleep(3)
    over.set()
    for thread in threads:
        thread.join(15)
    run.results.put(f"{name}.proven_s", healed)
    for url, seen in answers.items():
        failed = [at_s for at_s, good in seen if not good and at_s > struck]
        back = [at_s - struck for at_s, good in seen if good and at_s > max(failed, default=struck)]
        told = {
            "answered": sum(good for __, good in seen),
            "failed": len(failed),
            "back_s": round(min(back), 1) if back else None,
        }
        run.results.put(f"{name}.requests.{url}", told)
    gone = [pid for pid, command in before.items() if command_of(pid) == command and starts and _is_engine(command)]
    run.results.put(f"{name}.left_of_the_old", [f"{pid} {before[pid]}" for pid in gone])
    run.results.put(f"{name}.gpu_processes", gpu_processes())


def _is_engine(command: str) -> bool:
    return any(word in command for word in ("rank.py", "serve api_server", "RayWorkerWrapper", "multiprocessing"))


SCENARIOS: dict[str, tuple[Callable[..., None], int]] = {
    "ready": (ready, 1),
    "warm-ups": (warm_ups, 1),
    "certify": (certify, 1),
    "faults": (faults, 1),
    "several": (several, 2),
    "prefill": (prefill, 1),
    "heals": (heals, 2),
    "watch": (watch, 1),
    "prefixes": (prefixes, 2),
    "doors": (doors, 1),
}
