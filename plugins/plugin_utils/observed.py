# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen of the hosts, typed: the answers of M(lmfleet.lmdeploy.observe), for judging and deciding.

Standard library, Python 3.9, no Ansible: so is everything that judges and decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .healing import Healing, healing

DEPLOYMENT, SERVICE, ENGINE, IDENTITY, FORMATION, DERIVED = (
    f"lmfleet.lmdeploy.{name}" for name in ("deployment", "service", "engine", "identity", "formation", "derived")
)
# Tokens flow: nothing may stop such an engine but a change of the plan.
SERVING = ("alive", "busy")


@dataclasses.dataclass(frozen=True)
class Container:
    """A container on a host. ``asked`` is what Docker was asked for (as ``Service.asked``), ``image`` the image's id."""

    name: str
    id: str
    labels: Mapping[str, str]
    image: str
    running: bool
    exit_code: int
    started_at: str
    asked: Mapping[str, Any]
    healing: Healing = dataclasses.field(default_factory=lambda: Healing([]))

    @property
    def began(self) -> str:
        """Another one after each start of its engine, be it the container's, or its supervisor's within it."""
        return f"{self.started_at} {self.healing.mark}".strip()

    @classmethod
    def of(cls, name: str, raw: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> Container:
        """Out of an entry of ``containers`` that is present, and the events of its engine's starts."""
        return cls(
            name=name,
            id=raw["id"],
            labels=raw["labels"],
            image=raw["image"],
            running=raw["status"] == "running",
            exit_code=raw["exit_code"],
            started_at=raw["started_at"],
            asked={**raw.get("asked", {}), "image": raw["image"]},
            healing=healing(events),
        )


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What an endpoint showed when it was asked for a token; ``lines`` is the log of its start, where it showed none."""

    state: str
    reason: str
    lines: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Member:
    """What the record on a host has of the engine that the host is part of: how its last whole formation was.

    ``started`` has its containers' start times, ``secrets`` the marks of the secrets that they were started with, ``seconds``
    is how long it took from its first step to its proof. ``warmed``: every shape of the warm-up was answered.
    """

    formation: str
    began: str
    seconds: float
    started: Mapping[str, str]
    secrets: Mapping[str, str]
    warmed: bool


class Host:
    """One host, as it was seen. What was not asked, or could not be read, is None or empty."""

    def __init__(self, name: str, answer: Mapping[str, Any]) -> None:
        self.name = name
        self.answer = answer
        self.unreachable: str = answer.get("unreachable", "")
        self.failed: str = answer.get("failed", "")

    @property
    def containers(self) -> dict[str, Container]:
        """Every container of the deployment's, and those of others that bear a planned name."""
        found = self.answer.get("containers") or {}
        events = self.answer.get("starts") or {}
        return {
            name: Container.of(name, raw, events.get(name) or ()) for name, raw in found.items() if raw.get("present")
        }

    def own(self, deployment: str) -> dict[str, Container]:
        """The containers that this deployment made."""
        return {name: each for name, each in self.containers.items() if each.labels.get(DEPLOYMENT) == deployment}

    def has_image(self, image: str | None) -> bool:
        """Whether the image of that id is there."""
        return image is not None and image in (self._image.get("id"), *self._present_images)

    @property
    def _image(self) -> Mapping[str, Any]:
        return self.answer.get("image") or {}

    @property
    def _present_images(self) -> list[str]:
        return [each for each, there in (self.answer.get("image_ids") or {}).items() if there]

    @property
    def image_id(self) -> str | None:
        """What the plan's reference is on this host."""
        return self._image.get("id")

    @property
    def image_answer(self) -> Mapping[str, Any] | None:
        """What the image said of itself, where that was kept."""
        return self._image.get("answer")

    @property
    def image_is_current(self) -> bool:
        """Whether the registry has no other image under the reference, where it was asked."""
        return "current" not in self._image or bool(self._image["current"])

    @property
    def network(self) -> Mapping[str, Any]:
        """``interfaces``, ``source``, ``listening``, ``gpus``, ``links`` and more of the host itself."""
        return self.answer.get("host") or {}

    @property
    def model(self) -> Mapping[str, Any]:
        """The report on the model's files."""
        return self.answer.get("model") or {}

    def mark(self, path: str) -> str | None:
        """The mark of a file's content, or None where there is no such file."""
        return (self.answer.get("files") or {}).get(path)

    def tokens(self, url: str) -> Tokens:
        """What the endpoint at ``url`` showed."""
        raw = (self.answer.get("tokens") or {}).get(url)
        return Tokens(raw["state"], raw["reason"], raw.get("lines", ())) if raw else Tokens("absent", "none runs yet")

    @property
    def public(self) -> Tokens | None:
        """What the deployment's public URL showed, where it was asked through another one than an endpoint's."""
        raw = self.answer.get("public")
        return Tokens(raw["state"], raw["reason"]) if raw else None

    @property
    def listed(self) -> Mapping[str, Sequence[str]] | None:
        """URL -> models on the proxy's list, or None where the proxy does not answer or was not asked."""
        return (self.answer.get("proxy") or {}).get("nodes")

    @property
    def gateway(self) -> Mapping[str, Any] | None:
        """What the gateway has read, and its servers, or why it does not say so (``error``); None where it was not asked."""
        return self.answer.get("gateway")

    @property
    def record(self) -> Mapping[str, Any]:
        """What this collection last wrote here about the deployment; empty where it never did."""
        found = self.answer.get("record") or {}
        return found if found.get("format") == RECORD_FORMAT else {}

    def member(self, engine: str) -> Member | None:
        """What the record says of the host's part in an engine."""
        raw = (self.record.get("engines") or {}).get(engine)
        return Member(**raw) if raw else None


RECORD_FORMAT = 1
