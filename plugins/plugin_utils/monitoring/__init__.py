# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus and Grafana are given for a deployment. Pure: from a plan and settings to data and text.

``targets``    the plan -> what is scraped, with its labels
``alerts``     the alert rules, as data in one place
``panels``     the dashboard's rows, panels and queries, as data; tools/dashboard.py makes Grafana's JSON of them
``files``      all of it as the text of files
"""
