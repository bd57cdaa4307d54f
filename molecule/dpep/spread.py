# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send chat completions to a proxy, eight at a time: spread.py URL MODEL REQUESTS. Fails unless each gave its tokens."""

from __future__ import annotations

import concurrent.futures
import json
import sys
import urllib.request

TOKENS = 4
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, model: str) -> int:
    """One completion; the tokens that it gave."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": TOKENS}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with OPENER.open(request, timeout=120) as answer:
        return int(json.load(answer)["usage"]["completion_tokens"])


def main(url: str, model: str, requests: str) -> None:
    """Send them all."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: ask(url, model), range(int(requests))))
    print(f"{len(tokens)} requests, {sum(tokens)} tokens")
    if set(tokens) != {TOKENS}:
        sys.exit(f"not every answer has {TOKENS} tokens: {tokens}")


if __name__ == "__main__":
    main(*sys.argv[1:])
