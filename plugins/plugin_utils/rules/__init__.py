# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to hold of hosts before anything is started there: rules, a small file for each subject, and how they are judged.

Pure: a plan and what was seen in, results out. Python 3.9, standard library.

``types``     what a rule is, and what it is given
``registry``  all of them, in the order in which they are told
``judging``   rules, plan, hosts and waivers -> results
"""
