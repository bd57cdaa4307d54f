# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets go out of text, whatever they stand in, and what is no secret stays."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._redact import REMOVED, Redactor

SECRET = "Xk9planted4me"
HOLDERS = (
    "HF_TOKEN={}",
    "export AWS_SECRET_ACCESS_KEY={}; python x",
    "MY_PASSWORD_OLD={} next",
    "REGISTRY_PASSWD='{}'",
    "Authorization: Bearer {}",
    "> authorization: basic {}",
    "{{'Authorization': 'Bearer {}'}}",
    '{{"authorization":"token {}"}}',
    "curl -H 'X-Api-Key: {}'",
    "lmdeploy serve api_server m --api-keys {} --tp 16",
    "lmdeploy serve api_server m --api-keys other1 {}",
    "lmdeploy serve api_server m --api-keys={} --tp 16",
    "['--api-keys', '{}', '--tp', '16']",
    '["--api-keys", "a", "{}", "--tp"]',
    "Namespace(api_keys=['{}'], tp=16)",
    "api_keys: [first, {}]",
    "api_key={}, tp=16",
    "docker login --password {} registry",
    '{{"hub_token": "{}", "n": 1}}',
    "password: {}",
    "db_password = '{}'",
    "https://user:{}@registry.example.com/v2/",
    "https://{}@github.com/x",
    "GET /blob?X-Amz-Credential=a&X-Amz-Signature={}&Expires=60",
    "client_secret={}",
    "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}",
)


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_holds_a_secret_loses_it_though_nobody_knows_its_value(holder: str) -> None:
    text = Redactor().text(f"before it\n{holder.format(SECRET)}\nafter it")
    assert SECRET not in text
    assert REMOVED in text
    assert text.startswith("before it\n")
    if "BEGIN PRIVATE" not in holder:
        assert text.endswith("\nafter it")


@pytest.mark.parametrize(
    "text", ["hf_Abcdefgh1", "hf_" + "a" * 34, "sk-" + "1" * 24, "ghp_" + "b" * 36, "AKIA" + "C" * 16]
)
def test_what_its_issuer_marked_goes_wherever_it_stands(text: str) -> None:
    assert Redactor().text(f"the user typed {text}, and more") == f"the user typed {REMOVED}, and more"


@pytest.mark.parametrize(
    "text",
    [
        "RAY_AUTH_TOKEN_PATH=/run/lmfleet/secrets/ray_token",
        "TOKENIZERS_PARALLELISM=false",
        "max_new_tokens=512 eos_token_id=1 eos_token='</s>'",
        "GenerationConfig(n=1, max_new_tokens=512, stop_token_ids=None)",
        "api_keys=None, ssl=False",
        "hf_home hf_overrides=None hf_transfer",
        "key cache: 1024 tokens, 3 keys of 7",
        "2026-11-24T22:18:43.993Z INFO worker.py:1691 -- Using address 10.77.0.11:6379",
        "tcp://10.77.0.11:29500 and http://10.77.0.11:23333/v1/models",
        '"ray_token_auth": true',
        "NCCL_IB_HCA=mlx5_0:1 NCCL_DEBUG=INFO",
        "prompt_tokens=17 total_tokens: 40 tokens/s=3.2",
        "root@node0:/# nvidia-smi",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize("value", [SECRET, "with space and /+=", 'a"quote\\', "ümläut-secret", "two lines\nof a key"])
def test_a_known_value_goes_in_every_form(value: str) -> None:
    redactor = Redactor([value + "\n"])
    forms = [
        *value.splitlines(),
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        repr(value),
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        base64.b64encode(value.encode()).decode(),
    ]
    for form in forms:
        assert REMOVED in redactor.text(f"a {form} b"), form
        assert form.strip("\"'=") not in redactor.text(f"a {form} b")


def test_words_and_short_values_do_not_empty_a_log() -> None:
    redactor = Redactor(["", "1", "abc", "none", "True"])
    assert redactor.text("1 abc none True") == "1 abc none True"


def test_data_loses_values_of_secret_names_environments_and_options() -> None:
    redactor = Redactor()
    redactor.learn_environment(["HF_TOKEN=learnt-from-it", "PATH=/usr/bin", "X_KEY=none"])
    redactor.learn_command(["serve", "--api-keys", "first-key", "second-key", "--tp", "16"])
    data = redactor.data(
        {
            "Env": ["HF_TOKEN=learnt-from-it", "DB_PASSWORD=a b, c=d", "PATH=/usr/bin"],
            "Cmd": ["serve", "--api-keys", "first-key", "third", "--tp", "16", "--api-key=fourth"],
            "password": "fifth-one",
            "password_file": "/run/x",
            "exit_code": 1,
            "nested": [{"note": "it has learnt-from-it and second-key"}],
        }
    )
    assert data == {
        "Env": ["HF_TOKEN=***", "DB_PASSWORD=***", "PATH=/usr/bin"],
        "Cmd": ["serve", "--api-keys", "***", "***", "--tp", "16", "--api-key=***"],
        "password": "***",
        "password_file": "/run/x",
        "exit_code": 1,
        "nested": [{"note": "it has *** and ***"}],
    }


def test_a_line_without_an_end_takes_no_time_that_grows_with_its_square() -> None:
    def seconds(size: int) -> float:
        began = time.process_time()
        for letter in ("-", "_", "A", "a=", "token", "://", '"', "\\"):
            Redactor([SECRET]).text(f"password {letter * (size // len(letter))}")
        return time.process_time() - began

    seconds(1000)
    assert seconds(64_000) < 16 * max(seconds(16_000), 0.02)


def test_a_password_in_an_address_is_taken_out_where_it_stands_alone_too() -> None:
    redactor = Redactor()
    redactor.learn_environment(["HTTPS_PROXY=http://anna:planted-proxy-pw@proxy.example.com:3128", "NO_PROXY=10.0.0.1"])
    assert redactor.text("407 for planted-proxy-pw at 10.0.0.1") == "407 for *** at 10.0.0.1"
