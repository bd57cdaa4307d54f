# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulator of GPUs and of the model's forward pass under the real LMDeploy.

Nothing here is imported by LMDeploy. The import hooks registered by :func:`activate` replace a few names in torch,
Ray and LMDeploy right after each of these modules is executed; everything else of LMDeploy runs as released.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from lmfleet_sim.hooks import ImportHooks
from lmfleet_sim.settings import Settings, SettingsError

# The simulator's module for each LMDeploy release: it is cut along that release's own functions, so no other will do.
RELEASES = {"0.8.0": "lmfleet_sim.v0_8", "0.9.2.post1": "lmfleet_sim.v0_8", "0.18.0": "lmfleet_sim.v0_18"}


class UnsupportedRelease(ImportError):
    """The installed LMDeploy is none that this simulator was written for."""


def release_module(version: str) -> str:
    """Return the name of the module that simulates LMDeploy ``version``; raise UnsupportedRelease if there is none."""
    try:
        return RELEASES[version]
    except KeyError:
        raise UnsupportedRelease(
            f"the lmfleet simulator does not know lmdeploy {version}: install one of {', '.join(RELEASES)}, "
            "or unset LMFLEET_SIM to run lmdeploy on real GPUs"
        ) from None


def activate() -> None:
    """Install the import hooks in this process. A wrong setting ends the process with status 2 and one clear line."""
    try:
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        # Not an exception: site would print a traceback of the interpreter's own start-up around the message.
        print(f"lmfleet simulator: {error}", file=sys.stderr, flush=True)
        os._exit(2)

    hooks = ImportHooks()
    from lmfleet_sim import cuda, served

    cuda.register(hooks, settings)
    served.register(hooks, settings)

    @hooks.before("lmdeploy")
    def register_release(lmdeploy: ModuleType) -> None:
        from importlib.metadata import version  # here, because it is slow and most processes never come here

        importlib.import_module(release_module(version(lmdeploy.__name__))).register(hooks, settings)

    hooks.install()
