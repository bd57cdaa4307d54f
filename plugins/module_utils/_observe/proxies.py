# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxies that this host's programs and its Docker go through, without the passwords in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .files import text_of

VARIABLE = re.compile(r"(?:export\s+)?((?:https?|all|no)_proxy)=(.*)", re.IGNORECASE)


def proxies(running: Mapping[str, Sequence[Path]] | None, root: Path = Path("/")) -> dict[str, str]:
    """Variable -> value, of /etc/environment and of dockerd's environment, which goes before."""
    found = variables((text_of(root / "etc/environment") or "").splitlines())
    for daemon in (running or {}).get("dockerd", [])[:1]:
        found.update(variables((text_of(daemon / "environ") or "").split("\0")))
    return found


def variables(lines: Iterable[str]) -> dict[str, str]:
    """Those of proxies out of lines such as ``HTTPS_PROXY="http://user:password@proxy:3128"``."""
    matches = (VARIABLE.fullmatch(line.strip()) for line in lines)
    return {match[1]: without_login(match[2].strip().strip("\"'")) for match in matches if match}


def without_login(value: str) -> str:
    """A proxy's URL without user and password, which may have any signs; a list of hosts has none."""
    scheme = re.match(r"\w+://", value)
    __, at, place = value.rpartition("@")
    return f"{scheme[0] if scheme and at else ''}{place}"
