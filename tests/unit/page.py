# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A page of HTML as a test reads it."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Its tags, its links, and its text as a reader sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._source = text
        self.feed(text)

    @property
    def stands_alone(self) -> bool:
        """Whether it needs nothing beside it, and runs nothing."""
        fetched = {"script", "link", "img", "iframe"} & set(self.tags)
        return not (self.links or fetched or re.search(r"@import|url\(", self._source))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag, and what it links to."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        """Keep the text, but not the style's; what stands in two cells are two words."""
        if self.tags[-1:] != ["style"]:
            self.text += f"{data} "
