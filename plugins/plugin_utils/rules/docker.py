# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker on a host: that it answers, and its settings."""

from __future__ import annotations

from collections.abc import Iterator

from ..docker_errors import GPU_RUNTIME
from ..observed import DEPLOYMENT
from .types import ERROR, WARNING, OfHost, Rule, Unknown

OLDEST_API = (1, 40)  # Docker 19.03: device requests, for --gpus
# Docker 20.10 keeps a copy of logs that a driver sends away. With the driver none it keeps nothing.
FIRST_CACHE_API = (1, 41)
READABLE = ("json-file", "local", "journald")
UNLIMITED = -1
FEW_FILES = 8192


def _answers(of: OfHost) -> Iterator[str]:
    docker = of.known("docker")
    if not docker:
        raise Unknown("Docker was not asked")
    if "error" in docker:
        yield docker["error"]  # with its remedy, which is another for each kind


def _api(of: OfHost) -> tuple[int, ...]:
    return tuple(map(int, of.known("docker.api").split(".")))


def _old(of: OfHost) -> Iterator[str]:
    if _api(of) < OLDEST_API:
        yield f"Docker is too old (API {of.known('docker.api')}): install 19.03 or newer."


def _current(of: OfHost) -> None:
    """Of a Docker that does not answer, or is to be replaced, the settings are no matter yet."""
    if _api(of) < OLDEST_API:
        raise Unknown("Docker is too old")


def _userns(of: OfHost) -> Iterator[str]:
    _current(of)
    if of.known("docker_settings.userns"):
        yield (
            "Docker maps users (userns-remap), and refuses containers with the host's network then: take userns-remap out of "
            "/etc/docker/daemon.json and restart Docker (systemctl restart docker; containers and images of before are seen "
            "again)."
        )


def _rootless(of: OfHost) -> Iterator[str]:
    _current(of)
    if of.known("docker_settings.rootless"):
        yield (
            "Docker runs rootless, and its containers get neither the host's network nor its GPUs: install Docker Engine for the "
            "whole host, and unset DOCKER_HOST for Ansible's user."
        )


def _log_driver(of: OfHost) -> Iterator[str]:
    _current(of)
    driver, cached = of.known("docker_settings.log_driver"), _api(of) >= FIRST_CACHE_API
    if driver == "none" or (driver not in READABLE and not (cached and of.known("docker_settings.log_cache"))):
        off = " and cache-disabled" if cached and driver != "none" else ""
        yield (
            f"Docker logs with the driver {driver}{off}, and cannot read such logs back, so a start could be neither followed nor "
            'explained: set "log-driver": "json-file" (or local, or journald) in /etc/docker/daemon.json'
            f"{', or take cache-disabled out of log-opts,' if off else ''} and restart Docker (systemctl restart docker)."
        )


def _gpu_runtime(of: OfHost) -> Iterator[str]:
    _current(of)
    if of.known("docker_settings.gpus") is False:
        yield (
            "Docker has no GPU runtime, and would refuse the containers "
            '(could not select device driver "" with capabilities: [[gpu]]): '
            f"{GPU_RUNTIME}."
        )


def _storage(of: OfHost) -> Iterator[str]:
    if of.known("docker_settings.storage_driver") == "vfs":
        yield (
            "Docker stores images with the driver vfs, which copies every layer whole, so that LMDeploy's image takes several "
            'times its size: set "storage-driver": "overlay2" in /etc/docker/daemon.json and restart Docker (images are '
            "pulled again)."
        )


def _reload(of: OfHost) -> Iterator[str]:
    if of.known("docker_settings.cgroup_driver") == "systemd" and not of.get("docker_settings.cdi"):
        yield (
            "Docker leaves control groups to systemd, and a systemctl daemon-reload then takes the GPUs away from containers that "
            'are not privileged (Failed to initialize NVML: Unknown Error): set plan_privileged: true, or "exec-opts": '
            '["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json, and restart Docker.'
        )


def _memlock(of: OfHost) -> Iterator[str]:
    limit = of.known("host.limits.memlock_bytes")
    if limit != UNLIMITED:
        yield (
            f"Docker's containers may lock {limit} bytes of memory, and RDMA has to lock all that it registers, or ibv_reg_mr "
            'fails (Cannot allocate memory): put "default-ulimits": {"memlock": {"Name": "memlock", "Soft": -1, "Hard": -1}} into '
            "/etc/docker/daemon.json, and restart Docker (playbooks/container_engine.yml does both); or set plan_privileged: true."
        )


