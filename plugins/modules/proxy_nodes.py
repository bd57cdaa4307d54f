#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxy_nodes
short_description: Make the list of LMDeploy's proxy tell the truth
version_added: 0.1.0
description:
  - LMDeploy's ranks register at the proxy once, when they come up. The proxy forgets them when it is started again, and keeps
    those that are gone.
  - Adds each of O(nodes) that answers and is not listed, and removes what is not one of them, or serves another model. Removes
    one that nothing listens for, so that its own registration can be waited for. A rank that is busy or still initializing
    (it times out, or gives an HTTP error) is left as it is.
  - Runs on a host that reaches the proxy and the ranks. Needs nothing but Python.
options:
  url:
    description: The proxy's URL, without C(/v1), such as V(http://10.0.0.10:8000).
    type: str
    required: true
  nodes:
    description: The URLs of the planned ranks, without C(/v1).
    type: list
    elements: str
    required: true
  model:
    description: The name that they serve their model under.
    type: str
    required: true
  api_key:
    description: The proxy's API key, where it has one.
    type: str
  timeout:
    description: Seconds that each answer of the proxy may take.
    type: float
    default: 5
  expected:
    description:
      - URLs of O(nodes) that have to be on the list in the end, such as those of engines that have just given tokens.
      - One that is not, for it did not answer when it was to be added, fails the module.
    type: list
    elements: str
    default: []
  left:
    description: URLs that stay on the list as they are, whatever they serve.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Tells what it would do.
  diff_mode:
    support: full
    description: The list before and after.
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Have both ranks on the proxy's list, and nothing else
  lmfleet.lmdeploy.proxy_nodes:
    url: http://10.0.0.10:8000
    nodes: ["http://10.0.0.10:23333", "http://10.0.0.11:23343"]
    model: deepseek-ai/DeepSeek-V3
"""

RETURN = r"""
added:
  description: By URL, why it was added.
  returned: success
  type: dict
removed:
  description: By URL, why it was removed.
  returned: success
  type: dict
listed:
  description: The URLs on the list afterwards.
  returned: success
  type: list
  elements: str
msg:
  description: What was done and why, or what went wrong and what to do.
  returned: always
  type: str
  sample: "removed http://10.0.0.99:23333: it is not of the plan; added http://10.0.0.11:23343: it answers, but was not listed"
"""

from collections.abc import Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.endpoints import http_statuses
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import (
    Changes,
    ProxyError,
    ProxyList,
    changes,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "nodes": {"type": "list", "elements": "str", "required": True},
            "model": {"type": "str", "required": True},
            "api_key": {"type": "str", "no_log": True},
            "timeout": {"type": "float", "default": 5},
            "expected": {"type": "list", "elements": "str", "default": []},
            "left": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    proxy = ProxyList(options["url"], options["api_key"], options["timeout"])
    try:
        before = proxy.read()
        live = http_statuses(options["nodes"])
        wanted = changes(options["nodes"], before, live, options["model"], options["left"])
        if module.check_mode:
            after = {url: models for url, models in before.items() if url not in wanted.remove}
            after.update({url: [options["model"]] for url in wanted.add})
        else:
            after = proxy.carry_out(wanted, options["model"]) if wanted.add or wanted.remove else before
    except ProxyError as error:
        module.fail_json(
            msg=f"The proxy's list of ranks could not be corrected: {error}. "
            "See docker logs of its container (plan_name, then -proxy) on this host, then run the playbook again."
        )
    missing = {
        url: live[url].get("error") or f"it serves {', '.join(live[url]['models']) or 'no model'}"
        for url in options["expected"]
        if options["model"] not in after.get(url, ())
    }
    if missing:
        module.fail_json(
            msg=f"The proxy at {options['url']} does not list "
            + ", ".join(f"{url} ({why})" for url, why in missing.items())
            + ", so no request gets there, though these ranks gave tokens in this run. A rank is listed again once it answers: try "
            f"curl {next(iter(missing))}/health on the proxy's host, then run the playbook again."
        )
    module.exit_json(
        changed=bool(wanted.add or wanted.remove),
        added=wanted.add,
        removed=wanted.remove,
        listed=sorted(after),
        msg=told(wanted),
        diff={"before": shown(before), "after": shown(after)},
    )


def told(wanted: Changes) -> str:
    """The changes as one line."""
    removed = [f"removed {url}: {why}" for url, why in wanted.remove.items()]
    added = [f"added {url}: {why}" for url, why in wanted.add.items()]
    return "; ".join([*removed, *added]) or "nothing had to be changed"


def shown(listed: Mapping[str, Sequence[str]]) -> str:
    """The list as lines, for a diff."""
    return "".join(f"{url} {' '.join(models)}\n" for url, models in sorted(listed.items()))


if __name__ == "__main__":
    main()
