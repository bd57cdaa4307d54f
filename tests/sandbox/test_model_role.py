# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large model from one host of the sandbox to the other three, over links of a known rate.

The model is as large as LMFLEET_FANOUT_GB says (1), in 163 shards, and holds random bytes behind true safetensors headers.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox.hosts import Run, Sandbox

# On the hosts of DP+EP, for there are four.
pytestmark = [pytest.mark.slow, pytest.mark.dpep]
SIZE = int(float(os.environ.get("LMFLEET_FANOUT_GB", "1")) * 1e9)
RATE_MBIT = int(os.environ.get("LMFLEET_FANOUT_MBIT", "300"))
STATE = Path(os.environ.get("LMFLEET_SANDBOX_STATE", "~/.local/state/lmfleet-sandbox")).expanduser()
KEY = "/root/fanout-test-key"
SHARDS = 163
REPO = "lmfleet/fanout-test"
CACHE = f"/srv/huggingface/hub/models--{REPO.replace('/', '--')}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Written by the host's own Python: the hub's layout, every blob under its sha256, every other file under Git's name of it.
MAKE = f"""
import hashlib, json, os, pathlib, struct
root = pathlib.Path({CACHE!r}); snapshot = root / "snapshots" / {COMMIT!r}
for each in (root / "blobs", root / "refs", snapshot): each.mkdir(parents=True, exist_ok=True)
def put(name, data):
    lfs = name.endswith(".safetensors")
    blob = (hashlib.sha256(data) if lfs else hashlib.sha1(b"blob %d\\0" % len(data) + data)).hexdigest()
    (root / "blobs" / blob).write_bytes(data)
    (snapshot / name).symlink_to("../../blobs/" + blob)
weights = {{}}
for shard in range({SHARDS}):
    size = {SIZE} // {SHARDS}
    tensor, name = f"t{{shard}}", f"model-{{shard + 1:05d}}-of-{SHARDS:06d}.safetensors"
    header = json.dumps({{tensor: {{"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}}}).encode()
    put(name, struct.pack("<Q", len(header)) + header + os.urandom(size))
    weights[tensor] = name
put("model.safetensors.index.json", json.dumps({{"weight_map": weights}}).encode())
source = next(pathlib.Path("/srv/huggingface/hub").glob("models--deepseek-ai--*/snapshots/*"))
for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
    if (source / name).exists(): put(name, (source / name).read_bytes())
(root / "refs" / "main").write_text({COMMIT!r})
"""
NODES = (0, 1, 2, 3)
FAN = {"plan_model": REPO, "model_strategy": "fanout"}


def bring(sandbox: Sandbox, *arguments: str, **more: object) -> Run:
    return sandbox.playbook("playbooks/model.yml", *arguments, **{**FAN, **more})


def forget(sandbox: Sandbox, *nodes: int) -> None:
    for node in nodes:
        sandbox.on(node, "rm", "-rf", CACHE)


def digests(sandbox: Sandbox, node: int) -> str:
    """The digest and name of every file of the model as an engine reads it, and of the reference."""
    command = f"cd {CACHE} && sha256sum snapshots/{COMMIT}/* refs/main && readlink snapshots/{COMMIT}/*"
    return sandbox.on(node, "sh", "-c", command, limit_s=600)


def figures(run: Run, what: str) -> list[int]:
    """A number of bytes of every host's result, as -v shows it."""
    found = [int(number) for number in re.findall(rf'\b{what}"?: (\d+)', run.output)]
    assert found, f"{what} is not in:\n{run.output[-3000:]}"
    return found


def limit(sandbox: Sandbox, mbit: float) -> None:
    """Let each host send no more than so many Mbit/s."""
    rate = ["root", "tbf", "rate", f"{mbit:g}mbit", "burst", "256kb", "latency", "50ms"]
    for node in NODES:
        sandbox.on(node, "tc", "qdisc", "replace", "dev", "eth0", *rate)


@pytest.fixture(scope="module")
def four(dpep: Sandbox) -> Iterator[Sandbox]:
    """Four hosts, what each of them sends limited, with the model on the first."""
    forget(dpep, *NODES)
    dpep.on(0, "python3", "-c", MAKE, limit_s=600)
    dpep.outer("cp", str(STATE / "ssh" / "id_ed25519"), f"lmfleet-sandbox-node0:{KEY}")
    try:
        limit(dpep, RATE_MBIT)
        yield dpep
    finally:
        for node in NODES:
            dpep.on(node, "tc", "qdisc", "del", "dev", "eth0", "root")
        dpep.on(0, "rm", "-f", KEY)
        forget(dpep, *NODES)


