# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from lmfleet_sim import RELEASES
from lmfleet_sim.faults import Fault
from lmfleet_sim.hooks import ImportHooks
from lmfleet_sim.settings import Settings, SettingsError

from .conftest import ENGINE

REQUIREMENTS = ENGINE.parents[2] / "requirements"
# 0.18.0 has a package of that name: a hook under the module name of another release would never run.
AGENT = "lmdeploy.pytorch.engine.model_agent"


def pins(name: str) -> dict[str, str]:
    """The packages of a requirements file with their releases, by name in lower case."""
    lines = (REQUIREMENTS / f"engine-{name}.txt").read_text().splitlines()
    wanted = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {package.lower(): release for package, __, release in wanted}


def hooked(release: str, settings: Settings) -> set[str]:
    """The modules of LMDeploy that the simulator of a release hooks."""
    hooks = ImportHooks()
    importlib.import_module(RELEASES[release]).register(hooks, settings)
    return set(hooks._before) | set(hooks._after)


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_has_its_packages_pinned(release: str) -> None:
    packages, torch = pins(release), pins("torch")
    assert packages["lmdeploy"] == release
    assert all(packages.values())
    assert not packages.keys() & torch.keys()


@pytest.mark.parametrize(("release", "agent"), [("0.8.0", AGENT), ("0.9.2.post1", AGENT), ("0.18.0", AGENT + ".agent")])
def test_the_model_is_cut_out_of_the_releases_own_agent(release: str, agent: str) -> None:
    modules = hooked(release, Settings())
    assert {module for module in modules if module.startswith(AGENT)} == {agent}
    assert not any("executor" in module for module in modules)


def test_shallow_runs_the_engine_and_its_worker_in_one_process() -> None:
    assert hooked("0.18.0", Settings(shallow=True)) - hooked("0.18.0", Settings()) == {
        "lmdeploy.pytorch.engine.mp_engine",
        "lmdeploy.pytorch.engine.executor.ray_executor",
    }


@pytest.mark.parametrize("release", ["0.8.0", "0.9.2.post1"])
def test_shallow_is_refused_where_it_does_not_exist(release: str) -> None:
    with pytest.raises(SettingsError, match=r"LMFLEET_SIM_SHALLOW=1 is for lmdeploy 0\.18\.0 only"):
        hooked(release, Settings(shallow=True))
    with pytest.raises(SettingsError, match=r"lose_start is for lmdeploy 0\.18\.0 only"):
        hooked(release, Settings(faults=(Fault.parse("lose_start@0"),)))


def test_a_lost_start_is_lost_by_lmdeploys_own_processes() -> None:
    lossy = Settings(faults=(Fault.parse("lose_start@0:2"),))
    assert hooked("0.18.0", lossy) - hooked("0.18.0", Settings()) == {"lmdeploy.pytorch.engine.mp_engine.zmq_engine"}


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        ([], []),
        (["kernels/all", "kernels/0.18.0"], ["deep_ep", "deep_gemm"]),
        (["kernels/all", "kernels/0.9.2.post1"], ["deep_ep", "deep_gemm", "dlblas"]),
    ],
)
def test_the_kernels_stand_ins_are_found_and_say_what_they_are(folders: list[str], found: list[str]) -> None:
    program = """
import importlib, importlib.util
for name in ("deep_ep", "deep_gemm", "dlblas"):
    if importlib.util.find_spec(name):
        assert "stand-in of the lmfleet simulator" in importlib.import_module(name).__doc__
        print(name)
"""
    path = ":".join(str(ENGINE / Path(folder)) for folder in folders)
    environ = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == found
