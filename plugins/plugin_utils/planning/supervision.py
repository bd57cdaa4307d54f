# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an engine's container is kept running: programs/supervise.py around its command, and what lies on the host for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .inputs import Inputs
from .services import home_of
from .types import PROGRAMS_TARGET, STARTS_TARGET, Earlier, Mount, Node, Service

COLLECTION = Path(__file__).parents[3]
# Started as `python3 PROGRAMS_TARGET`: Python runs a directory's __main__.py.
_MAIN = "import sys\n\nfrom lmfleet.programs.supervise import main\n\nsys.exit(main())\n"
_MODULES = (
    *(f"programs/{name}.py" for name in ("supervise", "watch", "silence", "listing", "ray_head", "output", "starts")),
    *(f"plugins/module_utils/{name}.py" for name in ("_http", "_kept_logs", "_files", "_proxy_nodes")),
    *(f"plugins/module_utils/_observe/{name}.py" for name in ("engines", "ray", "gpus")),
    # What gpus.py needs.
    *(
        f"plugins/module_utils/_observe/{name}.py"
        for name in ("commands", "files", "gpu_details", "parallel", "processes")
    ),
)
_PACKAGES = ("", "programs/", "plugins/", "plugins/module_utils/", "plugins/module_utils/_observe/")


def programs() -> dict[str, str]:
    """Path below the directory of programs -> text, of all that containers of engines are started with."""
    return {
        "rank.py": (COLLECTION / "programs" / "rank.py").read_text(encoding="utf-8"),
        "__main__.py": _MAIN,
        **{f"lmfleet/{package}__init__.py": "" for package in _PACKAGES},
        **{f"lmfleet/{module}": (COLLECTION / module).read_text(encoding="utf-8") for module in _MODULES},
    }


def programs_on(inputs: Inputs, node: Node) -> str:
    """Where they lie on a node.

    A newer program takes the place of the old one, which leaves an engine that runs alone: it is used from the next start on.
    """
    return f"{home_of(inputs, node)}/programs"


def starts_on(inputs: Inputs, node: Node) -> str:
    """The directory on a node that keeps when its engine was started, and why."""
    return f"{home_of(inputs, node)}/starts"


def supervised(
    inputs: Inputs, node: Node, service: Service, endpoints: Mapping[int, str], ray: Iterable[Sequence[str]] = ()
) -> Service:
    """The service as its supervisor runs it; ``ray`` are the supervisor's options for an engine that needs Ray."""
    places = [programs_on(inputs, node), starts_on(inputs, node)]
    others = [mount for mount in service.mounts if mount.source != f"{places[0]}/rank.py"]
    return dataclasses.replace(
        service,
        command=[
            *("python3", PROGRAMS_TARGET, "--starts", f"{STARTS_TARGET}/{service.service}.jsonl"),
            *("--restarts", str(inputs.restarts)),
            *(word for rank, url in endpoints.items() for word in ("--endpoint", f"{rank}={url}")),
            *(word for option in ray for word in option),
            *("--", *service.command),
        ],
        mounts=[*others, Mount(places[0], PROGRAMS_TARGET, read_only=True), Mount(places[1], STARTS_TARGET)],
        # Docker starts it after a reboot, and where the supervisor itself was killed. One that gave up ended with 0.
        restart_policy="on-failure",
        directories=[*service.directories, *places],
        starts=f"{places[1]}/{service.service}.jsonl",
        earlier=Earlier(service.command, service.mounts, service.restart_policy),
    )
