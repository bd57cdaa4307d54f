# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that an engine reads: each one is there, is no stand-in, and parses. What it does not read is no fault."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import time
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import formats
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.model import check_directory, model_facts
from ansible_collections.lmfleet.lmdeploy.tests.unit.models import (
    COMMIT,
    INDEX,
    LAST,
    SHARDS,
    safetensors,
    write_cache,
    write_code,
    write_model,
)

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7847602\n"
XET = b"# xet version 0\nfilesize = 7847602\nhash = '4d7a'\n"
ANNEX = b"/annex/objects/SHA256E-s7847602--4d7a.json\n"
LOGIN = b"<!DOCTYPE html>\n<html><title>Log in</title></html>"
S3 = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_model(folder)
    return folder


def faults(model: Path, *, code: bool = True) -> list[str]:
    return check_directory(str(model), code=code).faults


@pytest.mark.parametrize("suffix", [".part", ".aria2", ".crdownload", ".incomplete"])
def test_of_a_file_that_is_missing_it_is_told_what_of_it_is_there(model: Path, suffix: str) -> None:
    (model / LAST).rename(model / f"{LAST}{suffix}")
    assert faults(model) == [
        f"{LAST} is missing: its downloader's unfinished file ({suffix}) is there, so the download was cut off or still runs."
    ]


def test_a_name_in_other_letters_is_told(model: Path) -> None:
    (model / LAST).rename(model / LAST.upper())
    assert faults(model) == [f"{LAST} is missing: there is {LAST.upper()}, in other letters."]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", LAST])
def test_a_link_to_itself_is_no_matter_of_disks(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to("other")
    (model / "other").symlink_to(name)
    report = check_directory(str(model))
    assert report.faults == [f"{name} is a link that leads back to itself: remove it, and fetch the file again."]
    assert not report.unread


@pytest.mark.parametrize("config", [{}, {"model_type": "x"}, {"architectures": []}])
def test_a_configuration_names_what_lmdeploy_chooses_its_model_by(model: Path, config: dict[str, Any]) -> None:
    (model / "config.json").write_text(json.dumps(config))
    assert "names no architecture" in " ".join(faults(model))
    (model / "config.json").write_text(json.dumps({**config, "language_config": {"architectures": ["A"]}}))
    assert faults(model) == []


# Stand-ins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, f"is a Git LFS pointer of {len(LFS)} bytes, not the file itself (in a clone: git lfs pull)"),
        (XET, "is a Xet pointer"),
        (ANNEX, "is a git-annex pointer"),
        (LOGIN, f"is a web page of {len(LOGIN)} bytes"),
        (S3, "is a web page"),
        (b"", "is empty: it has 0 bytes."),
        (bytes(5000), "begins with zeros only"),
    ],
    ids=["lfs", "xet", "annex", "html", "xml", "empty", "zeros"],
)
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "tokenizer.model",
        INDEX,
    ],
)
def test_what_lies_in_a_file_s_place_is_named(model: Path, name: str, content: bytes, words: str) -> None:
    (model / name).write_bytes(content)
    report = check_directory(str(model))
    assert [fault for fault in report.faults if fault.startswith(f"{name} ") and words in fault], report.faults
    assert report.damaged == [str(model / name)]
    assert len(report.faults) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"architectures": ["Deep', "it is cut off (it begins with"),
        (b"Entry not found", "it begins with 'Entry not found'"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b"[" * 100_000, "is not a JSON object"),
        (b'{"error": "Invalid credentials in Authorization header"}', "holds a server's error"),
        (b"null", "is not a JSON object"),
        (b'{"a": 1}{"a": 1}', "at line 1"),
    ],
)
def test_json_that_the_engine_cannot_read_is_told_with_its_beginning(model: Path, content: bytes, words: str) -> None:
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_bytes(content)
    found = faults(model)
    assert len(found) == 2
    assert all(words in fault for fault in found), found


