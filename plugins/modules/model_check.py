#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin module over _model_files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_check
short_description: Check that a host holds a whole model
version_added: 0.1.0
author:
  - lmfleet contributors (@lmfleet)
description:
  - Checks that every file which a model's index names is there, and as long as its own header says.
  - Reads headers, not weights, so that it takes seconds for hundreds of gigabytes.
  - A model that is not whole is no failure of this module; it is told in RV(faults), all faults at once, so that a play
    can look at all hosts before it stops.
options:
  repo:
    description:
      - Repository id of the model in the Hugging Face cache, as C(owner/name).
      - Exactly one of O(repo) and O(path) is needed.
    type: str
  revision:
    description: Branch, tag or commit of O(repo).
    type: str
    default: main
  hf_home:
    description: The Hugging Face home on the host, whose directory C(hub) is the cache. Needed with O(repo).
    type: path
  path:
    description: Directory that holds the files themselves, instead of O(repo).
    type: path
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
"""

EXAMPLES = r"""
- name: Look at the weights
  lmfleet.lmdeploy.model_check:
    repo: deepseek-ai/DeepSeek-V3
    hf_home: /data/huggingface
  register: weights

- name: Stop where they are not whole
  ansible.builtin.assert:
    that: weights.faults | length == 0
    fail_msg: "{{ weights.faults | join('\n') }}"
"""

RETURN = r"""
path:
  description: The directory of the model on the host; none where there is no such directory.
  type: str
  returned: always
  sample: /data/huggingface/hub/models--deepseek-ai--DeepSeek-V3/snapshots/e815299b0bcbac849fa540c768ef21845365c9eb
commit:
  description: The commit that O(revision) names on this host; none with O(path).
  type: str
  returned: always
hf_home:
  description: O(hf_home) as it was given.
  type: str
  returned: always
config:
  description: What a plan asks of the model's C(config.json).
  type: dict
  returned: always
  sample:
    architectures: [DeepseekV3ForCausalLM]
    num_attention_heads: 128
files:
  description: The files that an engine may read, each with its size in bytes.
  type: dict
  returned: always
total_bytes:
  description: The sum of these sizes.
  type: int
  returned: always
digest:
  description: Equal on two hosts exactly if commit, names, sizes and C(config.json) are.
  type: str
  returned: always
faults:
  description: Everything that is wrong, a sentence each. Empty for a whole model.
  type: list
  elements: str
  returned: always
  sample: [model-00003-of-000163.safetensors is missing.]
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._model_files import check_cached, check_directory


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "repo": {"type": "str"},
            "revision": {"type": "str", "default": "main"},
            "hf_home": {"type": "path"},
            "path": {"type": "path"},
        },
        mutually_exclusive=[("repo", "path")],
        required_one_of=[("repo", "path")],
        required_by={"repo": "hf_home"},
        supports_check_mode=True,
    )
    given = module.params
    report = (
        check_directory(given["path"])
        if given["path"]
        else check_cached(given["hf_home"], given["repo"], given["revision"])
    )
    module.exit_json(changed=False, hf_home=given["hf_home"], **dataclasses.asdict(report))


if __name__ == "__main__":
    main()
