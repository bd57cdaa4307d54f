# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that go from directory to directory over real sockets, as from host to host."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ansible_collections.lmfleet.lmdeploy.programs import fanout, model_files
from ansible_collections.lmfleet.lmdeploy.programs.fanout import Config, Node
from ansible_collections.lmfleet.lmdeploy.programs.model_files import INCOMING, Manifest, Trouble

COMMIT = "e815299b0bcbac849fa540c768ef21845365c9eb"
FILES = {
    "config.json": 900,
    "model-00001.safetensors": 3_000_000,
    "model-00002.safetensors": 70_000,
    "sub/empty.txt": 0,
}


def blob_of(data: bytes, *, lfs: bool) -> str:
    """What the hub calls a file with this content."""
    return hashlib.sha256(data).hexdigest() if lfs else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def cached(root: Path, files: dict[str, int] | None = None) -> Path:
    """A repository in the hub's cache, as huggingface_hub lays it out."""
    numbers = random.Random(1)
    for name, size in (files or FILES).items():
        data = numbers.randbytes(size)
        blob = root / "blobs" / blob_of(data, lfs=name.endswith(".safetensors"))
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = root / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * len(link.relative_to(root).parents[:-1])) / "blobs" / blob.name)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return root


def tree(root: Path) -> dict[str, Any]:
    """Everything below a directory: links with their targets, files with their content."""
    return {
        path.relative_to(root).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def largest(root: Path) -> Path:
    return max((root / "blobs").iterdir(), key=lambda blob: blob.stat().st_size)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for __ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def chain(roots: Sequence[Path], *, revision: str = "main", **more: Any) -> list[Node]:
    """Nodes in a chain, in the order of their directories."""
    ports = free_ports(len(roots))
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    return [
        Node(
            Config(
                root=str(root),
                revision=revision,
                host="127.0.0.1",
                port=ports[place],
                before=tuple(reversed(urls[:place])),
                others=tuple(urls[place + 1 :]),
                api_key="of this run",
                **more,
            )
        )
        for place, root in enumerate(roots)
    ]


async def bring(nodes: Sequence[Node], *, absent: Sequence[Node] = ()) -> list[str]:
    """Run all at once, but for those that are not there; what each of them fails with."""
    runners = []

    async def part(node: Node) -> str:
        try:
            await node.bring()
        except Trouble as trouble:
            node.failed = str(trouble)
        return node.failed

    there = [node for node in nodes if node not in absent]
    for node in there:
        runners.append(web.AppRunner(node.application(), shutdown_timeout=0.1))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], node.config.host, node.config.port).start()
    try:
        return await asyncio.gather(*(part(node) for node in there))
    finally:
        for runner in runners:
            await runner.cleanup()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return cached(tmp_path / "source")


@pytest.fixture
def others(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"host{number}" for number in (1, 2, 3)]


@pytest.fixture(autouse=True)
def little_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "SPARE", 1)


def test_every_host_of_the_chain_has_the_same_cache_as_the_first(source: Path, others: list[Path]) -> None:
    before = tree(source)
    nodes = chain([source, *others])
    assert asyncio.run(bring(nodes)) == ["", "", "", ""]
    assert tree(source) == before
    for root, node in zip(others, nodes[1:]):
        assert tree(root) == before
        assert node.result()["received"] == sum(FILES.values())
        assert node.result()["twice"] == 0
        assert node.result()["ok"]
        assert (root / "snapshots" / COMMIT / "config.json").resolve().parent == (root / "blobs").resolve()


def test_a_second_time_nothing_is_fetched(source: Path, others: list[Path]) -> None:
    asyncio.run(bring(chain([source, others[0]])))
    nodes = chain([source, others[0]])
    assert asyncio.run(bring(nodes)) == ["", ""]
    assert nodes[1].result()["needed"] == nodes[1].result()["received"] == 0


def test_a_commit_needs_no_reference_and_other_revisions_stay(source: Path, others: list[Path]) -> None:
    other = others[0] / "snapshots" / "another" / "config.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    (others[0] / "refs").mkdir()
    (others[0] / "refs" / "v2").write_text("another")
    assert asyncio.run(bring(chain([source, others[0]], revision=COMMIT))) == ["", ""]
    assert other.read_text() == "{}"
    assert (others[0] / "refs" / "v2").read_text() == "another"
    assert not (others[0] / "refs" / "main").exists()


