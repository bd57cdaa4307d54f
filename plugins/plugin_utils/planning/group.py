# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the variables of an inventory group's hosts to a plan, and from what was seen of them to what it is bound to."""

from __future__ import annotations

import dataclasses
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import constants, context

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.binding import observations
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.build import build_plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.hostvars import HostVariables, Sources
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.inputs import Inputs, read_inputs
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Faults, Plan, PlanError
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.releases import did_you_mean, with_changes

SPECS = Path(__file__).parents[3] / "roles" / "plan" / "meta" / "argument_specs.yml"


def inputs_of(
    group: str,
    task_vars: Mapping[str, Any],
    faults: Faults,
    *,
    loader: Any,
    topology: str | None = None,
) -> Inputs:
    """The checked variables of the group's hosts; what is wrong goes to ``faults``. Raises PlanError where there is no host.

    ``loader`` is Ansible's, for templates; ``topology`` is the one that the playbook deploys.
    """
    groups, hostvars = task_vars["groups"], task_vars["hostvars"]
    if group not in groups:
        known = [name for name in groups if name not in ("all", "ungrouped")]
        missing = f"the inventory has no group {group}{did_you_mean(group, known)}"
        where = _where_to_name(groups, hostvars)
        raise PlanError([*_config_faults(), f"{missing}: put the GPU hosts under it, or name their group{where}."])
    nodes = list(groups[group])
    spec = yaml.safe_load(SPECS.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
    sources = Sources()
    read = {node: HostVariables(node, hostvars, loader, faults, sources).read() for node in nodes}
    variables = {node: values for node, (values, __) in read.items()}
    unread = {node: names for node, (__, names) in read.items()}
    inputs = read_inputs(spec, variables, faults, f"group {group}", groups, topology, unread)
    faults.extend(_forks_faults(len(nodes)))
    return inputs


def bound(
    inputs: Inputs, hosts: Mapping[str, Host], faults: Faults, *, option_changes: Mapping[str, Any] | None = None
) -> Plan:
    """The plan, with what its hosts and the image were seen to be. Raises PlanError where it does not fit them.

    ``option_changes`` are put over the api_server options that it was computed from; None takes one out.
    """
    options = with_changes(inputs.api_server_options, option_changes or {})
    return build_plan(dataclasses.replace(inputs, api_server_options=options), observations(hosts), faults)


def _config_faults() -> list[str]:
    """Where Ansible leaves the directory's ansible.cfg alone, so that neither inventory nor forks are the checkout's."""
    config = Path.cwd() / "ansible.cfg"
    if constants.CONFIG_FILE or not config.exists() or not config.parent.stat().st_mode & stat.S_IWOTH:
        return []
    unread = f"Ansible has not read {config}, because everyone may write to that directory"
    remedy = f"run chmod o-w {shlex.quote(str(config.parent))}, or export ANSIBLE_CONFIG={shlex.quote(str(config))}."
    return [f"{unread}: {remedy}"]


def _where_to_name(groups: Mapping[str, Any], hostvars: Any) -> str:
    """Where plan_group is to be set: the plan is made on the control node, which is in no group but all."""
    named = next((host for host in groups.get("all", []) if "plan_group" in hostvars.raw_get(host)), None)
    here = f" (that of {named} does not reach the control node)" if named else ""
    return f" with plan_group in group_vars/all or with -e plan_group=GROUP{here}"


def _forks_faults(nodes: int) -> list[str]:
    forks = int(context.CLIARGS.get("forks") or 0)
    if not forks or forks >= nodes:
        return []
    few = f"forks is {forks} for {nodes} nodes, but they have to be watched at the same moment"
    return [*_config_faults(), f"{few}: run with --forks {nodes} or more, or set forks in ansible.cfg."]
