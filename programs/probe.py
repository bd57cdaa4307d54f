# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an image what it is: run in it as ``python3 -c <this file>``, prints one line of JSON.

Standard library only, and no GPU: packages are looked up, never imported, since importing some of them wants a GPU.
What cannot be found out is null, or an empty list, and named in ``errors``; the program itself does not fail.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import signal
import subprocess
import tempfile

PACKAGES = ("lmdeploy", "openai", "ray", "torch")
MODULES = ("deep_ep", "deep_gemm", "dlblas", "flash_mla")
COMMANDS = ("api_server", "proxy")
HELP_SECONDS = 120  # a cold import of torch from a slow disk
OUTPUT_BYTES = 4 << 20
FILE_BYTES = 64 << 20  # one that goes on for ever does not fill the disk
RAY_TOKEN_AUTH = (2, 52)  # the first Ray that knows RAY_AUTH_MODE=token


def probe() -> dict[str, object]:
    """Return the answer: versions, torch's ``cuda``, ``ray_token_auth``, ``modules``, ``<command>_options`` and ``errors``."""
    errors: list[str] = []
    versions = {name: version(name, errors) for name in PACKAGES}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        options = list(pool.map(lambda command: options_of(command, errors), COMMANDS))
    return {
        **versions,
        "python": platform.python_version(),
        "cuda": cuda_of_torch(),
        "ray_token_auth": knows_token_auth(versions["ray"]),
        "modules": {name: importlib.util.find_spec(name) is not None for name in MODULES},
        **{f"{command}_options": found for command, found in zip(COMMANDS, options)},
        "errors": errors,
    }


def version(package: str, errors: list[str]) -> str | None:
    """Return the installed version of ``package``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        errors.append(f"{package} is not installed for {platform.python_implementation()} {platform.python_version()}")
        return None


def cuda_of_torch() -> str | None:
    """Return the version of CUDA that torch was built for, as it is written in ``torch/version.py``."""
    found = importlib.util.find_spec("torch")
    for place in (found.submodule_search_locations or []) if found else []:
        with contextlib.suppress(OSError):
            with open(os.path.join(place, "version.py"), encoding="utf-8", errors="replace") as file:  # noqa: PTH118, PTH123
                match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", file.read(), re.MULTILINE)
            if match:
                return match[1]
    return None


def options_of(command: str, errors: list[str]) -> list[str]:
    """Return the options that ``lmdeploy serve <command>`` lists in its help."""
    argv = ["lmdeploy", "serve", command, "--help"]
    try:
        code, said, told = run(argv)
    except (OSError, subprocess.TimeoutExpired) as error:
        errors.append(f"{' '.join(argv)}: {error}")
        return []
    if code:
        last = (told.strip().splitlines() or ["it said nothing"])[-1]
        errors.append(f"{' '.join(argv)} ended with {code}: {last}")
        return []
    found = parse_help(said)
    if not found:
        errors.append(f"{' '.join(argv)} listed no options")
    return found


def run(argv: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, as far as ``OUTPUT_BYTES``; raises OSError and TimeoutExpired.

    Through files: whoever the command has started may hold a pipe open for ever. They are killed with it.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            argv,
            env={**os.environ, "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
            code = process.wait(HELP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(OUTPUT_BYTES).decode(errors="replace"))
    return code, texts[0], texts[1]


def parse_help(text: str) -> list[str]:
    """Return every option string in argparse's ``text``, aliases among them, sorted."""
    # An option starts its line; its explanation follows after two spaces, or on lines of their own, further in.
    heads = (re.split(r"\s{2,}", line.strip())[0] for line in re.findall(r"(?m)^ {1,4}-.*$", text))
    return sorted({word for head in heads for word in re.findall(r"(?:^|(?<=, ))--?[A-Za-z][\w-]*", head)})


def knows_token_auth(ray: str | None) -> bool:
    """Whether that Ray can be told to ask its clients for a token."""
    numbers = re.match(r"(\d+)\.(\d+)", ray or "")
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= RAY_TOKEN_AUTH


if __name__ == "__main__":
    print(json.dumps(probe()))
