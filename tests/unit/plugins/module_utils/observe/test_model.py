# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Callable

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.model import (
    ModelReport,
    check_cached,
    check_directory,
    model_facts,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import questions
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.tests.unit.models import (
    COMMIT,
    LAST,
    REPO,
    SHARDS,
    model_faults,
    safetensors,
    write_model,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import plan_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_model(folder)
    return folder


@pytest.fixture
def hf_home(tmp_path: Path) -> Path:
    """A cache as huggingface_hub lays it out: the snapshot's files are links to blobs."""
    cache = tmp_path / "hub" / "models--deepseek-ai--DeepSeek-V3"
    snapshot = cache / "snapshots" / COMMIT
    write_model(snapshot)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        blob = cache / "blobs" / f"blob{number}"
        file.rename(blob)
        file.symlink_to(f"../../blobs/{blob.name}")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    return tmp_path


def test_whole_model(model: Path) -> None:
    report = check_directory(str(model))
    assert report.faults == []
    assert report.path == str(model)
    assert report.commit is None
    assert report.config == {"architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 128}
    assert report.files.keys() == {"config.json", "tokenizer.json", "model.safetensors.index.json", *SHARDS}
    assert report.total_bytes == sum(file.stat().st_size for file in model.iterdir() if file.name != "README.md")


def test_one_file_model(model: Path) -> None:
    for name in [*SHARDS, "model.safetensors.index.json"]:
        (model / name).unlink()
    (model / "model.safetensors").write_bytes(safetensors("a"))
    assert check_directory(str(model)).faults == []
    (model / "model.safetensors").write_bytes(safetensors("a")[:-1])
    assert "model.safetensors has" in check_directory(str(model)).faults[0]


def cut(data: bytes) -> bytes:
    return data[:-1]


BROKEN: list[tuple[str, str, Callable[[bytes], bytes], str]] = [
    ("one byte short", LAST, cut, "bytes where its header says"),
    ("one byte long", LAST, lambda data: data + b"\0", "bytes where its header says"),
    ("empty", LAST, lambda data: b"", "cut off or no safetensors file: it has 0 bytes"),
    ("cut in its header", LAST, lambda data: data[:40], "cut off or no safetensors file: it has 40 bytes"),
    ("of noise", LAST, lambda data: b"\xff" * 200, "cut off or no safetensors file"),
    ("a pointer", LAST, lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ("a header of noise", LAST, lambda data: struct.pack("<Q", 8) + b"notjson!", "has a damaged header"),
    ("a header without offsets", LAST, lambda data: struct.pack("<Q", 8) + b'{"a":{}}', "has a damaged header"),
    ("without a tensor", LAST, lambda data: safetensors("a.2"), "lacks 1 tensors of the index: b.2."),
    ("config of noise", "config.json", lambda data: b"{", "is not a JSON object"),
    ("index of noise", "model.safetensors.index.json", lambda data: b"[]", "is not a JSON object"),
    ("index without map", "model.safetensors.index.json", lambda data: b"{}", "has no weight_map"),
]


@pytest.mark.parametrize(("name", "damage", "fault"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_damage_is_named(model: Path, name: str, damage: Callable[[bytes], bytes], fault: str) -> None:
    file = model / name
    file.write_bytes(damage(file.read_bytes()))
    faults = check_directory(str(model)).faults
    assert any(line.startswith(name) and fault in line for line in faults), faults
    assert not any(shard in line for shard in SHARDS[:2] for line in faults)


def test_all_faults_at_once(model: Path) -> None:
    for name in ("config.json", "tokenizer.json", SHARDS[0]):
        (model / name).unlink()
    (model / LAST).write_bytes(cut((model / LAST).read_bytes()))
    faults = "\n".join(check_directory(str(model)).faults)
    for expected in ("config.json is missing", "neither tokenizer.json", f"{SHARDS[0]} is missing", f"{LAST} has"):
        assert expected in faults


def test_no_weights(model: Path) -> None:
    for name in [*SHARDS, "model.safetensors.index.json"]:
        (model / name).unlink()
    assert check_directory(str(model)).faults == [
        "there is neither model.safetensors.index.json nor model.safetensors."
    ]


def test_no_directory(tmp_path: Path) -> None:
    assert check_directory(str(tmp_path / "absent")).faults == [
        f"{tmp_path / 'absent'} is not a directory on this host."
    ]


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_cache(hf_home: Path, revision: str) -> None:
    report = check_cached(str(hf_home), REPO, revision)
    assert report.faults == []
    assert report.commit == COMMIT
    assert report.path is not None
    assert report.path.endswith(f"snapshots/{COMMIT}")


def test_cache_without_the_revision(hf_home: Path) -> None:
    (fault,) = check_cached(str(hf_home), REPO, "v2").faults
    assert "revision v2 of deepseek-ai/DeepSeek-V3 was never downloaded" in fault
    assert COMMIT in fault


def test_cache_without_the_model(hf_home: Path) -> None:
    report = check_cached(str(hf_home), "other/model")
    assert "other/model was never downloaded" in report.faults[0]
    assert report.digest is None


def test_download_that_was_cut_off(hf_home: Path) -> None:
    cache = hf_home / "hub" / "models--deepseek-ai--DeepSeek-V3"
    link = cache / "snapshots" / COMMIT / LAST
    blob = link.resolve()
    blob.rename(blob.with_name(blob.name + ".incomplete"))
    broken, incomplete = check_cached(str(hf_home), REPO).faults
    assert broken == f"{LAST} is a link to {blob}, which does not exist."
    assert "incomplete holds" in incomplete


def test_leftover_of_a_download_is_no_fault(hf_home: Path) -> None:
    (hf_home / "hub" / "models--deepseek-ai--DeepSeek-V3" / "blobs" / "x.incomplete").write_bytes(b"")
    assert check_cached(str(hf_home), REPO).faults == []


def test_digest_tells_hosts_apart(tmp_path: Path) -> None:
    def report(name: str, file: str | None = None, content: bytes = b"{}") -> ModelReport:
        folder = tmp_path / name
        write_model(folder)
        if file:
            (folder / file).write_bytes(content)
        return check_directory(str(folder))

    same = report("one").digest
    assert report("two").digest == same
    assert report("readme", "README.md").digest == same
    config = (tmp_path / "one" / "config.json").read_bytes().replace(b"128,", b"127,")  # as long as before
    assert report("config", "config.json", config).digest != same
    assert report("code", "modeling.py").digest != same
    assert report("shard", LAST, safetensors("a.2", "b.2", "c.2")).digest != same


def test_asking_gives_the_report_as_plain_data(hf_home: Path, model: Path) -> None:
    cached = model_facts({"repo": REPO, "revision": "main", "hf_home": str(hf_home)})
    assert (cached["faults"], cached["commit"]) == ([], COMMIT)
    assert json.loads(json.dumps(cached)) == cached
    assert model_facts({"path": str(model)})["faults"] == []
    assert "nobody said which model" in model_facts({"repo": REPO})["faults"][0]


@pytest.mark.parametrize("refused", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_file_system_refuses_is_a_fault(
    hf_home: Path, model: Path, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, and a file system that fails is not had for the asking.
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(refused, os.strerror(refused), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    for asked in ({"path": str(model)}, {"repo": REPO, "hf_home": str(hf_home)}):
        report = model_facts(asked)
        [fault] = report["faults"]
        assert f"cannot be read: {os.strerror(refused)}." in fault
        assert report["digest"] is None


def test_a_revision_that_is_no_text_is_a_fault(hf_home: Path) -> None:
    (hf_home / "hub" / "models--deepseek-ai--DeepSeek-V3" / "refs" / "main").write_bytes(b"\xff\xfe")
    assert "never downloaded" in model_facts({"repo": REPO, "hf_home": str(hf_home)})["faults"][0]


# What it means for a deployment, on hosts that are directories of this machine.


def said(folder: Path, *hosts: str) -> list[str]:
    """The faults of the real reports of hosts whose Hugging Face homes are directories of their names."""
    variables = {
        name: {
            "plan_cluster_address": f"10.0.0.{n + 10}",
            "plan_gpus": 1,
            "plan_tp": 1,
            "plan_hf_home": str(folder / name),
        }
        for n, name in enumerate(hosts)
    }
    plan = plan_of(variables)
    asked = {node.name: questions(plan, node)["model"] for node in plan.nodes}
    return model_faults(plan, [Host(name, {"model": model_facts(asked[name])}) for name in hosts])


def test_hosts_with_another_model_or_half_of_it_are_told_all_at_once(hf_home: Path, tmp_path: Path) -> None:
    for host in ("one", "two", "three"):
        shutil.copytree(hf_home / "hub", tmp_path / host / "hub", symlinks=True)
    assert said(tmp_path, "one", "two", "three") == []

    snapshot = Path("hub", "models--deepseek-ai--DeepSeek-V3", "snapshots", COMMIT)
    (tmp_path / "two" / snapshot / "config.json").resolve().write_text('{"architectures": ["Other"]}')
    [differs] = said(tmp_path, "one", "two", "three")
    assert "The hosts hold different files of deepseek-ai/DeepSeek-V3" in differs
    assert f"one, three: commit {COMMIT}, 6 files" in differs
    (tmp_path / "one" / snapshot / "config.json").unlink()
    [alone] = said(tmp_path, "one")
    assert "one: config.json is missing." in alone

    (tmp_path / "two" / snapshot / LAST).unlink()
    (tmp_path / "three" / snapshot / SHARDS[0]).resolve().write_bytes(b"")
    [faulty] = said(tmp_path, "one", "two", "three")
    for line in (
        "is not whole on 3 of 3 hosts:",
        f"two: {LAST} is missing.",
        f"three: {SHARDS[0]} is cut off",
        f"two: HF_HOME={tmp_path / 'two'} hf download deepseek-ai/DeepSeek-V3 --revision main",
    ):
        assert line in faulty
