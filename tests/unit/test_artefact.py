# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as Galaxy has it: built, installed into an empty place, and used there by full names.

That both deployments run from it is shown on the sandbox (tests/sandbox/test_artefact.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lmfleet.lmdeploy.tests.artefact import install

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))


def plays(place: Path, *arguments: str, **environment: str) -> None:
    """Run a playbook in ``place``, with nothing of this checkout or this machine's user around it."""
    done = subprocess.run(
        [PLAYBOOK, *arguments],
        cwd=place,
        env={"PATH": "/usr/bin:/bin", "HOME": str(place), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An otherwise empty directory below which the artefact is installed."""
    place = tmp_path_factory.mktemp("installed")
    install(place)
    return place


def test_it_has_what_runs_and_nothing_of_the_checkout_alone(installed: Path) -> None:
    collection = installed / "ansible_collections" / "lmfleet" / "lmdeploy"
    assert sorted(each.name for each in collection.iterdir()) == [
        *("CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "SECURITY.md"),
        *("changelogs", "docs", "inventory", "meta", "playbooks", "plugins", "programs", "requirements.yml", "roles"),
    ]
    assert not [each for each in collection.rglob("*") if each.is_symlink()]
    assert not [
        name for name in ("inventory/sandbox", "playbooks/sandbox.yml", "roles/sandbox") if (collection / name).exists()
    ]


def test_by_its_full_name_it_plans_what_the_checkout_plans(installed: Path) -> None:
    shutil.copytree(ROOT / "inventory" / "two_nodes", installed / "mine")
    plans = {}
    for name, playbook, settings in (
        ("installed", "lmfleet.lmdeploy.plan", {"ANSIBLE_COLLECTIONS_PATH": str(installed)}),
        ("checkout", str(ROOT / "playbooks" / "plan.yml"), {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}),
    ):
        file = installed / f"{name}.json"
        arguments = ("-i", "mine", "-e", "plan_show=json", "-e", f"plan_file={file}", "--forks", "64")
        plays(installed, playbook, *arguments, **settings)
        plans[name] = json.loads(file.read_text(encoding="utf-8"))
    assert plans["installed"] == plans["checkout"]
