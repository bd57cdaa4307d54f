# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serves belongs on the proxy's list: an api_server registers once, and the proxy drops for good what it could not reach."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from ..plugins.module_utils._proxy_nodes import ProxyError, ProxyList
from .output import say

OPTION = "--proxy-url"
READ_S = 15.0  # from one look at the list to the next


def proxy_of(command: Sequence[str]) -> str:
    """The URL of the proxy that a command registers at; empty: at none."""
    return next((url for option, url in zip(command, command[1:]) if option == OPTION), "")


class Listing(threading.Thread):
    """Registers again what serves, and is not on the list of the proxy at ``url``.

    A rank that a drain has set aside is listed, under a name that nobody asks for: it stays so.
    """

    def __init__(self, url: str, serves: Callable[[], Mapping[str, str]]) -> None:
        """``serves`` gives URL -> model of the endpoints that have given tokens."""
        super().__init__(daemon=True)
        self._proxy, self._url, self._serves = ProxyList(url), url, serves
        self._ended = threading.Event()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def run(self) -> None:
        """Until nobody wants it any more. A proxy that does not answer is asked again."""
        while not self._ended.wait(READ_S):
            serves = self._serves()
            with contextlib.suppress(ProxyError):
                listed = self._proxy.read() if serves else {}
                for url in serves.keys() - listed.keys():
                    if self._ended.is_set():
                        return
                    self._proxy.add(url, serves[url])
                    say(f"{url} serves, and {self._url} did not list it: registered again")
