# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator's settings, from variables that begin with LMFLEET_SIM_."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from lmfleet_sim.faults import Fault

PREFIX = "LMFLEET_SIM_"


class SettingsError(ValueError):
    """One or more settings are wrong; the message lists them all."""


@dataclass(frozen=True)
class Settings:
    """How the simulated GPUs behave. The variable of a field is its name in capitals after LMFLEET_SIM_.

    Attributes:
        gpus: GPUs that each host declares, where CUDA_VISIBLE_DEVICES does not say fewer.
        step_s: seconds of one decoding step, whatever the batch.
        prefill_tokens_per_s: prompt tokens that a prefill takes in per second.
        load_s: seconds that loading the weights takes, spread evenly over the shards.
        faults: comma-separated ``kind@rank[:requests]``; docs/sandbox.md lists the kinds.
        stamps: absolute path of a file that every api_server appends a line to for each completion request; see served.py.
        shallow: 1 has a rank run in one process, so that many fit; see v0_18_shallow.py. Only for LMDeploy 0.18.0.
    """

    gpus: int = 8
    step_s: float = 0.02
    prefill_tokens_per_s: float = 50_000.0
    load_s: float = 2.0
    faults: tuple[Fault, ...] = ()
    stamps: str = ""
    shallow: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; raise SettingsError listing every unknown variable and every wrong value."""
        names = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        values: dict[str, object] = {}
        errors = []
        for variable in sorted(v for v in environ if v.startswith(PREFIX)):
            if variable not in names:
                errors.append(f"{variable} is no setting (there are {', '.join(names)})")
                continue
            try:
                values[names[variable]] = _PARSERS[names[variable]](environ[variable])
            except ValueError as error:
                errors.append(f"{variable}: {error}")
        if errors:
            raise SettingsError("wrong settings in the environment: " + "; ".join(errors))
        return cls(**values)  # type: ignore[arg-type]


def _gpus(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a whole number of GPUs")
    return int(text)


def _seconds(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise ValueError(f"{text!r} seconds is negative")
    return value


def _rate(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError(f"{text!r} tokens per second is not above zero")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def _faults(text: str) -> tuple[Fault, ...]:
    return tuple(Fault.parse(part.strip()) for part in text.split(",") if part.strip())


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path")
    return text


def _switch(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return text == "1"


_PARSERS = {
    "gpus": _gpus,
    "step_s": _seconds,
    "prefill_tokens_per_s": _rate,
    "load_s": _seconds,
    "faults": _faults,
    "stamps": _path,
    "shallow": _switch,
}
