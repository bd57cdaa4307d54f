# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan's services as processes, and this collection's own wait, warm-up and benchmark against them, unchanged."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu.processes import Client, Process, command_of, members

from ansible_collections.lmfleet.lmdeploy.plugins.action import wait as wait_action
from ansible_collections.lmfleet.lmdeploy.plugins.action.benchmark_job import MODULES, configuration
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._events import last_events
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._http import NoAnswer, exchange
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import files
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.board import Board
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.job import PACKAGE, program
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.supervision import programs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import PROGRAMS_TARGET, Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.readiness import HostWait, Limits

ROOT = Path(__file__).parents[2]
CACHES = ("cache", "triton", "deep_gemm", "nv")
# The second host's Ray listens this far above the planned ports, for both hosts are one machine.
PORT_SHIFT = 1000
WATCH_S = 0.25


@dataclasses.dataclass
class Machine:
    """What all scenarios share: where things are, and what every service gets on top of its environment."""

    root: Path
    out: Path
    addresses: list[str]
    gpus: int
    extra: dict[str, str]
    client_path: str
    script: str | None
    client: Client = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.root / "logs")

    def plan(self, inventory: str, **variables: Any) -> dict[str, Any]:
        """The plan that ``playbooks/plan.yml`` makes of one of the inventories here."""
        file = self.root / "plan.json"
        given = {
            "gpu_root": str(self.root),
            "gpu_addresses": self.addresses,
            "gpu_count": self.gpus,
            "plan_show": "json",
            "plan_file": str(file),
            **variables,
        }
        source = Path(__file__).with_name("inventory") / f"{inventory}.yml"
        command = ["ansible-playbook", "-i", str(source), "playbooks/plan.yml", "-e", json.dumps(given)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"plan.yml failed:\n{done.stdout}{done.stderr}")
        made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return made


class LocalWait(wait_action.ActionModule):
    """The action ``wait`` with the look at the host made here; its rounds are its own."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def _execute_module(self, name: str, asked: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        assert name.endswith("observe")
        return look(self._client, asked)


class Told(HostWait):
    """HostWait that remembers what it has shown."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.told: list[str] = []

    def news(self) -> list[str]:
        news = super().news()
        self.told += news
        return news


class Watch:
    """What an api_server's /health answers, each change with the seconds since the watch began."""

    def __init__(self, url: str) -> None:
        self.changes: list[tuple[float, str]] = []
        self._url, self._began, self._over = url, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(WATCH_S):
            answer = get(f"{self._url}/health", 5.0)
            if not self.changes or self.changes[-1][1] != answer:
                self.changes.append((round(time.monotonic() - self._began, 2), answer))

    def stop(self) -> list[tuple[float, str]]:
        self._over.set()
        self._thread.join(6)
        return self.changes


def get(url: str, timeout_s: float, length: int = 200) -> str:
    """Status and body of an answer, or why there is none."""
    try:
        reply = exchange(url, deadline_s=timeout_s)
    except NoAnswer as error:
        return str(error)
    return f"{reply.status} {reply.text[:length]}"


