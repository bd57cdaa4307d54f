# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's settings, for Sphinx: tools/docs_site."""

project = "lmfleet.lmdeploy"
copyright = "2026, lmfleet contributors"  # noqa: A001  (Sphinx's name for it)
extensions = ["myst_parser", "sphinx_antsibull_ext"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_heading_anchors = 4
html_theme = "alabaster"
html_theme_options = {
    "description": "DeepSeek-V3, served by LMDeploy, deployed by Ansible",
    "page_width": "1200px",
    "sidebar_width": "260px",
    "font_family": "sans-serif",
}
html_show_sphinx = False
