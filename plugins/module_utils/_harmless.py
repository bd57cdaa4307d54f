# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that others wrote, made harmless for the terminals of people."""

from __future__ import annotations

import re

# Whole control sequences: of strings to the terminal (OSC, DCS, SOS, PM, APC; as two bytes or as one of C1), with the text
# in them, where they end on the same line; CSI; and other escapes. What has no end loses its introducer alone: its text
# is what a person is to see.
_SEQUENCES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\x9d\x90\x98\x9e\x9f\n]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-Z\\-~]"
)
# What is left of them, and characters that reorder or hide what is beside them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_LINE_ENDS = re.compile(r"[\x85\u2028\u2029]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def harmless(text: str) -> str:
    """``text`` without what a terminal would obey: of control characters only line feeds and tabs stay.

    A terminal takes titles, links and its clipboard from such sequences; bidirectional controls show other text than there is.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _LINE_ENDS.sub(" ", _SEQUENCES.sub("", text.replace("\r\n", "\n")))
    return _SURROGATES.sub("\ufffd", _HIDDEN.sub("", text))
