# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is there on one host: raw facts, judged elsewhere. ``look.look`` asks for all of them at once.

Runs on the hosts: Python 3.9, standard library, and the Docker SDK for Python (5.0 or newer) where Docker is asked.
"""
