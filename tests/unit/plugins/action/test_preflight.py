# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/preflight.yml as a person runs it, and its action on what was seen of hosts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail

from ansible_collections.lmfleet.lmdeploy.plugins.action import decide, look, preflight
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.judging import judged
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import Variables, inputs_of, nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World, bound, hca, with_gpus

from .on_hosts import looked_at

ROOT = Path(__file__).parents[4]


def run_on(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plugin: Any = preflight,
    variables: Variables | None = None,
    **arguments: Any,
) -> Any:
    """The action's result on the control node, in a run that saw the world."""
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    run = looked_at(world)
    waivers = world.answers.get("node0", {}).pop("waivers", {})
    run.write("inputs", {**dataclasses.asdict(inputs_of(variables or nodes())), "waivers": waivers})
    action = plugin.ActionModule.__new__(plugin.ActionModule)
    action._task = SimpleNamespace(args=arguments, check_mode=False, async_val=0, _uuid="task", action="x")
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
    action._templar = None
    return action.run(task_vars={})


def test_good_hosts_pass_and_are_told_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_gpus(World(bound(nodes())))
    result = run_on(world, tmp_path, monkeypatch, report=str(tmp_path / "new" / "folder"))
    assert result["changed"] is False
    assert result["preflight"]["counts"]["error"] == 0
    assert {each["state"] for each in result["preflight"]["findings"]} == set()
    kept = json.loads((tmp_path / "new" / "folder" / "preflight.json").read_text("utf-8"))
    assert {**kept, "table": result["preflight"]["table"]} == result["preflight"]
    assert "<!DOCTYPE html>" in (tmp_path / "new" / "folder" / "preflight.html").read_text("utf-8")


def test_what_hosts_wrote_obeys_no_terminal_and_an_error_fails_after_the_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = with_gpus(World(bound(nodes())))
    world.answers["node1"]["docker"] = {"error": "\x1b]0;owned\x07Docker\u202e is away.", "kind": "socket"}
    with pytest.raises(AnsibleActionFail) as failed:
        run_on(world, tmp_path, monkeypatch, report=str(tmp_path / "out"))
    assert "1 error, " in str(failed.value)
    assert "docker.answers on node1" in str(failed.value)
    for text in (capsys.readouterr().out, *(path.read_text("utf-8") for path in (tmp_path / "out").iterdir())):
        assert "Docker is away." in text
        assert not {"\x1b", "\u202e", "\x07"} & set(text)


def test_what_a_deployment_would_refuse_once_the_plan_is_bound_is_told_in_table_data_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = nodes(plan_topology="dpep")
    world = with_gpus(World(plan_of(variables)))
    for answer in world.answers.values():
        answer["image"]["answer"]["modules"] = {"deep_ep": True}
    with pytest.raises(AnsibleActionFail, match=r"To mend first, as said above: plan\.bound on node0, node1\.$"):
        run_on(world, tmp_path, monkeypatch, variables=variables, report=str(tmp_path / "out"))
    said = "expert parallelism in LMDeploy 0.18.0 needs deep_gemm"
    assert capsys.readouterr().out.count(said) == 1
    kept = json.loads((tmp_path / "out" / "preflight.json").read_text("utf-8"))
    [finding] = kept["findings"]
    assert (finding["rule"], finding["state"], finding["hosts"]) == ("plan.bound", "error", ["node0", "node1"])
    assert said in finding["told"]
    assert "set plan_image" in finding["told"]
    assert said in (tmp_path / "out" / "preflight.html").read_text("utf-8")


