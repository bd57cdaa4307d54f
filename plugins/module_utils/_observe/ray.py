# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ray's members, as its head counts them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

SECONDS = 20
COUNT_S = 4  # a start of Python and a connection take about as long, so members that are coming are waited for in one
# Ray's own public API, asked inside the head's container, where the Ray of the image and its token are.
PROGRAM = """
import json, ray, time
from ray.util.placement_group import placement_group
ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR', configure_logging=False)
claim, ends = {claim}, time.monotonic() + {count_s}
while True:
    nodes = [dict(address=n['NodeManagerAddress'], alive=n['Alive'], gpus=int(n['Resources'].get('GPU', 0))) for n in ray.nodes()]
    counted = sum(n['gpus'] for n in nodes if n['alive']) >= claim
    if counted or time.monotonic() > ends:
        break
    time.sleep(0.2)
given = None if not counted else not claim or placement_group([dict(GPU=1)] * claim).wait(timeout_seconds=8)
print(json.dumps(dict(nodes=nodes, given=given)))
"""


# Of jobs that live, the actors that do not, by the name of their class. What is asked has no public name in Ray; both its oldest
# (2.46) and its newest release (2.60) that images have know it so.
DEAD_ACTORS = """
import json, ray
from ray._private.state import state
ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR', configure_logging=False)
jobs = {{each['JobID'] for each in state.job_table() if not each['IsDead']}}
dead = state.actor_table(None, actor_state_name='DEAD').values()
dead = [each for each in dead if each['JobID'] in jobs and each['ActorClassName'].endswith({name!r})]
print(json.dumps({{each['ActorID']: each['Address']['IPAddress'] for each in dead}}))
"""


@dataclasses.dataclass(frozen=True)
class Members:
    """Ray's members against the plan's: ``joined`` and ``missing`` are address -> GPUs, ``surplus`` are addresses.

    Surplus is what is counted though it is gone, or not of the plan: an engine that is given GPUs of such a node waits for
    them for ever. ``error`` is why Ray could not be asked.
    """

    joined: Mapping[str, int]
    missing: Mapping[str, int]
    surplus: list[str]
    error: str = ""

    @classmethod
    def of(cls, answer: Mapping[str, Any], planned: Mapping[str, int]) -> Members:
        """Out of ``ray_nodes``; ``planned`` is address -> GPUs."""
        if "error" in answer:
            return cls({}, planned, [], str(answer["error"]))
        alive = [node for node in answer["nodes"] if node["alive"]]
        joined = {node["address"]: node["gpus"] for node in alive if node["address"] in planned}
        surplus = [node["address"] for node in alive]
        for address in joined:
            surplus.remove(address)
        missing = {address: gpus for address, gpus in planned.items() if joined.get(address, 0) < gpus}
        return cls(joined, missing, surplus)

    @property
    def whole(self) -> bool:
        """Whether Ray has just what is planned."""
        return not self.error and not self.missing and not self.surplus

    def told(self, planned: Mapping[str, int], names: Mapping[str, str] | None = None) -> str:
        """For a person; ``names`` of addresses where they are known."""
        if self.error:
            return f"it does not answer yet: {self.error}"
        text = (
            f"Ray counts {len(self.joined)} of {len(planned)} nodes and {sum(self.joined.values())} of "
            f"{sum(planned.values())} GPUs"
        )
        if self.missing:
            each = [f"{(names or {}).get(a, '') or 'the node'} ({a}, {gpus} GPUs)" for a, gpus in self.missing.items()]
            text += f"; missing: {', '.join(each)}"
        if self.surplus:
            text += f"; still counted, though gone or not of the plan: {', '.join(self.surplus)}"
        return text


def ray_nodes(client: Any, container: str, address: str, claim: int = 0) -> dict[str, Any]:
    """``{"nodes": [{"address", "alive", "gpus"}], "given"}``, or ``{"error": ...}``.

    ``claim`` waits a moment for that many GPUs, asks Ray for them at once, as an engine does, and gives them back. ``given`` says
    whether it got them; None: Ray does not count so many, so it was not asked.
    """
    import docker

    # KILL: a client of Ray that hangs in the network may not hear TERM. A frozen container is the caller's to leave.
    program = [
        "timeout",
        "-k",
        "2",
        str(SECONDS),
        "python3",
        "-c",
        PROGRAM.format(address=address, claim=claim, count_s=COUNT_S),
    ]
    try:
        code, output = client.containers.get(container).exec_run(program, demux=True)
    except docker.errors.APIError as error:
        return {"error": str(error.explanation or error)}
    stdout, stderr = ((part or b"").decode("utf-8", "replace").strip() for part in output)
    if code in (124, 137):
        return {"error": f"Ray at {address} did not answer within {SECONDS} s"}
    if code != 0:
        return {"error": stderr.rpartition("\n")[2] or f"exit code {code}"}
    try:
        result: dict[str, Any] = json.loads(stdout.rpartition("\n")[2])
    except ValueError:
        return {"error": f"no answer of Ray's in {stdout[-200:]!r}"}
    return result
