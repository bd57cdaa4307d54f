# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All-reduce over a group of hosts' GPUs: how long it takes by size, whether its sum is right, and what NCCL went over.

One start of this program a host, in the engine's container, with a configuration (``Config``) as a JSON file:

    python3 -m lmfleet_client.link_test config.json

It starts one worker for each GPU (itself, with ``--worker``), and ends them all where one fails or the time is over: NCCL
alone waits for a lost rank for ever. What it found is one event ``result`` on stdout:

    {"event": "result", "ok": true, "backend": "nccl", "seconds": 9.1,
     "ranks": [{"rank": 0, "stage": "done", "ended": "", "error": "", "rows": [{"bytes": 8, "seconds": 2e-05, "wrong": 0}],
                "device": "NVIDIA H100 80GB HBM3", "network": {...}}]}

``stage`` is what a rank was at: start, meeting, first (the first all-reduce, in which NCCL connects), ``N B`` or done.
``ended`` says of one that was not done how it ended: ``exit`` (by itself), ``signal`` (somebody killed it), ``hung`` (it had not
ended when the time was over) or ``stopped`` (for another of its host had failed). The bandwidths are left to the reader, by
nccl-tests' arithmetic.

Python 3.9 or later; the standard library and the image's torch. Without torch's CUDA the backend is gloo, on the processors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

try:
    from .events import emit
except ImportError:  # started as a file: its folder is on the path
    from events import emit  # type: ignore[no-redef,import-not-found,unused-ignore]

FLOAT = 4
GRACE_S = 2.0  # for the words of other ranks once one has failed
TAIL = 8  # lines of stderr that are kept of a rank
MAX_BYTES = {"nccl": 256 << 20, "gloo": 4 << 20}
CHANNEL = re.compile(r"NCCL INFO Channel \S+(?: : |\s).*\bvia (\S+)")
NETWORK = re.compile(r"NCCL INFO Using network (\S+)")
DEVICES = re.compile(r"NCCL INFO NET/(\w+) : Using (.*)")
VERSION = re.compile(r"NCCL version (\S+)")


