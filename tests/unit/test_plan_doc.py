# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the plan: of types made for the test, of real plans, and the program's own check."""

from __future__ import annotations

import dataclasses
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import PLAN_FORMAT
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "plan_doc.py"
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel."""

    size: int = 20


@dataclasses.dataclass(frozen=True)
class Cart:
    """What has ``wheels``
    and goes.

    ``horse`` is None where it is pushed.
    """

    wheels: list[Wheel]
    spare: Wheel | None
    names: dict[str, str]
    horse: str | None = None
    load: list[str] = dataclasses.field(default_factory=list)

    @property
    def weight(self) -> float:
        """How heavy ``load`` is."""
        return 1.0

    @property
    def colour(self) -> str:
        """Not in the JSON."""
        return "red"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def sections(page: str) -> dict[str, set[str]]:
    """Type -> the keys in its table."""
    parts = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)[1:]
    return {name: set(ROW.findall(body)) for name, body in zip(parts[::2], parts[1::2])}


def test_every_type_once_with_its_keys(tool: dict[str, Any]) -> None:
    page = tool["page"](Cart, 7, {"weight"})
    assert "This is format 7." in page
    assert sections(page) == {
        "Cart": {"wheels", "spare", "names", "horse", "load", "weight"},
        "Wheel": {"size"},
    }
    for line in (
        "What has `wheels` and goes.",
        "`horse` is null where it is pushed.",
        "| `wheels` | list of [Wheel](#wheel) |  |",
        "| `spare` | [Wheel](#wheel) or null |  |",
        "| `names` | map of str |  |",
        "| `horse` | str or null | `null` where it is left out |",
        "| `load` | list of str | `[]` where it is left out |",
        "| `weight` | float | computed: How heavy `load` is. |",
        "| `size` | int | `20` where it is left out |",
    ):
        assert line in page.splitlines()


@pytest.mark.parametrize("variables", [nodes(2, plan_proxy=True), nodes(2, plan_topology="dpep", plan_gpus=2)])
def test_the_page_has_just_the_keys_of_a_plan(variables: Any, tmp_path: Path) -> None:
    output = tmp_path / "plan.md"
    assert run("--output", output).returncode == 0
    page = output.read_text()
    data = plan_of(variables).to_json()
    assert f"This is format {PLAN_FORMAT}." in page
    documented = sections(page)
    assert documented["Plan"] == set(data)
    assert documented["Service"] == set(data["services"][0])
    assert documented["Engine"] == set(data["engines"][0])
    assert documented["Image"] == set(data["engines"][0]["image"])
    assert documented["Node"] == set(data["nodes"][0])
    assert documented["Endpoint"] == set(data["endpoints"][0])
    assert documented["Proxy"] == set(data["proxy"])
    assert documented["Ports"] == set(data["ports"])
    services = data["services"]
    assert documented["Mount"] == set(next(m for each in services for m in each["mounts"]))
    assert documented["Secret"] == set(next(s for each in services for s in each["secrets"]))


def test_a_page_that_is_out_of_date_is_told(tmp_path: Path) -> None:
    page = tmp_path / "plan.md"
    assert run("--check", "--output", page).returncode == 1
    assert run("--output", page).returncode == 0
    assert run("--check", "--output", page).returncode == 0
    page.write_text(page.read_text() + "by hand\n")
    answer = run("--check", "--output", page)
    assert answer.returncode == 1
    assert "out of date: run tools/plan_doc.py" in answer.stdout


def test_the_page_in_docs_is_the_types() -> None:
    answer = run("--check")
    assert answer.returncode == 0, answer.stdout
