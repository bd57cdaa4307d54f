# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe, run as an image runs it: its source given to a Python, an ``lmdeploy`` on the PATH."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.image import passing_errors

PROBE = Path(__file__).parents[3] / "programs" / "probe.py"

# A command line as LMDeploy has it, made by argparse itself.
LMDEPLOY = f"""#!{sys.executable}
import argparse, sys
print("a warning of some import", file=sys.stderr)
parser = argparse.ArgumentParser(prog="lmdeploy")
if sys.argv[2] == "proxy":
    sys.exit("no proxy here")
parser.add_argument("model_path", help="a path - or --not-an-option")
parser.add_argument("--server-port", "-p", type=int, help="the port. See --proxy-url")
parser.add_argument("--log-level", choices=["A", "B"])
parser.add_argument("--a-very-long-option-that-needs-a-line-of-its-own", nargs="*", help="--nor-this is one")
parser.add_argument_group("Engine").add_argument("--tp", type=int, help="GPUs, --not-this")
parser.parse_args(sys.argv[3:])
"""


def run_probe(path: str, **environment: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", PROBE.read_text()],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PATH": path, **environment},
    )
    (line,) = answer.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_options_and_errors(tmp_path: Path) -> None:
    command = tmp_path / "lmdeploy"
    command.write_text(LMDEPLOY)
    command.chmod(0o755)
    found = run_probe(str(tmp_path))
    assert found["api_server_options"] == [
        "--a-very-long-option-that-needs-a-line-of-its-own",
        "--help",
        "--log-level",
        "--server-port",
        "--tp",
        "-h",
        "-p",
    ]
    assert found["proxy_options"] == []
    assert "lmdeploy serve proxy --help ended with 1: no proxy here" in found["errors"]
    assert not any("api_server" in error for error in found["errors"])


def test_image_without_lmdeploy(tmp_path: Path) -> None:
    found = run_probe(str(tmp_path))
    assert found["lmdeploy"] is None
    assert found["api_server_options"] == []
    assert found["modules"] == {"deep_ep": False, "deep_gemm": False, "dlblas": False, "flash_mla": False}
    errors = "\n".join(found["errors"])
    assert "lmdeploy is not installed" in errors
    assert "lmdeploy serve api_server --help: [Errno 2]" in errors


def test_versions(tmp_path: Path) -> None:
    found = run_probe(str(tmp_path))
    assert found["openai"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize(
    ("line", "cuda"),
    [
        ("cuda: Optional[str] = '12.8'", "12.8"),  # as torch 2.7 and later have it
        ("cuda = '12.4'", "12.4"),
        ("cuda: Optional[str] = None", None),  # built for processors
    ],
)
def test_the_cuda_of_torch_is_read_where_it_is_written(line: str, cuda: str | None, tmp_path: Path) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    (package / "version.py").write_text(f"__version__ = '2.7.0'\ndebug = False\n{line}\nhip: Optional[str] = None\n")
    assert run_probe(str(tmp_path), PYTHONPATH=str(tmp_path))["cuda"] == cuda


@pytest.mark.parametrize(
    ("ray", "knows"), [("2.46.0", False), ("2.51.2", False), ("2.52.0", True), ("3.0.0.dev0", True), (None, False)]
)
def test_ray_token_auth(ray: str | None, knows: bool) -> None:
    assert runpy.run_path(str(PROBE))["knows_token_auth"](ray) is knows


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("sleep 600", "timed out after 0.5 seconds"),
        ("exec yes", "ended with -25: it said nothing"),  # SIGXFSZ
        ("sleep 600 & echo '  --tp TP'", None),  # who holds the pipe is not waited for
        ("kill -9 $$", "ended with -9: it said nothing"),
    ],
)
def test_67_a_command_that_has_no_end_is_given_up(script: str, error: str | None, tmp_path: Path) -> None:
    command = tmp_path / "lmdeploy"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    source = PROBE.read_text().replace(
        "HELP_SECONDS = 120", "HELP_SECONDS = 0.5" if "600" in script and error else "HELP_SECONDS = 60"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], check=True, stdout=subprocess.PIPE, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    found = json.loads(done.stdout)
    assert found["api_server_options"] == ([] if error else ["--tp"])
    assert [said for said in found["errors"] if error and error in said] == [
        said for said in found["errors"] if "lmdeploy serve" in said
    ]
    # What is no doing of the image is not kept: it is asked again.
    assert bool(passing_errors(found)) == (error is not None)
