#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a run of a playbook that changes nothing, beside `ansible -m ping` of the same hosts: what a look at them all costs.

Against the hosts of an inventory on which the deployment runs as planned, from this machine. One ping and one run that are not
measured warm up the connections (ControlPersist) and bring a deployment that is not as planned in line; then ping and playbook
take turns, --runs times, and of each the median counts. A run that changes something, or fails, ends the measurement, with exit
code 1. `tasks` is how many the head has in the recap: done, and skipped.

    python3 tools/bench_rerun.py -i inventory/two_nodes --playbook deploy_tp16.yml
    python3 tools/bench_rerun.py -i four_nodes --case deploy=deploy_dpep.yml --case check=playbooks/status.yml --runs 9
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns
from ansible_collections.lmfleet.lmdeploy.tools.timing import (
    Failed,
    common,
    extra,
    first_host,
    ping,
    play,
    timed,
    unchanged,
)


@dataclasses.dataclass
class Case:
    """A playbook, and the seconds of its runs and of the pings between them."""

    name: str
    playbook: str
    pings: list[float] = dataclasses.field(default_factory=list)
    runs: list[float] = dataclasses.field(default_factory=list)
    ok: int = 0
    skipped: int = 0


def case(text: str) -> Case:
    """Out of NAME=PLAYBOOK."""
    name, __, playbook = text.partition("=")
    if not (name and playbook):
        raise argparse.ArgumentTypeError(f"{text} is no NAME=PLAYBOOK")
    return Case(name, playbook)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options; ``cases`` has all playbooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common(parser)
    parser.add_argument("--playbook", help="a case that is named after its file")
    parser.add_argument("--case", type=case, action="append", default=[], metavar="NAME=PLAYBOOK")
    parser.add_argument("--head", help="the head's name, where it is not the first of --hosts")
    options = parser.parse_args(arguments)
    mine = [Case(Path(options.playbook).stem, options.playbook)] if options.playbook else []
    options.cases = [*mine, *options.case]
    if not options.cases:
        parser.error("give --playbook or --case")
    return options


def measure(each: Case, options: argparse.Namespace, head: str) -> None:
    """Warm up, and then take turns."""
    pinged = ping(options.inventory, options.hosts)
    played = play(options.inventory, each.playbook, extra(options))
    timed(pinged)
    timed(played)
    for __ in range(options.runs):
        each.pings.append(timed(pinged).seconds)
        done = timed(played)
        each.ok, each.skipped = unchanged(done.output, head)
        each.runs.append(done.seconds)


def table(cases: Sequence[Case]) -> list[str]:
    """One line a case: medians with the fastest and the slowest, their ratio, and the head's tasks."""
    rows = [("case", "runs", "ping", "playbook", "ratio", "tasks (skipped)")]
    for each in cases:
        ratio = statistics.median(each.runs) / statistics.median(each.pings)
        tasks = f"{each.ok} ({each.skipped})"
        rows.append((each.name, str(len(each.runs)), spread(each.pings), spread(each.runs), f"{ratio:.2f}", tasks))
    return columns(rows)


def spread(seconds: Sequence[float]) -> str:
    """The median, with the fastest and the slowest."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def main() -> int:
    """Measure every case, and print the table."""
    options = parsed()
    try:
        head = options.head or first_host(options.inventory, options.hosts)
        for each in options.cases:
            measure(each, options, head)
    except Failed as failed:
        print(f"bench_rerun: {failed}", file=sys.stderr)
        return 1
    print("\n".join(table(options.cases)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
