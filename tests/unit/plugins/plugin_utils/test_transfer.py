# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host gets the model from where."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.transfer import (
    Transfer,
    Wanted,
    chain_before,
    decide_transfer,
    progress_line,
    summary,
)
from ansible_collections.lmfleet.lmdeploy.programs.download import Config as DownloadConfig
from ansible_collections.lmfleet.lmdeploy.programs.fanout import Config as FanoutConfig
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

WHOLE: dict[str, Any] = {"faults": [], "digest": "d1", "total_bytes": 690}
LACKS: dict[str, Any] = {"faults": ["nothing is there."], "digest": None, "total_bytes": 0}


def decided(*models: dict[str, Any], variables: dict[str, Any] | None = None, **wanted: Any) -> Transfer:
    plan = plan_of(nodes(len(models), **{"plan_gpus": 1 if len(models) > 2 else 8, **(variables or {})}))
    hosts = {f"node{place}": Host(f"node{place}", {"model": model}) for place, model in enumerate(models)}
    return decide_transfer(plan, hosts, Wanted(**wanted))


def givers(transfer: Transfer) -> dict[str, list[str]]:
    return {name: job.config["before"] for name, job in transfer.jobs.items()}


def test_where_all_have_the_same_nothing_is_done() -> None:
    for strategy in ("each", "fanout"):
        for source in ("present", "hub"):
            assert decided(WHOLE, WHOLE, source=source, strategy=strategy) == Transfer()


def test_by_default_a_model_that_is_not_whole_is_a_fault_with_both_remedies() -> None:
    (fault, why) = decided(WHOLE, LACKS).faults
    assert "model_source" in fault
    assert "fanout" in fault
    assert why == "node1: nothing is there."


def test_a_login_in_the_hubs_address_is_refused_without_being_shown() -> None:
    [fault] = decided(LACKS, source="hub", endpoint="https://anna:planted@mirror.example").faults
    assert "model_hub_token" in fault
    assert "planted" not in fault


def test_each_host_that_lacks_it_downloads_it() -> None:
    found = decided(WHOLE, WHOLE, LACKS, LACKS, source="hub", endpoint="https://mirror.example")
    assert list(found.jobs) == ["node2", "node3"]
    job = found.jobs["node2"]
    assert (job.program, job.mount) == ("download", "/root/.cache/huggingface:/lmfleet-model")
    config = DownloadConfig(**job.config)
    assert (config.repo, config.revision, config.endpoint) == (
        "deepseek-ai/DeepSeek-V3",
        "main",
        "https://mirror.example",
    )


def test_hosts_that_hold_different_files_all_ask_the_hub() -> None:
    assert list(decided(WHOLE, {**WHOLE, "digest": "d2"}, source="hub").jobs) == ["node0", "node1"]


def test_fanout_is_a_chain_from_the_host_that_has_it() -> None:
    found = decided(LACKS, WHOLE, LACKS, LACKS, strategy="fanout", port=9000, limit=5e6)
    assert givers(found) == {
        "node1": [],
        "node0": ["http://10.0.0.11:9000"],
        "node2": ["http://10.0.0.10:9000", "http://10.0.0.11:9000"],
        "node3": ["http://10.0.0.12:9000", "http://10.0.0.10:9000", "http://10.0.0.11:9000"],
    }
    for name, job in found.jobs.items():
        config = FanoutConfig.from_mapping({**job.config, "api_key": "k"})
        assert config.limit == 5e6
        assert (
            config.host
            == {"node0": "10.0.0.10", "node1": "10.0.0.11", "node2": "10.0.0.12", "node3": "10.0.0.13"}[name]
        )
        assert len({*config.before, *config.others}) == 3
        assert job.mount == "/root/.cache/huggingface/hub/models--deepseek-ai--DeepSeek-V3:/lmfleet-model"


def test_several_that_have_it_make_several_chains() -> None:
    assert chain_before(["a", "b"], ["c", "d", "e", "f"], "e") == ["c", "a"]
    assert chain_before(["a", "b"], ["c", "d", "e", "f"], "f") == ["d", "b"]
    found = decided(WHOLE, WHOLE, LACKS, WHOLE, strategy="fanout")
    assert sorted(found.jobs) == ["node0", "node2"]  # the others take no part
    assert found.jobs["node2"].config["others"] == []


def test_a_host_with_another_commit_gets_that_of_the_head() -> None:
    found = decided({**WHOLE, "digest": "d2"}, WHOLE, WHOLE, WHOLE, strategy="fanout")
    assert givers(found) == {
        "node0": [],
        "node1": ["http://10.0.0.10:8730"],
        "node2": ["http://10.0.0.11:8730", "http://10.0.0.10:8730"],
        "node3": ["http://10.0.0.12:8730", "http://10.0.0.11:8730", "http://10.0.0.10:8730"],
    }


def test_where_none_has_it_one_downloads_first_the_one_that_has_most_of_it() -> None:
    found = decided(LACKS, {**LACKS, "total_bytes": 7}, LACKS, LACKS, source="hub", strategy="fanout")
    assert [(name, job.program) for name, job in found.jobs.items()] == [("node1", "download")]
    assert list(decided(LACKS, LACKS, source="hub", strategy="fanout").jobs) == ["node0"]
    assert "No host has" in decided(LACKS, LACKS, strategy="fanout").faults[0]


def test_a_directory_is_fanned_out_and_never_downloaded() -> None:
    variables = {
        "plan_model": "/models/v3",
        "plan_extra_mounts": [{"source": "/models/v3", "target": "/models/v3"}],
    }
    found = decided(WHOLE, LACKS, variables=variables, strategy="fanout")
    assert found.jobs["node1"].mount == "/models/v3:/lmfleet-model"
    assert found.jobs["node1"].config["revision"] == ""
    assert "model_source: present" in decided(WHOLE, LACKS, variables=variables, source="hub").faults[0]


@pytest.mark.parametrize("strategy", ["each", "fanout"])
def test_verifying_asks_every_host_whatever_the_strategy(strategy: str) -> None:
    found = decided(WHOLE, WHOLE, WHOLE, WHOLE, strategy=strategy, verify=True)
    assert sorted(found.jobs) == ["node0", "node1", "node2", "node3"]
    assert all(job.config["verify"] for job in found.jobs.values())
    assert givers(found)["node0"] == []
    assert givers(found)["node2"] == ["http://10.0.0.10:8730"]


def test_modelscope_and_hosts_that_were_not_seen_are_faults_all_at_once() -> None:
    plan = plan_of(nodes(4, plan_gpus=4))
    hosts = {"node0": Host("node0", {"model": WHOLE}), "node1": Host("node1", {"unreachable": "no route"})}
    faults = decide_transfer(plan, hosts, Wanted(source="modelscope")).faults
    assert [fault.partition(" ")[0] for fault in faults] == ["model_source:", "node1", "node2", "node3"]


def test_lines_for_people() -> None:
    going = {"stage": "copy", "bytes": 12e9, "total": 690e9, "rate": 812e6, "left_s": 835}
    assert progress_line(going) == "copy 12.0 of 690.0 GB, 812 MB/s, 13 min left"
    assert progress_line({**going, "total": 0}) == "waits for the list of files"
    done = {"total": 690e9, "needed": 690e9, "resumed": 12e9, "seconds": 850.0, "twice": 0}
    assert summary(done).startswith("whole, 690.0 GB, 690.0 GB of it fetched in 850 s, 12.0 GB were there")
