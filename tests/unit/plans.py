# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for tests: from a few variables to a plan, or to the faults it is refused with."""

from __future__ import annotations

import argparse
import ipaddress
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import Observations, build_plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.inputs import Inputs, read_inputs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, Plan, PlanError, Service

ROOT = Path(__file__).parents[2]
SPEC = yaml.safe_load((ROOT / "roles/plan/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"][
    "main"
]["options"]
Variables = dict[str, dict[str, Any]]
Groups = Mapping[str, Sequence[str]]


def nodes(count: int = 2, *, first: str = "10.0.0.10", **everywhere: Any) -> Variables:
    """``count`` nodes, node0 at ``first`` and so on, all with the variables ``everywhere``."""
    address = ipaddress.ip_address(first)
    return {f"node{n}": {"plan_cluster_address": str(address + n), **everywhere} for n in range(count)}


def plan_of(
    variables: Variables,
    seen: Observations | None = None,
    *,
    groups: Groups | None = None,
    topology: str | None = None,
) -> Plan:
    faults = Faults()
    inputs = read_inputs(SPEC, variables, faults, groups=groups, topology=topology)
    return build_plan(inputs, seen or Observations(), faults)


def inputs_of(variables: Variables) -> Inputs:
    """The checked variables, as a run keeps them."""
    return read_inputs(SPEC, variables, Faults())


def plan_or_faults(variables: Variables) -> tuple[Plan | None, list[str]]:
    try:
        return plan_of(variables), []
    except PlanError as refused:
        return None, refused.faults


def faults_of(
    variables: Variables,
    seen: Observations | None = None,
    *,
    groups: Groups | None = None,
    topology: str | None = None,
) -> list[str]:
    with pytest.raises(PlanError) as refused:
        plan_of(variables, seen, groups=groups, topology=topology)
    return refused.value.faults


def service(plan: Plan, name: str, node: str = "node0") -> Service:
    return next(s for s in plan.services if s.service == name and s.node == node)


def typed(shell: str, plan: Plan) -> list[tuple[list[str], argparse.Namespace]]:
    """By service, the directories and the ``docker run`` of the commands to type, as a shell would split them."""
    docker_run = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for flag in ("--detach", "--privileged"):
        docker_run.add_argument(flag, action="store_true")
    for option in ("--name", "--network", "--ipc", "--pid", "--gpus", "--restart"):
        docker_run.add_argument(option)
    for option in ("--env", "--volume", "--cap-add", "--ulimit", "--device"):
        docker_run.add_argument(option, action="append", default=[])
    docker_run.add_argument("image")
    docker_run.add_argument("command", nargs=argparse.REMAINDER)

    found = []
    titles = "|".join(re.escape(f"\n\n# {shlex.quote(each.node)}: {each.name}\n") for each in plan.services)
    for block in re.split(titles, shell)[1:]:
        mkdir, __, run = f"\n{block}".partition("\ndocker run ")
        directories = shlex.split(mkdir)
        assert directories[:2] in ([], ["mkdir", "-p"])
        # Where a line goes on, a shell reads nothing, but shlex the end of the line.
        words = [word for word in shlex.split(run) if word != "\n"]
        found.append((directories[2:], docker_run.parse_args(words)))
    return found
