# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from lmfleet_sim.faults import Fault
from lmfleet_sim.settings import Settings, SettingsError


def test_defaults_without_variables() -> None:
    assert Settings.from_environ({"PATH": "/bin", "LMFLEET_SIM": "1"}) == Settings()


def test_every_variable_is_read() -> None:
    environ = {
        "LMFLEET_SIM_GPUS": "2",
        "LMFLEET_SIM_STEP_S": "0.5",
        "LMFLEET_SIM_PREFILL_TOKENS_PER_S": "1e3",
        "LMFLEET_SIM_LOAD_S": "0",
        "LMFLEET_SIM_FAULTS": "crash_at_load@3, hang@*:10",
        "LMFLEET_SIM_STAMPS": "/tmp/stamps.jsonl",
        "LMFLEET_SIM_SHALLOW": "1",
    }
    assert Settings.from_environ(environ) == Settings(
        gpus=2,
        step_s=0.5,
        prefill_tokens_per_s=1000.0,
        load_s=0.0,
        faults=(Fault("crash_at_load", 3), Fault("hang", None, 10)),
        stamps="/tmp/stamps.jsonl",
        shallow=True,
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LMFLEET_SIM_GPUS", "-1"),
        ("LMFLEET_SIM_GPUS", "two"),
        ("LMFLEET_SIM_GPUS", ""),
        ("LMFLEET_SIM_STEP_S", "-0.1"),
        ("LMFLEET_SIM_STEP_S", "nan"),
        ("LMFLEET_SIM_LOAD_S", "inf"),
        ("LMFLEET_SIM_PREFILL_TOKENS_PER_S", "0"),
        ("LMFLEET_SIM_FAULTS", "crash_at_load"),
        ("LMFLEET_SIM_FAULTS", "explode@1"),
        ("LMFLEET_SIM_FAULTS", "oom_at_load@1:5"),
        ("LMFLEET_SIM_STAMPS", "stamps.jsonl"),
        ("LMFLEET_SIM_SHALLOW", "yes"),
        ("LMFLEET_SIM_STEPS", "1"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environ({variable: value})


def test_one_error_lists_every_fault() -> None:
    environ = {
        "LMFLEET_SIM_GPUS": "two",
        "LMFLEET_SIM_LOAD_S": "-1",
        "LMFLEET_SIM_TYPO": "x",
        "LMFLEET_SIM_STEP_S": "1",
    }
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(environ)
    message = str(raised.value)
    assert all(name in message for name in ("LMFLEET_SIM_GPUS", "LMFLEET_SIM_LOAD_S", "LMFLEET_SIM_TYPO"))
    assert "LMFLEET_SIM_STEP_S:" not in message
