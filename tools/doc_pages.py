# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tools that write a page of docs/ share: their options, and writing or checking it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command_line(documented: str | None, page: str) -> argparse.ArgumentParser:
    """--check and --output, for the page of that name."""
    parser = argparse.ArgumentParser(description=(documented or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / page)
    return parser


def written(args: argparse.Namespace, wanted: str) -> int:
    """Write the page, or with --check see that it is there so; the exit status."""
    if not args.check:
        args.output.write_text(wanted, encoding="utf-8")
    elif not args.output.exists() or args.output.read_text(encoding="utf-8") != wanted:
        print(f"{args.output} is out of date: run tools/{Path(sys.argv[0]).name}")
        return 1
    return 0