def test_terminal_escapes_in_a_file_do_not_reach_the_terminal(model: Path) -> None:
    (model / "config.json").write_bytes(b"\x1b]0;pwned\x07")
    assert "\x1b" not in faults(model)[0]


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        bind,
    ],
    ids=["fifo", "directory", "device", "loop", "socket"],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", INDEX, "m.safetensors"])
def test_what_is_no_file_neither_hangs_nor_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], Any]
) -> None:
    write_model(tmp_path)
    monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes
    if name == "m.safetensors":
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    Path(name).unlink(missing_ok=True)
    make(Path(name))
    [fault] = faults(tmp_path)
    assert fault.startswith((f"{name} is a", f"{name} cannot be read: Too many levels of symbolic"))


def test_a_directory_that_is_a_link_to_itself_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    [fault] = model_facts({"path": str(tmp_path / "a")})["faults"]
    assert fault.endswith(
        "/a is a link that leads back to itself: remove it, or make it lead to the directory that it stands for."
    )


def test_names_that_are_no_text_are_told_and_travel_as_json(model: Path) -> None:
    Path(os.fsdecode(bytes(model) + b"/caf\xe9.json")).write_text("{}")
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": "\udcff.safetensors", "b": "\ud800.safetensors"}}))
    report = model_facts({"path": str(model)})
    assert json.dumps(report).encode("ascii")
    assert "caf�.json" in report["files"]
    assert len(report["faults"]) == 2
    "\n".join(report["faults"]).encode()


def test_a_thousand_missing_shards_are_one_line(model: Path) -> None:
    (model / INDEX).write_text(json.dumps({"weight_map": {f"t{n}": f"m{n:04d}.safetensors" for n in range(1000)}}))
    assert faults(model) == ["m0000.safetensors, m0001.safetensors, m0002.safetensors and 997 more: each is missing."]


def test_many_different_faults_are_cut(model: Path) -> None:
    weight_map = {f"t{n}": f"m{n:04d}.safetensors" for n in range(200)}
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for number, name in enumerate(weight_map.values()):
        (model / name).write_bytes(safetensors("x", size=64 + number)[:-1])
    found = faults(model)
    assert len(found) == 13
    assert found[-1] == "and 188 more faults of this kind."


def test_many_files_are_not_open_at_once(model: Path) -> None:
    weight_map = {f"t{n}": f"m{n:04d}.safetensors" for n in range(300)}
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for tensor, name in weight_map.items():
        (model / name).write_bytes(safetensors(tensor))
    for number in range(3000):
        (model / f"other{number}.bin").touch()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        assert faults(model) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_json_without_end_is_not_parsed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_JSON", 2000)
    (model / "tokenizer.json").write_text('{"a": "' + "x" * 5000 + '"}\n')
    assert faults(model) == []
    (model / "tokenizer.json").write_text('{"a": "' + "x" * 5000)
    assert faults(model) == ["tokenizer.json is not a JSON object, or cut off: it has 5007 bytes."]


# What an engine reads ------------------------------------------------------------------------------------------------

# What public repositories have: names, beside config.json and whole weights.
PUBLIC = {
    "DeepSeek-V3": ["tokenizer.json", "tokenizer_config.json", "README_WEIGHTS.md", "figures", "inference"],
    "Qwen3": ["generation_config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"],
    "Llama-2": ["special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"],
    "Llama-3": ["original", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "USE_POLICY.md"],
    "InternLM2": ["tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"],
    "Qwen-7B": ["qwen.tiktoken", "tokenizer_config.json"],
    "Kimi-K2": ["tiktoken.model", "tokenizer_config.json", "chat_template.jinja"],
    "GPT-2": ["vocab.json", "merges.txt"],
    "Llama-1": ["tokenizer.model"],
    "Mistral": ["tekken.json", "params.json"],
}


