#!/usr/bin/env python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/preflight.md from the rules, plugins/plugin_utils/rules/registry.py.

With --check nothing is written, and the exit status is 1 if the page is not what would be written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.registry import RULES  # noqa: E402  (its path first)
from ansible_collections.lmfleet.lmdeploy.tools.doc_pages import command_line, written  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.types import Rule

HEAD = """\
# Preflight

What has to hold of the hosts before anything is started there, as rules. `tools/rules_doc.py` writes this page from
`plugins/plugin_utils/rules`.

    ansible-playbook playbooks/preflight.yml
    ansible-playbook playbooks/preflight.yml -e preflight_report=DIR     # the same as DIR/preflight.json and DIR/preflight.html

It plans, looks at every host once, changes nothing, and tells all faults of all hosts at once, each with what to do first.
It fails where an error stands. A deployment judges the same rules with its first look: an error stops it, and warnings are
told where it starts something. Only `image.same`, `image.lmdeploy` and `plan.bound` are judged later there, once the image
is on the hosts and was asked what it is. Here they are judged by what is known of it: `plan.bound` is unknown for an image
that no deployment has asked yet.

| state | means |
|---|---|
| error | the engine would not start, or not serve: a deployment stops |
| warning | it may be slow, or fail later; nothing stops |
| unknown | it could not be read, with the reason. It is never taken for ok, and stops nothing |
| waived | it was found, and the inventory says that it does not count, with the reason |
| ok | it holds |
| not needed | the plan has no use for it, such as RDMA on one host |

## Waivers

    plan_waive:
      docker.log-driver: logs are read with our own tool
      gpu.persistence: these hosts are powered down at night

In the inventory, of all hosts or of one. The key is the rule's id, the text the reason, which is told with the fault. A
rule about all hosts together is waived where one of them waives it. An id that does not exist, a waiver without a reason,
and one of a rule that cannot be waived (nothing can be started without it) are refused with the plan, before any host is
touched.

## Rules

`host`: judged of each host; `group`: of all hosts together. What it needs are keys of what the module `observe` answers; where
one is missing the rule is unknown.

"""
FOOT = """
## Adding a rule

A rule is an entry of `RULES` in the file of its subject in `plugins/plugin_utils/rules`: id, severity, title (what holds
where all is well), remedy, the parts of the look that it needs, and a check. The check is given the host (`OfHost`) or all
of them (`OfAll`) and yields a sentence for each fault: what is wrong, and what to do, without the host's name. It raises
`Unknown` for what could not be read; whatever else it raises is unknown as well. It is an error only where the engine
certainly does not start. `applies` says where the plan has any use for it, so that a sandbox host without GPUs is not told
of them. What the look does not tell yet is added to `plugins/module_utils/_observe`. Then `python tools/rules_doc.py`, and
a case in `tests/unit/plugins/plugin_utils/test_rules.py`, which fails for a rule without one.
"""


def page(rules: Iterable[Rule]) -> str:
    """Return the whole page."""
    rows = [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in cells(each))} |" for each in rules]
    head = ["| Rule | Severity | Of | Holds where | What to do first | Needs |", "|---|---|---|---|---|---|"]
    return HEAD + "\n".join([*head, *rows]) + "\n" + FOOT


def cells(rule: Rule) -> list[str]:
    """Return a rule's row."""
    remedy = rule.remedy if rule.waivable else f"{rule.remedy} Cannot be waived."
    return [
        f"`{rule.id}`",
        rule.severity,
        rule.scope,
        rule.title,
        remedy,
        ", ".join(f"`{need}`" for need in rule.needs),
    ]


def main() -> int:
    """Write or check the page."""
    return written(command_line(__doc__, "preflight.md").parse_args(), page(RULES))


if __name__ == "__main__":
    sys.exit(main())
