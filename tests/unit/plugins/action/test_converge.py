# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The actions decide, act and record, one after another as the role converge calls them; only their modules are stood in for."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleActionFail

from ansible_collections.lmfleet.lmdeploy.plugins.action import act, completion, decide, record
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Round
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import NO_PLAN, Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import KEYS, TOKEN, World, bound, running

GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
PLANS = {
    "tp": bound(nodes()),
    "dpep": bound(nodes(plan_topology="dpep", plan_gpus=2)),
    "replicas": bound(nodes(4, plan_replicas=["left", "right"]), groups=GROUPS),
    "gateway": bound(
        nodes(4, plan_replicas=["left", "right"], plan_gateway=True, plan_gateway_keys=KEYS), groups=GROUPS
    ),
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
GIVEN = "x" * 32


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


class Hosts:
    """A world, and the modules that act on it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.called: list[tuple[str, str]] = []
        self.lists: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.placed: dict[str, str] = {}
        self.fails: dict[str, str] = {}  # a module's name -> the message of its failure

    def look(self) -> None:
        for name, answer in self.world.answers.items():
            Run().saw(name, json.loads(json.dumps(answer)))

    def action(self, module: Any, host: str, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        task = SimpleNamespace(args=arguments, check_mode=check, async_val=0, _uuid="task", action="x")
        action = module.ActionModule.__new__(module.ActionModule)
        action._task, action._connection = task, SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
        action._execute_module = lambda name, given, **_: self.module(host, name, given)
        result: dict[str, Any] = action.run(task_vars={"inventory_hostname": host})
        return result

    def module(self, host: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
        short = name.rpartition(".")[2]
        self.called.append((host, short))
        if short in self.fails:
            return {"failed": True, "msg": self.fails[short]}
        there = self.world.answers[host]["containers"]
        if short == "docker_container" and given["state"] == "absent":
            [found] = [each for each, raw in there.items() if raw["id"] == given["name"]]  # by id, not by name
            del there[found]
        elif short == "docker_container":
            assert given["name"] not in there
            self.world.make(given, host)
        elif short == "slurp":
            return {"content": base64.b64encode(str(self.world._contents[host]).encode()).decode()}
        elif short == "gateway":
            self.told.append(given)
            if given["act"] == "reload":
                self.world.read_files()
            if given["act"] in ("open", "close"):
                for name in given["servers"]:
                    self.world.answers[host]["gateway"]["servers"][name]["aside"] = given["act"] == "close"
            elif given["expected"] != self.world.answers[host]["gateway"]["description"]:
                return {"failed": True, "msg": "it still runs with the files that it read before"}
        elif short == "place":
            self.placed.update(given["files"])
            for path, content in given["secrets"].items():
                if "/gateway/" in path:
                    self.world.answers[host]["files"][path] = steps.mark_of(content)
                else:
                    self.world.secret(host, content)
            for path, content in given["files"].items():
                if path.endswith("record.json"):
                    self.world.answers[host]["record"] = json.loads(content)
        elif short == "keep_logs":
            self.kept += [given] if {*given["containers"].values()} <= {raw["id"] for raw in there.values()} else []
        else:
            assert short == "proxy_nodes"
            self.lists.append(given)
            self.world._put_list_right(steps_of("list", host))
        self.world._settle()
        return {"changed": True, "msg": "done"}

    def decide(self, **arguments: Any) -> dict[str, Any]:
        self.look()
        return self.action(decide, self.world.plan.head, **arguments)

    def converge(self, decided: dict[str, Any]) -> None:
        """As the roles do."""
        hosts = [node.name for node in self.world.plan.nodes]
        for host in decided["read_token"]:
            self.action(act, host, act="read")
        for number, each in enumerate(decided["rounds"]):
            for kind, services in (
                ("bring", []),
                ("remove", []),
                ("start", ["proxy"]),
                ("list", []),
                ("start", ["gateway"]),
                ("wait", []),
                ("reload", []),
                ("open", []),
                ("start", ["ray"]),
            ):
                for host in hosts:
                    self.action(act, host, act=kind, round=number, services=services)
            for host in hosts:
                self.action(act, host, act="start", round=number, services=["api", "dp"])
            self.world.wait(Round(each["engines"], each["warm"], []))
            for host in each["hosts"]:
                started = {each.name: each.began for each in self.world.hosts[host].containers.values()}
                Run().write(f"started@{host}", started)
            for host in hosts:
                if host == decided["proxy"]:
                    self.action(act, host, act="list", round=number, proven=True)
                assert not self.action(record, host, round=number)["changed"]


def steps_of(kind: str, host: str) -> Any:
    return SimpleNamespace(act=kind, host=host, name="lmdeploy-proxy")


def begun(world: World) -> Hosts:
    Run().keep_plan(world.plan)
    if world.door:
        Run().write("inputs", {"gateway": dataclasses.asdict(world.door)})
    return Hosts(world)


def test_the_gateway_reads_other_keys_and_no_container_is_touched() -> None:
    world = running(PLANS["gateway"])
    assert world.door
    world.door = dataclasses.replace(world.door, keys={"chat": "n" * 40})
    hosts = begun(world)
    decided = hosts.decide()
    assert not any(key in str(decided) for key in ("n" * 40, *KEYS.values()))
    hosts.converge(decided)
    assert [each["act"] for each in hosts.told] == ["reload", "open"]
    assert "docker_container" not in [module for __, module in hosts.called]
    assert sorted(path.rpartition("/")[2] for path in hosts.placed if "/gateway/" in path) == [
        "concurrent.map",
        "haproxy.cfg",
        "requests.map",
    ]
    assert hosts.decide()["rounds"] == []


@pytest.mark.parametrize(
    ("plan", "url", "given"),
    [
        ("gateway", "https://10.0.0.10:8443", {"api_key": KEYS["batch"], "verified": False}),
        ("gateway", "http://10.0.0.10:8000", {"api_key": "of the engines"}),
        ("replicas", "http://10.0.0.10:8000", {"api_key": "of the engines"}),
    ],
)
def test_a_completion_through_the_gateway_is_asked_for_with_a_key_of_its_own(
    plan: str, url: str, given: dict[str, Any]
) -> None:
    hosts = begun(running(PLANS[plan]))
    asked: list[dict[str, Any]] = []
    task = SimpleNamespace(args={"url": url, "model": "m", "api_key": "of the engines"}, check_mode=False, async_val=0)
    action = completion.ActionModule.__new__(completion.ActionModule)
    action._task, action._connection = task, SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))

    def execute(__: str, arguments: dict[str, Any], **_: Any) -> dict[str, Any]:
        asked.append(arguments)
        return {"changed": False}

    action._execute_module = execute
    action.run(task_vars={"inventory_hostname": hosts.world.plan.head})
    assert asked == [{"url": url, "model": "m", **given}]


def test_the_gateways_image_is_brought_before_anything_is_decided() -> None:
    hosts = begun(World(PLANS["gateway"]))
    hosts.world.answers["node0"]["image_ids"] = {"docker.io/library/haproxy:3.2": False}
    decided = hosts.decide()
    assert (decided["prepare"], decided["pull"], decided["gateway"]) == (
        True,
        {},
        {"node0": "docker.io/library/haproxy:3.2"},
    )
    checked = hosts.action(decide, "node0", check=True)
    assert checked["lines"][0] == "node0: pull the gateway's image: docker.io/library/haproxy:3.2 is not on it"
    with pytest.raises(AnsibleActionFail, match=r"the image docker\.io/library/haproxy:3\.2 was not seen there"):
        hosts.decide(image_brought=True)


def test_a_gateway_file_that_was_lost_is_brought_and_nothing_else_is_done() -> None:
    hosts = begun(running(PLANS["gateway"]))
    path = "/var/lib/lmfleet/lmdeploy/gateway/files/keys.map"
    hosts.world.answers["node0"]["files"][path] = None
    decided = hosts.decide()
    assert [each["acts"] for each in decided["rounds"]] == [[]]
    hosts.converge(decided)
    assert hosts.world.answers["node0"]["files"][path]


@every_plan
def test_bare_hosts_come_to_serve_and_then_nothing_is_done(plan: Plan) -> None:
    hosts = begun(World(plan))
    decided = hosts.decide()
    assert (decided["prepare"], decided["prove"], decided["read_token"]) == (False, True, [])
    hosts.converge(decided)
    for engine in plan.engines:
        marks = {hosts.world.hosts[name].mark(steps.token_path(plan, name) or "") for name in engine.nodes}
        assert len(marks) == 1
        assert None not in marks
    kinds = {"tp": ["api", "ray"], "dpep": ["dp"]}[plan.topology]
    for engine in plan.engines:
        [formation] = hosts.world.answers[engine.head]["record"]["formations"]
        assert (formation["engine"], formation["started"]) == (engine.name, kinds)
        assert formation["phases"][0][0] == "containers"
    again = hosts.decide()
    assert (again["rounds"], again["lines"], again["prove"]) == ([], [], False)
    assert set(again["states"].values()) == {"alive"}


def test_an_unchanged_run_that_asked_a_busy_engine_for_no_token_says_so() -> None:
    hosts = begun(World(PLANS["tp"]))
    hosts.converge(hosts.decide())
    assert hosts.decide()["busy"] == []
    hosts.world.states("busy")
    decided = hosts.decide()
    asked_nothing = not decided["prove"]
    assert decided["rounds"] == []
    assert decided["busy"] == ([each.url for each in PLANS["tp"].endpoints] if asked_nothing else [])
    assert asked_nothing


@every_plan
def test_36_the_proxys_list_is_read_after_the_warm_up_and_has_what_gave_tokens(plan: Plan) -> None:
    hosts = begun(World(plan))
    decided = hosts.decide()
    hosts.converge(decided)
    if plan.proxy is None:
        assert hosts.lists == []
        return
    first, last = hosts.lists
    assert first["expected"] == []  # before anything was started
    assert last["expected"] == last["nodes"] == plan.proxy.ranks


def test_36_an_engine_whose_turn_is_to_come_has_not_to_be_listed_yet() -> None:
    plan = PLANS["replicas"]
    hosts = begun(running(plan))
    decided = hosts.decide(ray_token=GIVEN)
    assert len(decided["rounds"]) == 2
    hosts.converge(decided)
    left, right = ([each.url for each in plan.endpoints_of(name)] for name in ("lmdeploy-left", "lmdeploy-right"))
    proven = [given["expected"] for given in hosts.lists if given["expected"]]
    assert proven == [left, [*left, *right]]


def test_36_a_rank_that_the_proxy_has_dropped_is_added_and_has_to_stay() -> None:
    plan = PLANS["dpep"]
    hosts = begun(running(plan))
    dropped = plan.endpoints[1].url
    del hosts.world.answers["node0"]["proxy"]["nodes"][dropped]
    decided = hosts.decide()
    assert decided["lines"] == [f"node0: correct the list of lmdeploy-proxy: it does not list {dropped}, which serves"]
    hosts.converge(decided)
    assert plan.proxy is not None
    assert hosts.lists[-1]["expected"] == plan.proxy.ranks
    assert hosts.decide()["rounds"] == []


@every_plan
def test_what_was_warmed_up_and_says_nothing_gives_one_token_and_stays_warmed(plan: Plan) -> None:
    hosts = begun(running(plan))
    hosts.world.states("unknown")
    decided = hosts.decide()
    (each,) = decided["rounds"]
    assert each["endpoints"] == []
    assert [one["url"] for one in each["known"]] == [one.url for one in plan.endpoints]
    hosts.converge(decided)
    assert hosts.decide()["rounds"] == []


@every_plan
def test_a_host_that_was_rebuilt_gets_the_head_s_token_and_the_engine_comes_back(plan: Plan) -> None:
    hosts = begun(running(plan))
    bare = World(plan).answers["node1"]
    hosts.world.answers["node1"] = bare
    hosts.world._settle()
    decided = hosts.decide()
    assert decided["read_token"] == ["node0"]
    hosts.converge(decided)
    assert hosts.world.hosts["node1"].mark(steps.token_path(plan, "node1") or "") == steps.mark_of(TOKEN)
    assert hosts.decide()["rounds"] == []


def test_a_token_that_was_removed_meanwhile_is_told_with_what_to_do() -> None:
    plan = PLANS["tp"]
    hosts = begun(running(plan))
    hosts.world.answers["node1"] = World(plan).answers["node1"]
    hosts.world._settle()
    assert hosts.decide()["read_token"] == ["node0"]
    hosts.fails["slurp"] = "file not found: /x"
    path = steps.token_path(plan, "node0")
    refused = hosts.action(act, "node0", act="read")
    assert refused["failed"]
    assert f"node0 (10.0.0.10): {path}, " in refused["msg"]
    assert f"cannot be read any more: file not found: /x. Run ls -l {path} on node0 as the user" in refused["msg"]
    assert "then run the playbook again" in refused["msg"]
    del hosts.fails["slurp"]
    hosts.world._contents["node0"] = ""
    assert hosts.action(act, "node0", act="read")["token_read"]
    empty = hosts.action(act, "node1", act="bring", round=0)
    assert f"is empty. Run rm {path} on node0" in empty["msg"]


@every_plan
def test_a_token_that_is_given_anew_is_brought_and_used(plan: Plan) -> None:
    hosts = begun(running(plan))
    decided = hosts.decide(ray_token=GIVEN)
    assert [each["engines"] for each in decided["rounds"]] == [[engine.name] for engine in plan.engines]
    assert not any(GIVEN in str(part) for part in decided.values())
    hosts.converge(decided)
    assert hosts.decide(ray_token=GIVEN)["rounds"] == []
    assert hosts.decide()["rounds"] == []


def test_only_the_container_that_was_seen_is_removed() -> None:
    hosts = begun(running(PLANS["tp"]))
    hosts.world.stop("node1", "lmdeploy-ray")
    hosts.decide()
    hosts.world.entry("node1", "lmdeploy-ray")["id"] = "another, made since"
    with pytest.raises(
        ValueError, match="not enough values"
    ):  # no container has that id: Docker would find none either
        hosts.action(act, "node1", act="remove")


def test_the_log_of_a_container_is_kept_before_it_is_removed() -> None:
    hosts = begun(running(PLANS["tp"]))
    hosts.world.stop("node1", "lmdeploy-ray")
    hosts.decide()
    there = hosts.world.entry("node1", "lmdeploy-ray")["id"]
    hosts.action(act, "node1", act="remove")
    directory = "/var/lib/lmfleet/lmdeploy/logs"
    assert hosts.kept == [{"containers": {"lmdeploy-ray": there}, "directory": directory}]
    hosts.action(act, "node0", check=True, act="remove")
    assert len(hosts.kept) == 1


def test_a_step_that_fails_ends_the_others_and_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = begun(World(PLANS["tp"]))
    hosts.decide()
    monkeypatch.setattr(hosts, "module", lambda *_: {"failed": True, "msg": "no space left"})
    result = hosts.action(act, "node0", act="start")
    assert result["failed"]
    assert result["msg"].startswith(
        "node0 (10.0.0.10): start lmdeploy-ray failed: no space left.\nRemedy: see journalctl -u docker on this host, and run "
        "again.\nIt was done because lmdeploy-ray on node0, node1 does not"
    )


def test_what_has_to_be_pulled_or_asked_is_said_before_anything_is_decided() -> None:
    hosts = begun(World(PLANS["tp"]))
    hosts.world.no_image("node1")
    decided = hosts.decide()
    assert [each["name"] for each in decided["chain"]] == ["node0", "node1"]
    assert (decided["prepare"], list(decided["pull"]), decided["ask"], decided["rounds"]) == (
        True,
        ["node1"],
        "node0",
        [],
    )
    checked = hosts.action(decide, "node0", check=True)
    assert (checked["prepare"], list(checked["pull"]), len(checked["rounds"])) == (False, ["node1"], 1)
    assert checked["lines"][0].startswith("node1: pull the image: ")
    with pytest.raises(AnsibleActionFail, match=r"the image sha256:a+ was not seen there"):
        hosts.decide(image_brought=True)


def test_a_check_tells_the_starts_of_an_image_that_is_to_come_and_asks_docker_for_none() -> None:
    hosts = begun(World(PLANS["tp"]))
    hosts.world.no_image("node1")
    hosts.look()
    hosts.action(decide, "node0", check=True)
    result = hosts.action(act, "node1", check=True, act="start")
    assert result["steps"] == ["start lmdeploy-ray: lmdeploy-ray on node0, node1 does not exist"]
    assert "docker_container" not in [module for __, module in hosts.called]
    hosts.action(act, "node0", check=True, act="start")  # it has the image: Docker says what would differ
    assert "docker_container" in [module for __, module in hosts.called]


def test_64_an_image_whose_answer_was_cut_short_is_asked_again_and_then_said_why() -> None:
    hosts = begun(World(PLANS["tp"]))
    for answer in hosts.world.answers.values():
        answer["image"].update(answer=None, unanswered="lmdeploy serve proxy --help: timed out after 120 s")
    assert hosts.decide()["ask"] == "node0"
    with pytest.raises(AnsibleActionFail, match=r"node0: .* did not tell which .*timed out after 120 s; a second try"):
        hosts.decide(image_brought=True)


def test_every_fault_comes_in_one_message_and_a_short_token_is_refused() -> None:
    hosts = begun(World(PLANS["tp"]))
    hosts.world.answers["node0"]["docker"] = {"error": "x", "kind": "socket"}
    hosts.world.no_model("node1")
    with pytest.raises(AnsibleActionFail) as stopped:
        hosts.decide()
    assert str(stopped.value).startswith("Nothing was started. To mend first:\n  - node0 (10.0.0.10): x")
    assert "is not whole on 1 of 2 hosts" in str(stopped.value)
    with pytest.raises(AnsibleActionFail, match="has 5 characters: give it 32 or more"):
        hosts.decide(ray_token="short")


def test_without_a_plan_it_is_said_what_to_do() -> None:
    with pytest.raises(AnsibleActionFail) as refused:
        Hosts(World(PLANS["tp"])).action(decide, "node0")
    assert str(refused.value) == NO_PLAN


def test_what_one_action_hands_to_the_next_comes_back_as_it_was() -> None:
    world = running(PLANS["replicas"])
    world.states("dead", "lmdeploy-right")
    run, decision = Run(), world.decide("F")
    run.keep_plan(world.plan)
    run.keep_decision(decision)
    assert Run().plan == world.plan
    kept = Run().decision
    assert (kept.rounds, kept.notes, kept.faults) == (decision.rounds, decision.notes, decision.faults)
    assert {url: each.state for url, each in kept.states.items()} == {u: e.state for u, e in decision.states.items()}
    run.saw("node0", {"a": 1, "b": 1})
    run.saw("node0", {"b": 2})
    assert run.hosts()["node0"].answer == {"a": 1, "b": 2}
    assert run.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in run.folder.iterdir()} == {0o600}
