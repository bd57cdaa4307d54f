# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run LMDeploy's benchmark script unchanged, and keep what it returns: `python3 -m PACKAGE.script SCRIPT RESULT ARGUMENT...`.

The script prints means and throws away what each request did; its main coroutine returns it.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the script as `python3 SCRIPT ARGUMENT...` would."""
    script, kept = sys.argv[1], Path(sys.argv[2])
    run = asyncio.run

    def run_and_keep(main: Coroutine[Any, Any, Any], **options: Any) -> Any:
        result = run(main, **options)
        kept.write_text(json.dumps(result, default=float), encoding="utf-8")
        return result

    asyncio.run = run_and_keep
    sys.argv = [script, *sys.argv[3:]]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
