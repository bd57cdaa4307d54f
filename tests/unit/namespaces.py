# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of their own for tests that set real firewalls: namespaces of the kernel, which this machine's network has no part in.

They need root and nftables. Where they cannot be had the tests that ask for them are left out, and the end of the run says so in
a section of its own (conftest.py); with LMFLEET_NETNS=1, as scripts/test sets it, they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LEFT_OUT = "no network namespaces here, so the firewall is not tested:"  # begins the reason; conftest.py looks for it
COLLECTIONS = {"PYTHONPATH": str(Path(__file__).parents[2] / "collections")}


def missing() -> str:
    """What this machine lacks for them; empty where it has all."""
    lacking = [name for name in ("nft", "ip", "unshare", "nsenter") if not shutil.which(name, path=search_path())]
    if lacking:
        return f"{' and '.join(lacking)} missing: apt-get install nftables iproute2 util-linux"
    tried = subprocess.run(
        ["unshare", "--net", "nft", "list", "tables"], check=False, env=environment(), capture_output=True, text=True
    )
    return (
        ""
        if tried.returncode == 0
        else f"no network namespace with nftables can be had, which needs root: {tried.stderr.strip()}"
    )


def search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def environment() -> dict[str, str]:
    return {**os.environ, **COLLECTIONS, "PATH": search_path()}


class Namespace:
    """One network namespace, alive as long as a process of its own."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo there; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"there\n"
        self.pid = self._holder.pid
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]

    def run(self, *argv: str, text: str = "") -> str:
        """What a command in it writes."""
        return subprocess.run(
            self.command(*argv), input=text, capture_output=True, text=True, check=True, env=environment(), timeout=120
        ).stdout

    def python(self, code: str) -> str:
        """What a program in it writes, which has the collection."""
        return self.run(sys.executable, "-c", code)

    def wire(self, other: Namespace, name: str, *networks: tuple[str, str]) -> None:
        """A cable to another one; the addresses of both ends, with their networks' lengths."""
        subprocess.run(
            self.command("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", str(other.pid)),
            check=True,
        )
        for place, index in ((self, 0), (other, 1)):
            for ends in networks:
                family = ["nodad"] if ":" in ends[index] else []
                place.run("ip", "address", "add", ends[index], "dev", name, *family)
            place.run("ip", "link", "set", name, "up")

    def end(self) -> None:
        self._holder.communicate(timeout=60)


@pytest.fixture(scope="module")
def networks() -> None:
    """Asks for the ability to have them."""
    why = missing()
    if why and os.environ.get("LMFLEET_NETNS") == "1":
        pytest.fail(why)
    if why:
        pytest.skip(f"{LEFT_OUT} {why}")
