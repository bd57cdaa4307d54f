# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan is bound to, out of what was seen of its hosts, and what is refused then. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .observed import Host
from .planning.build import Observations, build_plan
from .planning.inputs import Inputs
from .planning.types import Faults, PlanError
from .rules.types import Found, Unknown


def observations(hosts: Mapping[str, Host]) -> Observations:
    """What a plan is bound to, out of what was seen of its hosts."""
    image = next((host.image_id for host in hosts.values() if host.image_id), None)
    return Observations(
        image=next((host.image_answer for host in hosts.values() if host.image_answer), None),
        image_id=image,
        interfaces={name: host.network["interfaces"] for name, host in hosts.items() if host.network.get("interfaces")},
        sources={name: host.network["source"] for name, host in hosts.items() if "source" in host.network},
        hcas={name: host.network["hcas"] for name, host in hosts.items() if host.network.get("hcas")},
        links={name: found for name, host in hosts.items() if (found := (host.network.get("gpus") or {}).get("links"))},
        model_config=next((host.model["config"] for host in hosts.values() if host.model.get("config")), None),
    )


def refusals(inputs: Inputs, hosts: Mapping[str, Host]) -> Iterator[Found]:
    """What binding the plan would refuse of image and model, with the hosts; those of the whole deployment are of all.

    Addresses and routes are left to their own rules (``net.cluster-address``, ``net.default-route``). Raises ``Unknown``, after
    what is refused all the same, where the image on the hosts did not say what it is.
    """
    unknown = _image_unknown(hosts)
    seen = observations(hosts)
    here = Observations(
        image=None if unknown else seen.image,
        image_id=None if unknown else seen.image_id,
        model_config=seen.model_config,
    )
    faults = Faults()
    try:
        build_plan(inputs, here, faults)
    except PlanError:
        for told, nodes in faults.by_nodes().items():
            yield Found(told, tuple(nodes or (node.name for node in inputs.nodes)))
    if unknown:
        raise Unknown(unknown)


def _image_unknown(hosts: Mapping[str, Host]) -> str:
    """Why nothing can be said of the image; empty where it has said what it is."""
    if len({host.image_id for host in hosts.values()} - {None}) > 1:
        return "the hosts hold different images"
    answer = next((host.image_answer for host in hosts.values() if host.image_answer), None)
    if answer is None:
        return "the image was not asked yet: a deployment asks it, once it is on the hosts"
    return "" if answer.get("lmdeploy") else "the image could not say which LMDeploy it holds"
