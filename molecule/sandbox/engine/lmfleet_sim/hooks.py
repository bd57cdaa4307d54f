# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a function around a module's import, and replace names in it that must exist."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

Hook = Callable[[ModuleType], None]


class ImportHooks(MetaPathFinder):
    """Hooks by full module name. A hook runs right before the module's own code, or right after it, before the
    importer sees the module.
    """

    def __init__(self) -> None:
        self._before: dict[str, list[Hook]] = {}
        self._after: dict[str, list[Hook]] = {}

    def before(self, name: str) -> Callable[[Hook], Hook]:
        """Decorate a function to be called with the module ``name``, still empty, once that is about to run."""
        return _adder(self._before, name)

    def after(self, name: str) -> Callable[[Hook], Hook]:
        """Decorate a function to be called with the module ``name`` once that has run."""
        return _adder(self._after, name)

    def install(self) -> None:
        """Ask these hooks first for every module imported from now on."""
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the ordinary spec of a hooked module, its loader extended by the hooks; None for any other module."""
        if fullname not in self._before and fullname not in self._after:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        exec_module = spec.loader.exec_module

        def exec_and_hook(module: ModuleType) -> None:
            for hook in self._before.get(fullname, []):
                hook(module)
            exec_module(module)
            for hook in self._after.get(fullname, []):
                hook(module)

        # On the loader's instance: what inspects the loader's class (inspect, linecache, pickle) sees the usual one.
        spec.loader.exec_module = exec_and_hook  # type: ignore[method-assign]
        return spec


def _adder(hooks: dict[str, list[Hook]], name: str) -> Callable[[Hook], Hook]:
    def add(hook: Hook) -> Hook:
        hooks.setdefault(name, []).append(hook)
        return hook

    return add


def replace(owner: Any, **names: Any) -> None:
    """Set attributes of a module or class that has them already.

    Raises ImportError for one that it has not: then LMDeploy is another than the simulator was cut for, and going on
    would run something half real.
    """
    for name, value in names.items():
        if not hasattr(owner, name):
            raise ImportError(f"the lmfleet simulator finds no {name} in {owner!r}: not the release it was written for")
        setattr(owner, name, value)