def test_a_directory_goes_too_and_its_links_become_files(tmp_path: Path, others: list[Path]) -> None:
    plain = tmp_path / "plain"
    (plain / "sub").mkdir(parents=True)
    (plain / "model.safetensors").write_bytes(b"w" * 5000)
    (tmp_path / "elsewhere").write_text("{}")
    (plain / "sub" / "config.json").symlink_to(tmp_path / "elsewhere")
    assert asyncio.run(bring(chain([plain, *others[:2]], revision=""))) == ["", "", ""]
    for root in others[:2]:
        assert tree(root) == {"model.safetensors": b"w" * 5000, "sub/config.json": b"{}"}


def test_a_transfer_that_was_cut_off_goes_on_where_it_was(source: Path, others: list[Path]) -> None:
    blob = largest(source)
    part = others[0] / INCOMING / f"blobs--{blob.name}"
    part.parent.mkdir(parents=True)
    part.write_bytes(blob.read_bytes()[:1_234_567])
    nodes = chain([source, others[0]])
    assert asyncio.run(bring(nodes)) == ["", ""]
    result = nodes[1].result()
    assert result["resumed"] == 1_234_567
    assert result["received"] == sum(FILES.values()) - 1_234_567
    assert result["twice"] == 0
    assert tree(others[0]) == tree(source)


def test_cut_off_in_the_middle_nothing_has_its_name_and_little_comes_twice(source: Path, others: list[Path]) -> None:
    nodes = chain([source, others[0]], limit=2e6)

    async def cut() -> None:
        running = asyncio.create_task(bring(nodes))
        while nodes[1].received < 1_000_000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(cut())
    first = nodes[1].received
    assert blob_missing(others[0], largest(source).name)
    assert not (others[0] / "snapshots").exists()
    again = chain([source, others[0]])
    assert asyncio.run(bring(again)) == ["", ""]
    assert first + again[1].received - sum(FILES.values()) <= fanout.STREAMS * model_files.CHUNK
    assert again[1].result()["resumed"] > 0
    assert tree(others[0]) == tree(source)


def blob_missing(root: Path, name: str) -> bool:
    return not (root / "blobs" / name).exists()


def test_a_part_that_is_wrong_is_fetched_anew(source: Path, others: list[Path]) -> None:
    blob = largest(source)
    part = others[0] / INCOMING / f"blobs--{blob.name}"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1_000_000)
    nodes = chain([source, others[0]])
    assert asyncio.run(bring(nodes)) == ["", ""]
    assert tree(others[0]) == tree(source)
    assert nodes[1].result()["twice"] == blob.stat().st_size


def test_a_short_file_is_put_aside_and_fetched(source: Path, others: list[Path]) -> None:
    asyncio.run(bring(chain([source, others[0]])))
    blob = largest(others[0])
    blob.write_bytes(blob.read_bytes()[:-10])
    nodes = chain([source, others[0]])
    assert asyncio.run(bring(nodes)) == ["", ""]
    assert nodes[1].aside == [f"blobs/{blob.name}: it has 2999990 bytes in place of 3000000"]
    assert blob.read_bytes() == largest(source).read_bytes()
    assert [path.stat().st_size for path in blob.parent.glob(f"{blob.name}.damaged-*")] == [2_999_990]


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_flipped_byte_is_found_and_repaired_wherever_it_is(source: Path, others: list[Path], damaged: int) -> None:
    roots = [source, *others[:2]]
    asyncio.run(bring(chain(roots)))
    whole = tree(source)
    blob = largest(roots[damaged])
    data = bytearray(blob.read_bytes())
    data[1_000_000] ^= 1
    blob.write_bytes(data)
    unseen = chain(roots)
    assert asyncio.run(bring(unseen)) == ["", "", ""]
    assert not unseen[damaged].aside
    nodes = chain(roots, verify=True)
    assert asyncio.run(bring(nodes)) == ["", "", ""]
    assert [len(node.aside) for node in nodes] == [int(place == damaged) for place in range(3)]
    for root in roots:
        assert {path: data for path, data in tree(root).items() if ".damaged-" not in path} == whole


