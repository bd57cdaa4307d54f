# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of README, CONTRIBUTING and docs/, as a reader would type them, so that page and test cannot part."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a line of an indented block begins with where it is a command; others are what one prints.
PROGRAMS = re.compile(
    r"(ansible(-\w+)?|antsibull-\w+|curl|docker|export|hf|molecule|mypy|pip|pytest|python3?|rm|ruff|source|ssh|scripts/\S+|tools/\S+|tests/gpu/\S+)\s"
)
BLOCK = re.compile(r"(?:^ {4}\S.*\n|^ {4,}.*\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One of a page's commands. ``words`` are its shell words; of two in a line they are those of both."""

    page: str
    text: str

    @property
    def bare(self) -> str:
        """It without the comment behind it."""
        return self.text.partition("  #")[0].strip()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def playbook(self) -> str:
        """The playbook of ansible-playbook, as the page has it; empty for other commands."""
        named = [
            word for word in self.words[1:] if word.endswith(".yml") and "/" not in word.removeprefix("playbooks/")
        ]
        return named[0] if self.words[0] == "ansible-playbook" and named else ""

    @property
    def extra(self) -> dict[str, str]:
        """The variables given by ``-e NAME=VALUE``; those of a JSON object have no value here."""
        given = [after for word, after in zip(self.words, self.words[1:], strict=False) if word == "-e"]
        found: dict[str, str] = {}
        for each in given:
            if each.startswith("{"):
                found.update(dict.fromkeys(re.findall(r'[{,] *"(\w+)":', each)[:1], ""))
            else:
                name, __, value = each.partition("=")
                found[name] = value
        return found


def commands(page: Path) -> list[Command]:
    """The commands of a page, in its order; one whose line ends with a backslash, or within quotes, goes on in the next."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        text = ""
        for line in block.splitlines():
            text = f"{text} {line.strip()}".strip()
            if text.endswith("\\"):
                text = text[:-1].rstrip()
            elif not PROGRAMS.match(f"{text} ") or _is_whole(text):
                if PROGRAMS.match(f"{text} "):
                    found.append(Command(page.relative_to(ROOT).as_posix(), text))
                text = ""
    return found


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:  # a quotation goes on
        return False
    return True


# ---- how each of them is tried: the first rule that fits. "tp", "dpep": on the sandbox by tests/sandbox/test_pages.py, in the
# order of the pages; "test_NAME.py": that test runs it, or the same with other values; anything else is why nothing does.

ELSEWHERE = "it is for another machine, or for real hosts"
HOW: tuple[tuple[str, str], ...] = (
    (
        r"scripts/demo|source scripts/activate|pip install|python3 -m venv",
        "every new clone begins with it, and CI with much the same",
    ),
    (r"scripts/test|molecule test|ruff|mypy|pytest|ansible-lint|tools/(?!release)|antsibull", "scripts/test runs it"),
    (r"tools/release_tables", "it reads the wheel of a release that is not out"),
    (r"docker run .*nvidia-smi|hf download|tests/gpu/|ssh ", ELSEWHERE),
    (r"export ANSIBLE_STDOUT_CALLBACK", "test_brief.py"),
    (r"ansible-galaxy|lmfleet\.lmdeploy\.deploy", "test_artefact.py"),
    (r"LMFLEET_SANDBOX_GPUS=8|LMFLEET_SIM_SHALLOW", "32 ranks do not fit beside the other tests"),
    (r"playbooks/sandbox\.yml", "scripts/test runs it"),
    (r"LMFLEET_SIM_FAULTS", "test_deployment.py"),
    (r"benchmark_preset=guide", "it takes hours"),
    (r"playbooks/benchmark", "test_benchmark.py"),
    (r"playbooks/(closure|firewall)", "test_closure.py"),
    (r":8443/", "test_gateway.py"),
    (r"link_test", "test_links.py"),
    (r"playbooks/monitoring\.yml", "test_monitoring.py"),
    (r"my_inventory", "test_deployment.py"),
    (r"playbooks/rollback|playbooks/upgrade\.yml$", "test_upgrade.py"),
    (r"playbooks/teardown", "test_teardown.py"),
    (r"curl -X POST|^rm |ray status", "it is for a state that the pages describe"),
    (r"four_nodes|lmdeploy-dp|8000/nodes|lmdeploy-proxy", "dpep"),
    (r"", "tp"),
)


def how(command: Command) -> str:
    """How a command is tried, or why it is not."""
    return next(way for pattern, way in HOW if re.search(pattern, command.bare))