class Deployment:
    """The services of a plan on this machine.

    ``only`` leaves out all services of another kind; ``gpu`` is the one that a host with a single GPU gets.
    """

    def __init__(
        self, machine: Machine, plan: dict[str, Any], only: Sequence[str] | None = None, gpu: int | None = None
    ) -> None:
        self.machine, self.gpu = machine, gpu
        self.plan = {**plan, "services": [s for s in plan["services"] if only is None or s["service"] in only]}
        self.nodes = [node["name"] for node in plan["nodes"]]

    @property
    def url(self) -> str:
        return str(self.plan["url"])

    @property
    def model(self) -> str:
        return str(self.plan["served_model_name"])

    @property
    def homes(self) -> list[Path]:
        return [Path(node["state_dir"]) / self.plan["name"] for node in self.plan["nodes"]]

    def client_of(self, node: str) -> Client:
        """What docker.client is on that host: services have their planned names there."""
        return _OnHost(self.machine.client, node)

    def name_of(self, service: Mapping[str, Any]) -> str:
        return f"{service['node']}.{service['name']}"

    def process(self, kind: str, node: str | None = None) -> Process:
        found = [s for s in self.plan["services"] if s["service"] == kind and node in (None, s["node"])]
        return self.machine.client.get(self.name_of(found[0]))

    def forget_caches(self) -> None:
        """Empty the kernel caches that the service role mounts."""
        for home in self.homes:
            for name in CACHES:
                shutil.rmtree(home / name, ignore_errors=True)

    def take_caches(self, other: Deployment, names: Sequence[str]) -> None:
        """Have the head's kernel caches of ``names`` as another deployment left them, and the others empty."""
        self.forget_caches()
        for name in names:
            if (other.homes[0] / name).exists():
                shutil.copytree(other.homes[0] / name, self.homes[0] / name, symlinks=True)

    def cache_sizes(self) -> dict[str, dict[str, float]]:
        """Of each kernel cache of the head, and of the temporary directories, which no start keeps: files, and MB."""
        found = {}
        for name, path in self._kept_places().items():
            files = [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
            found[name] = {
                "files": len(files),
                "mb": round(sum(f.stat().st_size for f in files) / 1e6, 1),
            }
        return found

    def kernels(self) -> dict[str, int]:
        """Kernels that were compiled on the head, wherever they are kept, by name with their number of variants."""
        counts: dict[str, int] = {}
        for place in self._kept_places().values():
            for path in place.rglob("*.cubin"):
                counts[path.stem] = counts.get(path.stem, 0) + 1
        return counts

    def _kept_places(self) -> dict[str, Path]:
        names = [self.name_of(service) for service in self.plan["services"] if service["node"] == self.nodes[0]]
        return {
            **{name: self.homes[0] / name for name in CACHES},
            **{f"tmp of {name}": self.machine.client.home_of(name) / "tmp" for name in names},
        }

    def start(self, *kinds: str, extra: Mapping[str, str] | None = None) -> None:
        """Start the services of these kinds, all where none is named, in the plan's order."""
        token = secrets.token_hex(32)
        gpus = 0
        first = {}
        for node in self.plan["nodes"]:
            first[node["name"]] = gpus
            gpus += node["gpus"]
        for service in self.plan["services"]:
            if kinds and service["service"] not in kinds:
                continue
            for secret in service["secrets"]:
                file = Path(secret["source"])
                file.parent.mkdir(parents=True, exist_ok=True)
                others = [Path(s["source"]) for each in self.plan["services"] for s in each["secrets"]]
                known = next((other.read_text() for other in others if other.exists()), token)
                file.write_text(known)
                file.chmod(0o600)
            for mount in service["mounts"]:
                if mount["target"] == PROGRAMS_TARGET:
                    for path, text in programs().items():
                        (Path(mount["source"]) / path).parent.mkdir(parents=True, exist_ok=True)
                        (Path(mount["source"]) / path).write_text(text, encoding="utf-8")
            node = next(node for node in self.plan["nodes"] if node["name"] == service["node"])
            visible = ",".join(str(first[node["name"]] + gpu) for gpu in range(node["gpus"]))
            own = {"CUDA_VISIBLE_DEVICES": visible} if len(self.nodes) > 1 else {}
            own |= {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.gpu)}
            moved = service if node["rank"] == 0 else {**service, "command": self._moved(service["command"])}
            more = {**own, **self.machine.extra, **(extra or {})}
            self.machine.client.start(moved, self.name_of(service), more)

    def _moved(self, command: Sequence[str]) -> list[str]:
        keys = [key for key in self.plan["ports"] if key.startswith("ray_") and key != "ray_dashboard"]
        ports = {str(self.plan["ports"][key]): str(self.plan["ports"][key] + PORT_SHIFT) for key in keys}
        return [ports.get(word, word) for word in command]

    def wait(self, stage: str, timeout_s: float, no_progress_s: float = 600) -> dict[str, Any]:
        """The action ``wait`` on every host at once: seconds, what it showed, and its failure if it failed."""
        limits = Limits(timeout_s, no_progress_s)
        waits = {node: Told(Plan.from_json(self.plan), node, stage, limits) for node in self.nodes}
        task = f"{stage}-{secrets.token_hex(4)}"
        began = time.monotonic()

        def one(node: str) -> dict[str, Any]:
            board = Board(task, node)
            action = LocalWait(self.client_of(node))
            return action._rounds(waits[node], board, False, began, {"inventory_hostname": node})

        with concurrent.futures.ThreadPoolExecutor(len(self.nodes)) as pool:
            results = dict(zip(self.nodes, pool.map(one, self.nodes)))
        told = {node: each.told for node, each in waits.items()}
        failed = {node: result["msg"] for node, result in results.items() if result.get("failed")}
        return {"seconds": round(time.monotonic() - began, 1), "told": told, "failed": failed}

    def up(self, timeout_s: float, *kinds: str, extra: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Start services, watch /health and wait for the API; the seconds are from the start of the first of them."""
        began = time.monotonic()
        watch = Watch(self.plan["endpoints"][0]["url"])
        self.start(*kinds, extra=extra)
        waited = self.wait("api", timeout_s)
        answered = [at for at, answer in watch.stop() if answer.startswith("200")]
        return {
            **waited,
            "seconds": round(time.monotonic() - began, 1),
            "answered": answered[0] if answered else None,
            "health": watch.changes,
        }

    def starts(self) -> dict[str, list[dict[str, Any]]]:
        """By service, what its supervisor wrote down of its engine's starts."""
        kept = {self.name_of(each): each["starts"] for each in self.plan["services"] if each.get("starts")}
        return {name: files.kept_lines(path) for name, path in kept.items()}

    def processes(self, kind: str) -> dict[int, str]:
        """The processes of a service by their ids."""
        names = [self.name_of(s) for s in self.plan["services"] if s["service"] == kind]
        return {pid: command_of(pid) for name in names for pid in members(name)}

    def stop(self, *kinds: str) -> float:
        """Stop services, the last first; the seconds it took."""
        began = time.monotonic()
        for service in reversed(self.plan["services"]):
            if not kinds or service["service"] in kinds:
                with contextlib.suppress(Exception):
                    self.machine.client.get(self.name_of(service)).stop()
        return round(time.monotonic() - began, 1)

    # ---- clients

    def warm_up(
        self, shapes: Sequence[Mapping[str, Any]], timeout_s: float = 120.0, retries: int = 3
    ) -> dict[str, Any]:
        """The warm-up client as the action ``warmup`` packs and runs it: exit code and its result."""
        endpoints = [{key: each[key] for key in ("rank", "node", "url")} for each in self.plan["endpoints"]]
        config = {
            "endpoints": endpoints,
            "model": self.model,
            "shapes": list(shapes),
            "timeout_s": timeout_s,
            "retries": retries,
        }
        return self._run("warm-up", program("events", "warmup"), f"{PACKAGE}.warmup", config, {})

    def benchmark(self, stage: str, row: Mapping[str, Any], client: str = "aiperf", **more: Any) -> dict[str, Any]:
        """One stage of the benchmark as the action ``benchmark_job`` runs it."""
        folder = self.machine.root / "benchmark"
        options = {
            "stage": stage,
            "client": client,
            "client_script": None,
            "model": self.plan["model"],
            "seed": 1,
            "sharegpt": None,
            "request_timeout": 600.0,
            "asked_tok_s": None,
            "row": dict(row),
            "urls": [self.url],
            "served_model_name": self.model,
            **more,
        }
        config = {
            **configuration(options),
            "folder": str(folder),
            "client": {"name": client, "script": self.machine.script},
            "api_key": None,
        }
        files = program("events", *(f"benchmark.{name}" for name in MODULES))
        environment = {
            "HF_HOME": self.plan["nodes"][0]["hf_home"],
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        if client == "aiperf" and stage != "dataset":  # which is made in the engine's image
            paths = [path for path in self.machine.client_path.split(":") if path]
            environment["PYTHONPATH"] = ":".join(paths)
            environment["PATH"] = ":".join([*(f"{path}/bin" for path in paths), os.environ["PATH"]])
        return self._run("benchmark", files, f"{PACKAGE}.benchmark.runner", config, environment)

    def tokenizer(self) -> str:
        """The model's folder, whose tokenizer counts as the server does."""
        found = Path(self.plan["nodes"][0]["hf_home"]) / "hub" / ("models--" + self.plan["model"].replace("/", "--"))
        return str(next((found / "snapshots").iterdir()))

    def _run(
        self,
        kind: str,
        files: Mapping[str, str],
        module: str,
        config: Mapping[str, Any],
        environment: Mapping[str, str],
    ) -> dict[str, Any]:
        folder = self.machine.root / "clients" / f"{self.plan['name']}-{kind}"
        shutil.rmtree(folder, ignore_errors=True)
        for name, text in {**files, "config.json": json.dumps(config)}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        began = time.monotonic()
        done = subprocess.run(
            ["python3", "-m", module, "config.json"],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        result = last_events(done.stdout).get("result")
        return {
            "exit_code": done.returncode,
            "seconds": round(time.monotonic() - began, 2),
            "result": result,
            "stderr": "" if result else done.stderr[-2000:],
        }


class _OnHost(Client):
    """The services of one host, by their planned names."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self.containers, self.images = self, client.images

    def get(self, name: str) -> Process:
        return self._client.get(f"{self._node}.{name}")
