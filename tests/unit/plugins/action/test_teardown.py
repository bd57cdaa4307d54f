# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/teardown.yml as a person runs it, on this machine with a stand-in for dockerd; and what it takes for its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.action import teardown
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.removal import (
    model_directory,
    name_of,
    own,
    removable,
    users,
    wrong_paths,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound

from .on_hosts import looked_at, on_hosts

ROOT = Path(__file__).parents[4]
LABEL = "lmfleet.lmdeploy."
HOME = "/var/lib/lmfleet/lmdeploy"


def listed(name: str, *mounts: str, state: str = "running", **labels: str) -> dict[str, Any]:
    return {
        "Id": f"id-of-{name}",
        "Names": [f"/{name}"],
        "State": state,
        "Labels": {LABEL + key: value for key, value in labels.items()},
        "Mounts": [{"Source": each, "Destination": "/x"} for each in mounts],
    }


def test_its_own_are_found_by_labels_and_an_engine_goes_before_its_ray() -> None:
    every = [
        listed("lmdeploy-ray", deployment="lmdeploy", service="ray"),
        listed("lmdeploy-proxy", deployment="lmdeploy", service="proxy"),
        listed("of-an-older-plan", deployment="lmdeploy", service="dp"),
        listed("lmdeploy-api", deployment="lmdeploy", service="api"),
        listed("warmup-1", job="warm-up", owner="warm-up of lmdeploy"),
        listed("lmdeploy-model", job="model", owner="lmdeploy"),
        listed("lmfleet-probe-1", state="exited", job="probe"),
        # and not these
        listed("lmfleet-probe-2", job="probe"),
        listed("lmdeploy-dp"),
        listed("lmdeploy2-api", deployment="lmdeploy2", service="api"),
        listed("warmup-2", job="warm-up", owner="warm-up of lmdeploy2"),
        listed("warmup-3", state="exited", job="warm-up", owner="warm-up of my-lmdeploy"),
    ]
    assert [name_of(each) for each in own(every, "lmdeploy")] == [
        *("lmdeploy-model", "lmfleet-probe-1", "warmup-1"),
        *("lmdeploy-api", "of-an-older-plan", "lmdeploy-proxy", "lmdeploy-ray"),
    ]
    assert own([{"Id": "1", "Names": None, "Labels": None}], "lmdeploy") == []


@pytest.mark.parametrize(
    "typed",
    [
        *(
            f"{HOME}/triton/",
            HOME,
            "/var/lib/lmfleet",
            "/",
            "",
            "~/.cache/huggingface",
            f"{HOME}/triton/../../..",
            "triton",
        ),
        *(f"{HOME}/secrets", f"{HOME}/*", "/root/.cache/huggingface", "/root/.cache/huggingface/hub"),
    ],
)
def test_what_is_not_the_deployments_own_is_refused(typed: str) -> None:
    [fault] = wrong_paths(plan_of(nodes()), [typed])
    assert repr(typed) in fault
    assert f"{HOME}/triton (compiled kernels)" in fault


@pytest.mark.parametrize("topology", ["tp", "dpep"])
def test_kernel_caches_and_the_model_may_be_typed(topology: str) -> None:
    plan = plan_of(nodes(plan_topology=topology))
    found = removable(plan, plan.nodes[0])
    model = "/root/.cache/huggingface/hub/models--deepseek-ai--DeepSeek-V3"
    assert {f"{HOME}/{name}" for name in ("cache", "triton", "deep_gemm", "nv")} | {model} <= set(found)
    assert (f"{HOME}/ray" in found) == (topology == "tp")
    assert wrong_paths(plan, list(found)) == []


def test_a_model_of_a_directory_is_where_it_is_mounted_from() -> None:
    mounts = [{"source": "/srv", "target": "/data"}, {"source": "/nvme/models", "target": "/data/models"}]
    plan = plan_of(nodes(plan_model="/data/models/DeepSeek-V3", plan_extra_mounts=mounts))
    assert model_directory(plan, plan.nodes[0]) == "/nvme/models/DeepSeek-V3"


def test_who_uses_a_directory() -> None:
    every = [
        listed("same", "/a/b"),
        listed("below", "/a/b/c"),
        listed("above", "/a"),
        listed("other", "/a/bc", ""),
        listed("exporter", "/"),
        listed("ended", "/a/b", state="exited"),
        listed("lmdeploy-api", "/a/b", deployment="lmdeploy"),
    ]
    assert users(every, "lmdeploy", "/a/b") == ["above", "below", "same"]


# On hosts ----------------------------------------------------------------------------------------------------------------


PLAN: Plan = bound(nodes())


def removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, containers: list[dict[str, Any]], *caches: str, **fails: str
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(tmp_path))
    world, called = World(PLAN), []
    looked_at(world)

    def execute(host: str, given: dict[str, Any]) -> dict[str, Any]:
        if "containers" in given:
            return {"containers": containers, **({"failed": True, "msg": fails["list"]} if "list" in fails else {})}
        target = given.get("name") or given["path"]
        called.append((host, target))
        return {"failed": True, "msg": fails["remove"]} if "remove" in fails else {"changed": True}

    return on_hosts(world, teardown, {"act": "remove", "caches": list(caches)}, execute), called


