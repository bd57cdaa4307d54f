#!/usr/bin/python
# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# There is no code here: see the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_files
short_description: Write what Prometheus and Grafana need for a deployment
version_added: 0.1.0
description:
  - Runs on the control node and touches no host. Writes, from the run's plan, the targets as files for C(file_sd_configs), alert
    rules, scrape jobs, a whole C(prometheus.yml), a Grafana dashboard, and the variables of the roles of prometheus.prometheus and
    grafana.grafana.
  - Targets have the labels C(deployment), C(role), C(engine), C(node), C(rank) and C(gpu), as far as they have them.
  - Warns of an engine whose LMDeploy has no C(/metrics).
author:
  - lmfleet contributors (@lmfleet)
options:
  directory:
    description: Where on the control node the files are written. It is made where it is missing.
    type: path
    required: true
  prometheus_dir:
    description: Where Prometheus finds C(targets) and C(rules) on its host.
    type: path
    default: /etc/prometheus/lmfleet
  prometheus_url:
    description: Prometheus, as Grafana reaches it.
    type: str
    default: http://127.0.0.1:9090
  interval:
    description: From one scrape to the next, and from one look at the rules to the next; at most V(60s).
    type: str
    default: 15s
  alertmanagers:
    description: Alertmanagers, as HOST:PORT.
    type: list
    elements: str
    default: []
  scrape_configs:
    description: More scrape jobs for C(prometheus.yml), as they stand in it.
    type: list
    elements: dict
    default: []
  node_exporter_port:
    description: The port of node_exporter on every node; V(0) where there is none.
    type: int
    default: 0
  dcgm_exporter_port:
    description: The port of dcgm-exporter on every node; V(0) where there is none.
    type: int
    default: 0
  ray:
    description: Whether Ray's own metrics are scraped, on each node of a TP engine.
    type: bool
    default: false
  gateways:
    description: Where gateways before the engines answer at C(/metrics), as HOST:PORT.
    type: list
    elements: str
    default: []
  no_tokens_s:
    description: Seconds without a token, while an engine has requests, after which there is an alert.
    type: int
    default: 300
  waiting_requests:
    description: Requests that wait at one api_server, above which there is an alert where they become more.
    type: int
    default: 100
  first_token_s:
    description: Seconds to the first token, above which there is an alert where more than one request in 20 takes longer.
    type: float
    default: 10.0
  kv_cache_share:
    description: Share of the KV cache in use, above which there is an alert where requests wait.
    type: float
    default: 0.95
  restarts_per_hour:
    description: Starts of an engine by itself within an hour, from which on there is an alert.
    type: int
    default: 3
  disk_free_share:
    description: Free share of a file system, below which there is an alert.
    type: float
    default: 0.1
  certificate_days:
    description: Days until a certificate runs out, below which there is an alert.
    type: int
    default: 14
attributes:
  check_mode:
    support: full
    description: Writes nothing, and says what it would write.
  diff_mode:
    support: full
    description: Shows the files that differ, but for the dashboard.
"""

EXAMPLES = r"""
- name: Write what Prometheus and Grafana need
  lmfleet.lmdeploy.monitoring_files:
    directory: monitoring/lmdeploy
    node_exporter_port: 9100
  run_once: true
"""

RETURN = r"""
directory:
  description: Where the files are.
  returned: success
  type: str
files:
  description: Their paths below it.
  returned: success
  type: list
  elements: str
contents:
  description:
    - Path to text of those that Prometheus reads on its host, also in check mode, which writes none. Rules have what Prometheus
      fills in itself, in double braces. Ansible does not template what a task returned.
  returned: success
  type: dict
text_files:
  description: Of each node, the links that node_exporter's directory for text files gets, each with the file on the host that it
    names, or nothing where there has to be no such link.
  returned: success
  type: dict
"""
