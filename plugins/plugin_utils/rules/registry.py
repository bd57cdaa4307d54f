# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All rules, in the order in which their faults are told: of each host first, then of all hosts together."""

from __future__ import annotations

from . import disks, docker, fabric, gpu, hosts, image, model, network, plan, ports, rdma, system, together
from .types import Rule

RULES: tuple[Rule, ...] = (
    *hosts.RULES,
    *docker.RULES,
    *gpu.RULES,
    *fabric.RULES,
    *rdma.RULES,
    *network.RULES,
    *network.WARNINGS,
    *docker.NAMES,
    *ports.RULES,
    *disks.RULES,
    *disks.WARNINGS,
    *system.RULES,
    *together.RULES,
    *rdma.TOGETHER,
    *network.TOGETHER,
    *system.TOGETHER,
    *model.RULES,
    *image.RULES,
    *plan.RULES,
)
