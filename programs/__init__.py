# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in containers, with the Python of their image: the rank program, the image's probe, warm-up and benchmark.

The standard library and what the image has; nothing of Ansible. Actions put these files into the containers.
"""
