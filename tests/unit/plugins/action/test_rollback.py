# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades that fail, and what is brought back: the actions one after another as the roles call them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleActionFail

from ansible_collections.lmfleet.lmdeploy.plugins.action import act, drain, rollback
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._draining import set_aside
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils import polling, record, steps
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Round
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.draining import cold
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rollback import on_demand
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.run import Run
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.plugins.action.test_converge import Hosts
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import IMAGE, OTHER_IMAGE, World, bound

GROUPS = {"left": ["node0", "node1"], "right": ["node2", "node3"]}
LEFT, RIGHT = "lmdeploy-left", "lmdeploy-right"
WHY = "node2 (10.0.0.12): lmdeploy-api exited with code 1"


def tp(**more: Any) -> Plan:
    return bound(nodes(**more))


def dpep(**more: Any) -> Plan:
    return bound(nodes(plan_topology="dpep", plan_gpus=2, **more))


def replicas(**more: Any) -> Plan:
    return bound(nodes(4, plan_replicas=["left", "right"], **more), groups=GROUPS)


SHAPES = {"tp": tp, "dpep": dpep, "replicas": replicas}
every_shape = pytest.mark.parametrize("shape", SHAPES)
OPTION: dict[str, Any] = {"plan_api_server_options": {"max_batch_size": 64}}


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


def begins(world: World) -> Hosts:
    """Another run of a playbook, which has planned what the world's plan is."""
    run = Run()
    for path in run.folder.iterdir():
        path.unlink()
    run.keep_plan(world.plan)
    return Hosts(world)


def deployed(first: Plan, then: Plan | None = None) -> World:
    """What serves after ``first`` and, where there is one, ``then`` were deployed."""
    hosts = begins(World(first))
    hosts.converge(hosts.decide())
    if then:
        hosts = begins(hosts.world.follow(then))
        hosts.converge(hosts.decide())
    return hosts.world


def kept(world: World) -> tuple[str, str]:
    """The identities of the plans that the head has on record."""
    found = world.answers[world.plan.head]["record"]
    return (found.get("plan") or {}).get("identity", ""), (found.get("previous") or {}).get("identity", "")