@pytest.mark.parametrize("names", PUBLIC.values(), ids=PUBLIC)
def test_what_public_models_have_is_whole(model: Path, names: list[str]) -> None:
    (model / "tokenizer.json").unlink()
    for name in names:
        if "." in name:
            (model / name).write_text('{"a": 1}')
        else:
            (model / name).mkdir()
    assert faults(model) == []


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([], "there is neither tokenizer.json nor tokenizer.model, nor another file with a tokenizer's vocabulary."),
        (["tokenizer_config.json"], "there is neither tokenizer.json nor tokenizer.model"),
        (["vocab.json"], "merges.txt is missing: without it"),
        (["merges.txt"], "vocab.json is missing: without it"),
    ],
)
def test_a_tokenizer_without_its_vocabulary_is_a_fault(model: Path, names: list[str], fault: str) -> None:
    (model / "tokenizer.json").unlink()
    for name in names:
        (model / name).write_text('{"a": 1}')
    [found] = faults(model)
    assert found.startswith(fault)


def test_what_no_engine_reads_is_no_fault(model: Path) -> None:
    fast = {"tokenizer_class": "LlamaTokenizerFast", "added_tokens_decoder": {}}
    (model / "tokenizer_config.json").write_text(json.dumps(fast))
    for name in ("tokenizer.model", "vocab.json", "special_tokens_map.json", "preprocessor_config.json", "x.txt"):
        (model / name).write_bytes(LFS)
    (model / "model-00009-of-000009.safetensors").write_bytes(b"not in the index")
    for name in ("gone.json", "README.txt", "LICENSE"):
        (model / name).symlink_to("nowhere")
    assert faults(model) == []


