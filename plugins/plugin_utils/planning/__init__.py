# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: the complete, computed description of a deployment.

A pure function of inventory, variables and observations. Nothing in here touches a host, a socket or a clock;
it runs on the control node, under the ``lmfleet.lmdeploy.plan`` action.

``inputs``    variables of every node -> checked inputs, or every fault at once
``build``     inputs + observations -> the plan
``types``     what a plan is made of
``render``    a plan as a table and as the shell commands a person would type
"""
