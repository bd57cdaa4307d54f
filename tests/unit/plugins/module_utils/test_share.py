# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image from host to host: Docker's SDK and real sockets, each host a stand-in for dockerd and an address of the loopback."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils import _share
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._share import Link, share
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._sockets import bound
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd

# Docker's SDK leaves the connection of an answer that nobody reads to its end to the collector; the real process ends then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
REFERENCE = "openmmlab/lmdeploy:v0.18.0-cu12.8"
ID = "abd3"
IMAGE = {"Id": f"sha256:{ID}", "RepoDigests": [], "Size": 9_000_000}
KEY = "the run's key"


def archive(image: str = ID, name: str = REFERENCE, size: int = 9_000_000) -> bytes:
    """What docker save gives."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, data in (
            ("layer.tar", bytes(size)),
            ("manifest.json", json.dumps([{"Config": image, "RepoTags": [name]}]).encode()),
        ):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Dockerd]]:
    """Three hosts, of which the first has the image."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Dockerd(
                    tmp_path / f"{n}.sock",
                    images={} if n else {REFERENCE: IMAGE},
                    archives={} if n else {REFERENCE: archive()},
                    info={"DockerRootDir": str(tmp_path)},
                )
            )
            for n in range(3)
        ]


def listeners(count: int) -> tuple[int, list[socket.socket]]:
    """A free port of the first ``count`` hosts' addresses, and their sockets on it."""
    for __ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        made = [bound(f"127.0.0.{n + 1}", [port])[0].get(port) for n in range(count)]
        if None not in made:
            return port, [each for each in made if each]
    raise AssertionError("no port is free")


def shared(hosts: list[Dockerd], folder: Path, keys: tuple[str, ...] = (KEY, KEY, KEY)) -> list[dict[str, Any]]:
    """What each host's part came to."""
    port, sockets = listeners(len(hosts) - 1)
    threads = []
    for number, daemon in enumerate(hosts):
        link = Link(folder / f"{number}.json", REFERENCE, keys[number], (f"127.0.0.{number}", port) if number else None)
        behind = sockets[number] if number < len(sockets) else None
        threads.append(threading.Thread(target=share, args=(link, behind, daemon.host)))
    for each in reversed(threads):  # who takes may begin before who gives
        each.start()
    for each in threads:
        each.join(60)
    for listener in sockets:
        listener.close()
    return [json.loads((folder / f"{number}.json").read_text("utf-8")) for number in range(len(hosts))]


def test_every_host_has_the_image_under_its_name_and_with_its_id(hosts: list[Dockerd], tmp_path: Path) -> None:
    found = shared(hosts, tmp_path)
    assert [each["result"] for each in found] == [{"ok": True, "image": IMAGE["Id"], "error": ""}] * 3
    assert [each.images[REFERENCE]["Id"] for each in hosts] == [IMAGE["Id"]] * 3
    whole = len(archive())
    assert [each["summary"]["got"] for each in found] == [whole] * 3
    assert sum(path.endswith("/get") for path in hosts[0].asked) == 1  # once, for all


def test_a_host_that_has_it_gives_it_on_and_gets_its_name(hosts: list[Dockerd], tmp_path: Path) -> None:
    hosts[1].images["other/name:1"] = IMAGE
    assert [each["result"]["ok"] for each in shared(hosts, tmp_path)] == [True] * 3
    assert hosts[1].images[REFERENCE] == IMAGE
    assert not any(path.startswith("/images/load") for path in hosts[1].asked)


def test_a_host_that_cannot_have_it_still_gives_it_on(
    hosts: list[Dockerd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts[1].fails["/images/load"] = "write /x: no space left on device"
    found = shared(hosts, tmp_path)
    assert [each["result"]["ok"] for each in found] == [True, False, True]
    assert "no space left on device" in found[1]["result"]["error"]
    # Seen beforehand.
    hosts[2].images.clear()
    monkeypatch.setattr(_share, "SPACE_TO_TAKE", 1e12)
    found = shared([hosts[0], hosts[2]], tmp_path)
    assert [each["result"]["ok"] for each in found] == [True, False]
    assert "GB free, and the image needs about" in found[1]["result"]["error"]
    assert REFERENCE not in hosts[2].images


def test_another_image_than_was_given_is_a_failure(hosts: list[Dockerd], tmp_path: Path) -> None:
    hosts[0].archives[REFERENCE] = archive("beef")
    found = shared(hosts[:2], tmp_path)
    assert found[1]["result"]["ok"] is False
    assert f"is not sha256:{ID} on this host" in found[1]["result"]["error"]


def test_a_host_behind_that_is_lost_does_not_stop_who_gives(
    hosts: list[Dockerd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three has nobody behind it: it has the image all the same."""
    monkeypatch.setattr(_share, "CONNECT_S", 6.0)
    found = shared(hosts, tmp_path, (KEY, KEY, "another run's"))
    assert [each["result"]["ok"] for each in found] == [True, True, False]
    assert "of another run" in found[2]["result"]["error"]
    assert "image_share_port" in found[2]["result"]["error"]


def test_who_is_of_another_run_is_given_nothing(
    hosts: list[Dockerd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_share, "CONNECT_S", 6.0)
    found = shared(hosts[:2], tmp_path, (KEY, "another run's"))
    assert [each["result"]["ok"] for each in found] == [False, False]
    assert "no host came to take the image" in found[0]["result"]["error"]
    assert not any(path.endswith("/get") for path in hosts[0].asked)


@pytest.mark.parametrize(
    ("damage", "said"), [(True, "another content than was sent"), (False, "stopped before the image was complete")]
)
def test_what_is_damaged_or_cut_off_on_its_way_is_a_failure(
    hosts: list[Dockerd], tmp_path: Path, damage: bool, said: str
) -> None:
    hosts[1].images.clear()
    port, [listener] = listeners(1)
    whole = archive()

    def give() -> None:
        header = {"image": IMAGE["Id"], "size": len(whole)}
        taker = _share._given(listener, KEY.encode(), header, time.monotonic() + 30)
        assert taker
        with taker:
            taker.sendall(_share.LENGTH.pack(len(whole)) + whole[:-1] + b"\1")
            if damage:
                taker.sendall(_share.LENGTH.pack(0) + hashlib.sha256(whole).digest())

    thread = threading.Thread(target=give)
    thread.start()
    share(Link(tmp_path / "x.json", REFERENCE, KEY, ("127.0.0.1", port)), None, hosts[1].host)
    thread.join(30)
    result = json.loads((tmp_path / "x.json").read_text("utf-8"))["result"]
    assert result["ok"] is False
    assert said in result["error"]


def test_a_port_that_is_held_is_told_before_anything_is_begun(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(_share.Failed, match=f"TCP port {port} of 127.0.0.1 is held"):
            _share.start(Link(tmp_path / "x.json", REFERENCE, KEY, None), ("127.0.0.1", port))
