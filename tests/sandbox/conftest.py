# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: the sandbox, and a deployment on it."""

from __future__ import annotations

import pytest
from sandbox.hosts import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """The sandbox, which has to be up."""
    return Sandbox()


@pytest.fixture(scope="session")
def dpep() -> Sandbox:
    """Four hosts for DP+EP, which have to be up, with no deployment of TP on them."""
    return Sandbox("dpep", nodes=4)


@pytest.fixture
def ranks(dpep: Sandbox) -> Sandbox:
    """A converged deployment of DP+EP."""
    dpep.deploy().succeeded()
    return dpep


@pytest.fixture
def deployed(sandbox: Sandbox) -> Sandbox:
    """A converged deployment; what a test leaves behind is for the next test's deployment to mend."""
    sandbox.deploy().succeeded()
    return sandbox
