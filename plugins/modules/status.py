#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Tell how a deployment is, beside its plan
version_added: 0.1.0
description:
  - Runs on the control node, after M(lmfleet.lmdeploy.look) on every host. Prints a table, and returns the same as data.
  - Does not fail whatever the state is. Hosts that did not answer are named, and left out of what is compared.
  - The deployment is V(down) where no endpoint gives tokens, nor the public URL does, and of no endpoint that is unclear
    (V(unknown)). It is V(as planned) where a deploy would do nothing, every host answered and has no fault, every endpoint is
    V(alive) or V(busy), and so is the public URL of a proxy that lists what is planned. Else it is V(degraded).
  - An engine with a host that did not answer is V(degraded) if it gives tokens, else V(down). An endpoint is asked from its own
    host, so one of a host that did not answer is V(unseen), which counts as none.
author:
  - lmfleet contributors (@lmfleet)
extends_documentation_fragment:
  - lmfleet.lmdeploy.reads_only
options:
  files:
    description: Files on the control node that RV(status) is written to as JSON, in check mode too.
    type: list
    elements: path
    default: []
  page:
    description: File on the control node that the status is written to as one page of HTML, which needs nothing beside it.
    type: path
"""

EXAMPLES = r"""
- name: Tell how the deployment is
  lmfleet.lmdeploy.status:
    files: [/tmp/status.json]
  register: told

- name: Tell somebody
  ansible.builtin.debug:
    msg: "{{ told.status.deployment }} is {{ told.status.state }}"
  when: told.status.code > 0
"""

RETURN = r"""
status:
  description: How the deployment is.
  returned: success
  type: dict
  contains:
    deployment:
      description: Its name.
      type: str
    state:
      description: V(as planned), V(degraded) or V(down).
      type: str
    code:
      description: The same as C(scripts/status) exits with, 0, 2 or 3.
      type: int
    looked_at:
      description: When, in UTC, by the control node's clock.
      type: str
    model:
      description: The name that it serves its model under.
      type: str
    url:
      description: Where clients ask.
      type: str
    identity:
      description: Changes with what the plan serves and how.
      type: str
    bound:
      description: Whether the plan could be bound to hosts and image. If not, no container was compared with it.
      type: bool
    engines:
      description:
        - Each engine's C(name), C(topology), C(state), C(nodes), C(formation) (of what runs), and of the last start that was
          recorded C(began) and C(seconds), from its first step to its proof.
        - C(timeline) has the phases of its last formation, C(former) those of the one before it that is like it (image, topology,
          sizes), and C(ratio) says how many times as long it took; none where none was recorded.
        - Its C(endpoints) have C(rank), C(engine), C(node), C(url), C(state) and C(reason); the states are those of
          M(lmfleet.lmdeploy.observe), or V(unseen).
      type: list
      elements: dict
    nodes:
      description:
        - Each node's C(name), C(address) and C(engine); C(reached), and why not, or why its containers could not be compared, as
          C(reason).
        - Its C(containers), planned or labelled, have C(name), C(service), C(engine), C(status) (Docker's, or V(missing)),
          C(started_at), C(exit_code), C(restarts), C(formation), C(as_planned) (none where nobody knows) and C(differences).
      type: list
      elements: dict
    proxy:
      description: C(node) and C(url) of the proxy, if one is planned; C(state) and C(reason) of the public URL; C(list_right), none
        where its list could not be read, and C(list_reason).
      type: dict
    lock:
      description: The run that is at work on it, if any, as C(run), C(what), C(who), C(control), C(pid), C(since), C(seen_s)
        (seconds since its last sign of life), C(expires_in_s) and C(ended) (its process is certainly gone).
      type: dict
    faults:
      description: Everything at which a deploy stops.
      type: list
      elements: str
    deploy:
      description: What a deploy would do to the hosts that answered, in words; none where nothing could be compared.
      type: list
      elements: str
    notes:
      description: What a person should know.
      type: list
      elements: str
    table:
      description: What was printed, by line.
      type: list
      elements: str
"""
