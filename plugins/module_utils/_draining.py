# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an endpoint still has to do, and how new requests are kept from it. Runs on the proxy's host."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._http import NoAnswer, exchange
from ._observe import parallel
from ._proxy_nodes import ProxyList

METRICS_TIMEOUT_S = 5.0
# The scheduler's; those of one endpoint may come several times, with other labels.
_SAMPLE = re.compile(
    r"^lmdeploy:num_requests_(?:running|waiting)(?:\{[^\n]*\})?[ \t]+(?P<value>[0-9.eE+-]+)(?:[ \t]+-?[0-9]+)?[ \t]*$",
    re.MULTILINE,
)
REFUSED = os.strerror(errno.ECONNREFUSED)
GONE, NO_METRICS = "nothing listens there", "it has no metrics"


def set_aside(model: str) -> str:
    """The name under which a rank is listed while its requests end, and which nobody asks for.

    Not taken off the list: the proxies of LMDeploy 0.8.0 to 0.9.2 fail, with status 500, each request whose rank is gone from
    it when its answer comes.
    """
    return f"{model} (no new requests)"


def put_aside(proxy: ProxyList, urls: Sequence[str], model: str) -> list[str]:
    """Have the proxy send no new request to ``urls``; those of them that it lists. Raises ``ProxyError``."""
    listed = proxy.read()
    found = [url for url in urls if url in listed]
    for url in found:
        proxy.add(url, set_aside(model))
    return found


def requests_in(text: str) -> int | None:
    """How many requests an engine has, running or waiting, by its Prometheus text; None where that does not say."""
    try:
        found = [float(sample["value"]) for sample in _SAMPLE.finditer(text)]
    except ValueError:
        return None
    return round(sum(found)) if found else None


def requests_at(url: str) -> dict[str, Any]:
    """``{"requests": number}`` of the endpoint at ``url``, or ``{"error": why it is not known}``."""
    try:
        reply = exchange(f"{url}/metrics", deadline_s=METRICS_TIMEOUT_S)
    except NoAnswer as error:
        return {"error": GONE if REFUSED in str(error) else str(error)}
    found = requests_in(reply.text) if reply.status == 200 else None
    return {"error": NO_METRICS} if found is None else {"requests": found}


def requests_of(urls: Iterable[str]) -> Mapping[str, dict[str, Any]]:
    """``requests_at`` of each URL, all asked at once."""
    return parallel.each(requests_at, urls)
