# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools, run as programs on small trees made for the test."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

SPECS = """\
argument_specs:
  main:
    short_description: Do a thing
    description: Does C(it).
    options:
      thing_size: {type: int, default: 1, description: How large O(thing_name) is.}
      thing_name: {type: str, required: true, description: "a | b"}
      thing_ports:
        type: dict
        default: {}
        description: Ports.
        options:
          http: {type: int, default: 80, description: HTTP.}
      thing_plan: {type: dict, description: "A plan, by default this one."}
  show:
    short_description: Show it
    options:
      thing_format: {type: str, default: table, choices: [table, json], description: How.}
"""
DEFAULTS = "thing_size: 1\nthing_ports: {}\nthing_format: table\nthing_plan: '{{ plan }}'\n"


def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    for name, content in {
        "meta/argument_specs.yml": SPECS,
        "defaults/main.yml": DEFAULTS,
        "tasks/main.yml": "[]",
    }.items():
        file = tmp_path / "roles" / "thing" / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return tmp_path / "roles"


def test_specs_that_agree(roles: Path) -> None:
    answer = run("argument_specs.py", "--roles", roles)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("defaults", "difference"),
    [
        (DEFAULTS.replace("size: 1", "size: 2"), "thing_size (main) is 1 in its spec, and 2 in defaults/main.yml"),
        (
            DEFAULTS.replace("size: 1", "size: true"),
            "thing_size (main) is 1 in its spec, and True in defaults/main.yml",
        ),
        (DEFAULTS.replace("thing_size: 1\n", ""), "thing_size (main) has the default 1 in its spec, and none"),
        (DEFAULTS + "thing_name: x\n", "thing_name (main) is required, and has a default"),
        (DEFAULTS + "thing_more: x\n", "thing_more is in defaults/main.yml only"),
        (DEFAULTS.replace("table", "json"), "thing_format (show) is 'table' in its spec, and 'json'"),
    ],
)
def test_specs_that_differ(roles: Path, defaults: str, difference: str) -> None:
    (roles / "thing" / "defaults" / "main.yml").write_text(defaults)
    answer = run("argument_specs.py", "--roles", roles)
    assert answer.returncode == 1
    assert [line for line in answer.stdout.splitlines() if difference in line] == answer.stdout.splitlines()


@pytest.mark.parametrize(
    ("specs", "difference"),
    [
        (
            SPECS.replace("{type: dict, description", "{type: dict, default: '{{ plan }}', description"),
            "thing_plan (main) has a template as its default: leave it to defaults/main.yml",
        ),
        (
            SPECS.replace("A plan, by default this one.", "A plan."),
            "thing_plan (main) has its default, a template, in defaults/main.yml alone",
        ),
        (
            SPECS.replace("thing_plan: {type: dict", "thing_plan: {type: str"),
            "thing_plan (main) has no default in its spec, and '{{ plan }}' in defaults/main.yml",
        ),
    ],
)
def test_a_template_is_the_default_of_text_only(roles: Path, specs: str, difference: str) -> None:
    (roles / "thing" / "meta" / "argument_specs.yml").write_text(specs)
    answer = run("argument_specs.py", "--roles", roles)
    assert answer.returncode == 1
    assert [line for line in answer.stdout.splitlines() if difference in line] == answer.stdout.splitlines()


def test_role_without_specs(roles: Path) -> None:
    (roles / "thing" / "meta" / "argument_specs.yml").unlink()
    answer = run("argument_specs.py", "--roles", roles)
    assert answer.returncode == 1
    assert "thing: meta/argument_specs.yml has no entry point main." in answer.stdout


def test_variables_page(roles: Path, tmp_path: Path) -> None:
    page = tmp_path / "variables.md"
    paths = ("--roles", roles, "--output", page)
    assert run("variables_doc.py", "--check", *paths).returncode == 1
    assert run("variables_doc.py", *paths).returncode == 0
    assert run("variables_doc.py", "--check", *paths).returncode == 0
    content = page.read_text()
    for row in (
        "## thing",
        "Do a thing.",
        "Does `it`.",
        "| `thing_size` | int | `1` | How large `thing_name` is. |",
        "| `thing_name` | str | required | a \\| b |",
        "| `thing_ports.http` | int | `80` | HTTP. |",
        "| `thing_plan` | dict | `{{ plan }}` | A plan, by default this one. |",
        "### thing, tasks_from: show",
        "| `thing_format` | str | `table` | How. One of `table`, `json`. |",
    ):
        assert row in content.splitlines()
    page.write_text(content + "by hand\n")
    answer = run("variables_doc.py", "--check", *paths)
    assert answer.returncode == 1
    assert "out of date" in answer.stdout


