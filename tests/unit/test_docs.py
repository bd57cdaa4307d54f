# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README and the pages of docs/: every link leads somewhere, every page can be found, and README stays an entrance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have, as GitHub makes them."""
    found: set[str] = set()
    for line in page.read_text(encoding="utf-8").splitlines():
        heading = re.match(r"#+ (.*)", line)
        if heading:
            text = re.sub(r"\]\([^)]*\)", "", heading[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def links(page: Path) -> list[tuple[Path, str]]:
    """File and anchor of each link of a page that leads into this project."""
    found = [link.partition("#") for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    return [((page.parent / file).resolve() if file else page, anchor) for file, __, anchor in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [
        f"{file.name}#{anchor}"
        for file, anchor in links(page)
        if not file.exists() or (anchor and anchor not in anchors(file))
    ]
    assert broken == []


def test_every_page_is_found_from_the_readme() -> None:
    assert {page for page in PAGES if page.parent.name == "docs"} <= {file for file, __ in links(ROOT / "README.md")}


def test_the_readme_is_an_entrance() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_page_names_what_imports_ansible() -> None:
    """Of what runs on the control node beside the actions."""
    folder = ROOT / "plugins/plugin_utils"
    imports = re.compile(r"^\s*(?:from|import) ansible[. ]", re.MULTILINE)
    files = [file for file in folder.rglob("*.py") if imports.search(file.read_text(encoding="utf-8"))]
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    told = re.search(r"and of `plugin_utils` in (.*?);", page)
    assert told
    names = {str(file.relative_to(folder).with_suffix("")) for file in files}
    assert set(re.findall(r"`([^`]+)`", told[1])) == names
    assert not [
        file for file in (ROOT / "plugins/filter").glob("*.py") if imports.search(file.read_text(encoding="utf-8"))
    ]


def test_the_page_names_what_an_installed_collection_lacks_of_ansible_cfg() -> None:
    page = (ROOT / "docs/playbooks.md").read_text(encoding="utf-8")
    ssh_args = re.search(r"^ssh_args = (.*)$", (ROOT / "ansible.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    assert ssh_args
    assert ssh_args[1] in page
