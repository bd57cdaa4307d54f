# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lmfleet_sim import make_model

from .conftest import ENGINE

REPO = make_model.DEFAULT_REPO


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file's bytes and every link's target, by its path below ``root``."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_two_hosts_get_the_same_bytes(tmp_path: Path) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    make_model.write_cache(homes[0], REPO)
    command = [sys.executable, "-m", "lmfleet_sim.make_model", "--hf-home", str(homes[1])]
    done = subprocess.run(command, cwd=ENGINE, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("changed ")
    assert tree(homes[0]) == tree(homes[1])


def test_the_cache_is_laid_out_as_the_hub_does(tmp_path: Path) -> None:
    snapshot, changed = make_model.write_cache(tmp_path, "some-org/Some-Model")
    assert changed
    root = tmp_path / "hub" / "models--some-org--Some-Model"
    commit = (root / "refs" / "main").read_text()
    assert snapshot == root / "snapshots" / commit
    assert len(commit) == 40
    assert set(commit) <= set("0123456789abcdef")
    for link in snapshot.iterdir():
        blob = link.resolve(strict=True)
        content = blob.read_bytes()
        assert link.is_symlink()
        assert blob.parent == root.resolve() / "blobs"
        if link.suffix == ".safetensors":
            assert blob.name == hashlib.sha256(content).hexdigest()
        else:
            assert blob.name == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    make_model.write_cache(tmp_path, REPO)
    before = tree(tmp_path)
    assert make_model.write_cache(tmp_path, REPO)[1] is False
    assert tree(tmp_path) == before


def test_a_lost_or_damaged_file_is_restored(tmp_path: Path) -> None:
    snapshot, __ = make_model.write_cache(tmp_path, REPO)
    before = tree(tmp_path)
    (snapshot / "config.json").unlink()
    (snapshot / "tokenizer.json").resolve().write_bytes(b"{}")
    assert make_model.write_cache(tmp_path, REPO)[1] is True
    assert tree(tmp_path) == before


def test_another_model_of_that_name_is_left_alone(tmp_path: Path) -> None:
    ref = tmp_path / "hub" / "models--deepseek-ai--DeepSeek-V3" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text("0" * 40)
    with pytest.raises(make_model.ModelError, match="holds another model"):
        make_model.write_cache(tmp_path, "deepseek-ai/DeepSeek-V3")
    assert tree(tmp_path) == {"hub/models--deepseek-ai--DeepSeek-V3/refs/main": b"0" * 40}


def test_the_index_names_every_shard_and_tensor() -> None:
    files = make_model.files()
    index = json.loads(files["model.safetensors.index.json"])
    shards = {name: content for name, content in files.items() if name.endswith(".safetensors")}
    assert set(index["weight_map"].values()) == set(shards)
    total = 0
    for name, content in shards.items():
        header, data = parse_safetensors(content)
        assert {tensor for tensor, shard in index["weight_map"].items() if shard == name} == set(header)
        assert max(tensor["data_offsets"][1] for tensor in header.values()) == len(data)
        total += len(data)
    assert total == index["metadata"]["total_size"]


def parse_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the tensors' entries of the header, and the data."""
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    return header, content[8 + length :]


def test_the_tokenizer_is_whole() -> None:
    model = make_model.tokenizer()["model"]
    vocab = model["vocab"]
    assert sorted(vocab.values()) == list(range(len(vocab)))
    assert [vocab[token] for token in make_model.SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert len(set(make_model.byte_alphabet())) == 256
    for merge in model["merges"]:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= set(vocab)
    assert json.loads(make_model.files()["config.json"])["vocab_size"] == len(vocab)


def test_the_simulated_model_answers_with_whole_words() -> None:
    vocab = make_model.tokenizer()["model"]["vocab"]
    answers = range(make_model.FIRST_WORD, make_model.FIRST_WORD + len(make_model.WORDS))
    assert [token for token, token_id in vocab.items() if token_id in answers] == ["Ġ" + w for w in make_model.WORDS]
