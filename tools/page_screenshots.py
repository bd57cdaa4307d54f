#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take pictures of a report's page with headless Chromium, as a desktop and a phone show it, light and dark.

A window cannot be made as narrow as a phone, so the page is shown in a frame of the right width. Needs chromium and
Pillow (which matplotlib brings).
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTHS = {"desktop": 1280, "phone": 390}
# What settings call dark and light.
THEMES = {"dark": 0, "light": 1}
MARK = "#ff00ff"  # around the frame, and cut off
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def take(page: Path, picture: Path, width: int, theme: str, height: int) -> None:
    """Write `picture`, `width` pixels wide and at most `height` high, of the file `page`."""
    with tempfile.TemporaryDirectory() as scratch:
        frame = Path(scratch, "frame.html")
        frame.write_text(
            f'<body style="margin:0;background:{MARK}"><iframe style="border:0;display:block;width:{width}px" '
            "onload=\"this.style.height = this.contentDocument.documentElement.scrollHeight + 'px'\" "
            f'srcdoc="{html.escape(page.read_text(encoding="utf-8"))}"></iframe>',
            encoding="utf-8",
        )
        subprocess.run(
            [
                shutil.which("chromium") or "chromium",
                *FLAGS,
                f"--user-data-dir={scratch}/profile",
                f"--blink-settings=preferredColorScheme={THEMES[theme]}",
                f"--window-size={max(width, 600)},{height}",
                f"--screenshot={picture}",
                frame.as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    with Image.open(picture) as shot:
        whole = shot.convert("RGB").crop((0, 0, width, height))
    around = ImageChops.difference(whole, Image.new("RGB", whole.size, MARK)).getbbox()
    whole.crop(around).save(picture)


def main() -> None:
    """Take all four pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path, help="a report.html")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument(
        "--height", type=int, default=12000, help="what is further down is cut off (default: %(default)s)"
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, width in WIDTHS.items():
        for theme in THEMES:
            picture = args.folder / f"{name}-{theme}.png"
            take(args.page, picture.resolve(), width, theme, args.height)
            print(picture)


if __name__ == "__main__":
    main()