def back(hosts: Hosts, state: str, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = hosts.action(rollback, hosts.world.plan.head, state=state, **more)
    return result


def bring_back(hosts: Hosts) -> Hosts:
    """As back.yml does: look and decide, of the plan that is the run's now."""
    again = Hosts(hosts.world.follow(Run().plan))
    again.converge(again.decide())
    return again


def fails_at(hosts: Hosts, number: int, state: str = "loading") -> None:
    """The rounds before it end well; in it the engine is replaced, and does not come to serve."""
    decided = hosts.decide()
    assert len(decided["rounds"]) > number
    for index in range(number + 1):
        each = Run().decision.rounds[index]
        hosts.world.act([step for step in each.steps if step.act == "remove"])
        hosts.world.act([step for step in each.steps if step.act == "start"])
        if index < number:
            hosts.world.wait(each)
            hosts.world.record(each, hosts.world.hosts)  # of members; its plans are put back by what follows
    for name in Run().decision.rounds[number].engines:
        hosts.world.states(state, name)
    for host in (node.name for node in hosts.world.plan.nodes):
        hosts.action(rollback, host, state="noted", msg=f"{host} stopped waiting, because node2 failed: x")
    hosts.action(rollback, "node0", state="noted", msg="")
    last = hosts.world.plan.nodes[-1].name
    hosts.action(rollback, last, state="noted", msg=WHY)


@every_shape
@pytest.mark.parametrize("state", ["loading", "dead", "absent"])
def test_what_served_before_comes_back_where_the_new_one_does_not(shape: str, state: str) -> None:
    old, new = SHAPES[shape](), SHAPES[shape](**OPTION)
    hosts = begins(deployed(old).follow(new))
    fails_at(hosts, 0, state)
    assert back(hosts, "prepared")["wanted"]
    again = bring_back(hosts)
    assert kept(again.world) == (old.identity, "")
    assert [s for s in again.world.decide().steps if s.act != "list"] == []
    with pytest.raises(AnsibleActionFail) as ended:
        back(again, "told")
    first, what, __ = str(ended.value).split("\n")
    assert first.startswith("The upgrade failed: ")
    assert WHY in first
    assert what.startswith(f"{old.engines[0].name} was rolled back to what served before ({old.model} (main), ")
    assert what.endswith(f"and it serves: {old.url}")


def test_an_engine_that_was_upgraded_before_the_other_failed_goes_back_too_and_after_it() -> None:
    old, new = replicas(), replicas(**OPTION)
    hosts = begins(deployed(old).follow(new))
    fails_at(hosts, 1)
    back(hosts, "prepared")
    again = Hosts(hosts.world.follow(Run().plan))
    decided = again.decide()
    assert [each["engines"] for each in decided["rounds"]] == [[RIGHT], [LEFT]]
    assert [each["drain"] for each in decided["rounds"]][1] == ["http://10.0.0.10:23333"]
    again.converge(decided)
    assert kept(again.world) == (old.identity, "")
    with pytest.raises(AnsibleActionFail, match=f"{LEFT}, {RIGHT} were rolled back"):
        back(again, "told")


def test_an_engine_whose_turn_had_not_come_is_not_touched() -> None:
    world = deployed(replicas())
    before = {name: world.entry("node2", name)["id"] for name in ("lmdeploy-ray", "lmdeploy-api")}
    hosts = begins(world.follow(replicas(**OPTION)))
    fails_at(hosts, 0)
    back(hosts, "prepared")
    again = bring_back(hosts)
    assert {name: again.world.entry("node2", name)["id"] for name in before} == before


def test_what_failed_before_anything_was_taken_down_leaves_all_as_it_is() -> None:
    old = replicas()
    hosts = begins(deployed(old).follow(replicas(**OPTION)))
    hosts.decide()
    hosts.action(rollback, "node1", state="noted", msg="node1 cannot reach node0 on TCP 6379")
    back(hosts, "prepared")
    again = bring_back(hosts)
    with pytest.raises(AnsibleActionFail) as ended:
        back(again, "told")
    assert "failed: node1 cannot reach node0" in str(ended.value)
    assert "What served before was left as it is" in str(ended.value)


def test_a_roll_back_that_fails_says_both_and_what_to_do() -> None:
    hosts = begins(deployed(tp()).follow(tp(**OPTION)))
    fails_at(hosts, 0)
    back(hosts, "prepared")
    hosts.action(rollback, "node0", state="noted", msg="node0: the GPU has fallen off the bus")
    with pytest.raises(AnsibleActionFail) as ended:
        back(hosts, "told")
    for words in ("so did the roll-back", WHY, "The roll-back: node0: the GPU has", "playbooks/rollback.yml"):
        assert words in str(ended.value)


def test_a_host_that_was_lost_in_the_run_is_named_and_what_failed_too() -> None:
    hosts = begins(deployed(tp()).follow(tp(**OPTION)))
    hosts.decide()
    hosts.action(rollback, "node0", state="noted", msg="")  # the others of a play that has lost a host have no message
    back(hosts, "prepared")
    del hosts.world.answers["node1"]
    with pytest.raises(AnsibleActionFail, match=r"node1 \(10.0.0.11\) cannot be reached: it was lost in this run"):
        hosts.decide()
    with pytest.raises(AnsibleActionFail, match="The upgrade failed: a host could not be reached any more"):
        back(hosts, "told")


def test_without_a_failure_nothing_is_brought_back() -> None:
    hosts = begins(deployed(tp()).follow(tp(**OPTION)))
    hosts.converge(hosts.decide())
    assert not back(hosts, "prepared")["wanted"]
    assert not Run().recorded


@pytest.mark.parametrize(
    ("world", "why"),
    [
        (lambda: World(tp()), "the hosts have no record of an earlier plan"),
        (lambda: deployed(tp()), "the plan that served last is this same one"),
    ],
)
def test_where_there_is_nothing_to_bring_back_it_is_said_with_the_failure(world: Any, why: str) -> None:
    hosts = begins(world())
    hosts.decide()
    hosts.action(rollback, "node0", state="noted", msg="node0: x")
    with pytest.raises(AnsibleActionFail) as ended:
        back(hosts, "prepared")
    assert (
        str(ended.value)
        == f"The upgrade failed: node0: x\nNothing was rolled back: {why}. What serves now: playbooks/status.yml."
    )


def test_a_plan_is_on_record_when_all_of_it_was_proven() -> None:
    """A run that ended after the first of two engines leaves the plan that served last on record."""
    old, new = replicas(), replicas(**OPTION)
    hosts = begins(deployed(old).follow(new))
    decided = hosts.decide()
    first = {**decided, "rounds": decided["rounds"][:1]}
    hosts.converge(first)
    assert kept(hosts.world) == (old.identity, "")
    hosts = begins(hosts.world)
    hosts.converge(hosts.decide())
    assert kept(hosts.world) == (new.identity, old.identity)


def test_another_head_finds_the_plan_that_the_old_one_has_on_record() -> None:
    old, new = tp(), bound({name: {**each, "plan_head": "node1"} for name, each in nodes().items()})
    assert (old.head, new.head) == ("node0", "node1")
    world = deployed(old, new)
    assert kept(world) == (new.identity, old.identity)
    assert "plan" not in world.answers["node0"]["record"]
    assert set(record.plans_kept(old, world.hosts)) == {"plan", "previous"}


# rollback.yml --------------------------------------------------------------------------------------------------------


def chosen(world: World) -> Hosts:
    hosts = begins(world)
    hosts.look()
    back(hosts, "chosen")
    return bring_back(hosts)


@every_shape
def test_the_plan_before_comes_back_and_a_second_time_the_other_one(shape: str) -> None:
    old, new = SHAPES[shape](), SHAPES[shape](**OPTION)
    world = deployed(old, new)
    assert kept(world) == (new.identity, old.identity)
    hosts = chosen(world)
    assert kept(hosts.world) == (old.identity, new.identity)
    hosts = chosen(hosts.world)
    assert kept(hosts.world) == (new.identity, old.identity)


def test_a_roll_back_on_demand_that_fails_is_a_failure_where_upgrades_are_guarded() -> None:
    """The role converge with converge_rollback: there is nothing else to bring back."""
    hosts = begins(deployed(tp(), tp(**OPTION)))
    hosts.look()
    back(hosts, "chosen")
    hosts.decide()
    hosts.action(rollback, "node0", state="noted", msg=WHY)
    with pytest.raises(AnsibleActionFail) as ended:
        back(hosts, "prepared")
    assert WHY in str(ended.value)


def test_an_image_is_brought_back_by_its_id_though_the_tag_is_another_one_s_by_now() -> None:
    old, new = tp(), bound(nodes(), image=OTHER_IMAGE)
    world = deployed(old).follow(new)
    for answer in world.answers.values():
        answer["image"]["id"] = OTHER_IMAGE
    hosts = begins(world)
    hosts.converge(hosts.decide())
    hosts = begins(hosts.world)
    hosts.look()
    back(hosts, "chosen")
    assert Run().questions("node1")["image"]["reference"] == IMAGE
    again = Hosts(hosts.world.follow(Run().plan))
    for answer in again.world.answers.values():
        answer["image"]["id"] = None
    with pytest.raises(AnsibleActionFail) as stopped:
        again.decide()
    assert str(stopped.value).startswith(
        f"Nothing was started. To mend first:\n  - node0, node1: the image that lmdeploy ran, {IMAGE}, is not there any "
    )
    for answer in again.world.answers.values():
        answer["image"]["id"] = IMAGE
    again.converge(again.decide())
    assert again.world.entry("node0", "lmdeploy-api")["image"] == IMAGE


def test_after_an_upgrade_that_never_served_the_last_one_that_did_comes_back() -> None:
    """Not the one before it: where upgrade_rollback is false, or the run was killed."""
    oldest, old, new = tp(), tp(**OPTION), tp(plan_api_server_options={"max_batch_size": 7})
    hosts = begins(deployed(oldest, old).follow(new))
    fails_at(hosts, 0)
    assert kept(hosts.world) == (old.identity, oldest.identity)
    why = on_demand(new, {"plan": old.to_json()}, hosts.world.hosts)[1]
    assert why == "the last one that served; lmdeploy-api on node0 belongs to a plan that was never proven"
    hosts = chosen(hosts.world)
    assert kept(hosts.world) == (old.identity, oldest.identity)
    assert kept(chosen(hosts.world).world) == (oldest.identity, old.identity)


def refused(world: World) -> str:
    hosts = begins(world)
    hosts.look()
    with pytest.raises(AnsibleActionFail) as stopped:
        back(hosts, "chosen")
    assert not Run().recorded
    assert str(stopped.value).startswith("Nothing was changed. ")
    return str(stopped.value)


def test_where_there_is_none_before_it_is_said() -> None:
    assert "no record of a plan that served" in refused(World(tp()))
    assert "no record of a plan before the one that serves" in refused(deployed(tp()))


def test_a_plan_of_another_version_is_not_brought_back() -> None:
    world = deployed(tp(), tp(**OPTION))
    world.answers["node0"]["record"]["previous"]["format"] = 2
    assert "recorded by another version of this collection (a plan of format 2" in refused(world)


def test_other_nodes_than_the_plan_s_are_named() -> None:
    world = deployed(tp(), tp(**OPTION))
    more = refused(world.follow(replicas()))
    assert "it is with node2 (10.0.0.12), node3 (10.0.0.13) besides." in more
    fewer = refused(world.follow(bound(nodes(1))))
    assert "it is without node1 (10.0.0.11)." in fewer
    moved = refused(world.follow(tp(plan_state_dir="/srv/lmfleet")))
    assert "node0 (10.0.0.10, /srv/lmfleet; then 10.0.0.10, /var/lib/lmfleet)" in moved


def test_a_host_whose_record_cannot_be_read_is_named() -> None:
    world = deployed(tp(), tp(**OPTION))
    world.answers["node1"]["unreachable"] = "No route to host"
    assert "cannot be read from node1: No route to host" in refused(world)


# Draining ------------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(f"{polling.__name__}.time", clock)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def drained(
    monkeypatch: pytest.MonkeyPatch, requests: Any, refused: str = "", **more: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
    """The second round of an option's change; ``requests`` by seconds. What came of it, what was asked, and how long it took."""
    hosts = begins(deployed(replicas()).follow(replicas(**OPTION)))
    hosts.decide()
    clock, asked = Clock(monkeypatch), []

    def module(host: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
        assert (host, name) == ("node0", "lmfleet.lmdeploy.proxy_drain")
        asked.append(given)
        return {
            "refused": refused,
            "aside": given["nodes"],
            "ranks": {url: requests(clock.now) for url in given["nodes"]},
        }

    monkeypatch.setattr(hosts, "module", module)
    return hosts.action(drain, "node0", round=1, **more), asked, clock.now


def test_an_engine_is_drained_before_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked, seconds = drained(monkeypatch, lambda now: {"requests": 3 if now < 40 else 0})
    assert result == {"changed": True, "seconds": round(seconds, 1), "msg": "no request runs there any more"}
    assert 40 <= seconds <= 40 + drain.ROUND_S
    assert [each.get("aside", False) for each in asked[:3]] == [True, False, False]
    assert {tuple(each["nodes"]) for each in asked} == {("http://10.0.0.12:23333",)}


def test_requests_that_do_not_end_hold_it_up_to_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    result, __, seconds = drained(monkeypatch, lambda _: {"requests": 2}, timeout=60)
    assert result["msg"] == "after 60 s 2 requests still run or wait there, and are cut off now"
    assert 60 <= seconds <= 60 + drain.ROUND_S


def test_with_0_or_without_a_proxy_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drained(monkeypatch, lambda _: {"requests": 2}, timeout=0) == ({"changed": False}, [], 0)
    hosts = begins(deployed(tp()).follow(tp(**OPTION)))
    [each] = hosts.decide()["rounds"]
    assert each["drain"] == []


def test_a_proxy_that_cannot_be_told_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked, seconds = drained(
        monkeypatch, lambda _: {"requests": 2}, "no answer from http://10.0.0.10:8000/nodes/status"
    )
    assert (result, len(asked), seconds) == ({"changed": False}, 1, 0)


def test_only_what_serves_and_is_taken_down_is_drained() -> None:
    hosts = begins(deployed(replicas()).follow(replicas(**OPTION)))
    hosts.world.states("dead", RIGHT)
    assert [each["drain"] for each in hosts.decide()["rounds"]] == [[], ["http://10.0.0.10:23333"]]
    hosts = begins(deployed(replicas()))
    hosts.world.states("unknown", RIGHT)  # is waited for
    assert [each["drain"] for each in hosts.decide()["rounds"]] == [[]]


def test_an_engine_at_a_url_that_it_is_to_leave_is_drained_there() -> None:
    hosts = begins(deployed(replicas()).follow(replicas(plan_ports={"api": 23400})))
    decided = hosts.decide()
    assert [each["drain"] for each in decided["rounds"] if each["engines"]] == [
        ["http://10.0.0.10:23333"],
        ["http://10.0.0.12:23333"],
    ]


def test_what_an_interrupted_run_has_put_aside_serves_again_until_its_turn() -> None:
    hosts = begins(deployed(replicas()).follow(replicas(**OPTION)))
    hosts.world.states("dead", LEFT)
    aside = "http://10.0.0.12:23333"
    hosts.world.answers["node0"]["proxy"]["nodes"][aside] = [set_aside(hosts.world.plan.served_model_name)]
    assert [each["engines"] for each in hosts.decide()["rounds"]] == [[LEFT], [RIGHT]]
    hosts.action(act, "node0", act="list", round=0)
    assert aside in hosts.lists[-1]["nodes"]
    assert hosts.lists[-1]["left"] == []


def test_what_is_warmed_up_gets_no_requests_where_others_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked, __ = drained(monkeypatch, lambda _: {"requests": 2}, warmup=True)
    assert result == {"changed": False}
    assert [(each["nodes"], each["aside"]) for each in asked] == [(["http://10.0.0.12:23333"], True)]
    hosts = begins(World(replicas()))  # nobody serves yet
    hosts.decide()
    assert hosts.action(drain, "node0", warmup=True) == {"changed": False}
    assert ("node0", "proxy_drain") not in hosts.called
    hosts = begins(deployed(dpep()).follow(dpep(**OPTION)))
    hosts.decide()
    assert cold(hosts.world.plan, Run().decision, Run().decision.rounds[0]) == []


def test_all_ranks_of_a_group_are_drained_together() -> None:
    hosts = begins(deployed(dpep()).follow(dpep(**OPTION)))
    [each] = hosts.decide()["rounds"]
    assert sorted(each["drain"]) == sorted(endpoint.url for endpoint in hosts.world.plan.endpoints)
    assert Run().decision.rounds[0].drain == each["drain"]
    assert steps.round_of(hosts.world.plan, Round([], [], []))["drain"] == []
