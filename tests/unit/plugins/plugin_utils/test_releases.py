# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.releases import (
    Command,
    ImageError,
    Option,
    at_least,
    images,
    release_table,
    releases,
    resolve_image,
    unknown_to_image,
    with_changes,
)

ROOT = Path(__file__).resolve().parents[4]
NEWEST = release_table("0.18.0").api_server


def test_releases_are_told_apart() -> None:
    old, new = release_table("0.8.0"), release_table("0.18.0")
    assert "--dp-rank" in old.api_server
    assert "--dp-rank" not in new.api_server
    assert "nnodes" not in old.api_server
    assert "nnodes" in new.api_server
    assert "strategy" in old.proxy
    assert "routing_strategy" in new.proxy
    assert "disable_cache_status" in old.proxy
    assert "disable_cache_status" in new.proxy


def test_middle_of_a_span() -> None:
    assert "enable-metrics" in release_table("0.10.0").api_server
    assert "enable-metrics" not in release_table("0.9.1").api_server
    assert "enable-metrics" not in release_table("0.11.0").api_server


@pytest.mark.parametrize("release", releases())
def test_every_release_has_what_a_plan_gives(release: str) -> None:
    table = release_table(release)
    assert table.api_server.options
    assert table.proxy.options
    for option in ("tp", "dp", "ep", "server-name", "server-port", "backend", "model-name", "proxy-url", "log-level"):
        assert option in table.api_server, option
    for option in ("server-name", "server-port", "disable-cache-status"):
        assert option in table.proxy, option


@pytest.mark.parametrize("release", ["0.8.0", "0.8.0+cu128"])
def test_local_suffix_is_ignored(release: str) -> None:
    options = release_table(release).api_server.options
    assert options is not None
    assert options == release_table("0.8.0").api_server.options


@pytest.mark.parametrize("release", ["99.0.0", "", None])
def test_unknown_release_leaves_options_to_the_image(release: str | None) -> None:
    table = release_table(release)
    assert table.api_server.options is table.proxy.options is None
    assert table.api_server.check({"of-the-future": [1, 2]}) == []
    assert table.api_server.argv({"of-the-future": [1, 2], "flag": True}) == ["--flag", "--of-the-future", "1", "2"]
    assert table.api_server.check({"--not an option": 1}) == ["--not an option is not the name of an option."]


@pytest.mark.parametrize(
    ("release", "since", "is_so"),
    [
        ("0.10.0", "0.9.2", True),  # numbers, not text
        ("0.9.2", "0.10.0", False),
        ("0.15.0", "0.15.0", True),
        ("0.14.0", "0.15.0", False),
        ("0.9.2.post1", "0.9.2", True),
        ("0.9.2", "0.9.2.post1", False),
        ("0.9.2+cu128", "0.9.2.post1", False),
        ("1.0.0", "0.18.0", True),
        (None, "0.18.0", True),  # nobody knows yet
    ],
)
def test_a_release_is_at_least_another(release: str | None, since: str, is_so: bool) -> None:
    assert at_least(release, since) is is_so


def test_releases_are_in_their_order() -> None:
    order = releases()
    assert all(at_least(later, earlier) for earlier, later in zip(order, order[1:]))
    assert not any(at_least(earlier, later) for earlier, later in zip(order, order[1:]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_batch_size", 128),
        ("--max-batch-size", "128"),
        ("max_batch_size", None),
        ("cache_max_entry_count", 0.7),
        ("cache_max_entry_count", 1),
        ("enable_prefix_caching", True),
        ("enable_prefix_caching", False),
        ("allow_origins", ["http://a", "http://b"]),
        ("allow_origins", "*"),
        ("cudagraph-capture-batch-sizes", [1, 2, 4]),
        ("hf_overrides", {"rope_scaling": {"type": "yarn"}}),
        ("hf_overrides", '{"a": 1}'),
        ("quant_policy", "fp8"),
        ("quant_policy", 8),
        ("log_level", "INFO"),
        ("async", 0),
        ("reasoning_parser", "deepseek-v3"),
    ],
)
def test_good_option(key: str, value: Any) -> None:
    assert NEWEST.check_option(key, value) == []


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("max_batch_sise", 1, "is not an option of lmdeploy serve api_server in 0.18.0 (did you mean max-batch-size?)"),
        ("xyzzy", 1, "is not an option of lmdeploy serve api_server in 0.18.0."),
        ("max_batch_size", "many", "takes a whole number, not 'many'"),
        ("max_batch_size", 1.5, "takes a whole number, not 1.5"),
        ("max_batch_size", True, "takes a whole number, not True"),
        ("max_batch_size", [1], "takes a whole number, not [1]"),
        ("cache_max_entry_count", "half", "takes a number, not 'half'"),
        ("model_name", {"a": 1}, "takes a string, not {'a': 1}"),
        ("enable_prefix_caching", "yes", "is a flag and takes true or false, not 'yes'"),
        ("allow_origins", [], "is an empty list"),
        ("cudagraph_capture_batch_sizes", [1, "b"], "takes a whole number, not 'b'"),
        ("hf_overrides", "{", "takes a mapping or a string of JSON, not '{'"),
        ("log_level", "INFOS", "is 'INFOS' (did you mean INFO?); it is one of CRITICAL"),
        ("reasoning_parser", "nothing", "is 'nothing'; it is one of deepseek-r1,"),
    ],
)
def test_bad_option(key: str, value: Any, fault: str) -> None:
    (found,) = NEWEST.check_option(key, value)
    assert found.startswith(f"{key} {fault}")
    assert found.endswith(".")


