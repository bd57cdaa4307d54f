# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A benchmark's data set: prompts of so many tokens, and how many tokens each is to be answered with.

Token counts are the server's own, as it reports them in `usage`: LMDeploy's completions endpoint encodes a prompt with
all that its tokenizer adds, so a BOS token counts as one of the prompt's. Runs beside the load tool: the standard
library, and the model's own tokenizer from local files alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 256  # texts encoded at once: more are no faster, and an encoding is large
REPAIRS = 8

# What LMDeploy's script takes of a ShareGPT file, in tokens.
SHORTEST, LONGEST_PROMPT, LONGEST = 4, 1024, 2048


class DatasetError(ValueError):
    """There can be no data set; the message says why, and what to do."""


@dataclass(frozen=True)
class Request:
    """One line of a data set."""

    prompt: str
    prompt_tokens: int
    output_tokens: int


def load_tokenizer(model: str) -> Tokenizer:
    """Return the tokenizer of a model, a local folder or a name in the Hugging Face cache, as transformers sets it up.

    So does LMDeploy, and releases of transformers differ on the BOS token: only in the engine's own image are counts sure
    to be the server's. Without transformers a folder's tokenizer.json is taken as it is. Raises DatasetError if there is
    no tokenizer.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        tokenizer: Tokenizer = _load(model)
    except Exception as error:  # of many classes: tokenizers raises Exception itself
        why = textwrap.shorten(str(error), 200, placeholder=" ...")  # transformers' can go on for pages
        raise DatasetError(f"the tokenizer of {model} cannot be loaded, name the model's own folder: {why}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load(model: str) -> Any:
    try:
        from transformers import AutoTokenizer  # type: ignore[import-not-found]
    except ImportError:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(Path(model, "tokenizer.json")))
    return AutoTokenizer.from_pretrained(model, local_files_only=True).backend_tokenizer


def draw(lengths: str, input_len: int, output_len: int, num_prompts: int, seed: int) -> list[tuple[int, int]]:
    """Return (input, output) tokens of each prompt: from 1 to the given ones (``uniform``) or just those (``fixed``)."""
    if lengths == "fixed":
        return [(input_len, output_len)] * num_prompts
    if lengths != "uniform":
        raise DatasetError(f"lengths are drawn uniform or fixed, not {lengths!r}")
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    inputs = [chance.randint(1, input_len) for __ in range(num_prompts)]
    return [(tokens, chance.randint(1, output_len)) for tokens in inputs]


def random_prompts(tokenizer: Tokenizer, lengths: Sequence[tuple[int, int]], seed: int) -> list[Request]:
    """Return prompts of random words that have `lengths` tokens, in that order.

    No two begin alike, so that a prefix cache has nothing to give. Each has a word at least, for an empty prompt ends the
    engine of LMDeploy 0.18.0: where the tokenizer adds a BOS token, a prompt of one token gets two. `prompt_tokens` is
    what was counted.
    """
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    words, lead = _words(tokenizer)
    added = len(tokenizer.encode("").ids)
    wanted = [max(1, tokens - added) for tokens, __ in lengths]
    beginnings = _beginnings(words, len(lengths), chance)
    texts = [
        (beginning + chance.choices(words, k=max(0, count - len(beginning))))[:count]
        for beginning, count in zip(beginnings, wanted)
    ]

    counted = _count(tokenizer, (lead + " ".join(text) for text in texts))
    for __ in range(REPAIRS):
        wrong = [i for i, count in enumerate(counted) if count != wanted[i] + added]
        for i in wrong:
            missing = wanted[i] + added - counted[i]
            kept = max(1, len(texts[i]) + min(0, missing))
            texts[i] = texts[i][:kept] + chance.choices(words, k=max(0, missing))
        for i, count in zip(wrong, _count(tokenizer, (lead + " ".join(texts[i]) for i in wrong))):
            counted[i] = count
    return [Request(lead + " ".join(text), count, output) for text, count, (__, output) in zip(texts, counted, lengths)]


def _words(tokenizer: Tokenizer) -> tuple[list[str], str]:
    """Return the words that are one token after a space, and what stands before the first of a text.

    Words of plain letters are encoded one by one, whatever stands beside them; so what they come to in a text needs no
    decoding to be known.
    """
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda entry: entry[1])
    # A space is written Ġ in byte-level vocabularies, ▁ in SentencePiece's.
    plain = [
        word[1:] for word, __ in vocabulary if word[0:1] in {"Ġ", "▁"} and word[1:].isascii() and word[1:].isalpha()
    ]
    added = len(tokenizer.encode("").ids)
    found: dict[str, list[str]] = {}
    for lead in (" ", ""):  # SentencePiece writes the first word's space itself
        counted = _count(tokenizer, (lead + word for word in plain))
        found[lead] = [word for word, count in zip(plain, counted) if count == added + 1]
    lead = max(found, key=lambda lead: len(found[lead]))
    if len(found[lead]) < 2:
        raise DatasetError(
            "the tokenizer knows no words with a leading space: use a ShareGPT file in place of random prompts"
        )
    return found[lead], lead


def _beginnings(words: list[str], number: int, chance: random.Random) -> list[list[str]]:
    """Return `number` sequences of words, no two alike, as short as there are so many of."""
    length = 1
    while len(words) ** length < number:
        length += 1
    numbers = chance.sample(range(len(words) ** length), number)
    return [[words[n // len(words) ** place % len(words)] for place in range(length)] for n in numbers]


def sharegpt(path: str, tokenizer: Tokenizer, number: int, seed: int) -> list[Request]:
    """Return `number` of a ShareGPT file's conversations, picked as LMDeploy's script does.

    A conversation's first turn is the prompt, the second's length the answer's. Both have four tokens at least, the
    prompt at most 1024, and both together at most 2048. Raises DatasetError if the file is no such file, or if too few
    of it are of these lengths.
    """
    turns = _first_turns(path)
    random.Random(seed).shuffle(turns)  # noqa: S311  repeatable, not secret
    picked: list[Request] = []
    for begin in range(0, len(turns), BATCH):
        batch = turns[begin : begin + BATCH]
        prompts = _count(tokenizer, (prompt for prompt, __ in batch))
        answers = _count(tokenizer, (answer for __, answer in batch))
        picked += [
            Request(prompt, tokens, output)
            for (prompt, __), tokens, output in zip(batch, prompts, answers)
            if SHORTEST <= tokens <= LONGEST_PROMPT and output >= SHORTEST and tokens + output <= LONGEST
        ]
        if len(picked) >= number:
            return picked[:number]
    raise DatasetError(
        f"{path} has {len(picked)} conversations of suitable length (prompt {SHORTEST} to {LONGEST_PROMPT} tokens, with its "
        f"answer at most {LONGEST}), {number} were asked for: ask for fewer, or give a larger file"
    )


def _first_turns(path: str) -> list[tuple[str, str]]:
    try:
        content = json.loads(Path(path).read_bytes())
        conversations = [entry["conversations"] for entry in content]
        turns = [(each[0]["value"], each[1]["value"]) for each in conversations if len(each) >= 2]
    except OSError as error:
        raise DatasetError(f"the ShareGPT file {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f'{path} is no ShareGPT file: it must be a JSON list of {{"conversations": [{{"value": "..."}}, ...]}}'
        ) from error
    if not all(isinstance(text, str) for turn in turns for text in turn):
        raise DatasetError(f"{path} is no ShareGPT file: a turn's value is not a text")
    return turns


def _count(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """Return each text's tokens, those that the tokenizer adds included."""
    return [len(encoded) for batch in _batches(texts) for encoded in tokenizer.encode_batch_fast(batch)]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def write(path: Path, requests: Sequence[Request], kind: str, seed: int) -> dict[str, Any]:
    """Write the data set, a JSON object a line, and return its summary: ``kind``, ``seed``, ``digest``, ``input``, ``output``.

    The digest is the file's SHA-256, its first 12 digits; ``input`` and ``output`` are tokens.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for request in requests:
            line = json.dumps(asdict(request)).encode() + b"\n"
            digest.update(line)
            file.write(line)
    return {
        "kind": kind,
        "seed": seed,
        "digest": digest.hexdigest()[:12],
        "input": spread_of([request.prompt_tokens for request in requests]),
        "output": spread_of([request.output_tokens for request in requests]),
    }


def spread_of(tokens: Sequence[int]) -> dict[str, float]:
    """The least, the mean, the most and the sum of some lengths."""
    return {"min": min(tokens), "mean": sum(tokens) / len(tokens), "max": max(tokens), "total": sum(tokens)}
