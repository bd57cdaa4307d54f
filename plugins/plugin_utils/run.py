# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions of one run hand to each other: the plan, what was seen of each host, what was decided.

One directory on the control node that lives as long as the playbook run, in Ansible's own temporary directory of it (mode
0700). Ansible runs each task of each host in a process of its own, so this is how they meet: not by facts, whose precedence
anybody's variables can win, and of which every host would carry a copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail

from .decide import Decision, Round, Step
from .look import questions
from .observed import Host, Tokens
from .planning.codec import decode
from .planning.gateway import GatewayInputs
from .planning.inputs import Inputs
from .planning.types import Plan

NO_PLAN = "there is no plan in this run yet: import the playbook lmfleet.lmdeploy.make_plan before this task's play."


class Run:
    """The run's directory. Reading what was not written raises ``AnsibleActionFail`` with what to do."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(constants.DEFAULT_LOCAL_TMP) / "lmfleet"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # ---- any word

    def write(self, name: str, data: Any) -> None:
        """Put a word up, in one step, so that no reader sees half of it."""
        draft = self.folder / f".{name}.{os.getpid()}"  # other hosts' tasks write at the same moment
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(data), encoding="utf-8")
        draft.replace(self.folder / name)

    def read(self, name: str, default: Any = None) -> Any:
        """The word of that name, or ``default``."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default

    def secret(self, name: str) -> str:
        """A key of this run alone, the same on all hosts' tasks: the first who asks makes it."""
        place, draft = self.folder / f"secret.{name}", self.folder / f".secret.{name}.{secrets.token_hex(4)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32), encoding="ascii")
        with contextlib.suppress(FileExistsError):
            os.link(draft, place)
        draft.unlink()
        return place.read_text(encoding="ascii")

    def every(self, kind: str) -> dict[str, Any]:
        """The words ``kind@host`` of all hosts, by host."""
        return {
            path.name.partition("@")[2]: json.loads(path.read_text("utf-8")) for path in self.folder.glob(f"{kind}@*")
        }

    # ---- the plan

    def keep_inputs(self, inputs: Inputs, plan: Plan) -> None:
        """Begin with a new plan, of which nothing was seen yet."""
        for path in self.folder.iterdir():
            path.unlink()
        self.write("inputs", dataclasses.asdict(inputs))
        self.keep_plan(plan)
        for node in plan.nodes:  # once, for every look would read the whole plan for them
            self.write(f"asked@{node.name}", questions(plan, node))

    def keep_plan(self, plan: Plan) -> None:
        """The plan is this one from here on."""
        self.write("plan", plan.to_json())

    def keep_recorded(self, plan: Plan, before: Mapping[str, Any]) -> None:
        """The plan is one that a record has, bound long ago, and nothing was seen yet of what it needs.

        ``before`` are the plans that the records have now (``plans_kept``).
        """
        for path in (*self.folder.glob("seen@*"), *self.folder.glob("asked@*")):
            path.unlink()
        self.keep_plan(plan)
        self.write("before", dict(before))
        self.write("recorded", True)
        for node in plan.nodes:
            asked = questions(plan, node)
            # Its image by id: the reference may be another image's by now.
            asked["image"] = {**asked["image"], "reference": plan.engine(node.engine).image.run}
            self.write(f"asked@{node.name}", asked)
            # Until it is: a host that a run has lost takes no part in its later tasks.
            self.saw(node.name, {"unreachable": "it was lost in this run, and not looked at again"})

    @property
    def recorded(self) -> bool:
        """Whether the plan is one that a record has."""
        return bool(self.read("recorded", False))

    @property
    def inputs(self) -> Inputs:
        """What the plan was computed from."""
        found = self.read("inputs")
        if found is None:
            raise AnsibleActionFail(NO_PLAN)
        return decode(Inputs, found)

    @property
    def gateway(self) -> GatewayInputs | None:
        """What the inventory says of the gateway; None where it has none, or there are no inputs yet."""
        found = (self.read("inputs") or {}).get("gateway")
        return decode(GatewayInputs, found) if found else None

    @property
    def gateway_key(self) -> str | None:
        """A key by which this run uses the gateway itself: the first of the inventory's, by name."""
        keys = self.gateway.keys if self.gateway else {}
        return keys[min(keys)] if keys else None

    @property
    def waivers(self) -> dict[str, dict[str, str]]:
        """By node and rule, why a fault does not count; empty where there are no inputs yet."""
        return dict((self.read("inputs") or {}).get("waivers", {}))

    @property
    def plan(self) -> Plan:
        """The plan of this run."""
        found = self.read("plan")
        if found is None:
            raise AnsibleActionFail(NO_PLAN)
        return Plan.from_json(found)

    # ---- what was seen

    def questions(self, host: str) -> dict[str, Any]:
        """What a look asks a host."""
        found = self.read(f"asked@{host}")
        if found is None:
            raise AnsibleActionFail(NO_PLAN if self.read("plan") is None else f"{host} is no node of the plan.")
        return dict(found)

    def saw(self, host: str, answer: Mapping[str, Any]) -> None:
        """Add to what was seen of a host; later answers take the place of earlier ones, part by part."""
        self.write(f"seen@{host}", {**self.read(f"seen@{host}", {}), **answer})

    def host(self, name: str) -> Host:
        """One host, as it was seen; what a task of that host needs, for all of them would be read once for each."""
        return Host(name, self.read(f"seen@{name}", {}))

    def hosts(self) -> dict[str, Host]:
        """Every host that was looked at."""
        return {name: Host(name, answer) for name, answer in self.every("seen").items()}

    # ---- what was decided

    def keep_decision(self, decision: Decision) -> None:
        """The decision of this run, until there is another."""
        self.write("decision", dataclasses.asdict(decision))

    @property
    def decision(self) -> Decision:
        """What was decided last."""
        found = self.read("decision")
        if found is None:
            raise AnsibleActionFail(
                "nothing was decided in this run yet: lmfleet.lmdeploy.decide comes before this task."
            )
        return Decision(
            rounds=[Round(**{**each, "steps": [Step(**step) for step in each["steps"]]}) for each in found["rounds"]],
            faults=found["faults"],
            notes=found["notes"],
            states={url: Tokens(**state) for url, state in found["states"].items()},
        )
