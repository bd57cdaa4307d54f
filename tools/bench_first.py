#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Measure a first deployment, with images and model there, beside the same one typed by hand: what the collection adds.

Against the hosts of an inventory, from this machine. Playbook and hand take turns, --runs times each; before each of them
--clean removes the deployment's containers, which is not measured. Of each the median counts. --by-hand is any shell command
that deploys the same, and ends when it serves. The hand warms nothing up, so the warm-up's own seconds are taken off the
playbook's: those of its requests, as M(lmfleet.lmdeploy.warmup) returns them (a callback writes them down). The start of its
client's container is not: it stays ours. A run that fails, or a playbook's that did not warm up or removed a container, and so
was no first one, ends the measurement with exit code 1.

    python3 tools/bench_first.py -i my_inventory --playbook deploy_tp16.yml \
      --by-hand 'python3 by_hand.py shell.txt eth1 key http://10.0.0.10:23333 model 16' \
      --clean 'ansible-playbook -i my_inventory playbooks/teardown.yml'
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.text import columns
from ansible_collections.lmfleet.lmdeploy.tools.timing import (
    Failed,
    common,
    extra,
    ping,
    play,
    timed,
)

CALLBACKS = Path(__file__).resolve().parent / "callbacks"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common(parser)
    parser.add_argument("--playbook", required=True, help="the playbook that deploys")
    parser.add_argument(
        "--by-hand", required=True, help="a shell command that deploys the same, and ends when it serves"
    )
    parser.add_argument("--clean", required=True, help="a shell command that removes the deployment's containers")
    return parser.parse_args(arguments)


def deploy(argv: Sequence[str]) -> tuple[float, float]:
    """(the playbook's seconds, those of its warm-ups). Raises ``Failed`` where it was no first deployment."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "noted"
        callback = {"ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": "first_deploy"}
        done = timed(argv, {**callback, "LMFLEET_FIRST_DEPLOY": str(noted)})
        lines = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    found = [json.loads(line) for line in lines]
    warm = [float(each["warmup"]) for each in found if "warmup" in each]
    if not warm:
        raise Failed(
            "the playbook warmed nothing up, so it was no first deployment: does --clean remove the containers?"
        )
    if any("removed" in each for each in found):
        raise Failed("the playbook removed containers, so it was no first deployment: does --clean remove them all?")
    return done.seconds, sum(warm)


def table(ours: Sequence[float], warm: Sequence[float], hand: Sequence[float]) -> list[str]:
    """A line for each run, the medians, and the ratio of the playbook without its warm-up to the hand."""
    net = [whole - part for whole, part in zip(ours, warm)]
    rows: list[tuple[str, ...]] = [("run", "playbook", "warm-up", "without it", "by hand", "ratio")]
    rows += [
        (str(number), *map(seconds, found), f"{found[2] / found[3]:.2f}")
        for number, found in enumerate(zip(ours, warm, net, hand), 1)
    ]
    medians = [statistics.median(each) for each in (ours, warm, net, hand)]
    return columns([*rows, ("median", *map(seconds, medians), f"{medians[2] / medians[3]:.2f}")])


def seconds(number: float) -> str:
    """Such as ``41.3 s``."""
    return f"{number:.1f} s"


def main() -> int:
    """Take turns, and print the table."""
    options = parsed()
    ours, warm, hand = [], [], []
    played = play(options.inventory, options.playbook, extra(options))
    clean, by_hand = (["bash", "-c", command] for command in (options.clean, options.by_hand))
    try:
        timed(ping(options.inventory, options.hosts))
        for __ in range(options.runs):
            timed(clean)
            whole, part = deploy(played)
            timed(clean)
            hand.append(timed(by_hand).seconds)
            ours.append(whole)
            warm.append(part)
    except Failed as failed:
        print(f"bench_first: {failed}", file=sys.stderr)
        return 1
    print("\n".join(table(ours, warm, hand)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