@dataclasses.dataclass(frozen=True)
class Config:
    """``first_rank`` and ``gpus`` are this host's share of ``world`` ranks, which meet at ``address``:``port``, on rank 0's host.

    Sizes go from ``min_bytes`` to ``max_bytes`` (0: what the backend is good for) by ``factor``. ``limit_s`` is for all of it.
    ``logs`` is a directory in which the ranks' logs stay; empty keeps none.
    """

    world: int
    first_rank: int
    gpus: int
    address: str
    port: int
    limit_s: float = 120.0
    min_bytes: int = 8
    max_bytes: int = 0
    factor: int = 4
    warmups: int = 5
    iterations: int = 20
    logs: str = ""

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Config:
        """Out of JSON, whatever else is in it. Raises KeyError, TypeError or ValueError."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        config = cls(**{key: value for key, value in data.items() if key in fields})
        if config.gpus < 1 or config.factor < 2 or config.min_bytes < FLOAT or config.iterations < 1:
            raise ValueError(f"gpus {config.gpus}, factor {config.factor}, min_bytes {config.min_bytes}")
        return config

    def sizes(self, backend: str) -> list[int]:
        """Bytes of each all-reduce, whole floats, the largest included."""
        largest = max(self.max_bytes or MAX_BYTES[backend], self.min_bytes)
        found, size = [], self.min_bytes
        while size < largest:
            found.append(size // FLOAT * FLOAT)
            size *= self.factor
        return [*found, largest // FLOAT * FLOAT]


# ---- NCCL's own log


def network_of(log: str) -> dict[str, Any]:
    """What NCCL says that it goes over, out of its log with ``NCCL_DEBUG=INFO``.

    ``{"version", "network": what it uses between hosts (IB, Socket, a plugin's name), "devices": {network: as NCCL lists them},
    "transports": {name: number of channels}}``. A transport is without its device's number: ``NET/IB/GDRDMA``.
    """
    found: dict[str, Any] = {"version": "", "network": "", "devices": {}, "transports": {}}
    for line in log.splitlines():
        if match := VERSION.search(line):
            found["version"] = match[1]
        if match := NETWORK.search(line):
            found["network"] = match[1]
        if match := DEVICES.search(line):
            found["devices"][match[1]] = match[2].strip()
        if match := CHANNEL.search(line):
            name = re.sub(r"/\d+(\(\d+\))?(?=/|$)", "", match[1])
            found["transports"][name] = found["transports"].get(name, 0) + 1
    used = sorted(name.split("/")[1] for name in found["transports"] if name.startswith("NET/"))
    found["network"] = (used or [found["network"]])[
        0
    ]  # the channels know better than the start, which older releases leave out
    return found


# ---- one rank


def work(config: Config, local_rank: int) -> NoReturn:
    """One rank, from its meeting with the others to its last size; writes what it does as JSON lines to stdout."""
    import torch
    import torch.distributed as dist

    rank = config.first_rank + local_rank
    cuda = bool(torch.version.cuda) and torch.cuda.is_available() and dist.is_nccl_available()
    backend = "nccl" if cuda else "gloo"
    if cuda and torch.cuda.device_count() <= local_rank:
        raise RuntimeError(
            f"torch sees {torch.cuda.device_count()} GPUs in this container, and {config.gpus} are planned"
        )
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    say(backend=backend, device=torch.cuda.get_device_name(device) if cuda else "processor", stage="meeting")
    from datetime import timedelta

    dist.init_process_group(
        backend,
        init_method=f"tcp://{config.address}:{config.port}",
        rank=rank,
        world_size=config.world,
        timeout=timedelta(seconds=config.limit_s),
    )

    def settle() -> None:
        if cuda:
            torch.cuda.synchronize(device)

    say(stage="first")
    sizes = config.sizes(backend)
    data = torch.empty(max(sizes) // FLOAT, dtype=torch.float32, device=device)
    wanted = float(config.world * (config.world + 1) // 2)
    dist.all_reduce(data[:2].fill_(1.0))
    settle()
    for size in sizes:
        say(stage=f"{size} B")
        part = data[: size // FLOAT].fill_(float(rank + 1))
        dist.all_reduce(part)
        wrong = int((part != wanted).sum().item())
        part.fill_(0.0)  # sums of nothing stay nothing, however often
        for __ in range(config.warmups):
            dist.all_reduce(part)
        settle()
        dist.barrier()
        began = time.perf_counter()
        for __ in range(config.iterations):
            dist.all_reduce(part)
        settle()
        say(row={"bytes": size, "seconds": (time.perf_counter() - began) / config.iterations, "wrong": wrong})
    dist.barrier()  # rank 0 has the store
    say(stage="done")
    time.sleep(0.2)  # for the others to be past the barrier; taking all down in good order takes seconds
    os._exit(0)


def say(**what: Any) -> None:
    """A line for the process that started this one."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# ---- all ranks of this host


class Rank:
    """One worker, as its host sees it."""

    def __init__(self, config: Config, local_rank: int, path: str, folder: Path) -> None:
        self.rank = config.first_rank + local_rank
        self.told: dict[str, Any] = {"stage": "start", "rows": []}
        self.log = folder / f"nccl-{self.rank}.log"
        self._stderr = folder / f"stderr-{self.rank}"
        environment = {
            **os.environ,
            "NCCL_DEBUG": "INFO",
            "NCCL_DEBUG_SUBSYS": "INIT,NET,ENV,GRAPH,P2P,SHM",
            "NCCL_DEBUG_FILE": str(self.log),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "PYTHONUNBUFFERED": "1",
        }
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, __file__, path, "--worker", str(local_rank)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            with contextlib.suppress(ValueError):  # what a library prints is none of ours
                said = json.loads(line)
                if isinstance(said, dict):
                    row = said.pop("row", None)
                    self.told.update(said)
                    if row:
                        self.told["rows"].append(row)

    def end(self) -> None:
        """Kill it with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that a driver holds ends with its container
            self.process.wait(5)
        self._reader.join(5)
        if self.process.stdout and not self._reader.is_alive():
            self.process.stdout.close()

    def report(self, code: int | None, limit_s: float, hung: bool) -> dict[str, Any]:
        """What came of it; ``code`` is its exit code as it was before all were ended, None where it still ran."""
        done = self.told["stage"] == "done"
        log = read(self.log)
        warned = [line.strip() for line in log.splitlines() if "NCCL WARN" in line]
        last = [line for line in read(self._stderr).splitlines() if line.strip()]
        if code is None:
            ended = "hung" if hung else "stopped"
            words = [
                f"no end within {limit_s:.0f} s" if hung else "ended, for another rank of its host had failed",
                *warned,
            ]
        elif code < 0:
            ended, words = "signal", [f"killed by signal {-code}", *warned]
        else:
            ended, words = "exit", [*warned[-TAIL:], *last[-TAIL:]] or [f"exit code {code}"]
        return {
            "rank": self.rank,
            "stage": self.told["stage"],
            "ended": "" if done else ended,
            "error": "" if done else "\n".join(words),
            "rows": self.told["rows"],
            "device": self.told.get("device", ""),
            "network": network_of(log),
        }


def read(path: Path) -> str:
    """A file's text, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def run(config: Config, path: str) -> dict[str, Any]:
    """Start this host's ranks, and end them when all are done, when one has failed, or when the time is over."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(config.logs or stack.enter_context(tempfile.TemporaryDirectory(prefix="lmfleet-links-")))
        ranks = [Rank(config, local, path, folder) for local in range(config.gpus)]
        hung = False
        try:
            shown = slowest(each.told["stage"] for each in ranks)
            emit({"event": "progress", "stage": shown, "seconds": 0.0})  # though all may be over in a moment
            while any(each.process.poll() is None for each in ranks):
                seconds = time.monotonic() - began
                stage = slowest(each.told["stage"] for each in ranks)
                if stage != shown:
                    shown = stage
                    emit({"event": "progress", "stage": stage, "seconds": round(seconds, 1)})
                if any(each.process.poll() for each in ranks):
                    time.sleep(GRACE_S)
                    break
                if seconds > config.limit_s:
                    hung = True
                    break
                time.sleep(0.05)
            codes = [each.process.poll() for each in ranks]
        finally:
            for each in ranks:
                each.end()
        reports = [each.report(code, config.limit_s, hung) for each, code in zip(ranks, codes)]
        backend = next((each.told["backend"] for each in ranks if "backend" in each.told), "")
    return {
        "event": "result",
        "ok": all(each["stage"] == "done" for each in reports),
        "backend": backend,
        "seconds": round(time.monotonic() - began, 2),
        "ranks": reports,
    }


def slowest(stages: Iterable[str]) -> str:
    """The stage of the rank that is least far."""
    order = {"start": -3, "meeting": -2, "first": -1, "done": 1 << 62}
    return min(stages, key=lambda stage: order.get(stage, 0) or int(stage.partition(" ")[0]))


def main(argv: list[str]) -> int:
    """Run the host's part, or with ``--worker N`` one rank's; the exit code."""
    try:
        config = Config.from_mapping(json.loads(Path(argv[0]).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        sys.stderr.write(f"link test: wrong configuration: {error}\n")
        return 2
    if argv[1:2] == ["--worker"]:
        work(config, int(argv[2]))
    result = run(config, argv[0])
    emit(result)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
