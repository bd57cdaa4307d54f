#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whether an engine is alive; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_probe
short_description: Tell whether LMDeploy's engines are alive, busy, loading, dead or unreachable
version_added: 0.1.0
description:
  - Asks the api_server at each of O(urls) for one token, all of them at once, since ranks may wait for each other.
    LMDeploy's server outlives its engine, and its C(/health) may call a dead engine healthy, so only a token is proof.
  - While no token has come, the engine's token counters (C(/metrics)) are watched. An engine is called dead on an
    engine error given twice, or when neither a token came nor a counter moved. A time-out alone proves nothing.
  - Runs on a host that reaches the engines' addresses. Needs nothing but Python.
options:
  urls:
    description: The api_servers' URLs, without C(/v1), such as V(http://10.0.0.11:23333).
    type: list
    elements: str
    required: true
  model:
    description: The name that they serve their model under.
    type: str
    required: true
  api_key:
    description: The api_server's API key, where it has one.
    type: str
  timeout:
    description: Seconds that the token may take before the counters are asked.
    type: float
    default: 20
  stall:
    description: Seconds beyond O(timeout) without a token and without progress in the counters that make it dead.
    type: float
    default: 30
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Ask the engine for a token
  lmfleet.lmdeploy.engine_probe:
    urls: ["http://10.0.0.11:23333"]
    model: deepseek-ai/DeepSeek-V3
  register: engine

- name: Say that it is dead
  ansible.builtin.debug:
    msg: "{{ engine.reason }}"
  when: engine.state == 'dead'
"""

RETURN = r"""
state:
  description:
    - V(alive), a token came. V(busy), no token yet, but the counters move. V(loading), it is initializing or sleeping.
    - V(dead), an engine error, or no token and no progress. V(unreachable), no HTTP answer.
    - V(unknown), the request was refused (a wrong model name or API key), or no counters are there to judge a time-out.
    - Of several engines it is the worst, in the order dead, unreachable, unknown, loading, busy, alive.
  type: str
  returned: always
  sample: dead
reason:
  description: What was seen of the engine in that state, with its URL.
  type: str
  returned: always
  sample: "http://10.0.0.11:23333: engine error: HTTP 503: The inference engine is unavailable."
engines:
  description: C(url), C(state) and C(reason) of each.
  type: list
  elements: dict
  returned: always
seconds:
  description: How long the probe took.
  type: float
  returned: always
  sample: 0.2
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._engine_probe import EngineProbe, probe_all, worst


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "model": {"type": "str", "required": True},
            "api_key": {"type": "str", "no_log": True},
            "timeout": {"type": "float", "default": 20},
            "stall": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    began = time.monotonic()
    verdicts = probe_all(
        EngineProbe(
            url=url,
            model=options["model"],
            api_key=options["api_key"],
            timeout_s=options["timeout"],
            stall_s=options["stall"],
        )
        for url in options["urls"]
    )
    url = worst(verdicts)
    module.exit_json(
        changed=False,
        state=verdicts[url].state.value,
        reason=f"{url}: {verdicts[url].reason}",
        engines=[{"url": each, "state": v.state.value, "reason": v.reason} for each, v in verdicts.items()],
        seconds=round(time.monotonic() - began, 2),
    )


if __name__ == "__main__":
    main()
