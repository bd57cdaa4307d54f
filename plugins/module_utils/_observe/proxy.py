# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of LMDeploy's proxy, as it tells it."""

from __future__ import annotations

import json
from typing import Any

from .._http import NoAnswer, exchange
from .endpoints import PROBE_SECONDS


def proxy_status(url: str) -> dict[str, Any]:
    """``{"nodes": {url: [models]}}`` as the proxy lists them, or ``{"error": ...}``."""
    try:
        reply = exchange(f"{url}/nodes/status", deadline_s=PROBE_SECONDS)
    except NoAnswer as error:
        return {"error": str(error)}
    if reply.status != 200:
        return {"error": f"HTTP {reply.status} from {url}/nodes/status"}
    try:
        listed = json.loads(reply.body)
        return {"nodes": {node: [str(model) for model in status["models"]] for node, status in listed.items()}}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {"error": f"no list of nodes from {url}/nodes/status: {error}"}
