# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be the same on all hosts, or is better so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .types import GROUP, WARNING, Found, OfAll, Rule, Unknown


def _kinds(of: OfAll) -> Iterator[Found]:
    kinds: dict[str, list[str]] = {}
    listed = of.each("host.gpus.names")
    for name, names in listed.items():
        for kind in dict.fromkeys(names):
            kinds.setdefault(kind, []).append(name)
    if len({tuple(names) for names in kinds.values()}) > 1:
        each = "; ".join(f"{kind} on {', '.join(names)}" for kind, names in kinds.items())
        yield Found(
            f"The hosts have GPUs of different kinds ({each}); an engine is as fast as its slowest.",
            tuple(dict.fromkeys(name for names in kinds.values() for name in names)),
        )
    silent = [name for name, names in listed.items() if not names]
    if silent:
        raise Unknown(f"nvidia-smi named no GPU ({', '.join(silent)})")


def _same(path: str, what: str, remedy: str) -> Callable[[OfAll], Iterator[Found]]:
    """A check that a value is the same on all hosts that tell it; ``what`` names it in the plural."""

    def check(of: OfAll) -> Iterator[Found]:
        values: dict[str, list[str]] = {}
        for name, value in of.each(path).items():
            values.setdefault(str(value), []).append(name)
        if len(values) > 1:
            told = "; ".join(f"{value} on {', '.join(names)}" for value, names in values.items())
            few: Mapping[str, Any] = {value: names for value, names in values.items() if names is not _most(values)}
            yield Found(
                f"The hosts have different {what} ({told}): {remedy}",
                tuple(name for each in few.values() for name in each),
            )

    return check


def _most(values: Mapping[str, list[str]]) -> list[str]:
    return max(values.values(), key=len)


RULES = (
    Rule(
        id="same.gpu-kind",
        severity=WARNING,
        title="The hosts have GPUs of one kind",
        check=_kinds,
        remedy="Plan with hosts whose GPUs are the same.",
        needs=("host.gpus.names",),
        scope=GROUP,
    ),
    Rule(
        id="same.driver",
        severity=WARNING,
        title="The hosts have one NVIDIA driver",
        check=_same(
            "host.gpus.driver",
            "NVIDIA drivers",
            "NCCL and NVSHMEM are tried with one; bring all hosts to the same version.",
        ),
        remedy="Bring all hosts to one version.",
        needs=("host.gpus.driver",),
        scope=GROUP,
    ),
    Rule(
        id="same.docker",
        severity=WARNING,
        title="The hosts have one Docker",
        check=_same(
            "docker.version", "versions of Docker", "containers may be made differently; bring all hosts to the same."
        ),
        remedy="Bring all hosts to one version.",
        needs=("docker.version",),
        scope=GROUP,
    ),
    Rule(
        id="same.kernel",
        severity=WARNING,
        title="The hosts have one kernel",
        check=_same(
            "host.kernel.release",
            "kernels",
            "drivers of GPUs and network cards are built for each; bring all hosts to the same.",
        ),
        remedy="Bring all hosts to one version.",
        needs=("host.kernel.release",),
        scope=GROUP,
    ),
)
