# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard as data: rows of panels, with their queries. tools/dashboard.py makes ``data/dashboard.json`` of it.

A query selects by Grafana's variables ``$deployment`` and ``$engine``; ``source`` says who has to be scraped for a result, one of
``targets.ROLES``, or ``starts`` (what engines keep of their starts, by node_exporter).
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Query:
    """PromQL, and the name of each of its lines by labels."""

    expr: str
    legend: str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One graph; ``unit`` is Grafana's. ``since`` is the LMDeploy that has its metrics first, where that is not 0.9.2."""

    title: str
    unit: str
    source: str
    queries: tuple[Query, ...]
    about: str = ""
    since: str = ""


_LM = '{deployment=~"$deployment", engine=~"$engine", role="engine"}'
_NODE = '{deployment=~"$deployment", engine=~"$engine", role="node"}'
_GPU = '{deployment=~"$deployment", engine=~"$engine", role="gpu"}'
_ALL = '{deployment=~"$deployment"}'
_RANK = "{{engine}} rank {{rank}} on {{node}}"
_OF_NODE = "{{node}}"
_DISKS = _NODE.replace("}", ', fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|fuse.*"}')
_DEVICES = _NODE.replace("}", ', device!~"lo|docker.*|veth.*|br-.*"}')


def _quantiles(histogram: str) -> tuple[Query, ...]:
    buckets = f"sum by (engine, le) (rate({histogram}_bucket{_LM}[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({share}, {buckets})", f"{{{{engine}}}}, {told}")
        for share, told in ((0.5, "half are below"), (0.95, "19 of 20 are below"), (0.99, "99 of 100 are below"))
    )


def _rate(counter: str, matchers: str = _LM, by: str = "engine, rank, node") -> str:
    return f"sum by ({by}) (rate({counter}{matchers}[$__rate_interval]))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Does it serve": (
        Panel("What answers", "bool_yes_no", "engine", (Query(f"up{_ALL}", "{{role}} {{engine}} {{rank}} {{node}}"),)),
        Panel(
            "Generated tokens",
            "none",
            "engine",
            (Query(_rate("lmdeploy:generation_tokens_total"), _RANK),),
            "A second.",
        ),
        Panel("Prompt tokens", "none", "engine", (Query(_rate("lmdeploy:prompt_tokens_total"), _RANK),), "A second."),
        Panel(
            "Requests that ended",
            "reqps",
            "engine",
            (
                Query(
                    _rate("lmdeploy:request_success_total", by="engine, finished_reason"),
                    "{{engine}} {{finished_reason}}",
                ),
            ),
        ),
    ),
    "Requests in the engine": (
        Panel("Running", "none", "engine", (Query(f"lmdeploy:num_requests_running{_LM}", _RANK),)),
        Panel(
            "Waiting",
            "none",
            "engine",
            (
                Query(f"lmdeploy:num_requests_waiting{_LM}", f"{_RANK}, for the scheduler"),
                Query(f"lmdeploy:num_api_requests_waiting{_LM}", f"{_RANK}, for the engine"),
            ),
            "The second is of LMDeploy 0.12.1 and later.",
        ),
        Panel("KV cache in use", "percentunit", "engine", (Query(f"lmdeploy:gpu_cache_usage_perc{_LM}", _RANK),)),
        Panel(
            "Prefixes found in the cache",
            "percentunit",
            "engine",
            (Query(f"lmdeploy:prefix_cache_hit_rate{_LM}", _RANK),),
            since="0.14.0",
        ),
    ),
    "How long": (
        Panel("To the first token", "s", "engine", _quantiles("lmdeploy:time_to_first_token_seconds")),
        Panel("Between tokens", "s", "engine", _quantiles("lmdeploy:time_per_output_token_seconds")),
        Panel("In the queue", "s", "engine", _quantiles("lmdeploy:request_queue_time_seconds")),
        Panel("Whole requests", "s", "engine", _quantiles("lmdeploy:e2e_request_latency_seconds")),
    ),
    "Starts": (
        Panel(
            "Starts by a deploy and by itself",
            "none",
            "starts",
            (
                Query(f"lmfleet_engine_formations_total{_NODE}", "{{engine}} on {{node}}, by a deploy"),
                Query(f"lmfleet_engine_restarts_total{_NODE}", "{{engine}} on {{node}}, by itself"),
            ),
        ),
        Panel(
            "From the start to tokens",
            "s",
            "starts",
            (Query(f"lmfleet_engine_ready_seconds{_NODE}", "{{engine}} on {{node}}"),),
        ),
        Panel(
            "Gave up",
            "bool_yes_no",
            "starts",
            (Query(f"lmfleet_engine_gave_up{_NODE}", "{{engine}} on {{node}}"),),
        ),
    ),
    "Hosts": (
        Panel(
            "Processors at work",
            "percentunit",
            "node",
            (
                Query(
                    "1 - avg by (node) (rate(node_cpu_seconds_total"
                    + _NODE.replace("}", ', mode="idle"}')
                    + "[$__rate_interval]))",
                    _OF_NODE,
                ),
            ),
        ),
        Panel("Free memory", "bytes", "node", (Query(f"node_memory_MemAvailable_bytes{_NODE}", _OF_NODE),)),
        Panel(
            "Free disk",
            "percentunit",
            "node",
            (
                Query(
                    f"node_filesystem_avail_bytes{_DISKS} / node_filesystem_size_bytes{_DISKS}",
                    "{{node}} {{mountpoint}}",
                ),
            ),
        ),
        Panel(
            "Network, received and sent",
            "Bps",
            "node",
            (
                Query(
                    _rate("node_network_receive_bytes_total", _DEVICES, "node, device"), "{{node}} {{device}}, received"
                ),
                Query(
                    _rate("node_network_transmit_bytes_total", _DEVICES, "node, device"), "{{node}} {{device}}, sent"
                ),
            ),
        ),
    ),
    "GPUs": (
        Panel("GPUs at work", "percent", "gpu", (Query(f"DCGM_FI_DEV_GPU_UTIL{_GPU}", "{{node}} GPU {{gpu}}"),)),
        Panel("Memory in use", "mbytes", "gpu", (Query(f"DCGM_FI_DEV_FB_USED{_GPU}", "{{node}} GPU {{gpu}}"),)),
        Panel("Temperature", "celsius", "gpu", (Query(f"DCGM_FI_DEV_GPU_TEMP{_GPU}", "{{node}} GPU {{gpu}}"),)),
        Panel("Power", "watt", "gpu", (Query(f"DCGM_FI_DEV_POWER_USAGE{_GPU}", "{{node}} GPU {{gpu}}"),)),
        Panel(
            "The last XID",
            "none",
            "gpu",
            (Query(f"DCGM_FI_DEV_XID_ERRORS{_GPU}", "{{node}} GPU {{gpu}}"),),
            "playbooks/preflight.yml says what one means.",
        ),
    ),
}


def asked(expr: str, deployment: str, rate_interval: str = "1m") -> str:
    """A query as Grafana sends it, with its variables filled in, for all engines of a deployment."""
    filled = expr.replace("$__rate_interval", rate_interval).replace("$deployment", deployment)
    return filled.replace("$engine", ".*")
