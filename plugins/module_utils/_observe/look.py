# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a host: all that is asked, side by side, with one deadline over the whole."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Callable

from . import (
    containers,
    daemon,
    endpoints,
    engines,
    files,
    gpu_users,
    image,
    inside,
    model,
    parallel,
    proxy,
    ray,
)

# Far beyond what the parts allow themselves; only what hangs outside all time-outs, such as a lost file system, gets here.
WHOLE_SECONDS = 120.0
OF_DOCKER = ("containers", "docker_settings", "gpu_users", "image", "image_ids", "ray")
Tokens = Mapping[str, Any]
ROOT_S = 5.0  # that the look at file systems waits for Docker to say where its own directory is
GPUS_S = 1.5  # as long an answer of nvidia-smi is good for


def look(client: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the module ``observe`` to its arguments: what is not asked is not in it.

    ``client`` is a ``docker.client``, or None to have one made when something of Docker is asked. Without Docker, the
    answer has ``docker["error"]`` and lacks the parts in ``OF_DOCKER``; all else is answered all the same.
    """
    whole = _Look(client, asked)
    try:
        return whole.answer()
    finally:
        whole.close()


class _Look:
    def __init__(self, client: Any, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._tokens: Tokens = asked.get("tokens") or {}
        self._patience = engines.Patience(
            **{
                key: self._tokens[key]
                for key in ("timeout_s", "stall_s", "patience_s")
                if self._tokens.get(key) is not None
            }
        )
        self._limit_s = asked.get("limit_s") or WHOLE_SECONDS
        self._gpus_lock, self._gpus_asked = threading.Lock(), float("-inf")
        self._gpus_seen: bool | None = None
        self._given = client is not None
        self._docker = parallel.start(_reach, client) if self._asks_docker() else None
        self._inspected = parallel.start(self._inspect) if self._docker else None
        settings = self._with_docker(daemon.settings_of)
        self._settings = parallel.start(settings) if asked.get("docker_settings") else None

    def answer(self) -> dict[str, Any]:
        began = time.monotonic()
        parts = {name: parallel.start(call) for name, call in self._parts().items()}
        token_ends = began + self._limit_s + (self._patience.longest_s if self._tokens else 0.0)
        answer: dict[str, Any] = {}
        for name, future in parts.items():
            ends = token_ends if name in ("tokens", "public") else began + self._limit_s
            try:
                answer[name] = parallel.by(ends, future)
            except daemon.DockerError as error:
                answer["docker"] = error.told()
            except parallel.Late:
                answer.update(self._late(name))
        if "error" in answer.get("docker", {}):  # half of what Docker says is no ground to decide on
            answer = {name: part for name, part in answer.items() if name not in OF_DOCKER}
        return answer

    def close(self) -> None:
        """Give back what was opened, as soon as it is; what still hangs ends with the process."""

        def opened(reached: concurrent.futures.Future[tuple[Any, dict[str, str]]]) -> None:
            if reached.exception() is None:
                reached.result()[0].close()

        if self._docker and not self._given:
            self._docker.add_done_callback(opened)

    # ---- what is asked

    def _asks_docker(self) -> bool:
        asked = self._asked
        names = ("deployment", "names", "logs", "docker_settings", "gpu_users", "image", "image_ids", "ray_container")
        return any(asked.get(name) for name in names) or bool(self._tokens.get("urls"))

    def _parts(self) -> dict[str, Callable[[], Any]]:
        """Name in the answer -> what finds it out. Docker's come first, so that one error of theirs is told for all."""
        asked = self._asked
        every: dict[str, tuple[bool, Callable[[], Any]]] = {
            "docker": (self._docker is not None, self._version),
            "docker_settings": (self._settings is not None, self._docker_settings),
            "gpu_users": (bool(asked.get("gpu_users")), self._with_docker(gpu_users.gpu_users)),
            "containers": (bool(asked.get("deployment") or asked.get("names") or asked.get("logs")), self._containers),
            "image": (bool(asked.get("image")), self._with_docker(image.image_facts, asked.get("image"))),
            "image_ids": (bool(asked.get("image_ids")), self._with_docker(image.present, asked.get("image_ids"))),
            "ray": (bool(asked.get("ray_container")), self._ray),
            "tcp": (bool(asked.get("tcp")), lambda: parallel.each(endpoints.tcp_status, asked["tcp"])),
            "http": (bool(asked.get("http")), lambda: endpoints.http_statuses(asked["http"])),
            "proxy": (bool(asked.get("proxy")), lambda: proxy.proxy_status(asked["proxy"])),
            "gateway": (bool(asked.get("gateway")), self._gateway),
            "host": (bool(asked.get("host")), self._host),
            "files": (bool(asked.get("files")), lambda: parallel.each(files.digest, asked["files"])),
            "paths": (bool(asked.get("paths")), lambda: parallel.each(os.path.exists, asked["paths"])),
            "inside": (bool(asked.get("inside")), lambda: inside.inside(asked["inside"])),
            "model": (bool(asked.get("model")), lambda: model.model_facts(asked["model"])),
            "record": (bool(asked.get("record")), lambda: files.kept_json(asked["record"])),
            "starts": (
                bool(asked.get("starts")),
                lambda: {name: files.kept_lines(path) for name, path in asked["starts"].items()},
            ),
            "lock": (bool(asked.get("lock")), lambda: files.kept_json(asked["lock"])),
            "public": (bool(self._tokens.get("public")), self._public),
            "tokens": (bool(self._tokens.get("urls")), self._ask_tokens),
        }
        return {name: call for name, (wanted, call) in every.items() if wanted}

    def _late(self, name: str) -> dict[str, Any]:
        """What the answer says of a part that did not come in time."""
        said = f"no answer within {self._limit_s:g} s"
        if name == "ray":
            return {"ray": {"error": f"{said}: is the container {self._asked['ray_container']} frozen?"}}
        if name in ("docker", *OF_DOCKER):
            hangs = f"Docker gave {said}: see journalctl -u docker, and restart it (systemctl restart docker)."
            return {"docker": {"error": hangs, "kind": "timeout"}}
        unknown = {"state": engines.State.UNKNOWN.value, "reason": said}
        values: dict[str, Any] = {
            "tcp": dict.fromkeys(self._asked.get("tcp") or [], "timed out"),
            "http": {url: {"error": said} for url in self._asked.get("http") or []},
            "files": dict.fromkeys(self._asked.get("files") or []),
            "paths": dict.fromkeys(self._asked.get("paths") or [], False),
            "inside": dict.fromkeys((self._asked.get("inside") or {}).get("paths") or {}),
            "model": {
                **model.EMPTY,
                "unread": True,
                "faults": [f"the model's files gave {said}: does their file system hang (df)?"],
            },
            "public": unknown,
            "tokens": {url: {**unknown, "seconds": self._limit_s} for url in self._tokens.get("urls") or {}},
        }
        return {name: values.get(name, {"error": said})}

    # ---- Docker's parts

    def _client(self) -> Any:
        return self._reached()[0]

    def _version(self) -> dict[str, str]:
        return self._reached()[1]

    def _reached(self) -> tuple[Any, dict[str, str]]:
        if self._docker is None:
            raise AssertionError("only parts of Docker ask this")
        return self._docker.result()

    def _docker_settings(self) -> dict[str, Any]:
        if self._settings is None:
            raise AssertionError("only what asks for them asks this")
        result: dict[str, Any] = self._settings.result()
        return result

    def _docker_root(self) -> str | None:
        """Docker's own directory, where Docker is asked and answers."""
        try:
            return None if self._settings is None else self._settings.result(timeout=ROOT_S)["root_dir"]
        except (daemon.DockerError, parallel.Late):
            return None

    def _found(self) -> dict[str, Any]:
        if self._inspected is None:
            raise AssertionError("only parts of Docker ask this")
        return self._inspected.result()

    def _with_docker(self, call: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        def run() -> Any:
            try:
                return call(self._client(), *arguments)
            except Exception as error:
                raise daemon.explained(error) from error

        return run

    def _named(self) -> list[str]:
        return list(dict.fromkeys([*(self._asked.get("names") or []), *(self._asked.get("logs") or {})]))

    def _inspect(self) -> dict[str, Any]:
        """Every container that any part asks for, or that is of the deployment; None where there is none."""

        def ask(client: Any) -> dict[str, Any]:
            deployment = self._asked.get("deployment")
            ours = containers.listed(client, deployment) if deployment else []
            found = containers.inspected(client, [*self._named(), *(self._tokens.get("urls") or {}).values(), *ours])
            # One that was removed between the two is not there, and nobody has asked for it by name.
            return {name: c for name, c in found.items() if c is not None or name not in ours or name in self._named()}

        result: dict[str, Any] = self._with_docker(ask)()
        return result

    def _containers(self) -> dict[str, Any]:
        deployment, logs = self._asked.get("deployment"), self._asked.get("logs") or {}
        measure = bool(self._asked.get("measure"))
        found = {
            name: each
            for name, each in self._found().items()
            if name in self._named() or (deployment and _deployment_of(each) == deployment)
        }

        def ask(client: Any) -> dict[str, Any]:
            import docker

            def log(name: str) -> dict[str, Any] | None:
                try:
                    return containers.log_facts(found[name], logs[name] or "", measure=measure)
                except docker.errors.NotFound:
                    return None

            read = parallel.start(parallel.each, log, [name for name in logs if found[name] is not None])
            answer = containers.facts(client, found)
            for name, facts in read.result().items():
                answer[name] = {"present": False} if facts is None else {**answer[name], **facts}
            return answer

        result: dict[str, Any] = self._with_docker(ask)()
        return result

    def _ray(self) -> dict[str, Any]:
        asked = self._asked

        def ask(client: Any) -> dict[str, Any]:
            holder: str = asked.get("ray_claim_unless") or ""
            held = bool(holder) and containers.is_running(containers.inspected(client, [holder])[holder])
            claim = 0 if held else asked.get("ray_claim") or 0
            return ray.ray_nodes(client, asked["ray_container"], asked["ray_address"], claim)

        result: dict[str, Any] = self._with_docker(ask)()
        return result

    def _gateway(self) -> dict[str, Any]:
        from .. import _gateway  # for the same reason as what is of the host

        return _gateway.told(self._asked["gateway"])

    def _host(self) -> dict[str, Any]:
        from . import host  # with its parts it is much to compile, and a wait asks other things every few seconds

        asked = self._asked
        return host.host_facts(asked.get("host_peers") or [], asked.get("host_disks") or [], self._docker_root)

    # ---- tokens

    def _ask_tokens(self) -> dict[str, dict[str, Any]]:
        """Every URL at once: a rank may not answer before its peers have been asked."""
        try:
            found: Mapping[str, Any] | None = self._found()
        except daemon.DockerError:
            found = None  # an engine may live though nobody may ask Docker
        running = {name: c for name, c in (found or {}).items() if containers.is_running(c)}

        def used() -> float | None:
            # A TP engine computes in Ray's container, not in its own; so all of this host count.
            measured = [seconds for seconds in map(_cpu_seconds, running.values()) if seconds is not None]
            return sum(measured) if measured else None

        def ask(url: str) -> dict[str, Any]:
            name = self._tokens["urls"][url]
            if found is not None and name not in running:
                return {"state": "absent", "reason": f"{name} does not run", "seconds": 0.0}
            began = time.monotonic()
            verdict = self._probe(url, used if running else None).run()
            answer: dict[str, Any] = {
                "state": verdict.state.value,
                "reason": verdict.reason,
                "seconds": round(time.monotonic() - began, 2),
            }
            if verdict.state.value in ("unknown", "unreachable", "dead") and name in running:
                answer["lines"] = self._start_lines(running[name])
            return answer

        return parallel.each(ask, self._tokens["urls"])

    def _public(self) -> dict[str, Any]:
        if self._inspected is not None:  # in the same moment as the ranks, which wait for it
            concurrent.futures.wait([self._inspected])
        verdict = self._probe(self._tokens["public"], key=self._tokens.get("public_key")).run()
        return {"state": verdict.state.value, "reason": verdict.reason}

    def _probe(
        self, url: str, cpu_s: Callable[[], float | None] | None = None, key: str | None = None
    ) -> engines.EngineProbe:
        return engines.EngineProbe(
            url, self._tokens["model"], api_key=key, patience=self._patience, cpu_s=cpu_s, gpus_work=self._gpus_work
        )

    def _gpus_work(self) -> bool | None:
        """Asked by every rank's probe at once; one of them asks nvidia-smi."""
        with self._gpus_lock:
            if time.monotonic() - self._gpus_asked > GPUS_S:
                from . import gpus

                self._gpus_seen, self._gpus_asked = gpus.gpus_work(), time.monotonic()
            return self._gpus_seen

    def _start_lines(self, container: Any) -> list[str]:
        try:
            return containers.start_lines(container)
        except Exception as error:  # noqa: BLE001  (anything that is not Docker's is raised again)
            daemon.explained(error)
            return []


def _reach(given: Any) -> tuple[Any, dict[str, str]]:
    client = daemon.connect() if given is None else given
    try:
        return client, daemon.version_of(client)
    except daemon.DockerError:
        if given is None:
            client.close()
        raise


def _cpu_seconds(container: Any) -> float | None:
    try:
        return containers.cpu_seconds(container)
    except Exception as error:  # noqa: BLE001  (anything that is not Docker's is raised again)
        daemon.explained(error)
        return None


def _deployment_of(container: Any) -> str | None:
    if container is None:
        return None
    label: str | None = (container.attrs["Config"].get("Labels") or {}).get(containers.DEPLOYMENT_LABEL)
    return label
