# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy's list of ranks, and what has to be done for it to tell the truth.

LMDeploy's ranks register once, when they come up, and only log it when that fails; the proxy forgets them all when it is
started again, and every 90 s drops each whose /health gives it no status 200, for good. Until then it keeps those that are
gone; and for ever, once it waits for a /health that never answers, which holds up its check. Runs on the proxy's host.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ._http import NoAnswer, exchange

REFUSED = os.strerror(errno.ECONNREFUSED)


class ProxyError(Exception):
    """The proxy did not answer, or did not do what it was asked."""


@dataclasses.dataclass(frozen=True)
class Changes:
    """URL -> why it is added to the list, or removed from it."""

    add: dict[str, str]
    remove: dict[str, str]


def changes(
    planned: Sequence[str],
    listed: Mapping[str, Sequence[str]],
    live: Mapping[str, Mapping[str, Any]],
    model: str,
    left: Sequence[str] = (),
) -> Changes:
    """What makes ``listed`` (URL -> models) true of the ``planned`` URLs; ``live`` has ``http_status`` of each of these.

    URLs in ``left`` stay as they are: engines serve there whose turn is still to come.

    A rank that answers belongs on the list. One that nothing listens for does not: it registers itself once it is up. Nor
    does one that serves another model. Any other error proves nothing, be it a time-out (busy) or HTTP 503 (LMDeploy 0.18
    is "initializing" for a while after it has registered), so such a rank is left as it is: it would not come back.
    """
    add, remove = {}, {}
    for url in planned:
        error, models = live[url].get("error", ""), live[url].get("models", [])
        if model in models:
            if url not in listed:
                add[url] = "it answers, but was not listed"
            elif model not in listed[url]:
                add[url] = f"it was listed with {', '.join(listed[url]) or 'no model'}"
        elif url in listed and REFUSED in error:
            remove[url] = "nothing listens there"
        elif url in listed and not error:
            remove[url] = f"it serves {', '.join(models) or 'no model'}"
    remove.update({url: "it is not of the plan" for url in listed if url not in planned and url not in left})
    return Changes(add, remove)


class ProxyList:
    """The list of the proxy at ``url`` (no ``/v1``). Methods raise ``ProxyError``."""

    def __init__(self, url: str, api_key: str | None = None, timeout_s: float = 5.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        }

    def read(self) -> dict[str, list[str]]:
        """URL -> the models that the proxy sends there."""
        answer = self._request("/nodes/status")
        try:
            return {url: [str(model) for model in status["models"]] for url, status in answer.items()}
        except (AttributeError, KeyError, TypeError):
            raise ProxyError(f"{self._url}/nodes/status gave no list of ranks, but {str(answer)[:200]}") from None

    def carry_out(self, wanted: Changes, model: str) -> dict[str, list[str]]:
        """Make the changes and read the list again: it has to show them."""
        for url in wanted.remove:  # first, so that no request goes astray
            self.remove(url)
        for url in wanted.add:
            self.add(url, model)
        after = self.read()
        undone = [
            *(f"{url} is still listed" for url in wanted.remove if url in after),
            *(f"{url} is still not listed with {model}" for url in wanted.add if model not in after.get(url, [])),
        ]
        if undone:
            raise ProxyError(f"{self._url} said that it had changed its list, but {', '.join(undone)}")
        return after

    def add(self, url: str, model: str) -> None:
        """List a rank as it would register itself."""
        self._change("/nodes/add", {"url": url, "status": {"models": [model]}})

    def remove(self, url: str) -> None:
        """Take a rank off the list."""
        # 0.8.0 reads the query, later releases the body.
        self._change(f"/nodes/remove?{urllib.parse.urlencode({'node_url': url})}", {"url": url})

    def _change(self, path: str, body: Mapping[str, Any]) -> None:
        answer = self._request(path, json.dumps(body).encode())
        if "successfully" not in str(answer):  # failures are told with status 200 as well
            raise ProxyError(f"{self._url}{path} answered {str(answer)[:200]}")

    def _request(self, path: str, body: bytes | None = None) -> Any:
        url = f"{self._url}{path}"
        try:
            reply = exchange(url, body, self._headers, deadline_s=self._timeout_s)
        except NoAnswer as error:
            raise ProxyError(f"no answer from {url}: {error}") from None
        if reply.status != 200:
            raise ProxyError(f"{url} answered HTTP {reply.status}: {reply.text[:200]!r}")
        try:
            return json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise ProxyError(f"{url} gave no JSON: {error}") from None
