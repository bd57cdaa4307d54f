# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lmfleet_sim.make_model import BOS, tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ansible_collections.lmfleet.lmdeploy.programs.benchmark import dataset
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.dataset import DatasetError, Request


def byte_level(*, bos: bool = False) -> Tokenizer:
    """The simulated model's tokenizer, as a real one of its kind; `bos`: it begins each text with that token."""
    made = Tokenizer.from_str(json.dumps(tokenizer()))
    if bos:
        made.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return made


def sentencepiece() -> Tokenizer:
    """A small one of the other kind, as Llama's, which puts a space before every text itself."""
    words = ["the", "of", "and", "to", "in", "it", "was", "for", "on"]
    pieces = [("<unk>", 0.0), *((f"▁{word}", -1.0) for word in words), ("▁", -5.0), ("!", -5.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


TOKENIZERS = {"byte-level": byte_level(), "with BOS": byte_level(bos=True), "SentencePiece": sentencepiece()}


def counted(made: Tokenizer, texts: list[str]) -> list[int]:
    return [len(made.encode(text).ids) for text in texts]


class TestDraw:
    def test_uniform_lengths_are_from_one_to_all_inclusive(self) -> None:
        lengths = dataset.draw("uniform", 4, 3, 500, 7)
        assert {inputs for inputs, __ in lengths} == {1, 2, 3, 4}
        assert {outputs for __, outputs in lengths} == {1, 2, 3}

    def test_every_length_is_as_likely(self) -> None:
        lengths = dataset.draw("uniform", 2048, 32768, 10000, 0)
        assert sum(inputs for inputs, __ in lengths) / 10000 == pytest.approx(2049 / 2, rel=0.03)
        assert sum(outputs for __, outputs in lengths) / 10000 == pytest.approx(32769 / 2, rel=0.03)

    def test_the_seed_alone_decides(self) -> None:
        assert dataset.draw("uniform", 2048, 1024, 50, 3) == dataset.draw("uniform", 2048, 1024, 50, 3)
        assert dataset.draw("uniform", 2048, 1024, 50, 3) != dataset.draw("uniform", 2048, 1024, 50, 4)

    def test_inputs_are_the_same_whatever_the_output_length(self) -> None:
        short, long = (dataset.draw("uniform", 2048, outputs, 50, 3) for outputs in (1024, 32768))
        assert [inputs for inputs, __ in short] == [inputs for inputs, __ in long]

    def test_fixed(self) -> None:
        assert dataset.draw("fixed", 2048, 1024, 3, 0) == [(2048, 1024)] * 3

    def test_another_way_is_refused(self) -> None:
        with pytest.raises(DatasetError, match="uniform or fixed, not 'normal'"):
            dataset.draw("normal", 1, 1, 1, 0)


class TestRandomPrompts:
    @pytest.mark.parametrize("kind", TOKENIZERS)
    def test_prompts_have_the_tokens_that_were_drawn(self, kind: str) -> None:
        lengths = [(2, 5), (3, 1), (64, 2), (2048, 9), (700, 1)] + [(n, n) for n in range(2, 300)]
        requests = dataset.random_prompts(TOKENIZERS[kind], lengths, 1)
        assert [(each.prompt_tokens, each.output_tokens) for each in requests] == lengths
        assert counted(TOKENIZERS[kind], [each.prompt for each in requests]) == [tokens for tokens, __ in lengths]

    def test_no_prompt_is_empty_and_what_is_recorded_is_what_is_counted(self) -> None:
        plain, with_bos = (
            dataset.random_prompts(TOKENIZERS[kind], [(1, 1)] * 3, 1) for kind in ("byte-level", "with BOS")
        )
        assert [each.prompt_tokens for each in plain] == [1, 1, 1]
        assert [each.prompt_tokens for each in with_bos] == [2, 2, 2]
        assert all(each.prompt.strip() for each in plain + with_bos)
        assert counted(TOKENIZERS["with BOS"], [each.prompt for each in with_bos]) == [2, 2, 2]

    @pytest.mark.parametrize(("kind", "number", "words"), [("byte-level", 2000, 2), ("SentencePiece", 500, 3)])
    def test_no_two_begin_alike_though_there_are_more_of_them_than_words(
        self, kind: str, number: int, words: int
    ) -> None:
        requests = dataset.random_prompts(TOKENIZERS[kind], [(20, 1)] * number, 1)
        assert len({tuple(each.prompt.split()[:words]) for each in requests}) == number

    def test_the_seed_alone_decides(self) -> None:
        one, same, other = (dataset.random_prompts(byte_level(), [(50, 1)] * 20, seed) for seed in (1, 1, 2))
        assert one == same
        assert not {each.prompt for each in one} & {each.prompt for each in other}

    def test_words_that_merge_with_their_neighbours_are_made_up_for(self) -> None:
        """Each word is a token by itself; some pairs are one together."""
        vocabulary = {"a": 0, "b": 1, " ": 2, "Ġa": 3, "Ġb": 4, "ĠaĠb": 5, "Ġ": 6}
        made = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ġ", "b"), ("Ġa", "Ġb")]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        requests = dataset.random_prompts(made, [(40, 1), (41, 1)] * 10, 1)
        assert counted(made, [each.prompt for each in requests]) == [40, 41] * 10
        assert any(len(each.prompt.split()) > each.prompt_tokens for each in requests)

    def test_a_tokenizer_without_words_is_refused(self) -> None:
        made = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
        with pytest.raises(DatasetError, match="no words with a leading space: use a ShareGPT file"):
            dataset.random_prompts(made, [(4, 4)], 1)


def words(number: int) -> str:
    return " the of" * (number // 2) + " and" * (number % 2)


def conversation(prompt: int, answer: int, *more: int) -> dict[str, Any]:
    """A conversation with turns of so many tokens."""
    return {"id": "x", "conversations": [{"from": "human", "value": words(n)} for n in (prompt, answer, *more)]}


class TestShareGPT:
    def write(self, tmp_path: Path, content: Any) -> str:
        file = tmp_path / "sharegpt.json"
        file.write_text(json.dumps(content))
        return str(file)

    def test_what_is_taken_is_the_first_two_turns_within_the_scripts_bounds(self, tmp_path: Path) -> None:
        within = [(4, 4), (1024, 1024), (4, 2044), (300, 20)]
        beyond = [(3, 50), (50, 3), (1025, 4), (1024, 1025), (5, 2044)]
        content = [conversation(*lengths, 7) for lengths in within + beyond]
        content.append({"id": "one turn", "conversations": [{"value": words(10)}]})
        requests = dataset.sharegpt(self.write(tmp_path, content), byte_level(), len(within), 1)
        assert {(each.prompt_tokens, each.output_tokens) for each in requests} == set(within)
        assert all(each.prompt == words(each.prompt_tokens) for each in requests)

    def test_lengths_count_what_the_tokenizer_adds(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [conversation(10, 20)])
        (request,) = dataset.sharegpt(path, byte_level(bos=True), 1, 1)
        assert (request.prompt_tokens, request.output_tokens) == (11, 21)

    def test_the_seed_alone_decides_which(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [conversation(n, 10) for n in range(4, 604)])
        one, same, other = (dataset.sharegpt(path, byte_level(), 20, seed) for seed in (1, 1, 2))
        assert one == same
        assert len(one) == 20
        assert one != other

    def test_too_few(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, [conversation(10, 10), conversation(1, 1)])
        with pytest.raises(DatasetError, match=r"has 1 conversations of suitable length .* 2 were asked for"):
            dataset.sharegpt(path, byte_level(), 2, 1)

    @pytest.mark.parametrize(
        "content",
        [
            {"conversations": []},
            ["a"],
            [{"messages": []}],
            [{"conversations": [{"text": "a"}, {"text": "b"}]}],
            [{"conversations": [{"value": 1}, {"value": 2}]}],
            3,
        ],
    )
    def test_another_file_is_refused(self, tmp_path: Path, content: Any) -> None:
        with pytest.raises(DatasetError, match=r"sharegpt\.json is no ShareGPT file"):
            dataset.sharegpt(self.write(tmp_path, content), byte_level(), 1, 1)

    def test_a_file_that_is_no_json_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(b"\xff\xfe not JSON")
        with pytest.raises(DatasetError, match="data is no ShareGPT file"):
            dataset.sharegpt(str(tmp_path / "data"), byte_level(), 1, 1)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="absent cannot be read: No such file"):
            dataset.sharegpt(str(tmp_path / "absent"), byte_level(), 1, 1)


class TestFiles:
    def test_a_line_a_request_and_a_summary_of_them(self, tmp_path: Path) -> None:
        requests = [Request("the \u201cfirst\u201d\n", 3, 10), Request(" of", 1, 20), Request(" and to", 2, 60)]
        summary = dataset.write(tmp_path / "data.jsonl", requests, "random", 5)
        content = (tmp_path / "data.jsonl").read_bytes()
        assert [json.loads(line) for line in content.splitlines()] == [
            {"prompt": "the \u201cfirst\u201d\n", "prompt_tokens": 3, "output_tokens": 10},
            {"prompt": " of", "prompt_tokens": 1, "output_tokens": 20},
            {"prompt": " and to", "prompt_tokens": 2, "output_tokens": 60},
        ]
        assert summary == {
            "kind": "random",
            "seed": 5,
            "digest": hashlib.sha256(content).hexdigest()[:12],
            "input": {"min": 1, "mean": 2.0, "max": 3, "total": 6},
            "output": {"min": 10, "mean": 30.0, "max": 60, "total": 90},
        }

    def test_another_process_makes_the_same_file(self, tmp_path: Path) -> None:
        """As in the client's container: no Ansible, the package's folder alone."""
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer()))
        program = (
            "import pathlib, sys; from benchmark import dataset as d; t = d.load_tokenizer(sys.argv[1]); "
            "r = d.random_prompts(t, d.draw('uniform', 300, 9, 50, 3), 3); "
            "print(d.write(pathlib.Path(sys.argv[2]), r, 'random', 3)['digest'])"
        )
        command = [sys.executable, "-c", program, str(tmp_path), str(tmp_path / "data.jsonl")]
        environ = {**os.environ, "PYTHONPATH": str(Path(dataset.__file__).parents[1]), "PYTHONHASHSEED": "9"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        requests = dataset.random_prompts(byte_level(), dataset.draw("uniform", 300, 9, 50, 3), 3)
        assert dataset.write(tmp_path / "here.jsonl", requests, "random", 3)["digest"] == done.stdout.strip()

    def test_no_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError) as raised:
            dataset.load_tokenizer(str(tmp_path))
        assert str(raised.value).startswith(
            f"the tokenizer of {tmp_path} cannot be loaded, name the model's own folder: "
        )
        assert "\n" not in str(raised.value)