def test_a_directory_that_others_use_stays_and_so_does_all_of_that_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [listed("lmdeploy-api", deployment="lmdeploy", service="api"), listed("vllm", f"{HOME}/triton")]
    results, called = removed(tmp_path, monkeypatch, there, f"{HOME}/triton")
    assert called == []
    assert results["node0"]["failed"]
    assert f"node0 (10.0.0.10): {HOME}/triton is in use: vllm has it mounted" in results["node0"]["msg"]
    assert "stop vllm, or take" in results["node0"]["msg"]


def test_containers_go_by_id_and_before_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [listed("lmdeploy-ray", deployment="lmdeploy", service="ray"), listed("x", deployment="other")]
    results, called = removed(tmp_path, monkeypatch, there, f"{HOME}/nv")
    assert [target for host, target in called if host == "node1"] == ["id-of-lmdeploy-ray", f"{HOME}/nv"]
    assert results["node1"]["steps"] == ["remove lmdeploy-ray", f"remove {HOME}/nv"]


def test_what_fails_is_told_with_host_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [listed("lmdeploy-ray", deployment="lmdeploy", service="ray")]
    results, __ = removed(tmp_path, monkeypatch, there, remove="connection refused")
    assert results["node0"]["msg"].startswith(
        "node0 (10.0.0.10): remove lmdeploy-ray failed: connection refused.\nRemedy: "
    )
    results, __ = removed(tmp_path, monkeypatch, there, list="permission denied")
    assert "Docker does not list its containers: permission denied" in results["node0"]["msg"]


# The playbook ------------------------------------------------------------------------------------------------------------


def playbook(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "ansible_python_interpreter": sys.executable,
        "ansible_connection": "local",
        "plan_cluster_address": "192.0.2.100",
        "plan_state_dir": str(folder / "state"),
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"lmdeploy_nodes": {"hosts": {"here": variables}}}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "HOME": str(folder),
        "DOCKER_HOST": f"unix://{folder}/docker.sock",
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "playbooks/teardown.yml",
        "-i",
        f"{folder}/hosts.yml",
    ]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.long
def test_a_check_tells_the_truth_a_run_does_it_and_another_one_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "state" / "lmdeploy"
    for name in ("triton", "nv"):
        (home / name).mkdir(parents=True)
        (home / name / "kernel").write_text("compiled")
    (home / "record.json").write_text("{}")
    typed = ("-e", f"teardown_caches={home}/triton")
    with Dockerd(tmp_path / "docker.sock") as dockerd:
        for name, deployment in (("lmdeploy-api", "lmdeploy"), ("lmdeploy-ray", "lmdeploy"), ("other", "another")):
            dockerd.containers[name] = container(name)
            dockerd.containers[name]["Config"]["Labels"] = {f"{LABEL}deployment": deployment}

        ran = playbook(tmp_path, "-e", f"teardown_caches={home}")
        assert ran.returncode != 0
        assert "Nothing was removed. To mend first:" in ran.stdout + ran.stderr
        assert dockerd.asked == []

        ran = playbook(tmp_path, "--check", "--diff", *typed)
        assert (ran.returncode, "changed=1" in ran.stdout) == (0, True), ran.stdout + ran.stderr
        assert f"here: remove {home}/triton" in ran.stdout
        assert "here: remove lmdeploy-api" in ran.stdout
        assert set(dockerd.containers) == {"lmdeploy-api", "lmdeploy-ray", "other"}
        assert (home / "triton" / "kernel").exists()

        ran = playbook(tmp_path, *typed)
        assert (ran.returncode, "changed=1" in ran.stdout) == (0, True), ran.stdout + ran.stderr
        assert set(dockerd.containers) == {"other"}
        assert not (home / "triton").exists()
        assert {"nv", "record.json"} <= {path.name for path in home.iterdir()}

        ran = playbook(tmp_path, *typed)
        assert (ran.returncode, "changed=0" in ran.stdout, "changed=1" in ran.stdout) == (0, True, False), ran.stdout
