# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that are named, and that no alert would watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..planning.types import Faults

END = "notAfter="


def unwatched(reads: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A sentence for each certificate whose end is not known, and for a directory that is missing, with the nodes.

    ``reads``: of each node, what ``openssl x509 -enddate`` gave, as results of a loop over ``[path, monitoring_textfile_dir]``.
    """
    faults = Faults()
    for node, results in reads.items():
        for result in results:
            path, directory = result["item"]
            if not directory:
                faults.add(
                    "monitoring_certificates names some, and monitoring_textfile_dir is empty, where node_exporter would read of "
                    "them: set it.",
                    node,
                )
            if not str(result.get("stdout", "")).startswith(END):
                why = str(result.get("stderr") or result.get("msg") or "it said nothing").strip().splitlines()[0]
                faults.add(
                    f"openssl reads no certificate from {path} ({why}), so no alert would come before it runs out: put it there, "
                    "or take it out of monitoring_certificates. What only some nodes have belongs in their host_vars.",
                    node,
                )
    return faults.listed()