def test_a_model_that_sees_has_its_processor_read(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vision_config": {}}))
    assert faults(model) == []
    (model / "preprocessor_config.json").write_bytes(LFS)
    assert "preprocessor_config.json is a Git LFS pointer" in faults(model)[0]


# The model's own code ------------------------------------------------------------------------------------------------


def test_code_that_the_configuration_names_is_there(model: Path) -> None:
    write_code(model)
    assert faults(model) == []
    (model / "configuration_deepseek.py").unlink()
    assert faults(model) == ["configuration_deepseek.py is missing."]
    # Half of it gone is a copy that was cut off, whoever runs it; none of it is what nobody needs.
    assert faults(model, code=False) == ["configuration_deepseek.py is missing."]
    (model / "modeling_deepseek.py").unlink()
    assert faults(model, code=False) == []
    assert len(faults(model)) == 2


def test_code_is_no_pointer_and_brings_what_it_imports(model: Path) -> None:
    write_code(model)
    (model / "modeling_deepseek.py").write_text(
        "from .helpers import x\nimport .other\nfrom . import y\nfrom .kept import z\n"
    )
    (model / "helpers.py").write_text("from .deeper import x\ntry:\n    import torch\nexcept ImportError: pass\n")
    (model / "kept").mkdir()
    (model / "configuration_deepseek.py").write_bytes(LFS)
    found = faults(model)
    assert any("configuration_deepseek.py is a Git LFS pointer" in line for line in found)
    assert {line.split()[0] for line in found} == {"configuration_deepseek.py", "deeper.py", "other.py"}


@pytest.mark.parametrize("entry", [["tokenization_x.XTokenizer", None], [None, "tokenization_x.XFast"]])
def test_a_tokenizer_s_own_code_and_its_vocabulary_are_there(model: Path, entry: list[str | None]) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": entry}}))
    assert faults(model) == ["tokenization_x.py is missing."]
    (model / "tokenization_x.py").write_text('VOCAB_FILES_NAMES = {"vocab_file": "./tokenizer.model"}')
    [fault] = faults(model)
    assert fault == "tokenizer.model is missing, and tokenization_x.py reads the tokenizer's vocabulary from it."
    (model / "tokenizer.model").write_bytes(b"\x0a\x0e")
    assert faults(model) == []


def test_code_of_another_repository_is_looked_for_in_the_cache(tmp_path: Path) -> None:
    snapshot = write_cache(tmp_path / "hub")
    config = json.loads((snapshot / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "other/base--configuration_x.XConfig",
        "AutoModelForCausalLM": "other/base--modeling_x.XModel",
    }
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text(json.dumps(config))
    asked = {"repo": "deepseek-ai/DeepSeek-V3", "hf_home": str(tmp_path)}
    [fault] = model_facts(asked)["faults"]
    assert fault.startswith("configuration_x.py of the repository other/base is missing in the cache")
    assert model_facts({**asked, "code": False})["faults"] == []
    other = tmp_path / "hub" / "models--other--base"
    (other / "refs").mkdir(parents=True)
    (other / "refs" / "main").write_text(COMMIT)
    (other / "snapshots" / COMMIT).mkdir(parents=True)
    (other / "snapshots" / COMMIT / "configuration_x.py").write_text("")
    assert model_facts(asked)["faults"] == []


@pytest.mark.parametrize(
    "auto_map", [None, [], "x", {"AutoConfig": 3}, {"AutoConfig": "nodot"}, {"a": [None, {}, "."]}]
)
def test_a_strange_auto_map_is_nobody_s_fault(model: Path, auto_map: Any) -> None:
    (model / "config.json").write_text(json.dumps({"architectures": ["A"], "auto_map": auto_map}))
    assert [fault for fault in faults(model) if fault != ".py is missing."] == []


# Weights -------------------------------------------------------------------------------------------------------------


def test_lmdeploy_reads_one_file_before_an_index(model: Path) -> None:
    (model / "model.safetensors").write_bytes(LFS)
    assert "model.safetensors is a Git LFS pointer" in faults(model)[0]
    (model / "model.safetensors").write_bytes(safetensors("a"))
    (model / LAST).unlink()
    assert faults(model) == []


def torch_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def without_weights(model: Path) -> None:
    for name in (*SHARDS, INDEX):
        (model / name).unlink()


def test_weights_that_torch_saved_are_read_too(model: Path) -> None:
    without_weights(model)
    torch_file(model / "pytorch_model.bin")
    report = check_directory(str(model))
    assert report.faults == []
    assert "pytorch_model.bin" in report.files
    data = (model / "pytorch_model.bin").read_bytes()
    (model / "pytorch_model.bin").write_bytes(data[:-30])
    assert "pytorch_model.bin is cut off" in faults(model)[0]
    (model / "pytorch_model.bin").write_bytes(LFS)
    assert "is a Git LFS pointer" in faults(model)[0]
    (model / "pytorch_model.bin").unlink()
    (model / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "x.bin", "b": "y.bin"}}))
    torch_file(model / "x.bin")
    assert faults(model) == ["y.bin is missing."]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["consolidated.safetensors", "params.json"],
            "There is consolidated.safetensors, which LMDeploy does not read",
        ),
        (["x-Q4_K_M.gguf"], "There is x-Q4_K_M.gguf, which LMDeploy does not read"),
        (["adapter_model.safetensors"], "There is adapter_model.safetensors"),
        (SHARDS, "3 files of weights are there"),
    ],
)
def test_weights_that_lmdeploy_does_not_read_are_named(model: Path, names: list[str], words: str) -> None:
    without_weights(model)
    for name in names:
        (model / name).write_bytes(b"x")
    [fault] = faults(model)
    assert fault.startswith("there is neither model.safetensors.index.json nor model.safetensors.")
    assert words in fault


def test_room_that_was_made_and_never_written_is_told(model: Path) -> None:
    """As a downloader leaves it that makes room first: the size is right, and the data is a hole."""
    data = safetensors("a.2", "b.2", size=4 << 20)
    kept = len(data) - (4 << 20) - (1 << 20)
    (model / LAST).write_bytes(data[:200] + b"\1" * (kept - 200))
    os.truncate(model / LAST, len(data))
    if (model / LAST).stat().st_blocks * 512 >= len(data):
        pytest.skip("this file system has no holes")
    [fault] = faults(model)
    assert fault.startswith(f"{LAST} has 1 tensors that were never written")