# Whoever has lost its neighbour in the chain may have ended by itself.
END = 'docker kill lmdeploy-model >/dev/null 2>&1; test -z "$(docker ps --quiet --filter name=^lmdeploy-model$)"'


def by_rsync(sandbox: Sandbox, node: int) -> float:
    """Seconds that rsync over SSH takes from the first host to another."""
    began = time.monotonic()
    remote = f"ssh -i {KEY} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    sandbox.on(0, "rsync", "-a", "-e", remote, f"{CACHE}/", f"root@10.77.0.{11 + node}:{CACHE}/", limit_s=1800)
    return time.monotonic() - began


def test_fanout_takes_little_longer_than_one_copy(four: Sandbox) -> None:
    one_after_another = [by_rsync(four, node) for node in (1, 2, 3)]
    forget(four, 1, 2, 3)
    began = time.monotonic()
    run = bring(four, "-v").succeeded()
    playbook = time.monotonic() - began
    way = max(float(found) for found in re.findall(r"fetched in (\d+) s", run.output))
    one, all_three = min(one_after_another), sum(one_after_another)
    print(
        f"{SIZE / 1e9:.1f} GB over {RATE_MBIT} Mbit/s: one copy {one:.1f} s, three one after another {all_three:.1f} s, fanout "
        f"{way:.1f} s ({playbook:.1f} s with all of the playbook): {way / one:.2f} of one copy, {way / all_three:.2f} of three"
    )
    assert {digests(four, node) for node in NODES} == {digests(four, 0)}
    assert sum(figures(run, "twice")) == 0
    again = bring(four).succeeded()
    assert set(again.changed.values()) == {0}


def test_a_transfer_that_is_cut_off_goes_on_where_it_was(four: Sandbox) -> None:
    forget(four, 1, 2, 3)
    limit(four, RATE_MBIT / 5)  # so slow that it is not over before it is seen to have begun
    run = four.begin("playbooks/model.yml", **FAN)
    run.until(r"node3: copy (?!0\.[01])")  # a tenth or more
    for node in NODES:  # at once, for what is not cut off goes on without the run
        four.on(node, "sh", "-c", END)
    run.interrupt()
    for node in NODES:
        four.on(node, "sh", "-c", "docker rm -f lmdeploy-model >/dev/null 2>&1 || true")
    for node in (1, 2, 3):
        assert "refs" not in four.on(node, "ls", CACHE)
    limit(four, RATE_MBIT)
    done = bring(four, "-v").succeeded()
    resumed, received = figures(done, "resumed"), figures(done, "received")
    print(f"resumed {resumed}, received {received}, twice {figures(done, 'twice')}")
    # Whole files were used as they are, and parts of others.
    assert all(each < 0.95 * SIZE for each in received)
    assert sum(resumed) > 0
    assert sum(figures(done, "twice")) == 0
    assert {digests(four, node) for node in NODES} == {digests(four, 0)}


def test_a_flipped_byte_and_a_short_file_are_found_and_repaired(four: Sandbox) -> None:
    bring(four).succeeded()
    flipped = f"{CACHE}/snapshots/{COMMIT}/model-00007-of-{SHARDS:06d}.safetensors"
    short = f"{CACHE}/snapshots/{COMMIT}/model-00009-of-{SHARDS:06d}.safetensors"
    flip = f"f=open({flipped!r},'r+b'); f.seek(1000000); b=f.read(1); f.seek(1000000); f.write(bytes([b[0] ^ 1]))"
    four.on(0, "python3", "-c", flip)
    four.on(2, "truncate", "--size=-10", short)
    run = bring(four, model_verify=True).succeeded()
    assert "node0: put aside" in run.text
    assert "node2: put aside" in run.text
    assert {digests(four, node) for node in NODES} == {digests(four, 1)}
    for node in (0, 2):
        assert ".damaged-" in four.on(node, "ls", f"{CACHE}/blobs")
        four.on(node, "sh", "-c", f"rm {CACHE}/blobs/*.damaged-*")


def test_a_full_disk_is_refused_beforehand(four: Sandbox) -> None:
    forget(four, 3)
    four.on(3, "mkdir", "-p", CACHE)
    four.on(3, "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", CACHE)
    try:
        bring(four).failed_with("node3:", "GB of the model are missing", "GB free")
        assert four.on(3, "find", CACHE, "-type", "f") == ""
    finally:
        four.on(3, "umount", CACHE)
