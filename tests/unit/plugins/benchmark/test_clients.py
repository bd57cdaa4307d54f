# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.programs.benchmark.clients import (
    Aiperf,
    Client,
    LineCount,
    LmdeployScript,
    Load,
)
from ansible_collections.lmfleet.lmdeploy.programs.benchmark.records import Row


def test_whole_lines_are_counted_while_the_file_grows(tmp_path: Path) -> None:
    file, count = tmp_path / "records.jsonl", LineCount()
    assert count.of(file) == 0
    with file.open("w") as records:
        for text, lines in (("one\ntw", 1), ("o", 1), ("\nthree\n", 3), ("", 3)):
            records.write(text)
            records.flush()
            assert count.of(file) == lines


def load_of(folder: Path, api_key: str | None, **row: Any) -> Load:
    dataset = folder / "dataset.jsonl"
    dataset.write_text(json.dumps({"prompt": "a b", "prompt_tokens": 2, "output_tokens": 3}) + "\n")
    own = folder / "client"
    own.mkdir()
    return Load(Row("row", 2, 3, 10, **row), ("http://node0:23333",), "m", "t", dataset, own, 60.0, api_key=api_key)


@pytest.mark.parametrize("client", [Aiperf(), LmdeployScript(None)], ids=lambda client: client.name)
def test_a_key_is_in_the_environment_and_nowhere_else(client: Client, tmp_path: Path) -> None:
    load = load_of(tmp_path, "sk-secret")
    command = client.command(load)
    assert "sk-secret" not in " ".join(command)
    assert [file for file in load.folder.iterdir() if "sk-secret" in file.read_text()] == []
    assert client.environment(load)["OPENAI_API_KEY"] == "sk-secret"


@pytest.mark.parametrize(
    ("row", "phase"),
    [
        ({"concurrency": 4}, {"type": "concurrency", "concurrency": 10}),
        ({"request_rate": 2.5}, {"type": "poisson", "rate": 2.5}),
    ],
)
def test_aiperf_reads_the_key_by_a_file_that_limits_nothing(
    row: dict[str, Any], phase: dict[str, Any], tmp_path: Path
) -> None:
    load = load_of(tmp_path, "sk-secret", **row)
    command = Aiperf().command(load)
    config = json.loads(Path(command[command.index("--config") + 1]).read_text())["benchmark"]
    assert config["endpoint"] == {"headers": {"Authorization": "Bearer ${OPENAI_API_KEY}"}}
    assert config["phases"] == [{"name": "profiling", "requests": 10, **phase}]
    command[command.index("--config") : command.index("--config") + 2] = []
    keyless = Load(**{**vars(load), "api_key": None})
    assert command == Aiperf().command(keyless)
    assert "OPENAI_API_KEY" not in Aiperf().environment(keyless)