def test_all_faults_at_once() -> None:
    faults = NEWEST.check({"max_batch_size": 1, "max-batch-size": 2, "nope": 1, "ssl": 3})
    assert len(faults) == 3
    assert "max-batch-size and max_batch_size are the same option: give one of them." in faults


def test_argv_is_sorted_and_complete() -> None:
    options = {
        "tp": 16,
        "ssl": False,
        "model_name": None,
        "hf_overrides": {"b": 1, "a": 2},
        "--enable-prefix-caching": True,
        "allow-origins": ["a", "b"],
        "kernel_block_size": -1,
    }
    assert NEWEST.argv(options) == [
        "--allow-origins", "a", "b",
        "--enable-prefix-caching",
        "--hf-overrides", '{"a": 2, "b": 1}',
        "--kernel-block-size=-1",
        "--tp", "16",
    ]  # fmt: skip
    assert NEWEST.argv(dict(reversed(list(options.items())))) == NEWEST.argv(options)


SHAPES = Command(
    "api_server",
    "1.0.0",
    {
        "--flag": Option("--flag", "flag"),
        "--word": Option("--word", "value"),
        "--count": Option("--count", "value", "int"),
        "--share": Option("--share", "value", "float"),
        "--words": Option("--words", "list"),
        "--tree": Option("--tree", "value", "json"),
    },
)
WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "flag": st.booleans(),
            "word": WORDS,
            "count": st.integers(),
            "share": st.floats(allow_nan=False),
            "words": st.lists(WORDS.filter(lambda word: not word.startswith("-")), min_size=1),
            "tree": st.dictionaries(WORDS, st.integers() | WORDS),
        },
    )
)
def test_what_argparse_reads_is_what_was_given(options: dict[str, Any]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", action="store_true", default=None)
    parser.add_argument("--word")
    parser.add_argument("--count", type=int)
    parser.add_argument("--share", type=float)
    parser.add_argument("--words", nargs="+")
    parser.add_argument("--tree", type=json.loads)
    assert SHAPES.check(options) == []
    read = vars(parser.parse_args(SHAPES.argv(options)))
    expected = {key: value for key, value in options.items() if value is not False}
    assert {key: value for key, value in read.items() if value is not None} == expected


def test_options_that_the_image_does_not_know() -> None:
    argv = ["--tp", "16", "--new=--tp", "--new", "-1", "--old"]
    assert unknown_to_image(argv, ["--tp", "--old", "-h"]) == ["--new"]


@pytest.mark.parametrize("word", sorted(images()))
def test_words(word: str) -> None:
    image = resolve_image(word)
    assert image is images()[word]
    assert release_table(image.release).api_server.options
    by_reference = resolve_image(image.reference)  # the table's references are valid and say the same by themselves
    assert by_reference.moving == image.moving
    assert by_reference.release in (image.release, None)


def test_default_image_is_pinned() -> None:
    defaults = yaml.safe_load((ROOT / "roles/plan/defaults/main.yml").read_text(encoding="utf-8"))
    assert not resolve_image(defaults["plan_image"]).moving


DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("reference", "release", "moving"),
    [
        ("openmmlab/lmdeploy:v0.18.0-cu12.8", "0.18.0", False),
        ("registry.example:5000/team/lmdeploy:0.9.2.post1", "0.9.2.post1", False),
        ("10.0.0.1:5000/lmdeploy:0.18.0-simulated", "0.18.0", False),
        ("[fd00::1]:5000/lmdeploy:mine", None, False),
        ("localhost/a__b/c-d.e:nightly-20260801", None, False),
        (f"openmmlab/lmdeploy@{DIGEST}", None, False),
        (f"openmmlab/lmdeploy:latest@{DIGEST}", None, False),
        ("openmmlab/lmdeploy:latest-cu12", None, True),
        ("openmmlab/lmdeploy", None, True),
        ("lmdeploy:cuda12.8.1-v0.17.0", "0.17.0", False),
    ],
)
def test_reference(reference: str, release: str | None, moving: bool) -> None:
    image = resolve_image(reference)
    assert (image.reference, image.release, image.moving) == (reference, release, moving)


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("", "(it is empty)"),
        ("cu12.9", "is no word for an image (did you mean cu12.8?): write one of cu12,"),
        ("lmdeploy", "is no word for an image: write one of cu12,"),
        ("openmmlab/LMDeploy:latest", "(its path has upper-case letters)"),
        ("open mmlab/lmdeploy", "(it has white space in it)"),
        ("https://registry.example/lmdeploy:1", "(it has a scheme in it)"),
        ("a/b@sha256:12", "(its digest is not sha256: and 64 hexadecimal digits)"),
        ("a/b:", "is not an image reference"),
        ("a//b:1", "is not an image reference"),
        ("-a/b:1", "is not an image reference"),
        ("a/b:v1:2", "is not an image reference"),
    ],
)
def test_bad_reference(reference: str, fault: str) -> None:
    with pytest.raises(ImageError) as raised:
        resolve_image(reference)
    assert fault in str(raised.value)


def test_changes_are_put_over_options_however_they_are_spelled() -> None:
    options = {"max-batch-size": 64, "tp": 2}
    assert with_changes(options, {"max_batch_size": 128}) == {"tp": 2, "max_batch_size": 128}
    assert with_changes(options, {"--max-batch-size": None}) == {"tp": 2}
    assert with_changes(options, {}) == options
