# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools that time whole runs of ansible-playbook share."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECAP = re.compile(r"^(?P<host>\S+)\s*: (?P<counts>ok=\d+ .*)$", re.MULTILINE)
TAIL = 40  # lines of a run that failed


@dataclasses.dataclass(frozen=True)
class Done:
    """A run that ended well: how long it took, and what it wrote."""

    seconds: float
    output: str


class Failed(Exception):
    """A run failed, or was not what is to be measured."""


def timed(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Done:
    """Run a program and time it. Raises ``Failed`` with the end of what it wrote."""
    # Whatever the caller's Ansible is configured to, a recap has to be read.
    plain = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_STDOUT_CALLBACK": "default"}
    config = {"ANSIBLE_CONFIG": os.environ.get("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))}
    every = {**os.environ, **config, **plain, **(environment or {})}
    began = time.monotonic()
    done = subprocess.run(
        argv,
        env=every,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-TAIL:])
        raise Failed(f"{' '.join(argv)} ended with {done.returncode} after {seconds:.1f} s:\n{end}")
    return Done(seconds, done.stdout)


def ping(inventory: Sequence[str], hosts: str) -> list[str]:
    """``ansible -m ping`` of the hosts."""
    return ["ansible", hosts, *of(inventory), "-m", "ansible.builtin.ping"]


def play(inventory: Sequence[str], playbook: str, more: Sequence[str] = ()) -> list[str]:
    """``ansible-playbook`` of a playbook."""
    return ["ansible-playbook", *of(inventory), playbook, *more]


def of(inventory: Sequence[str]) -> list[str]:
    """Options that name inventories; none where ansible.cfg does."""
    return [word for each in inventory for word in ("-i", each)]


def first_host(inventory: Sequence[str], hosts: str) -> str:
    """The first host of the pattern, which is the head where plan_head says nothing else."""
    listed = timed(["ansible", hosts, *of(inventory), "--list-hosts"]).output.splitlines()
    names = [line.strip() for line in listed if line.startswith("    ")]
    if not names:
        raise Failed(f"the inventory has no hosts {hosts}: name them with --hosts.")
    return names[0]


def recap(output: str) -> dict[str, dict[str, int]]:
    """Host -> its counts (ok, changed, failed, ...) in the recap of a run."""
    __, __, end = output.rpartition("PLAY RECAP")
    return {
        found["host"]: {name: int(count) for name, __, count in (w.partition("=") for w in found["counts"].split())}
        for found in RECAP.finditer(end)
    }


def unchanged(output: str, head: str) -> tuple[int, int]:
    """(tasks of the head that ran, that were skipped). Raises ``Failed`` where the run changed something, or says nothing."""
    counts = recap(output)
    if head not in counts:
        raise Failed(f"the recap has no {head}: name the head with --head.")
    changed = [host for host, each in counts.items() if each["changed"]]
    if changed:
        told = "\n".join(line for line in output.splitlines() if line.startswith("changed: "))
        raise Failed(f"the run changed something on {', '.join(changed)}:\n{told}")
    return counts[head]["ok"], counts[head]["skipped"]


def common(parser: argparse.ArgumentParser) -> None:
    """The arguments of every tool that runs playbooks."""
    parser.add_argument(
        "--inventory", "-i", action="append", default=[], help="as ansible-playbook's; without, ansible.cfg's"
    )
    parser.add_argument("--hosts", default="lmdeploy_nodes", help="the hosts to ping (default lmdeploy_nodes)")
    parser.add_argument("--runs", type=positive, default=5, help="measured runs of each (default 5)")
    parser.add_argument("--extra-vars", "-e", action="append", default=[], help="as ansible-playbook's")


def extra(options: argparse.Namespace) -> list[str]:
    """The further arguments of a playbook."""
    return [word for each in options.extra_vars for word in ("-e", each)]


def positive(text: str) -> int:
    """A number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
