#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxy_drain
short_description: Keep new requests from ranks, and count those that they still have
version_added: 0.1.0
description:
  - One step of M(lmfleet.lmdeploy.drain), on the proxy's host. Use that; this module is not meant for playbooks.
  - A rank is kept on the proxy's list under another model's name, so that it gets no new request, and those that it has end well.
    M(lmfleet.lmdeploy.proxy_nodes) puts that right again.
options:
  url:
    description: The proxy's URL, without C(/v1), such as V(http://10.0.0.10:8000).
    type: str
    required: true
  nodes:
    description: The URLs of the ranks, without C(/v1).
    type: list
    elements: str
    required: true
  model:
    description: The name that they serve their model under.
    type: str
    required: true
  aside:
    description: Whether new requests are to be kept from them before they are asked.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Asks the ranks, and leaves the list as it is.
  diff_mode:
    support: none
    description: What becomes of the list is shown by M(lmfleet.lmdeploy.proxy_nodes).
author:
  - lmfleet contributors (@lmfleet)
"""

EXAMPLES = r"""
- name: Keep new requests from a rank
  lmfleet.lmdeploy.proxy_drain:
    url: http://10.0.0.10:8000
    nodes: ["http://10.0.0.11:23333"]
    model: deepseek-ai/DeepSeek-V3
    aside: true
"""

RETURN = r"""
aside:
  description: The URLs that were on the proxy's list, and get no new request now.
  returned: success
  type: list
  elements: str
ranks:
  description: By URL, C(requests), the number that runs or waits there, or C(error), why it is not known.
  returned: success
  type: dict
refused:
  description: Why the proxy's list could not be changed; empty where it was.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import put_aside, requests_of
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._proxy_nodes import ProxyError, ProxyList


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "nodes": {"type": "list", "elements": "str", "required": True},
            "model": {"type": "str", "required": True},
            "aside": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    aside: list[str] = []
    refused = ""
    if options["aside"] and not module.check_mode:
        try:
            aside = put_aside(ProxyList(options["url"]), options["nodes"], options["model"])
        except ProxyError as error:
            refused = str(error)
    module.exit_json(changed=bool(aside), aside=aside, refused=refused, ranks=requests_of(options["nodes"]))


if __name__ == "__main__":
    main()
