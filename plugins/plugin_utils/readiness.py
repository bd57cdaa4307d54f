# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wait for readiness of one host: what to ask in each round, what the answer means, when to give up.

Pure: no clock, no connection. ``plugins/action/wait.py`` asks the questions of M(observe) in rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.containers import before_up
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.ray import Members

from .healing import Healing, healing
from .logs import (
    Phase,
    explain,
    explained,
    failed_rank,
    fatal_line,
    lost_start,
    of_rank,
    phase_of,
    plain,
)
from .planning.types import Plan, Proxy
from .timeline import ends_in

KEPT_LINES = 4000
# A worker starts while the head may still be opening its port; after this long the way is blocked.
TCP_GRACE_S = 15.0
# Docker restarts a failing container at once; twice in one wait is a loop.
RESTART_LOOP = 2
SILENCE_S = 20.0
# A claim takes eight seconds to be refused.
REFUSALS = 3
MOVED_BYTES = 64 << 20
NO_PHASE = Phase(0, 0, "")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds: until the whole wait has failed, and until it has failed without any progress."""

    timeout: float
    no_progress: float


class HostWait:
    """The wait of one host for one stage of its engine's plan.

    ``ray``: Ray counts every node and GPU. ``api``: every rank of the host answers, and where the proxy runs, it lists
    all ranks of the deployment, as they registered themselves.
    """

    def __init__(
        self,
        plan: Plan,
        host: str,
        stage: str,
        limits: Limits,
        expected: Iterable[str] | None = None,
        left: Iterable[str] = (),
    ) -> None:
        """``expected`` are the URLs that the proxy has to list by the end: those of the engines that serve, or are waited for.

        ``left`` are others that it may list: those of engines whose turn is still to come.
        """
        self._left = set(left)
        self._plan, self._host, self._stage, self._limits = plan, host, stage, limits
        self._engine = plan.engine_on(host)
        self._node = plan.node(host)
        self._nodes = [plan.node(name) for name in self._engine.nodes]
        self._is_head = self._engine.head == host
        wanted = ("ray",) if stage == "ray" else ("ray", "api", "dp", "proxy")
        self._proxy = plan.proxy if stage == "api" and plan.proxy and plan.proxy.node == host else None
        listed = plan.proxy.ranks if plan.proxy else []
        self._expected = [url for url in listed if expected is None or url in set(expected)]
        self._ranks = {each.url: each for each in plan.endpoints if each.node == host}
        self._services = {each.name: each.service for each in plan.services_on(host) if each.service in wanted}
        self._starts = {each.name: each.starts for each in plan.services_on(host) if each.starts}
        self._cursors = dict.fromkeys(self._services, "")
        self._lines: dict[str, list[str]] = {name: [] for name in self._services}
        self._first: dict[str, Mapping[str, Any]] = {}
        self._touched: dict[str, int] = {}
        self._phases: dict[str, Phase] = {}
        self._started: float | None = None
        self._now = 0.0
        self._refusals = 0
        self._tcp_since: float | None = None
        self._unlisted_since: dict[str, float] = {}
        self._answering = -1
        self._doomed: set[str] = set()
        self._up: dict[str, set[str]] = {}
        self._missing = "nothing was seen yet"
        self._news: list[str] = []
        self.last_progress = 0.0
        self.started: dict[str, str] = {}  # container -> when it was started, as last seen
        self.marks: dict[str, float] = {}  # phase of the formation -> when its end was seen, by the clock of ``take``
        self.listed: dict[str, float] = {}  # URL -> when the proxy was first seen to list it
        self.ready = False
        self.failure: str | None = None
        self.lost_start = False  # the failure is one that another start may not have

    @property
    def hosts(self) -> set[str]:
        """The hosts of the engine, all of which have to be ready."""
        return set(self._engine.nodes)

    def questions(self) -> dict[str, Any]:
        """Arguments of M(observe) for the next round."""
        ray = f"{self._nodes[0].address}:{self._plan.ports.ray}"
        # Docker takes seconds to measure a container, so it is asked only while the logs are silent.
        asked: dict[str, Any] = {
            "logs": dict(self._cursors),
            "measure": self._now - self.last_progress > SILENCE_S,
            "starts": dict(self._starts),
        }
        if self._stage == "ray" and self._is_head:
            name = next(name for name, service in self._services.items() if service == "ray")
            api = next(s.name for s in self._plan.services_of(self._engine.name) if s.service == "api")
            # Counting GPUs is not being given them; an engine that runs already has them.
            asked.update(ray_container=name, ray_address=ray, ray_claim=self._engine.tp, ray_claim_unless=api)
        elif self._stage == "ray":
            asked["tcp"] = [ray]
        else:
            asked["http"] = list(dict.fromkeys([*self._ranks, *(self._expected if self._proxy else [])]))
            if self._proxy:
                asked["proxy"] = self._proxy.url
        return asked

    def take(self, answer: Mapping[str, Any], now: float, progress_elsewhere: float = 0.0) -> None:
        """Digest one round's answer at ``now`` seconds of a monotonic clock; sets ``ready`` or ``failure``."""
        self._now = now
        if self._started is None:
            self._started = self.last_progress = now
        for name, status in answer["containers"].items():
            self._take_container(name, status, (answer.get("starts") or {}).get(name) or (), now)
        if self.failure:
            return
        if self._stage == "ray":
            self._take_ray(answer, now)
        else:
            self._take_http(answer, now)
        if not self.failure and not self.ready:
            self._check_limits(now, max(self.last_progress, progress_elsewhere))

    def news(self) -> list[str]:
        """What has changed since the last call, one line each, for a person to read."""
        news, self._news = self._news, []
        return news

    # ---- containers

    def _take_container(
        self, name: str, status: Mapping[str, Any], events: Sequence[Mapping[str, Any]], now: float
    ) -> None:
        if not status["present"]:
            self.failure = f"{self._where(name)}: the container is gone. Run the playbook again to bring it back."
            return
        fresh = status["lines"]
        self._cursors[name] = status["cursor"]
        self.started[name] = f"{status['started_at']} {healing(events).mark}".strip()
        self._lines[name] = [*self._lines[name], *fresh][-KEPT_LINES:]
        touched = status["touched"]  # 0 where it was not measured
        moved = touched > 0 and abs(touched - self._touched.get(name, 0)) > MOVED_BYTES
        if moved:
            self._touched[name] = touched
        if fresh or moved:
            self.last_progress = now
        self._take_phases(name, fresh)
        for phase in filter(None, map(ends_in, fresh)):
            # The first rank that writes has met the others; of all that load, the last one counts.
            self.marks[phase] = min(self.marks.get(phase, now), now) if phase == "ranks" else now
        self._check_container(name, status, fresh, healing(events))

    def _take_phases(self, name: str, fresh: list[str]) -> None:
        # Sixteen ranks load at once: the one that is furthest speaks for all.
        phases = filter(None, (phase_of(plain(line)) for line in fresh))
        furthest = max([*phases, self._phases.get(name, NO_PHASE)], key=lambda phase: (phase.order, phase.part))
        if furthest != self._phases.get(name, NO_PHASE):
            self._phases[name] = furthest
            self._news.append(f"{name}: {furthest.text}")

    def _check_container(self, name: str, status: Mapping[str, Any], fresh: list[str], heals: Healing) -> None:
        first = self._first.setdefault(name, status)
        restarts = status["restarts"] - first["restarts"]
        if status["status"] in ("exited", "dead"):
            killed = " (killed for memory by the kernel)" if status["oom_killed"] else ""
            # One that starts its engine again by itself ends with 0 once it has given up.
            why = heals.starts[-1].ended if heals.gave_up and heals.starts else None
            what = f"is down: {why}" if why else f"exited with code {status['exit_code']}{killed}"
            self.failure = self._diagnosis(name, what)
        elif restarts >= RESTART_LOOP:
            self.failure = self._diagnosis(name, f"restarts in a loop ({restarts} times so far)")
        elif (
            self._stage == "api"
            and self._services[name] != "proxy"  # which only forgets its list
            and not self._starts  # what waits for Ray by itself has lost nothing
            and status["started_at"] != first["started_at"]
        ):
            self.failure = self._diagnosis(
                name, "was started again while the engine loads, so the engine has lost its workers"
            )
        elif name in self._doomed:
            why = heals.starts[-1].ended if heals.starts else None  # its container may take a moment more to end
            self.failure = self._diagnosis(name, f"is down: {why}" if why else "cannot come up any more")
        elif fatal_line(before_up(fresh, self._up.setdefault(name, set()))):  # later lines may quote users' prompts
            self._doomed.add(name)  # a round later, what else it has to say is there too

    def _diagnosis(self, name: str, what: str) -> str:
        log = self._lines[name]
        rank = failed_rank(log)
        if rank is not None:
            log = of_rank(log, rank)
            gpus: list[int] = next((each.gpus for each in self._ranks.values() if each.rank == rank), [])
            what = f"{what}: rank {rank} (GPU {', '.join(map(str, gpus))}) failed"
        found = explained(log)
        lost = lost_start(log)
        self.lost_start = lost is not None or (found.known is not None and found.known.passing)
        known = lost or found.known or explain(log, fatal_only=True)
        node = next((n.name for n in self._plan.nodes if found.node and found.node in (n.address, n.name)), None)
        parts = [f"{self._where(name)} {what}."]
        if node and node != self._host:
            parts.append(f"The failure is on {node} ({found.node}).")
        parts += ["Decisive log lines:", *(f"  | {line}" for line in found.lines or ["(the log is empty)"])]
        if known:
            parts += [f"Meaning: {known.means}", f"Remedy: {known.remedy}"]
        parts.append(f"Whole log: docker logs {name}   (on {self._host})")
        return "\n".join(parts)

    # ---- stages

    def _take_ray(self, answer: Mapping[str, Any], now: float) -> None:
        if not self._is_head:
            self._take_tcp(answer["tcp"], now)
            return
        ray = answer["ray"]
        if "error" in ray:
            self._missing = f"Ray on {self._host} does not answer yet: {ray['error']}"
            return
        planned = {node.address: node.gpus for node in self._nodes}
        members = Members.of(ray, planned)
        state = members.told(planned, {node.address: node.name for node in self._nodes})
        if state != self._missing:
            self._missing = state
            self._news.append(state)
            self.last_progress = now
        if not members.whole or ray["given"] is None:
            return
        self.ready = ray["given"]
        if self.ready:
            self.marks["ray"] = now
        self._refusals += not self.ready
        if self._refusals >= REFUSALS:
            self.failure = (
                f"{self._host}: {state}, but does not give {self._engine.tp} of them to an engine.\n"
                "Something else holds them (`ray status` in the container), or Ray has lost track of them.\n"
                f"Remedy: docker rm --force {self._plan.name}-ray   (on {self._host}), and run the playbook again: "
                "it forms the cluster again."
            )

    def _take_tcp(self, tcp: Mapping[str, str], now: float) -> None:
        (target, error), *__ = tcp.items()
        if not error:
            self._tcp_since = None
            self.ready = True
            return
        self._tcp_since = now if self._tcp_since is None else self._tcp_since
        gpus, nodes = self._engine.gpus, len(self._nodes)
        self._missing = f"{self._host} ({self._node.address}) cannot reach Ray's head at {target}: {error}"
        if now - self._tcp_since >= TCP_GRACE_S:
            self.failure = (
                f"{self._missing}.\n"
                f"Ray is missing {self._host} and its {self._node.gpus} GPUs; the plan has {nodes} nodes and {gpus} GPUs.\n"
                f"Remedy: if it was refused, Ray on the head has ended or is still starting: see docker logs {self._plan.name}-ray "
                f"there, and run the playbook again. Else open TCP {target.rpartition(':')[2]} and all other TCP between the "
                f"cluster addresses: check firewalls on {self._host} and on the head, and that plan_cluster_address is on the "
                "network that joins them."
            )

    def _take_http(self, answer: Mapping[str, Any], now: float) -> None:
        name = self._plan.served_model_name
        waiting = []
        for url, rank in self._ranks.items():
            status = answer["http"][url]
            if "error" in status:
                waiting.append(f"rank {rank.rank} at {url}: {status['error']}")
            elif name not in status["models"]:
                self.failure = (
                    f"{self._host}: {url} serves {', '.join(status['models']) or 'no model'}, but the plan says {name}. "
                    "Something else listens on that port: stop it, or set plan_ports.api."
                )
        answering = len(self._ranks) - len(waiting)
        if answering != self._answering and len(self._ranks) > 1:
            self._news.append(f"{answering} of {len(self._ranks)} ranks answer")
            self.last_progress = now
        self._answering = answering
        if self._ranks and not waiting:
            self.marks.setdefault("answers", now)
        if self._proxy and not self.failure:
            waiting += self._take_proxy(self._proxy, answer, now)
        self._missing = "; ".join(waiting)
        self.ready = not waiting and not self.failure

    def _take_proxy(self, proxy: Proxy, answer: Mapping[str, Any], now: float) -> list[str]:
        """What the proxy's list lacks; a rank that answers and is not listed has failed to register, which it tries once."""
        url, name = proxy.url, self._plan.served_model_name
        if "error" in answer["proxy"]:
            return [f"the proxy at {url}: {answer['proxy']['error']}"]
        listed = answer["proxy"]["nodes"]
        missing = [rank for rank in self._expected if name not in listed.get(rank, [])]
        self.listed.update({rank: self.listed.get(rank, now) for rank in self._expected if rank not in missing})
        up = {rank for rank in missing if name in answer["http"][rank].get("models", [])}
        self._unlisted_since = {rank: self._unlisted_since.get(rank, now) for rank in up}
        failed = [rank for rank, since in self._unlisted_since.items() if now - since >= TCP_GRACE_S]
        if failed:
            self.failure = (
                f"{self._host}: the proxy at {url} does not list {', '.join(failed)} with the model {name}, though it "
                "answers: a rank registers once, when it comes up, and could not.\n"
                f"Remedy: check that its host reaches {url}; then run the playbook again: it adds the rank to the list."
            )
        strangers = [rank for rank in listed if rank not in proxy.ranks and rank not in self._left]
        return [
            *(
                [f"the proxy lists {len(self._expected) - len(missing)} of {len(self._expected)} ranks"]
                if missing
                else []
            ),
            *([f"the proxy lists what is not of the plan: {', '.join(strangers)}"] if strangers else []),
        ]

    # ---- limits

    def _check_limits(self, now: float, last_progress: float) -> None:
        started = self._started if self._started is not None else now
        if now - started >= self._limits.timeout:
            self.failure = self._given_up(f"not ready after {now - started:.0f} s")
        elif now - last_progress >= self._limits.no_progress:
            self.failure = self._given_up(f"no progress for {now - last_progress:.0f} s")

    def _given_up(self, why: str) -> str:
        lines = [f"{self._host}: {why}. Missing: {self._missing}. What was started goes on; run again to wait on."]
        for name, log in self._lines.items():
            tail = [line for line in log if line.strip()][-3:]
            lines += [
                f"Last lines of {name} (docker logs {name} on {self._host}):",
                *(f"  | {plain(line)}" for line in tail),
            ]
        return "\n".join(lines)

    def _where(self, name: str) -> str:
        return f"{self._host} ({self._node.address}): {name}"
