# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all unit tests share. LMFLEET_FUZZ=100 gives every property a hundred times its examples, and others in each run."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

from ansible_collections.lmfleet.lmdeploy.tests.unit.namespaces import LEFT_OUT

settings.register_profile("lmfleet", deadline=None)  # a busy machine is no fault
settings.load_profile("lmfleet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fuzz for long, where that is asked for."""
    times = int(os.environ.get("LMFLEET_FUZZ", "1"))
    for item in items if times > 1 else ():
        test: Any = getattr(item, "obj", None)
        if is_hypothesis_test(test):
            kept: settings = test._hypothesis_internal_use_settings
            test._hypothesis_internal_use_settings = settings(
                kept, max_examples=kept.max_examples * times, derandomize=False, database=None
            )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was left out because this machine cannot do it; of other workers there are the reports alone."""
    skipped = [report.longrepr[-1] for report in terminalreporter.stats.get("skipped", ()) if report.longrepr]
    told = dict.fromkeys(reason for reason in map(str, skipped) if LEFT_OUT in reason)
    for reason in told:
        terminalreporter.section("NOT TESTED", sep="!")
        terminalreporter.line(
            f"{reason.partition(LEFT_OUT)[2].strip()}\nThe tests of the firewall need that. With LMFLEET_NETNS=1 this is a failure."
        )
