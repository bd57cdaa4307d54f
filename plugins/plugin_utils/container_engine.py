# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Engine on a host: what has to be installed, what daemon.json has to say, and what has to be restarted for it. Pure.

What is the user's stays: a program that is there is not installed again, from wherever it came; a setting that says otherwise
is a fault; and a Docker that runs containers is not restarted unless the user says so.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What dockerd takes over at a SIGHUP; everything else it reads only when it starts.
RELOADED = frozenset(
    {
        "allow-nondistributable-artifacts",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)
# Flags of dockerd whose key in daemon.json has another name. A key that is both a flag and in the file keeps it from starting.
_KEYS = {
    "H": "hosts",
    "D": "debug",
    "G": "group",
    "b": "bridge",
    "l": "log-level",
    "p": "pidfile",
    "s": "storage-driver",
    "add-runtime": "runtimes",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
# Each of their entries is one value, and is compared as a whole.
_OF_WHOLES = ("default-ulimits", "runtimes")
_LOG_OPTIONS = {
    "json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
    "local": {"max-size", "max-file", "compress"},
}
_OF_EVERY_DRIVER = ("mode", "max-buffer-size", "cache-")
# Systems like RHEL that have Docker Engine among their own packages.
_ENGINES = {"fedora": "moby-engine", "amzn": "docker", "opencloudos": "moby"}
NVIDIA_RUNTIME = "nvidia-container-runtime"
NVIDIA_HOOK = "nvidia-container-runtime-hook"
_HOOK = f"{NVIDIA_HOOK}, for which dockerd looks only when it starts"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user asks for; see the role's variables."""

    settings: Mapping[str, Any]
    overwrite: tuple[str, ...] = ()
    toolkit: bool = True
    source: str = "distribution"
    restart: bool = False
    restart_command: str = "systemctl restart docker"
    config: str = "/etc/docker/daemon.json"
    packages: tuple[str, ...] = ()
    toolkit_packages: tuple[str, ...] = ("nvidia-container-toolkit",)
    python_packages: tuple[str, ...] = ("python3-docker",)


@dataclasses.dataclass(frozen=True)
class Settings:
    """daemon.json as it shall be. ``changed`` names keys with dots; ``content`` is ``before`` where nothing is."""

    before: str
    content: str
    changed: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Install:
    """Packages that are missing, and the repositories that they need beside the distribution's: docker, nvidia."""

    family: str
    packages: tuple[str, ...] = ()
    toolkit: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Apply:
    """How the settings take effect. ``later``: what waits for a restart that was not made; ``told`` says it to a person."""

    reload: bool = False
    restart: bool = False
    later: tuple[str, ...] = ()
    told: str = ""


@dataclasses.dataclass(frozen=True)
class Decision:
    """All of it, for one host."""

    install: Install
    settings: Settings
    apply: Apply

    @property
    def faults(self) -> list[str]:
        """What a person has to mend or to say first; nothing is done before."""
        return [*self.install.faults, *self.settings.faults]


def standard_settings(
    *, log_driver: str, log_max_size: str, log_max_file: int, memlock: bool, more: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that the role's variables come to; ``more`` are the user's own, and win."""
    settings: dict[str, Any] = {}
    if log_driver:
        settings["log-driver"] = log_driver
        options = {"max-size": log_max_size, "max-file": str(log_max_file) if log_max_file else ""}
        settings["log-opts"] = {key: value for key, value in options.items() if value}
    if memlock:
        settings["default-ulimits"] = {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}}
    for key, value in more.items():
        both = isinstance(value, Mapping) and isinstance(settings.get(key), Mapping)
        settings[key] = {**settings[key], **value} if both else value
    return {key: value for key, value in settings.items() if value != {}}


def decide(seen: Mapping[str, Any], wanted: Wanted, *, toolkit_came: bool = False, check: bool = False) -> Decision:
    """What is to be done on a host of which M(container_engine_facts) has ``seen`` this.

    ``toolkit_came`` says that the toolkit was installed in this run under a dockerd that ran already; ``check`` is check mode, in
    which what is told is what would be done.
    """
    install = _install(seen, wanted)
    settings = dict(wanted.settings)
    if wanted.toolkit and (install.toolkit or seen["programs"].get(NVIDIA_RUNTIME)):
        settings["runtimes"] = {"nvidia": {"args": [], "path": NVIDIA_RUNTIME}, **(settings.get("runtimes") or {})}
    merge = merged(seen["config"], settings, wanted.overwrite, seen["arguments"], wanted.config)
    apply = _apply(seen, wanted, merge.changed, toolkit_came or bool(install.toolkit), check)
    return Decision(install, merge, apply)


# ---- packages


def _install(seen: Mapping[str, Any], wanted: Wanted) -> Install:
    """What is missing. It is judged by programs, not by names of packages: docker.io would replace a docker-ce that is there."""
    system, programs = seen["os"], seen["programs"]
    names = {system["id"], *system["like"]}
    family = "debian" if names & {"debian", "ubuntu"} else "redhat" if names & {"rhel", "fedora", "centos"} else ""
    faults: list[str] = []
    packages: list[str] = []
    repositories: list[str] = []
    if not programs.get("dockerd"):
        if wanted.packages:
            packages += wanted.packages
        elif wanted.source == "docker":
            packages += ["docker-ce", "docker-ce-cli", "containerd.io"]
        elif family == "debian":
            packages += ["docker.io", *(["docker-cli"] if _has_docker_cli(system) else [])]
        elif system["id"] in _ENGINES:
            packages.append(_ENGINES[system["id"]])
        elif family:
            faults.append(
                f"{system['id']} {system['version']} has no Docker Engine among its own packages: set container_engine_source: "
                "docker to have Docker's repository and docker-ce, or container_engine_packages to what your mirror has."
            )
        if wanted.source == "docker" and not seen["repositories"].get("docker"):
            repositories.append("docker")
    toolkit: tuple[str, ...] = ()
    if wanted.toolkit and not programs.get(NVIDIA_HOOK):
        toolkit = wanted.toolkit_packages
        if not seen["repositories"].get("nvidia"):
            repositories.append("nvidia")
    if not seen["sdk"]:
        packages += wanted.python_packages
    if not programs.get("ip"):
        packages.append("iproute2" if family == "debian" else "iproute")
    if (packages or toolkit) and not family:
        what = f"{system['id'] or 'this system'} {system['version']}".strip()
        faults.append(
            f"{what} is neither Debian, Ubuntu nor like RHEL, and this role cannot install there: install by hand "
            f"{', '.join([*packages, *toolkit])}, and run again."
        )
    executable = seen["dockerd"]["executable"] if seen["dockerd"] else programs.get("dockerd", "")
    if executable.startswith("/snap/") or (seen["snap"] and not executable):
        faults.append(
            "Docker is the snap here, which sees neither /etc/docker/daemon.json nor NVIDIA's toolkit: remove it when its "
            "containers may go (snap remove docker), and run again."
        )
    return Install(family, tuple(packages), toolkit, tuple(repositories), tuple(faults))


def _has_docker_cli(system: Mapping[str, Any]) -> bool:
    """Whether docker.io has its client in a package of its own: in Debian from 13 on."""
    major = re.match(r"\d+", str(system["version"]))
    return bool(system["id"] == "debian" and (major is None or int(major[0]) >= 13))


# ---- daemon.json


def merged(
    text: str | None, wanted: Mapping[str, Any], overwrite: Sequence[str], arguments: Sequence[str], path: str
) -> Settings:
    """``wanted`` put into daemon.json's ``text`` (None: there is no file), for a dockerd with these ``arguments``."""
    before = text or ""
    try:
        there = json.loads(before.lstrip("\ufeff")) if before.strip() else {}
    except ValueError as error:
        said = f"{path} is no JSON ({error}), and Docker would not start with it: correct it by hand."
        return Settings(before, before, faults=(said,))
    if not isinstance(there, dict):
        said = f"{path} holds no JSON object, and Docker would not start with it: correct it by hand."
        return Settings(before, before, faults=(said,))
    flags = given(arguments)
    faults = list(_flag_faults(flags, wanted, path))
    to_write = {key: value for key, value in wanted.items() if key not in flags}
    walk = _Walk(tuple(overwrite))
    result = walk.into(there, to_write, "")
    faults += [
        f"{path} has {key}: {_shown(old)}, and {_shown(new)} is wanted. Either is right: set {_variable(key)} to what is there, or "
        f"have it overwritten with container_engine_overwrite: [{key}]."
        for key, old, new in walk.contradictions
    ]
    driver = to_write.get("log-driver")
    known = _LOG_OPTIONS.get(str(driver))
    options = result.get("log-opts")
    if known and result.get("log-driver") == driver and isinstance(options, Mapping):
        foreign = sorted(key for key in options if key not in known and not key.startswith(_OF_EVERY_DRIVER))
        faults += [
            f"{path} has log-opts.{key}, which the log driver {driver} does not know, and Docker would not start with it: take it "
            "out, or have all of log-opts replaced with container_engine_overwrite: [log-opts]."
            for key in foreign
        ]
    if faults or not walk.changed:
        return Settings(before, before, faults=tuple(faults))
    indent = re.search(r'\n([ \t]+)"', before)
    content = json.dumps(result, indent=indent[1] if indent else 4, ensure_ascii=False) + "\n"
    return Settings(before, content, tuple(walk.changed))


class _Walk:
    """One way through daemon.json: what changes, and what contradicts."""

    def __init__(self, overwrite: tuple[str, ...]) -> None:
        self._overwrite = overwrite
        self.changed: list[str] = []
        self.contradictions: list[tuple[str, Any, Any]] = []

    def into(self, there: Mapping[str, Any], wanted: Mapping[str, Any], above: str) -> dict[str, Any]:
        """``there`` with all of ``wanted``; keys keep their order."""
        result = dict(there)
        for key, value in wanted.items():
            result[key] = self._one(there.get(key), value, f"{above}.{key}" if above else key, above)
        return result

    def _one(self, old: Any, new: Any, path: str, above: str) -> Any:
        if old is None:  # JSON's null is as good as nothing
            self._note(path, new)
            return new
        if same(above, old, new):
            return old
        if path in self._overwrite:
            self._note(path, new)
            return new
        if isinstance(old, Mapping) and isinstance(new, Mapping) and above not in _OF_WHOLES:
            return self.into(old, new, path)
        if isinstance(old, list) and isinstance(new, (list, tuple)):
            more = [each for each in new if each not in old]
            if more:
                self.changed.append(path)
            return [*old, *more]
        if any(path.startswith(f"{each}.") for each in self._overwrite):
            self.changed.append(path)
            return new
        self.contradictions.append((path, old, new))
        return old

    def _note(self, path: str, new: Any) -> None:
        inner = isinstance(new, Mapping) and "." not in path
        self.changed += [f"{path}.{key}" for key in new] if inner else [path]


def same(above: str, old: Any, new: Any) -> bool:
    """Whether two values below the key ``above`` say the same to dockerd."""
    if above == "runtimes" and isinstance(old, Mapping) and isinstance(new, Mapping):
        # As nvidia-ctk, nvidia-docker2 and people write it: with a path or without, with args, runtimeArgs, or none.
        ours = str(new.get("path", "")).rpartition("/")[2] == NVIDIA_RUNTIME
        if ours and str(old.get("path", "")).rpartition("/")[2] == NVIDIA_RUNTIME:
            return True
    if above == "default-ulimits" and isinstance(old, Mapping) and isinstance(new, Mapping):
        # Go takes keys in any case, and the name from the key above.
        return _same_json(*({k.lower(): v for k, v in each.items() if k.lower() != "name"} for each in (old, new)))
    return _same_json(old, new)


def _same_json(old: Any, new: Any) -> bool:
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)  # true is not 1


def given(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Key of daemon.json -> the values that dockerd's command line gives it."""
    found: dict[str, list[str]] = {}
    words = [*arguments[1:], ""]
    for word, after in zip(words, words[1:]):
        match = re.fullmatch(r"--?([A-Za-z][\w-]*)(?:=(.*))?", word, re.DOTALL)
        if match:
            name, value = match[1], match[2]
            if value is None:
                value = after if after and not after.startswith("-") else "true"
            found.setdefault(_KEYS.get(name, name), []).append(value)
    return found


def _flag_faults(flags: Mapping[str, Sequence[str]], wanted: Mapping[str, Any], path: str) -> Iterable[str]:
    """Where dockerd's command line says otherwise than is wanted; there the file must not name the key at all."""
    other = flags.get("config-file", [path])[-1]
    if other != path:
        yield f"dockerd reads {other} (its --config-file), not {path}: set container_engine_config to it."
    for key, value in wanted.items():
        if key in flags and not _by_flag(key, flags[key], value):
            yield (
                f"dockerd is started with {key} on its command line ({', '.join(flags[key])}), {_shown(value)} is wanted, and "
                f"Docker would not start with {key} in {path} too: take it off its command line (systemctl cat docker shows "
                "where it comes from; /etc/default/docker, /etc/sysconfig/docker, systemctl edit docker), or set "
                f"{_variable(key)} so that it is not wanted."
            )


def _by_flag(key: str, values: Sequence[str], wanted: Any) -> bool:
    """Whether a flag's values say what is wanted."""
    if isinstance(wanted, Mapping):
        pairs = dict(value.partition("=")[::2] for value in values)
        if key == "default-ulimits":
            limits = {name: {f"{each['Soft']}:{each['Hard']}", str(each["Soft"])} for name, each in wanted.items()}
            return all(pairs.get(name) in limit for name, limit in limits.items())
        if key == "runtimes":
            return all(same(key, {"path": pairs.get(name, "")}, each) for name, each in wanted.items())
        return all(pairs.get(name) == str(each) for name, each in wanted.items())
    if isinstance(wanted, (list, tuple)):
        return set(map(str, wanted)) <= set(values)
    return values[-1] == (str(wanted).lower() if isinstance(wanted, bool) else str(wanted))


def _variable(key: str) -> str:
    """The variable by which a setting is wanted."""
    return {
        "log-driver": "container_engine_log_driver",
        "log-opts": "container_engine_log_driver",
        "log-opts.max-size": "container_engine_log_max_size",
        "log-opts.max-file": "container_engine_log_max_file",
        "default-ulimits": "container_engine_memlock",
        "default-ulimits.memlock": "container_engine_memlock",
        "runtimes": "container_engine_toolkit",
        "runtimes.nvidia": "container_engine_toolkit",
    }.get(key, "container_engine_settings")


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---- how it takes effect


def _apply(seen: Mapping[str, Any], wanted: Wanted, changed: Sequence[str], toolkit_came: bool, check: bool) -> Apply:
    daemon = seen["dockerd"]
    if daemon is None:
        return Apply()  # it reads everything when it is started
    waiting = seen["pending"] or {}
    before = waiting.get("reasons", []) if waiting.get("process") == daemon["process"] else []
    cold = [key for key in changed if key.partition(".")[0] not in RELOADED]
    reasons = tuple(dict.fromkeys([*before, *cold, *([_HOOK] if toolkit_came else [])]))
    reload = len(cold) < len(changed)
    if not reasons:
        return Apply(reload=reload)
    running = seen["containers"]
    if running == [] or wanted.restart:
        is_restarted, it_stops = ("would be restarted", "It would stop") if check else ("is restarted", "It stops")
        stops = f" {it_stops} what runs: {_running(running)}." if running else ""
        return Apply(restart=True, told=f"Docker {is_restarted} for {', '.join(reasons)}.{stops}")
    return Apply(
        reload=reload,
        later=reasons,
        told=(
            f"Docker has to be restarted for this to take effect: {', '.join(reasons)}. It was not restarted, because "
            f"{_why_not(seen)}. When it may be: {wanted.restart_command}, or run again with -e container_engine_restart=true."
        ),
    )


def _why_not(seen: Mapping[str, Any]) -> str:
    if seen["containers"] is None:
        return f"it did not say which containers it runs ({seen['unanswered']})"
    kept = ", which should outlive it, for live-restore is on" if seen["live_restore"] else ", which it would stop"
    return f"it runs {_running(seen['containers'])}{kept}"


def _running(containers: Sequence[Mapping[str, Any]] | None) -> str:
    """Whose containers run, those of others first."""
    if containers is None:
        return "whatever it did not say"
    groups: dict[str, list[str]] = {}
    for each in sorted(containers, key=lambda each: (bool(each["deployment"]), each["deployment"], each["name"])):
        groups.setdefault(each["deployment"], []).append(each["name"])
    return "; ".join(
        f"{', '.join(names)} ({f'deployment {deployment}' if deployment else 'not of this collection'})"
        for deployment, names in groups.items()
    )