def _files(of: OfHost) -> Iterator[str]:
    limit = of.known("host.limits.nofile")
    if limit != UNLIMITED and limit < FEW_FILES:
        yield (
            f"Docker's containers may open {limit} files, and a rank opens a socket to each client and to each other rank: put "
            '"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1048576, "Hard": 1048576}} into /etc/docker/daemon.json, '
            "and restart Docker."
        )


def _foreign(of: OfHost) -> Iterator[str]:
    planned = {service.name for service in of.plan.services_on(of.host.name)}
    for name, container in of.host.containers.items():
        if name in planned and container.labels.get(DEPLOYMENT) != of.plan.name:
            yield (
                f"a container {name} exists that the deployment {of.plan.name} did not make; it was left alone: "
                "rename or remove it, or set plan_name to another name."
            )


def _has_gpus(of: OfHost) -> bool:
    return any(service.gpus for service in of.plan.services_on(of.node.name))


def _unprivileged(of: OfHost) -> bool:
    return of.real and any(s.gpus and not s.privileged for s in of.plan.services_on(of.node.name))


RULES = (
    Rule(
        id="docker.answers",
        severity=ERROR,
        title="Docker Engine answers, and the Docker SDK for Python is there",
        check=_answers,
        remedy="Install and start Docker, or give the user its right, as the message says.",
        needs=("docker",),
        waivable=False,
    ),
    Rule(
        id="docker.version",
        severity=ERROR,
        title="Docker is 19.03 or newer",
        check=_old,
        remedy="Install a newer Docker Engine.",
        needs=("docker.api",),
        waivable=False,
    ),
    Rule(
        id="docker.userns",
        severity=ERROR,
        title="Docker does not map users",
        check=_userns,
        remedy="Take `userns-remap` out of `/etc/docker/daemon.json`.",
        needs=("docker_settings.userns",),
    ),
    Rule(
        id="docker.rootless",
        severity=ERROR,
        title="Docker runs for the whole host",
        check=_rootless,
        remedy="Install Docker Engine for the whole host.",
        needs=("docker_settings.rootless",),
    ),
    Rule(
        id="docker.log-driver",
        severity=ERROR,
        title="Docker can read its containers' logs back",
        check=_log_driver,
        remedy="Set `log-driver` to `json-file`, `local` or `journald`.",
        needs=("docker_settings.log_driver",),
    ),
    Rule(
        id="docker.gpu-runtime",
        severity=ERROR,
        title="Docker can give GPUs to containers",
        check=_gpu_runtime,
        remedy="Install nvidia-container-toolkit and configure Docker for it.",
        needs=("docker_settings.gpus",),
        applies=_has_gpus,
    ),
    Rule(
        id="docker.storage-driver",
        severity=WARNING,
        title="Docker's storage driver shares layers",
        check=_storage,
        remedy="Set `storage-driver` to `overlay2`.",
        needs=("docker_settings.storage_driver",),
        applies=lambda of: of.real,
    ),
    Rule(
        id="docker.cgroup-reload",
        severity=WARNING,
        title="Containers that are not privileged keep their GPUs when systemd is reloaded",
        check=_reload,
        remedy="Set `plan_privileged: true`, or Docker's cgroup driver to `cgroupfs`, or use CDI.",
        needs=("docker_settings.cgroup_driver",),
        applies=_unprivileged,
    ),
    Rule(
        id="docker.memlock",
        severity=WARNING,
        title="Docker may lock as much memory as RDMA asks for",
        check=_memlock,
        remedy="Set memlock to -1 under `default-ulimits` in /etc/docker/daemon.json, or `plan_privileged: true`.",
        needs=("host.limits.memlock_bytes",),
        applies=lambda of: _unprivileged(of) and of.several,
    ),
    Rule(
        id="docker.open-files",
        severity=WARNING,
        title="Containers may open enough files",
        check=_files,
        remedy="Set `default-ulimits` in `/etc/docker/daemon.json`.",
        needs=("host.limits.nofile",),
        applies=lambda of: of.real,
    ),
)
# Told after what is wrong with the host itself.
NAMES = (
    Rule(
        id="docker.foreign-container",
        severity=ERROR,
        title="No container that is somebody else's has a planned name",
        check=_foreign,
        remedy="Rename or remove it, or set `plan_name`.",
        needs=("containers",),
        waivable=False,
    ),
)