def test_zeros_that_were_written_are_weights(model: Path) -> None:
    (model / LAST).write_bytes(safetensors("a.2", "b.2", size=4 << 20))
    assert faults(model) == []


def test_a_downloader_s_own_file_beside_a_shard_says_that_it_is_not_whole(model: Path) -> None:
    (model / f"{LAST}.aria2").write_bytes(b"x")
    assert faults(model) == [f"{LAST} is not downloaded to its end: its downloader's own file lies beside it still."]


def test_the_real_number_of_shards_is_checked_in_no_time(tmp_path: Path) -> None:
    write_model(tmp_path)
    names = [f"model-{n:05d}-of-000163.safetensors" for n in range(1, 164)]
    weight_map = {f"{name}.{t}": name for name in names for t in range(560)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for name in names:
        (tmp_path / name).write_bytes(safetensors(*(f"{name}.{t}" for t in range(560)), size=8))
    began = time.process_time()
    assert faults(tmp_path) == []
    assert time.process_time() - began < 20  # of the processor, so that a busy machine is no fault


# Whatever a file holds -----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBER = st.integers(-8, 80) | st.floats() | st.booleans() | st.none() | st.just(2**70)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["U8", "BF16", "F4", "X", 3]),
        "shape": st.lists(NUMBER, max_size=3) | JSON,
        "data_offsets": st.lists(NUMBER, max_size=3) | JSON,
    },
)
HEADER = st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), TENSOR | JSON, max_size=4) | JSON


def said(call: Callable[..., Any], data: bytes, folder: Path, *arguments: Any) -> Any:
    path = folder / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        try:
            return call(file, *arguments)
        except formats.DamagedError as damaged:
            return str(damaged)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(derandomize=True, max_examples=150, deadline=None)
@given(header=HEADER, body=st.binary(max_size=64), more=st.integers(-3, 3))
def test_no_header_crashes_the_check(folder: Path, header: Any, body: bytes, more: int) -> None:
    text = json.dumps(header).encode()
    data = struct.pack("<Q", max(len(text) + more, 0)) + text + body
    found = said(formats.safetensors_fault, data, folder, {"a"})
    assert isinstance(found, str)
    assert not found or found.endswith(".")


@settings(derandomize=True, max_examples=150, deadline=None)
@given(data=st.binary(max_size=100))
def test_no_bytes_crash_the_check(folder: Path, data: bytes) -> None:
    for call in (formats.json_object, formats.pytorch_fault, formats.stand_in):
        said(call, data, folder)
    said(formats.safetensors_fault, data, folder, set())


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    index=st.fixed_dictionaries({"weight_map": st.dictionaries(st.text(max_size=5), st.text(max_size=5) | JSON)}) | JSON
)
def test_no_index_crashes_the_check(folder: Path, index: Any) -> None:
    write_model(folder)
    (folder / INDEX).write_text(json.dumps(index))
    report = model_facts({"path": str(folder)})
    assert report["faults"]
    "\n".join(report["faults"]).encode()
    json.dumps(report)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(config=JSON, tokenizer=JSON)
def test_no_configuration_crashes_the_check(folder: Path, config: Any, tokenizer: Any) -> None:
    write_model(folder)
    (folder / "config.json").write_text(json.dumps({"auto_map": config, "vision_config": config}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": tokenizer}))
    json.dumps(model_facts({"path": str(folder)}))


def test_a_header_that_overlaps_or_leaves_gaps_is_damaged(folder: Path) -> None:
    for offsets in ([0, 4], [1, 8], [4, 0]):
        header = {
            "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [4], "data_offsets": offsets},
        }
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(8)
        assert said(formats.safetensors_fault, data, folder, set()) == "has a damaged header.", offsets
    wrong = json.dumps({"a": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 8]}}).encode()
    data = struct.pack("<Q", len(wrong)) + wrong + bytes(8)
    assert said(formats.safetensors_fault, data, folder, set()) == "has a damaged header."
