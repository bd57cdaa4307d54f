# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as Galaxy has it, built and installed into an empty place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GALAXY = str(Path(sys.executable).with_name("ansible-galaxy"))


def clean_environment() -> dict[str, str]:
    """This process's environment without Ansible's settings, by which the checkout would count as installed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}


def install(place: Path) -> None:
    """Build the artefact of this checkout in ``place``, and install it below it."""

    def galaxy(*arguments: str) -> None:
        argv = [GALAXY, "collection", *arguments]
        done = subprocess.run(argv, cwd=place, env=clean_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    galaxy("build", str(ROOT), "--output-path", str(place))
    (artefact,) = place.glob("lmfleet-lmdeploy-*.tar.gz")
    galaxy("install", str(artefact), "--no-deps", "--collections-path", str(place))
