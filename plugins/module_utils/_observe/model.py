# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a directory holds a whole model: every file that its index names, each as long as it says itself.

Runs on the hosts: Python 3.9, standard library only. Reads headers, never weights, so that the 690 GB of DeepSeek-V3
are checked in seconds.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
# What an engine may read of a model; the rest (pictures, licences) may differ between hosts.
ENGINE_SUFFIXES = {".jinja", ".json", ".model", ".py", ".safetensors", ".txt"}
# What a plan asks of the configuration.
CONFIG_KEYS = (
    "architectures",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "moe_intermediate_size",
    "n_routed_experts",
    "n_shared_experts",
    "num_attention_heads",
    "num_experts",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_local_experts",
    "quantization_config",
)
LONGEST_HEADER = 100_000_000  # bytes; the safetensors format's own limit
READERS = 16  # on network storage the time goes into round trips, not into reading
NAMED = 3  # how many names of many a fault gives


@dataclasses.dataclass
class ModelReport:
    """What was found. ``files`` maps the names that an engine may read to bytes; ``faults`` is empty for a whole model.

    ``digest`` is equal on two hosts exactly if commit, names, sizes and configuration are; None without a directory.
    """

    path: str | None = None
    commit: str | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    files: dict[str, int] = dataclasses.field(default_factory=dict)
    total_bytes: int = 0
    digest: str | None = None
    faults: list[str] = dataclasses.field(default_factory=list)


EMPTY: dict[str, Any] = dataclasses.asdict(ModelReport())  # what a look without an end answers


def model_facts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The ModelReport of ``asked`` (``path``, or ``repo``, ``revision`` and ``hf_home``) as a dict.

    What the file system refuses is a fault like any other.
    """
    where = asked.get("path") or asked.get("hf_home") or ""
    try:
        if asked.get("path"):
            report = check_directory(where)
        elif asked.get("repo") and where:
            report = check_cached(where, asked["repo"], asked.get("revision") or "main")
        else:
            report = ModelReport(faults=["nobody said which model to look for: give path, or repo and hf_home."])
    except OSError as error:
        fault = f"{error.filename or where} cannot be read: {error.strerror or error}."
        report = ModelReport(faults=[f"{fault} See who may read it (ls -ld), and that its file system is mounted."])
    return dataclasses.asdict(report)


def check_cached(hf_home: str, repo: str, revision: str = "main") -> ModelReport:
    """Check ``repo`` at ``revision`` (a branch, a tag or a commit) in the Hugging Face cache under ``hf_home``."""
    cache = Path(hf_home, "hub", "models--" + repo.replace("/", "--"))
    if not cache.is_dir():
        return ModelReport(faults=[f"{cache} does not exist: {repo} was never downloaded to this host."])
    try:
        commit = (cache / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = cache / "snapshots" / commit
    if not snapshot.is_dir():
        held = sorted(path.name for path in (cache / "snapshots").glob("*"))
        fault = f"{snapshot} does not exist: revision {revision} of {repo} was never downloaded to this host"
        return ModelReport(faults=[f"{fault} (it has {_some(held)})."])
    report = check_directory(str(snapshot))
    report.commit = commit
    report.digest = _digest(report, snapshot)
    if report.faults:
        report.faults.extend(
            f"{blob} holds {blob.stat().st_size} bytes of a download that was cut off or is still running."
            for blob in sorted((cache / "blobs").glob("*.incomplete"))
        )
    return report


def check_directory(path: str) -> ModelReport:
    """Check the model whose files lie in the directory ``path``."""
    folder = Path(path)
    if not folder.is_dir():
        return ModelReport(faults=[f"{folder} is not a directory on this host."])
    report = ModelReport(path=str(folder))
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.exists():
            report.faults.append(f"{file.name} is a link to {file.resolve()}, which does not exist.")
        elif file.suffix in ENGINE_SUFFIXES and file.is_file():
            report.files[file.name] = file.stat().st_size
    report.total_bytes = sum(report.files.values())

    config = _read_json(folder, CONFIG, report) or {}
    report.config = {key: config[key] for key in CONFIG_KEYS if key in config}
    if not any(name in report.files for name in TOKENIZER):
        report.faults.append(f"there is neither {TOKENIZER[0]} nor {TOKENIZER[1]}.")
    report.faults.extend(_weight_faults(folder, report))
    report.digest = _digest(report, folder)
    return report


def _weight_faults(folder: Path, report: ModelReport) -> list[str]:
    if INDEX not in report.files:
        if SINGLE not in report.files:
            return [f"there is neither {INDEX} nor {SINGLE}."]
        return _shard_faults(folder, SINGLE, set())
    index = _read_json(folder, INDEX, report)
    if index is None:
        return []
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        return [f"{INDEX} has no weight_map."]
    faults: list[str] = []
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        shards.setdefault(str(shard), set()).add(tensor)
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(lambda shard: _shard_faults(folder, shard, shards[shard]), sorted(shards)):
            faults.extend(found)
    return faults


def _shard_faults(folder: Path, name: str, tensors: set[str]) -> list[str]:
    """Compare the size of one safetensors file with what its own header says, and its tensors with the index's."""
    file = folder / name
    if file.is_symlink() and not file.exists():
        return []  # reported as a broken link
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(b"version "):
                return [f"{name} is a Git LFS pointer of {size} bytes, not the weights."]
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
            if length is None or length > min(LONGEST_HEADER, size - 8):
                return [f"{name} is cut off or no safetensors file: it has {size} bytes, and its header does not fit."]
            header = json.loads(stream.read(length))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except FileNotFoundError:
        return [f"{name} is missing."]
    except OSError as error:
        return [f"{name} cannot be read: {error.strerror}."]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return [f"{name} has a damaged header."]
    expected = 8 + length + end
    if size != expected:
        return [f"{name} has {size} bytes where its header says {expected}."]
    absent = sorted(tensors - header.keys())
    return [f"{name} lacks {len(absent)} tensors of the index: {_some(absent)}."] if absent else []


def _read_json(folder: Path, name: str, report: ModelReport) -> dict[str, Any] | None:
    """Return the object in the file ``name``; where there is none, say so in the report and return None."""
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        if not (folder / name).is_symlink():
            report.faults.append(f"{name} is missing.")
        return None
    except OSError as error:
        report.faults.append(f"{name} cannot be read: {error.strerror}.")
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        report.faults.append(f"{name} is not a JSON object.")
        return None
    return content


def _digest(report: ModelReport, folder: Path) -> str:
    try:
        config = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    except OSError:
        config = None
    identity = json.dumps([report.commit, config, sorted(report.files.items())])
    return hashlib.sha256(identity.encode()).hexdigest()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(names[:NAMED]) or "none") + more
