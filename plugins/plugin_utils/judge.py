# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the hosts: every fault of every host at once, before anything is started.

Pure: a plan and what was seen in, sentences out. Each names host, cause and remedy. They are what the rules find (``rules``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from .network import binding_faults
from .observed import Host
from .planning.types import Plan, Service
from .rules import image
from .rules.judging import WAIVED, Result, Waivers, judged, of_state
from .rules.registry import RULES
from .rules.types import ERROR, WARNING, Found, Unknown

# The image is judged after it was brought.
FIRST = tuple(rule for rule in RULES if not rule.brought)
FIRST_ERRORS = tuple(rule for rule in FIRST if rule.severity == ERROR)  # all that a run which changes nothing asks for

# What to do where a start lacks something.
_NO_DOCKER = "See on that host why it does not answer (docker info; journalctl -u docker), then run again."
_NO_IMAGE = (
    "Run again, which brings the image to where it is missing. If it is missing once more, something removes it there (docker "
    "image prune?), or its tag was moved to another image: docker image ls --digests on that host shows it."
)
_NO_MODEL = (
    "playbooks/preflight.yml names what is missing of it; have it brought by playbooks/model.yml -e model_source=hub, or "
    "-e model_strategy=fanout where another host has it."
)
_NO_FILE = (
    "Run again, which brings the file to where it is missing; if it is missing once more, see who removes it there."
)


def host_faults(plan: Plan, hosts: Mapping[str, Host], waivers: Waivers | None = None) -> list[str]:
    """Every fault of every host that is not waived, but for what the image would show."""
    return of_state(judged(plan, hosts, waivers, FIRST_ERRORS), ERROR, plan)


def host_warnings(plan: Plan, hosts: Mapping[str, Host], waivers: Waivers | None = None) -> list[str]:
    """What should be known before something is started, and does not stop it; what is waived among it, with the reason."""
    results = judged(plan, hosts, waivers, FIRST)
    return [*of_state(results, WARNING, plan), *waived_faults(results)]


def waived_faults(results: Iterable[Result]) -> list[str]:
    """The errors that do not count, with why."""
    return [
        f"{told} (Waived by plan_waive.{each.rule}: {each.why.rstrip('.')}.)"
        for each in results
        if each.state == WAIVED and each.severity == ERROR
        for told in each.told
    ]


def lacks_addresses(plan: Plan, hosts: Mapping[str, Host]) -> bool:
    """Whether a host has not the address or the interface that is planned, so that the plan cannot be bound to it."""
    seen = ((node, hosts[node.name].network.get("interfaces")) for node in plan.nodes if node.name in hosts)
    return any(binding_faults(node, interfaces) for node, interfaces in seen if interfaces)


def image_faults(plan: Plan, reference: str, hosts: Mapping[str, Host]) -> list[str]:
    """Where the hosts hold different images under one reference, or what they hold is no LMDeploy."""
    return _first(check(plan, reference, hosts) for check in (image.same_faults, image.content_faults))


def _first(checks: Iterable[Iterable[Found]]) -> list[str]:
    """What the first check finds that finds anything: the later ones have no use for what is wrong already."""
    for check in checks:
        with contextlib.suppress(Unknown):
            found = [each.told for each in check]
            if found:
                return found
    return []


def lacks(service: Service, host: Host, *, image_brought: bool = False) -> dict[str, str]:
    """What a container's start needs and was not seen on its host, each with what to do; not an image that is brought before."""
    missing: dict[str, str] = {}
    if host.unreachable or host.failed or "error" in (host.answer.get("docker") or {}):
        missing["a Docker engine that answers"] = _NO_DOCKER
    if not image_brought and not host.has_image(service.image):
        missing[f"the image {service.image}"] = _NO_IMAGE
    if service.gpus and host.model.get("faults", True):
        missing["the whole model"] = _NO_MODEL
    missing.update(
        {f"the file {secret.source}": _NO_FILE for secret in service.secrets if not host.mark(secret.source)}
    )
    return missing
