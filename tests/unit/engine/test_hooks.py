# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import lmfleet_sim
import pytest
from lmfleet_sim.hooks import ImportHooks, replace

from .conftest import ENGINE


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package "hooked" with a module "inner" that has value = 1; and no trace of it afterwards."""
    folder = tmp_path / "hooked"
    folder.mkdir()
    (folder / "__init__.py").write_text("from hooked.inner import value\n")
    (folder / "inner.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield folder
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.split(".")[0] == "hooked"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_a_hook_runs_before_the_importer_sees_the_module() -> None:
    hooks = ImportHooks()

    @hooks.after("hooked.inner")
    def change(module: ModuleType) -> None:
        replace(module, value=2)

    hooks.install()
    import hooked  # type: ignore[import-not-found]

    assert hooked.value == 2
    assert Path(hooked.inner.__file__).name == "inner.py"
    assert hooked.inner.__spec__.loader.get_source("hooked.inner") == "value = 1\n"


@pytest.mark.usefixtures("package")
def test_a_hook_before_a_package_adds_hooks_for_all_its_modules() -> None:
    hooks = ImportHooks()
    seen: list[str] = []

    @hooks.before("hooked")
    def first(package: ModuleType) -> None:
        seen.append("before " + package.__name__)
        assert not hasattr(package, "value")
        hooks.after("hooked.inner")(lambda module: seen.append("after " + module.__name__))
        hooks.after("hooked")(lambda module: seen.append("after " + module.__name__))

    hooks.install()
    import hooked  # noqa: F401

    assert seen == ["before hooked", "after hooked.inner", "after hooked"]


def test_a_missing_module_stays_missing() -> None:
    hooks = ImportHooks()
    hooks.after("no_such_module")(lambda module: None)
    assert hooks.find_spec("no_such_module", None) is None


def test_replace_refuses_a_name_that_is_not_there() -> None:
    module = ModuleType("lmdeploy_of_tomorrow")
    with pytest.raises(ImportError, match=r"no forward in .*lmdeploy_of_tomorrow"):
        replace(module, forward=None)
    assert not hasattr(module, "forward")


def test_each_known_release_has_its_module() -> None:
    for version, module in lmfleet_sim.RELEASES.items():
        assert lmfleet_sim.release_module(version) == module
        assert (ENGINE / (module.replace(".", "/") + ".py")).is_file()


def test_an_unknown_release_is_refused() -> None:
    with pytest.raises(lmfleet_sim.UnsupportedRelease, match=r"lmdeploy 0\.19\.0.*0\.18\.0"):
        lmfleet_sim.release_module("0.19.0")


def run_python(program: str, extra_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program as in the image: the engine's folder on PYTHONPATH, so that its sitecustomize is Python's."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LMFLEET_SIM")}
    path = os.pathsep.join([str(ENGINE), str(extra_path)])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_simulator_sleeps_unless_told(tmp_path: Path) -> None:
    done = run_python("import sys; print('lmfleet_sim' in sys.modules)", tmp_path, LMFLEET_SIM_GPUS="wrong")
    assert (done.returncode, done.stdout.strip()) == (0, "False")


def test_a_wrong_setting_ends_every_process_with_one_line(tmp_path: Path) -> None:
    done = run_python("print('ran')", tmp_path, LMFLEET_SIM="1", LMFLEET_SIM_GPUS="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "lmfleet simulator: wrong settings in the environment: LMFLEET_SIM_GPUS: 'many' is not a whole number of GPUs"
    ]


def test_an_unsupported_lmdeploy_does_not_import(tmp_path: Path) -> None:
    package, metadata = tmp_path / "lmdeploy", tmp_path / "lmdeploy-9.9.9.dist-info"
    package.mkdir()
    (package / "__init__.py").write_text("print('ran')\n")
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lmdeploy\nVersion: 9.9.9\n")
    done = run_python("import lmdeploy", tmp_path, LMFLEET_SIM="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the lmfleet simulator does not know lmdeploy 9.9.9" in done.stderr.splitlines()[-1]
