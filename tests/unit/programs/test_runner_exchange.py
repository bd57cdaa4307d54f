# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark runner's own request ends, whatever the other side does."""

from __future__ import annotations

import pytest

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.runner import RunError, fetched, null_server, stamps_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import ROOT
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.module_utils.test_http import (
    HEAD,
    WHOLE,
    dripping,
    endless,
    serving,
)


def test_67_the_null_servers_stamps_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "collections"))
    with null_server() as url:
        assert stamps_of(url) == []


@pytest.mark.parametrize("content", [b"H", HEAD + b"X: " + b"x" * 100_000, HEAD + b"\r\n" + b"x" * 100_000])
def test_67_a_server_that_drips_is_given_up_at_the_deadline(content: bytes) -> None:
    with serving(dripping(content)) as url, pytest.raises(RunError, match=r"0\.3 s"):
        fetched(f"{url}/stamps", 0.3, 1_000_000)


def test_67_an_endless_body_is_given_up_at_the_limit() -> None:
    with serving(endless) as url, pytest.raises(RunError, match="1000000 bytes"):
        fetched(f"{url}/stamps", 60, 1_000_000)
    with serving(lambda client: client.sendall(WHOLE)) as url:
        assert fetched(f"{url}/stamps", 60, 100) == b'{"data": []}'
