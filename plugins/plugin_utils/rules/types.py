# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rule is, what it is given, and what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..observed import SERVING, Host
from ..planning.types import Engine, Node, Plan

ERROR, WARNING = "error", "warning"
HOST, GROUP = "host", "group"


class Unknown(Exception):
    """What a rule needs could not be read; the text says what, and why."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A fault of ``hosts``: ``told`` says where, what is wrong and what to do.

    A rule that judges one host may find plain text, which is told of that host.
    """

    told: str
    hosts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rule:
    """One thing that has to hold.

    ``check`` is given an ``OfHost`` (scope host) or an ``OfAll`` (scope group) and yields what it finds; it raises ``Unknown``,
    before or after that, for what could not be read. ``needs`` are the parts of a host's answer without which nothing can be
    said, with dots between keys. ``applies`` says whether the plan has any use for the rule there. ``title`` is what holds
    where all is well, ``remedy`` what to do first; both are for the page of rules.
    ``answered``: hosts that gave no answer are left out. ``brought``: judged only after the image is there. ``waivable``: the
    run can go on without it.
    """

    id: str
    severity: str
    title: str
    check: Callable[[Any], Iterable[Found | str]]
    remedy: str
    needs: tuple[str, ...] = ()
    scope: str = HOST
    applies: Callable[[Any], bool] = lambda __: True
    answered: bool = True
    brought: bool = False
    waivable: bool = True


@dataclasses.dataclass(frozen=True)
class OfHost:
    """What a rule about one host is given; ``host`` is None where nobody looked, ``hosts`` are all that were looked at."""

    plan: Plan
    node: Node
    host: Host
    hosts: Mapping[str, Host]

    @property
    def engine(self) -> Engine:
        """The engine that the host is part of."""
        return self.plan.engine(self.node.engine)

    @property
    def several(self) -> bool:
        """Whether its engine has other hosts."""
        return len(self.engine.nodes) > 1

    @property
    def idle(self) -> bool:
        """Whether no container of the deployment runs there."""
        return not any(container.running for container in self.host.own(self.plan.name).values())

    @property
    def serves(self) -> bool:
        """Whether an endpoint of its engine gives tokens: then nothing keeps it from starting."""
        seen = ((each.url, self.hosts.get(each.node)) for each in self.plan.endpoints_of(self.engine.name))
        return any(host is not None and host.tokens(url).state in SERVING for url, host in seen)

    @property
    def real(self) -> bool:
        """Whether NVIDIA's driver was seen: limits that only matter to real engines are no matter elsewhere."""
        return bool(self.get("host.gpus") or self.get("host.rdma"))

    @property
    def details(self) -> list[dict[str, Any]]:
        """The GPUs as nvidia-smi tells them; raises ``Unknown``."""
        return list(self.known("host.gpus.details"))

    def environment(self, name: str) -> str:
        """The value that the host's containers with GPUs get for a variable, or nothing."""
        return next((s.environment.get(name, "") for s in self.plan.services_on(self.node.name) if s.gpus), "")

    def get(self, path: str) -> Any:
        """A part of the host's answer by its keys with dots between them, or None."""
        return part(self.host, path)

    def known(self, path: str) -> Any:
        """The same; raises ``Unknown`` where it is not there."""
        return needed(self.host, path)


@dataclasses.dataclass(frozen=True)
class OfAll:
    """What a rule about all hosts together is given; ``hosts`` are those that answered.

    ``refused`` tells what binding the plan to them would refuse, and raises ``Unknown``; None where nobody asks for that.
    """

    plan: Plan
    hosts: Mapping[str, Host]
    refused: Callable[[], Iterable[Found]] | None = None

    def each(self, path: str) -> dict[str, Any]:
        """By host, a part of the answer, of those that have it."""
        found = {name: part(host, path) for name, host in self.hosts.items()}
        return {name: value for name, value in found.items() if value is not None}


# Why a part is missing, where it is not simply that it could not be read.
WHY = {
    "host.gpus": "there is no nvidia-smi on this host",
    "host.gpus.details": "nvidia-smi did not tell the GPUs one by one",
    "host.rdma": "NVIDIA's driver is not loaded on this host",
    "host.hcas": "the RDMA devices could not be read",
    "host.interfaces": "the addresses could not be read",
    "host.kernel.xids": "the kernel's log could not be read",
    "docker_settings": "Docker did not tell its settings",
    "host.kernel.sxids": "the kernel's log could not be read",
    "host.acs": "the configuration of PCI switches could not be read, which only root may",
    "host.time": "the clock could not be read",
    "looked": "nobody noted when the host was asked",
}


def part(host: Host, path: str) -> Any:
    """A part of an answer by its keys with dots between them; None where one of them is not there."""
    found: Any = host.answer
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def needed(host: Host, path: str) -> Any:
    """The same; raises ``Unknown`` where it is not there, or is an answer without anything in it."""
    keys = path.split(".")
    for length in range(1, len(keys) + 1):
        here = ".".join(keys[:length])
        found = part(host, here)
        if found is None or (found == {} and length < len(keys)):
            raise Unknown(WHY.get(here, f"the look did not tell {here}"))
    return found
