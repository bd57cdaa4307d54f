#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that containers need; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: place
short_description: Bring directories, programs and secrets that containers need, in one call
version_added: 0.1.0
description:
  - Makes directories and writes files, each in one step, so that no reader ever sees half of one. Removes nothing.
  - A file that a running container has mounted keeps its old content there, until the container is started again.
author:
  - lmfleet contributors (@lmfleet)
options:
  directories:
    description: Directories to have. One that exists keeps its mode and owner.
    type: list
    elements: str
    default: []
  files:
    description: Content of files, by their paths; readable by everybody.
    type: dict
    default: {}
  secrets:
    description: Content of files, by their paths; readable by their owner alone, and never shown.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Says what it would change.
  diff_mode:
    support: full
    description: Names what is made (C(+)) and what is written again (C(~)), without its content.
"""

EXAMPLES = r"""
- name: Have a program and the directory that it works in
  lmfleet.lmdeploy.place:
    directories: [/var/lib/lmfleet/lmdeploy/cache]
    files:
      /var/lib/lmfleet/lmdeploy/programs/rank.py: "{{ lookup('ansible.builtin.file', 'rank.py') }}"
"""

RETURN = r"""
placed:
  description: The paths that were made or written.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._files import OWN, READABLE, write

SECRETS_MODE = 0o700


def differs(path: Path, content: bytes, mode: int) -> bool:
    """Whether the file is not there, or has another content or mode."""
    try:
        return path.read_bytes() != content or path.stat().st_mode & 0o777 != mode
    except FileNotFoundError:
        return True


def wanted(options: Mapping[str, Any]) -> list[tuple[Path, bytes, int]]:
    """Path, content and mode of every file; the content of an unseen secret is never in a result."""
    return [
        (Path(path), str(content).encode(), mode)
        for key, mode in (("files", READABLE), ("secrets", OWN))
        for path, content in options[key].items()
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        directories = [path for path in map(Path, options["directories"]) if not path.is_dir()]
        files = [each for each in wanted(options) if differs(*each)]
        again = {str(each[0]) for each in files if each[0].exists()}
        if not module.check_mode:
            for path in directories:
                path.mkdir(parents=True, exist_ok=True)
            for path, content, mode in files:
                if mode == OWN:
                    path.parent.parent.mkdir(parents=True, exist_ok=True)
                    path.parent.mkdir(mode=SECRETS_MODE, exist_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, content, mode)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'a file'} on this host cannot be written: {error.strerror}")
    placed = [str(path) for path in (*directories, *(each[0] for each in files))]
    told = "".join(f"{'~' if path in again else '+'} {path}\n" for path in placed)
    module.exit_json(changed=bool(placed), placed=placed, diff={"prepared": told})


if __name__ == "__main__":
    main()
