# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._benchmark.clients import LineCount


def test_whole_lines_are_counted_while_the_file_grows(tmp_path: Path) -> None:
    file, count = tmp_path / "records.jsonl", LineCount()
    assert count.of(file) == 0
    with file.open("w") as records:
        for text, lines in (("one\ntw", 1), ("o", 1), ("\nthree\n", 3), ("", 3)):
            records.write(text)
            records.flush()
            assert count.of(file) == lines
