# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small DeepSeek-V3 in a Hugging Face cache: its architecture and MLA's sizes, random bf16 weights, 2.4 B parameters.

The tokenizer has 32768 tokens: bytes, and words with their leading space, letter by letter, so that every id that random
weights may give has a text. The words of the warm-up's prompts are among them, one token each, as in DeepSeek's own.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfleet_sim import make_model as simulated

from ansible_collections.lmfleet.lmdeploy.programs.warmup import WORDS

REPO = "lmfleet/DeepSeek-V3-2B"
COMMIT = "0" * 39 + "1"
VOCABULARY = 32768
# Special tokens and bytes are never sampled: half a character has no text, so that its event would come later.
FIRST_WORD = len(simulated.SPECIAL_TOKENS) + 256
HEAD = "lm_head.weight"
CONFIG: dict[str, Any] = {
    **{key: value for key, value in simulated.CONFIG.items() if key != "quantization_config"},
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "moe_intermediate_size": 1024,
    "n_routed_experts": 64,
    "num_attention_heads": 32,
    "num_hidden_layers": 6,
    "num_key_value_heads": 32,
    "num_nextn_predict_layers": 0,
    "vocab_size": VOCABULARY,
}
Shapes = dict[str, tuple[int, ...]]


def make(hf_home: Path, *, weights: bool = True) -> Path:
    """Write the model below ``hf_home`` unless it is there, and return its snapshot.

    ``weights`` False leaves all but the norms out: the simulator drops what it reads.
    """
    root = hf_home / "hub" / ("models--" + REPO.replace("/", "--"))
    snapshot = root / "snapshots" / COMMIT
    if (root / "refs" / "main").exists():
        return snapshot
    snapshot.mkdir(parents=True)
    texts = {
        "config.json": CONFIG,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": simulated.BOS,
            "eos_token": simulated.EOS,
            "pad_token": simulated.EOS,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 131072,
            "chat_template": simulated.CHAT_TEMPLATE,
        },
    }
    names: dict[str, str] = {}
    for number, shapes in enumerate(shards()):
        kept = {name: shape for name, shape in shapes.items() if weights or len(shape) == 1}
        name = f"model-{number + 1:05d}-of-{CONFIG['num_hidden_layers'] + 1:05d}.safetensors"
        write_shard(snapshot / name, kept, seed=number)
        names.update(dict.fromkeys(kept, name))
    texts["model.safetensors.index.json"] = {"metadata": {}, "weight_map": names}
    for name, content in texts.items():
        (snapshot / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return snapshot


def tokenizer() -> dict[str, Any]:
    """tokenizer.json, as the simulator's, with as many words as fill the vocabulary."""
    space = simulated.byte_alphabet()[ord(" ")]
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    words = [space + word for word in WORDS]
    words += (space + "".join(parts) for length in (1, 2, 3) for parts in itertools.product(syllables, repeat=length))
    prefixes = dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1))
    made = simulated.tokenizer()
    basis = [*simulated.SPECIAL_TOKENS, *simulated.byte_alphabet()]
    kept = list(prefixes)[: VOCABULARY - len(basis)]
    made["model"]["vocab"] = {token: number for number, token in enumerate([*basis, *kept])}
    made["model"]["merges"] = [f"{prefix[:-1]} {prefix[-1]}" for prefix in kept]
    return made


def shards() -> Iterator[Shapes]:
    """The tensors by name, a layer a shard, the embeddings first."""
    hidden, heads = CONFIG["hidden_size"], CONFIG["num_attention_heads"]
    nope, rope, value = (CONFIG[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank, kv_rank = CONFIG["q_lora_rank"], CONFIG["kv_lora_rank"]
    yield {
        "model.embed_tokens.weight": (VOCABULARY, hidden),
        "model.norm.weight": (hidden,),
        HEAD: (VOCABULARY, hidden),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        tensors: Shapes = {
            "input_layernorm.weight": (hidden,),
            "post_attention_layernorm.weight": (hidden,),
            "self_attn.q_a_proj.weight": (q_rank, hidden),
            "self_attn.q_a_layernorm.weight": (q_rank,),
            "self_attn.q_b_proj.weight": (heads * (nope + rope), q_rank),
            "self_attn.kv_a_proj_with_mqa.weight": (kv_rank + rope, hidden),
            "self_attn.kv_a_layernorm.weight": (kv_rank,),
            "self_attn.kv_b_proj.weight": (heads * (nope + value), kv_rank),
            "self_attn.o_proj.weight": (hidden, heads * value),
        }
        if layer < CONFIG["first_k_dense_replace"]:
            tensors.update(_mlp("mlp", CONFIG["intermediate_size"]))
        else:
            experts = CONFIG["n_routed_experts"]
            tensors["mlp.gate.weight"] = (experts, hidden)
            tensors["mlp.gate.e_score_correction_bias"] = (experts,)
            for name in ("mlp.shared_experts", *(f"mlp.experts.{number}" for number in range(experts))):
                tensors.update(_mlp(name, CONFIG["moe_intermediate_size"]))
        yield {f"model.layers.{layer}.{name}": shape for name, shape in tensors.items()}


def _mlp(name: str, width: int) -> Shapes:
    hidden = CONFIG["hidden_size"]
    return {
        f"{name}.gate_proj.weight": (width, hidden),
        f"{name}.up_proj.weight": (width, hidden),
        f"{name}.down_proj.weight": (hidden, width),
    }


def write_shard(path: Path, shapes: Shapes, seed: int) -> None:
    """A safetensors file: norms are ones, the router's bias zeros, all else normal with a small deviation."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator(device).manual_seed(seed)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if len(shape) == 1:
                tensor = torch.full(shape, float("norm" in name), device=device)
            else:
                tensor = torch.randn(shape, generator=draw, device=device) * (0.1 if name == HEAD else 0.02)
            if name == HEAD:
                tensor[:FIRST_WORD] = 0
            tensor.to(torch.bfloat16).view(torch.uint8).cpu().numpy().tofile(file)
