#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One chat completion; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: completion
short_description: Get one chat completion, as a client would
version_added: 0.1.0
description:
  - Asks for a chat completion, and fails unless generated tokens come. A status 200 is none; LMDeploy's proxy answers so, with an
    C(error_code) in the body, while it cannot reach a rank, and loses the status of its ranks' own errors.
  - The whole exchange has an end, and its answer a size. Needs nothing but Python.
options:
  url:
    description: Where clients ask, without C(/v1), such as V(http://10.0.0.10:8000).
    type: str
    required: true
  model:
    description: The name that the model is served under.
    type: str
    required: true
  prompt:
    description: What the user says.
    type: str
    default: Say that you are ready.
  api_key:
    description: The API key, where one is asked for. The planned gateway is given the first of C(plan_gateway_keys).
    type: str
  verified:
    description: Whether the certificate of an https URL has to be one that this host trusts. A gateway's own host need not ask.
    type: bool
    default: true
  timeout:
    description: Seconds for the whole exchange.
    type: float
    default: 600
attributes:
  check_mode:
    support: full
    description: Asks for nothing.
  diff_mode:
    support: none
    description: It changes nothing.
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: See that the deployment answers
  lmfleet.lmdeploy.completion:
    url: http://10.0.0.10:8000
    model: deepseek-ai/DeepSeek-V3
"""

RETURN = r"""
seconds:
  description: How long it took.
  returned: success
  type: float
msg:
  description: That it came; or what came in its place, and what to do.
  returned: always
  type: str
"""

import json
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._http import NoAnswer, exchange
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.engines import ANSWER_BYTES, read_answer

MAX_TOKENS = 8
REMEDY = (
    "Run the playbook again: it replaces an engine that is dead, and corrects the proxy's list. At HTTP 401 or 429 see "
    "plan_gateway_keys and the limits of its first key. To see what each rank answers: ansible-playbook playbooks/warmup.yml."
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "prompt": {"type": "str", "default": "Say that you are ready."},
            "api_key": {"type": "str", "no_log": True},
            "verified": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="check mode: nothing is asked for")
    body = {
        "model": asked["model"],
        "messages": [{"role": "user", "content": asked["prompt"]}],
        "max_tokens": MAX_TOKENS,
    }
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {asked['api_key']}"} if asked["api_key"] else {}),
    }
    url = f"{asked['url'].rstrip('/')}/v1/chat/completions"
    began = time.monotonic()
    try:
        data = json.dumps(body).encode()
        reply = exchange(
            url, data, headers, deadline_s=asked["timeout"], limit_bytes=ANSWER_BYTES, verified=asked["verified"]
        )
    except NoAnswer as error:
        module.fail_json(msg=f"No chat completion came from {url}: {error}. {REMEDY}")
    answer = read_answer(reply.status, reply.body)
    if not answer.token:
        module.fail_json(msg=f"No chat completion came from {url}: HTTP {answer.status}, {answer.detail}. {REMEDY}")
    seconds = round(time.monotonic() - began, 2)
    module.exit_json(changed=False, seconds=seconds, msg=f"{url} gave a chat completion in {seconds} s")


if __name__ == "__main__":
    main()
