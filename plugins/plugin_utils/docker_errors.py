# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about a container that Docker did not start, and an image that it did not bring, by Docker's own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

GPU_RUNTIME = (
    "install nvidia-container-toolkit (playbooks/container_engine.yml does all of this; by hand: apt-get install "
    "nvidia-container-toolkit), run nvidia-ctk runtime configure --runtime=docker, and restart Docker (systemctl restart docker); "
    "docker run --rm --gpus all IMAGE nvidia-smi proves it"
)
_DRIVER = "mend the driver first: nvidia-smi on this host shows what is wrong with it"
_SPACE = (
    "free some space where Docker keeps its data (docker info --format '{{.DockerRootDir}}'; df -h; docker system df)"
)
_HANGS = "Docker hangs or has ended: see journalctl -u docker on this host, and restart it (systemctl restart docker)"
_OTHERWISE = "see journalctl -u docker on this host"
# In the order in which they are tried.
_REMEDIES = (
    (r"could not select device driver|nvidia-container-runtime-hook\"?: .*not found", GPU_RUNTIME),
    (
        r"unsatisfied condition: (?:cuda|brand|driver)",
        "the driver is too old for the CUDA in the image: update the driver, or set plan_image to an image with an older CUDA",
    ),
    (
        r"driver/library version mismatch",
        "the driver was updated while its old kernel module was loaded: reboot the host",
    ),
    (r"nvidia-container-cli|nvml error|nvidia-container-runtime", _DRIVER),
    (
        r"user namespaces are enabled|incompatible with user namespaces",
        "take userns-remap out of /etc/docker/daemon.json and restart Docker",
    ),
    (
        r"no log driver named|logging driver|log driver|log opt",
        "correct log-driver and log-opts in /etc/docker/daemon.json and restart Docker, best with json-file",
    ),
    (
        r"no space left on device|disk quota exceeded",
        _SPACE,
    ),
    (
        r"read-only file system|input/output error",
        "Docker's disk is broken or read-only: see dmesg and mount on this host",
    ),
    (
        r"bind source path does not exist|invalid mount config",
        "the path that is mounted is not there any more: make it, or correct plan_hf_home or plan_extra_mounts",
    ),
    (
        r"not a shared or slave mount|mounting .* (?:not a directory|permission denied)|permission denied",
        "Docker may not mount a path: see its owner, the mount options of its disk, and SELinux or AppArmor (dmesg)",
    ),
    (
        r"infiniband",
        "there is no /dev/infiniband: load the drivers of the network cards (modprobe ib_uverbs), or set plan_privileged: true",
    ),
    (
        r"is already in use by container|conflict",
        "a container of this name was made meanwhile, or is still being removed: see docker ps --all and docker inspect there",
    ),
    (r"no such image|unable to find image", "the image was removed meanwhile: find what removes it"),
    (
        r"address already in use|port is already allocated",
        "see what listens there (ss -ltnp), and stop it, or choose another with plan_ports",
    ),
    (
        r"executable file not found|no such file or directory: unknown",
        "the image does not have the program (set plan_image to an image of LMDeploy), or the host lacks the file or device named",
    ),
    (
        r"unknown or invalid runtime|runtime .* not found|default-runtime",
        "correct the runtimes in /etc/docker/daemon.json (nvidia-ctk runtime configure --runtime=docker) and restart Docker",
    ),
    (
        r"unable to apply caps|apparmor|seccomp|operation not permitted",
        "the kernel or a security profile does not let Docker give the container its rights: see dmesg on this host",
    ),
    (
        r"cgroup",
        "Docker and the host disagree about control groups: see journalctl -u docker, and restart Docker or the host",
    ),
    (
        r"cannot allocate memory|out of memory|too many open files|resource temporarily unavailable",
        "the host has no memory, processes or files left: see free -h, and who takes them",
    ),
    (
        r"timed out|timeout|deadline exceeded|connection aborted|connection refused|connection reset",
        _HANGS,
    ),
)


def remedy(text: str) -> str:
    """What to do first, as a clause without a full stop."""
    return _first_of(_REMEDIES, text)


def _first_of(remedies: Sequence[tuple[str, str]], text: str) -> str:
    said = text.lower()
    return next((each for pattern, each in remedies if re.search(pattern, said)), _OTHERWISE)


_REACH = (
    "let the host reach the registry (its DNS and firewall, and the proxy of Docker's service: systemctl edit docker), set "
    "image_mirror to a registry that it reaches, or carry the image there by hand (docker save, and image_archive)"
)
_LOGIN = "image_registry, image_registry_username and image_registry_password"
_FULL = f"{_SPACE}: an image of LMDeploy takes about 30 GB, and as much again while it is unpacked"
_CERTIFICATE = (
    "put the registry's certificate authority where Docker looks for it (/etc/docker/certs.d/REGISTRY/ca.crt), and see the "
    "host's clock"
)
# As Docker, containerd and registries say it; in the order in which they are tried.
_OF_IMAGES = (
    (r"toomanyrequests|rate limit", f"log in ({_LOGIN}), or pull from a mirror"),
    (
        r"server gave http response to https client",
        "the registry speaks no TLS: give it a certificate, or name it under insecure-registries in /etc/docker/daemon.json",
    ),
    (r"x509|certificate", _CERTIFICATE),
    (
        r"no matching manifest",
        "there is no such image for this host's processor (uname -m): set plan_image to one that has it",
    ),
    (
        r"no basic auth|unauthorized|authentication required|resource is denied|access denied|forbidden|status: 40[13]",
        f"correct plan_image if there is no such repository; if it is private, set or correct {_LOGIN}",
    ),
    (
        r"manifest unknown|manifest for .* not found|name unknown|repository .* not found|not found: (?:manifest|name)",
        "the registry has no such tag: correct plan_image",
    ),
    (r"no space left on device|disk quota exceeded", _FULL),
    (r"no such host|server misbehaving|dial tcp|i/o timeout|tls handshake|proxyconnect|request canceled", _REACH),
    (r"connection (?:refused|reset)|network is unreachable|unexpected eof|deadline exceeded|bad gateway", _REACH),
    (
        r"read timed out|connection aborted",
        _HANGS,
    ),
    (
        r"invalid tar|archive/tar|not a tar|unrecognized image format",
        "image_archive is no archive of docker save, or was cut: make it again",
    ),
    (r"invalid reference format", "correct plan_image: it is no name of an image"),
)


def image_remedy(text: str) -> str:
    """The same for an image that was not pulled, loaded, or let in."""
    return _first_of(_OF_IMAGES, text)


def may_pass(text: str) -> bool:
    """Whether an image may well come at another try: its registry was not reached, or gave up."""
    return image_remedy(text) == _REACH
