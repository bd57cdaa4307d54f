# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small models on this machine's disk, as directories and as a Hugging Face cache has them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules import model as rules

COMMIT = "e815299b0bcbac849fa540c768ef21845365c9eb"
OLDER = "1d044fd82b15f1cedb197a288e50cc96a2c27205"
REPO = "deepseek-ai/DeepSeek-V3"
FOLDER = "models--deepseek-ai--DeepSeek-V3"
SHARDS = [f"model-{number:05d}-of-000003.safetensors" for number in (1, 2, 3)]
LAST = SHARDS[2]
INDEX = "model.safetensors.index.json"
CODE = {
    "configuration_deepseek.py": "from transformers.configuration_utils import PretrainedConfig\n",
    "modeling_deepseek.py": "import torch\nfrom .configuration_deepseek import DeepseekV3Config\n",
}
AUTO_MAP = {
    "AutoConfig": "configuration_deepseek.DeepseekV3Config",
    "AutoModel": "modeling_deepseek.DeepseekV3Model",
    "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
}


def safetensors(*tensors: str, size: int = 64) -> bytes:
    header = json.dumps(
        {"__metadata__": {"format": "pt"}}
        | {
            name: {"dtype": "U8", "shape": [size], "data_offsets": [size * number, size * (number + 1)]}
            for number, name in enumerate(tensors)
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size * len(tensors))


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["DeepseekV3ForCausalLM"], "num_attention_heads": 128, "vocab_size": 129280}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not read by an engine")
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(SHARDS):
        (folder / shard).write_bytes(safetensors(f"a.{number}", f"b.{number}"))
        weight_map |= {f"a.{number}": shard, f"b.{number}": shard}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def write_code(folder: Path) -> None:
    """Give a model the code that DeepSeek-V3 comes with."""
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": AUTO_MAP}))
    for name, text in CODE.items():
        (folder / name).write_text(text)


def write_cache(hub: Path, folder: str = FOLDER, commit: str = COMMIT) -> Path:
    """A repository in a cache as huggingface_hub lays it out: the snapshot's files are links to blobs. Its snapshot."""
    cache = hub / folder
    snapshot = cache / "snapshots" / commit
    write_model(snapshot)
    (cache / "blobs").mkdir(exist_ok=True)
    for file in sorted(snapshot.iterdir()):
        blob = cache / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(f"../../blobs/{blob.name}")
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs" / "main").write_text(commit)
    return snapshot


def model_faults(plan: Plan, hosts: Sequence[Host]) -> list[str]:
    """What the rules tell of the model, by the first of them that finds anything."""
    checks = (rules.whole_faults, rules.same_faults, rules.path_faults)
    return next((found for check in checks if (found := [each.told for each in check(plan, hosts)])), [])