def test_a_flipped_byte_in_a_directory_is_put_right_by_the_first_host(tmp_path: Path, others: list[Path]) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.safetensors").write_bytes(b"w" * 5000)
    asyncio.run(bring(chain([plain, others[0]], revision="")))
    (others[0] / "model.safetensors").write_bytes(b"v" * 5000)
    nodes = chain([plain, others[0]], revision="", verify=True)
    assert asyncio.run(bring(nodes)) == ["", ""]
    assert (others[0] / "model.safetensors").read_bytes() == b"w" * 5000


def test_damage_that_no_host_can_repair_is_told(source: Path, others: list[Path]) -> None:
    blob = largest(source)
    blob.write_bytes(b"x" * blob.stat().st_size)
    nodes = chain([source, *others[:2]])
    failed = asyncio.run(bring(nodes))
    assert failed[0] == ""
    for fault in failed[1:]:
        assert "model_verify=true" in fault or "no host has" in fault
    assert all(blob_missing(root, blob.name) for root in others[:2])
    nodes = chain([source, others[0]], verify=True)
    assert all("fetch the model with model_source: hub" in fault for fault in asyncio.run(bring(nodes)))


def test_a_full_disk_is_refused_before_anything_is_written(
    source: Path, others: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "SPARE", 1 << 60)
    nodes = chain([source, others[0]])
    first, second = asyncio.run(bring(nodes))
    assert first == ""  # it has all, so it needs no room
    assert "GB of the model are missing" in second
    assert "GB free" in second
    assert tree(others[0]) == {}


def test_a_host_that_is_not_there_is_passed_over(
    source: Path, others: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "GRACE_S", 0)
    nodes = chain([source, *others])
    assert asyncio.run(bring(nodes, absent=[nodes[1]])) == ["", "", ""]
    assert tree(others[1]) == tree(others[2]) == tree(source)
    assert not others[0].exists()


def test_nothing_is_given_without_the_key_of_the_run(source: Path, others: list[Path]) -> None:
    nodes = chain([source, others[0]])
    stranger = Node(dataclasses.replace(nodes[1].config, api_key="of another run"))
    failed = asyncio.run(bring([nodes[0], stranger]))
    assert "is of another run" in failed[1]
    assert tree(others[0]) == {}


def test_a_limit_is_kept(source: Path, others: list[Path]) -> None:
    nodes = chain([source, others[0]], limit=3e6)
    assert asyncio.run(bring(nodes)) == ["", ""]
    assert nodes[1].result()["seconds"] >= 0.9  # 3 MB


@pytest.mark.parametrize(
    ("files", "links", "texts"),
    [
        ({"../outside": 1}, {}, {}),
        ({"/etc/passwd": 1}, {}, {}),
        ({"a/../../b": 1}, {}, {}),
        ({}, {"snapshots/x/a": "../../../outside"}, {}),
        ({}, {"snapshots/x/a": "/etc/passwd"}, {}),
        ({}, {}, {"../refs/main": "x"}),
        ({f"{INCOMING}/a": 1}, {}, {}),
    ],
)
def test_paths_out_of_the_directory_are_refused(
    files: dict[str, int], links: dict[str, str], texts: dict[str, str]
) -> None:
    with pytest.raises(Trouble, match="is not below"):
        Manifest.from_mapping({"files": files, "links": links, "texts": texts})


def test_as_a_program_it_tells_how_far_it_is_and_its_result(source: Path, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    config = tmp_path / "config.json"
    raw = {"root": str(source), "revision": "main", "host": "127.0.0.1", "port": port, "api_key": "k"}
    config.write_text(json.dumps({**raw, "before": [], "others": [], "idle_s": 0}))
    events: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fanout, "emit", events.append)
        patched.setattr("sys.argv", ["fanout", str(config)])
        assert fanout.main() == 0
    assert events[-1]["event"] == "result"
    assert events[-1]["ok"]
    assert events[-2]["bytes"] == events[-2]["total"] == sum(FILES.values())


def test_a_port_in_use_is_told(source: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(str(source), "main", "127.0.0.1", taken.getsockname()[1], (), (), "k", idle_s=0)
        events: list[dict[str, Any]] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(fanout, "emit", events.append)
            assert asyncio.run(fanout.serve_and_bring(config)) == 1
    assert "address already in use" in events[-1]["fault"].lower()