# A release in the shape of LMDeploy's own: parsers built by classes, imports of what is not installed.
CLI = """\
import torch
from torch.nn import functional
from .utils import Subparsers

class Layer(torch.nn.Module):
    @torch.inference_mode()
    def forward(self): ...

class SubCliServe:
    subparsers = Subparsers

    @staticmethod
    def add_parsers():
        import argparse, json
        server = SubCliServe.subparsers.add_parser("api_server")
        server.add_argument("model_path")
        server.add_argument("--tp", type=int, default=1)
        server.add_argument("--hf-overrides", type=json.loads)
        server.add_argument("--ssl", action="store_true")
        server.add_argument("--allow-origins", nargs="+", default=["*"])
        server.add_argument("--reasoning-parser")
        server.add_argument("--tool-call-parser")
        SubCliServe.subparsers.add_parser("proxy").add_argument(STRATEGY, choices=["a", "b"], default="a")
"""
UTILS = "import argparse\nSubparsers = argparse.ArgumentParser().add_subparsers()\n"
REGISTRY = """\
from mmengine import Registry
{kind}ParserManager = Registry("parser", locations=[])

@{kind}ParserManager.register_module(name=["one", "two"])
class Parser: ...
"""


def write_release(folder: Path, release: str, strategy: str) -> None:
    files = {
        "__init__.py": "raise RuntimeError('imports the engines')",
        "version.py": f"__version__ = '{release}'",
        "cli/__init__.py": "",
        "cli/serve.py": CLI.replace("STRATEGY", repr(strategy)),
        "cli/utils.py": UTILS,
        "serve/__init__.py": "",
        "serve/openai/__init__.py": "",
        "serve/openai/reasoning_parser.py": REGISTRY.format(kind="Reasoning"),
        "serve/openai/tool_parser.py": REGISTRY.format(kind="Tool"),
    }
    for name, content in files.items():
        file = folder / release / "lmdeploy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def test_release_tables(tmp_path: Path) -> None:
    shipped = TOOLS.parent / "plugins" / "plugin_utils" / "data" / "releases.json"
    for release in [*json.loads(shipped.read_text())["releases"], "99.1.0"]:
        write_release(tmp_path, release, "--strategy" if release == "0.8.0" else "--routing-strategy")
    output = tmp_path / "releases.json"
    answer = run("release_tables.py", "--sources", tmp_path, "--add", "99.1.0", "--output", output)
    assert answer.returncode == 0, answer.stderr
    table = json.loads(output.read_text())
    assert table["releases"][0] == "0.8.0"
    assert table["releases"][-1] == "99.1.0"
    server = table["api_server"]
    assert server["--tp"] == [{"since": "0.8.0", "kind": "value", "type": "int", "default": 1}]
    assert server["--ssl"] == [{"since": "0.8.0", "kind": "flag"}]
    assert server["--hf-overrides"][0]["type"] == "json"
    assert server["--allow-origins"][0]["kind"] == "list"
    assert server["--tool-call-parser"][0]["choices"] == ["one", "two"]
    assert "model_path" not in server
    (old,) = table["proxy"]["--strategy"]
    (new,) = table["proxy"]["--routing-strategy"]
    assert (old["since"], old["until"]) == ("0.8.0", "0.8.0")
    assert (new["since"], new.get("until")) == (table["releases"][1], None)


def test_spans_of_an_option_that_comes_and_goes() -> None:
    spans = runpy.run_path(str(TOOLS / "release_tables.py"))["spans"]
    flag, value = {"kind": "flag"}, {"kind": "value"}
    history = [{}, {"--x": flag}, {"--x": flag}, {"--x": value}, {}, {"--x": value}]
    tables = [{"release": f"{n}.0.0", "api_server": {}, "proxy": options} for n, options in enumerate(history)]
    assert spans(tables)["proxy"] == {
        "--x": [
            {"since": "1.0.0", "until": "2.0.0", **flag},
            {"since": "3.0.0", "until": "3.0.0", **value},
            {"since": "5.0.0", **value},
        ]
    }