def test_hosts_are_judged_with_the_settings_that_a_deployment_would_take_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow device is left out of NCCL_IB_HCA by the plan, so that nobody has to."""
    world = with_gpus(World(plan_of(nodes())))
    for number, answer in enumerate(world.answers.values()):
        slow = hca(2, f"10.2.0.{number}", rate_gbps=25.0)
        answer["host"]["hcas"].append(slow)
    told = run_on(world, tmp_path, monkeypatch, report=str(tmp_path / "out"))["preflight"]
    assert told["findings"] == []
    # What is taken from them is shown with its reason, and the device of each GPU.
    near = "    nearest to GPU 0 to 7: mlx5_0:1, mlx5_0:1, mlx5_0:1, mlx5_0:1, mlx5_1:1, mlx5_1:1, mlx5_1:1, mlx5_1:1"
    why = "    not mlx5_2:1: it is Ethernet of 25 Gbit/s, and most are Ethernet of 400"
    page = (tmp_path / "out" / "preflight.html").read_text("utf-8")
    for line in (near, why):
        assert told["rdma"].count(line) == told["table"].count(line) == page.count(line) == 2


def test_a_report_that_cannot_be_written_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    world = with_gpus(World(bound(nodes())))
    with pytest.raises(AnsibleActionFail, match=r"The report cannot be written to .*file/x: "):
        run_on(world, tmp_path, monkeypatch, report=str(tmp_path / "file" / "x"))


def test_a_waiver_of_the_inventory_counts_here_and_in_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def world(waived: bool) -> World:
        made = with_gpus(World(bound(nodes())))
        made.answers["node1"]["docker_settings"]["log_driver"] = "none"
        made.answers["node0"]["waivers"] = {"node1": {"docker.log-driver": "read elsewhere"}} if waived else {}
        return made

    monkeypatch.setattr(decide, "secret", lambda *_: "")
    with pytest.raises(AnsibleActionFail, match=r"docker\.log-driver on node1"):
        run_on(world(waived=False), tmp_path, monkeypatch)
    with pytest.raises(AnsibleActionFail, match="Docker logs with the driver none"):
        run_on(world(waived=False), tmp_path, monkeypatch, decide)
    result = run_on(world(waived=True), tmp_path, monkeypatch)
    assert [(each["state"], each["waived"]) for each in result["preflight"]["findings"]] == [
        ("waived", "read elsewhere")
    ]
    [warning] = run_on(world(waived=True), tmp_path, monkeypatch, decide)["warnings"]
    assert warning.endswith("(Waived by plan_waive.docker.log-driver: read elsewhere.)")
    assert Run().waivers == {"node1": {"docker.log-driver": "read elsewhere"}}


def test_a_look_keeps_when_the_host_told_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    world = with_gpus(World(bound(nodes())))
    run = looked_at(world)

    def look_at(host: str, answer: dict[str, Any], **arguments: Any) -> list[float]:
        run.write(f"asked@{host}", {"host": True, "image": {}, "tokens": {}})
        action = look.ActionModule.__new__(look.ActionModule)
        action._task = SimpleNamespace(args=arguments, check_mode=False, async_val=0, _uuid="task", action="x")
        action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
        action._execute_module = lambda module_name, module_args, **_: answer
        action.run(task_vars={"inventory_hostname": host})
        return list(run.host(host).answer["looked"])

    began = time.time()
    before, after = look_at("node0", {"host": {"time": time.time()}})
    assert began <= before <= after <= time.time()
    look_at("node1", {"host": {"time": time.time() + 3600}})
    found = {each.rule: each for each in judged(world.plan, run.hosts())}
    assert "The clock of node1 is at least" in found["system.clocks"].told[0]
    # A later look that does not ask the host leaves both as they were.
    assert look_at("node0", {"tokens": {}}, only=["tokens"]) == [before, after]


# The playbook --------------------------------------------------------------------------------------------------------


def playbook(folder: Path, *arguments: str, **group: Any) -> subprocess.CompletedProcess[str]:
    """Run it on a host that is this machine, and one that nobody finds."""
    hosts = {
        "here": {"ansible_connection": "local", "plan_cluster_address": "192.0.2.100"},
        "gone": {
            "ansible_connection": "ssh",
            "ansible_host": "no-such-host.invalid",
            "plan_cluster_address": "192.0.2.101",
        },
    }
    variables = {"ansible_python_interpreter": sys.executable, "plan_gpus": 8, "plan_tp": 16, **group}
    variables["ansible_ssh_common_args"] = "-F none -o ControlPath=none"
    (folder / "hosts.yml").write_text(yaml.safe_dump({"lmdeploy_nodes": {"vars": variables, "hosts": hosts}}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "HOME": str(folder),
        "DOCKER_HOST": "unix:///nowhere/docker.sock",
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "playbooks/preflight.yml",
        "-i",
        str(folder / "hosts.yml"),
    ]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_every_fault_of_every_host_is_told_at_once_and_it_fails(tmp_path: Path) -> None:
    ran = playbook(tmp_path, "-e", f"preflight_report={tmp_path}/out")
    printed = ran.stdout + ran.stderr
    assert ran.returncode != 0
    assert "Traceback" not in printed
    report = json.loads((tmp_path / "out" / "preflight.json").read_text("utf-8"))
    found = {(each["host"], each["rule"]) for each in report["findings"] if each["state"] == "error"}
    assert {
        ("here", "docker.answers"),
        ("here", "net.cluster-address"),
        ("gone", "host.answers"),
        ("", "model.whole"),
    } <= found
    assert all(each["said"].splitlines()[0] in ran.stdout for each in report["findings"])
    assert "Tomendfirst,assaidabove:" in "".join(printed.split())  # ansible-core 2.16 breaks lines
    assert f"REPORT {tmp_path}/out/preflight.html" in ran.stdout
    states = {rule["id"]: rule["states"] for rule in report["rules"]}
    assert states["gpu.count"]["gone"] == "unknown"
    assert not any(each["why"].startswith("the rule could not be judged") for each in report["unknown"])


def test_waivers_that_are_none_are_refused_before_any_host_is_touched(tmp_path: Path) -> None:
    ran = playbook(tmp_path, plan_waive={"gpu.cuont": "x", "gpu.mig": ""}, plan_tp=-1)
    printed = ran.stdout + ran.stderr
    assert ran.returncode != 0
    assert "plan_waive has 'gpu.cuont', which is no rule (did you mean gpu.count?)" in printed
    assert "plan_waive.gpu.mig has no reason" in printed
    assert "plan_tp is -1" in printed
    assert "Look at every host" not in printed
