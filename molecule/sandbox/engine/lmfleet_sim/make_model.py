# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the simulator's model in a Hugging Face cache: DeepSeek-V3's configuration, a small tokenizer, tiny weights.

    python3 -m lmfleet_sim.make_model --hf-home DIR [--repo ORG/NAME]

Only the standard library, and no randomness: every host gets the same bytes, so the same commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT_REPO = "lmfleet/DeepSeek-V3-simulated"
SHARDS = 8

SPECIAL_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
BOS, EOS, USER, ASSISTANT = SPECIAL_TOKENS

# The simulated model answers with these words. Their tokens come after the special ones and the 256 bytes; a real
# byte-level vocabulary has plain tokens there as well.
FIRST_WORD = len(SPECIAL_TOKENS) + 256
WORDS = """
the of and to in is that it for was on are as with his they at be this from have or by one had not but what all were
when we there can an your which their said if do will each about how up out them then she many some so these would
other into has more her two like him see time could no make than first been its who now people my made over did down
only way find use may water long little very after words called just where most know get through back much before go
good new write our used me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off went old number
great tell men say small every found still between name should home big give air line set own under read last never us
left end along while might next sound below saw something thought both few those always looked show large often
together asked house world going want school important until form food keep children feet land side without boy once
animals life enough took sometimes four head above kind began almost live page got earth need far hand high year
mother light parts country father let night following picture being study second eyes soon times story boys since
white days ever paper hard near sentence better best across during
""".split()  # noqa: SIM905  a list literal would be 256 lines

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.33.1",
    "use_cache": True,
    "v_head_dim": 128,
}

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}" + ASSISTANT + "{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


class ModelError(Exception):
    """The cache holds another model of this name."""


def byte_alphabet() -> list[str]:
    """Return the character that byte-level BPE writes for each byte: itself if printable, else one from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def tokenizer() -> dict[str, Any]:
    """Return tokenizer.json: byte-level BPE that knows WORDS with their leading space, letter by letter."""
    alphabet = byte_alphabet()
    space = alphabet[ord(" ")]
    words = [space + word for word in WORDS]
    prefixes = [word[:end] for word in words for end in range(2, len(word) + 1)]
    merges = [f"{prefix[:-1]} {prefix[-1]}" for prefix in dict.fromkeys(prefixes)]
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *alphabet, *words, *prefixes])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token_id, content in enumerate(SPECIAL_TOKENS)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: token_id for token_id, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def safetensors(tensors: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a safetensors file of bfloat16 zeros with these names and shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * _product(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data on an eight-byte boundary
    return struct.pack("<Q", len(text)) + text + bytes(end)


def files() -> dict[str, bytes]:
    """Return the model's files by name."""
    tokens = tokenizer()
    contents: dict[str, bytes] = {
        "config.json": _json({**CONFIG, "vocab_size": len(tokens["model"]["vocab"])}),
        "generation_config.json": _json({"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.6}),
        "tokenizer.json": _json(tokens),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": BOS,
                "eos_token": EOS,
                "pad_token": EOS,
                "clean_up_tokenization_spaces": False,
                "model_max_length": 131072,
                "chat_template": CHAT_TEMPLATE,
            }
        ),
    }
    weight_map: dict[str, str] = {}
    total_size = 0
    for shard in range(SHARDS):
        layers = range(shard, CONFIG["num_hidden_layers"], SHARDS)
        tensors = {f"model.layers.{layer}.input_layernorm.weight": (64,) for layer in layers}
        name = f"model-{shard + 1:05d}-of-{SHARDS:06d}.safetensors"
        contents[name] = safetensors(tensors)
        weight_map.update(dict.fromkeys(tensors, name))
        total_size += sum(2 * _product(shape) for shape in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    contents["model.safetensors.index.json"] = _json(index)
    return contents


def commit_of(contents: dict[str, bytes]) -> str:
    """Return the commit, 40 hexadecimal digits: a hash of all names and contents."""
    digest = hashlib.sha1()
    for name, content in sorted(contents.items()):
        digest.update(f"{name} {_blob_name(name, content)}\n".encode())
    return digest.hexdigest()


def write_cache(hf_home: Path, repo: str) -> tuple[Path, bool]:
    """Write the model below ``hf_home`` as the hub's client would have downloaded it.

    Returns the snapshot's path, and whether anything had to be written. Raises ModelError if the cache holds another
    model of this name, which is left as it is.
    """
    contents = files()
    commit = commit_of(contents)
    root = hf_home / "hub" / ("models--" + repo.replace("/", "--"))
    ref = root / "refs" / "main"
    if root.exists() and not (ref.exists() and ref.read_text() == commit):
        raise ModelError(f"{root} holds another model: name another --repo or --hf-home, or remove it yourself")

    snapshot = root / "snapshots" / commit
    changed = _write(ref, commit.encode())  # first, so that a run that was cut short is known by it and completed
    for name, content in contents.items():
        blob = _blob_name(name, content)
        changed |= _write(root / "blobs" / blob, content)
        link = snapshot / name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path("..", "..", "blobs", blob))
            changed = True
    return snapshot, changed


def _blob_name(name: str, content: bytes) -> str:
    """Return the hub's name for a file's content: SHA-256 for a large file (the weights), git's object id else."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _write(path: Path, content: bytes) -> bool:
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return True


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def main() -> int:
    """Run the command line; return the exit status. Prints ``changed`` or ``unchanged`` and the snapshot's path."""
    parser = argparse.ArgumentParser(description="Make the simulator's model in a Hugging Face cache.")
    parser.add_argument("--hf-home", type=Path, required=True, help="the cache's root, which has hub/ in it")
    parser.add_argument("--repo", default=DEFAULT_REPO, help="the model's name (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        snapshot, changed = write_cache(arguments.hf_home, arguments.repo)
    except ModelError as error:
        print(f"make_model: {error}", file=sys.stderr)
        return 1
    print("changed" if changed else "unchanged", snapshot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
