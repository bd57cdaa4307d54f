# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a formation: what was seen, in its order, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.decide import Round, Step
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.planning.types import Plan
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.readiness import HostWait, Limits
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.record import new_record
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.status import as_table, status_of
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.timeline import (
    MOST,
    compared,
    ends_in,
    formation_of,
    kept,
    last_of,
    line_of,
    ratio,
    waterfall,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import OTHER_IMAGE, World, bound, running

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
TP = bound(nodes())
DPEP = bound(nodes(plan_topology="dpep", plan_gpus=2))
ZERO = 1.8e9


def round_of(plan: Plan, *kinds: str) -> Round:
    made = [
        Step(s.node, "start", s.name, s.service, s.engine, "", "20260101T000000-1")
        for s in plan.services
        if s.service in kinds
    ]
    return Round(["lmdeploy"], ["lmdeploy"], made)


def formed(plan: Plan, each: Round, **given: Any) -> dict[str, Any]:
    found = formation_of(plan, plan.engines[0], each, **{**seen(plan), **given})
    assert found is not None
    return found


def seen(plan: Plan) -> dict[str, Any]:
    """All that can be seen of a formation: each thing ten seconds after the other."""
    begun: dict[str, dict[str, list[float]]] = {}
    for service in plan.services:
        late = 25.0 if service.service == "api" else 0.0
        begun.setdefault(service.node, {})[service.name] = [ZERO + late, ZERO + late + 3.0]
    head, other = plan.engines[0].nodes
    marks = {
        head: {"ray": ZERO + 20, "weights": ZERO + 35, "graphs": ZERO + 50, "answers": ZERO + 60},
        other: {"weights": ZERO + 40},
    }
    if plan is DPEP:
        marks[head] = {"ranks": ZERO + 9, "weights": ZERO + 35, "graphs": ZERO + 50, "answers": ZERO + 58}
        marks[other] = {"ranks": ZERO + 11, "answers": ZERO + 60}
    listed = {each.url: ZERO + 70 for each in plan.endpoints}
    return {"begun": begun, "marks": marks, "listed": listed, "brought": {}, "warmed": ZERO + 80}


def test_tp_over_ray() -> None:
    found = formed(TP, round_of(TP, "ray", "api"), brought={"image": {"node0": 100.0, "node1": 120.5}})
    assert found["phases"] == [
        *(["containers", 3.0], ["ray", 20.0], ["weights", 40.0], ["graphs", 50.0], ["answers", 60.0], ["warmed", 80.0]),
    ]
    assert found["seconds"] == 80.0
    assert found["before"] == {"image": 120.5}
    assert found["started"] == ["api", "ray"]
    assert found["formation"] == "20260101T000000-1"
    assert found["began"] == "2027-01-15T08:00:00Z"


def test_dp_ranks_behind_the_proxy() -> None:
    assert formed(DPEP, round_of(DPEP, "dp", "proxy"))["phases"] == [
        *(["containers", 3.0], ["ranks", 11.0], ["weights", 35.0], ["graphs", 50.0]),
        *(["answers", 60.0], ["registered", 70.0], ["warmed", 80.0]),
    ]


def test_an_api_server_alone_is_timed_from_its_own_start() -> None:
    found = formed(TP, round_of(TP, "api"))
    assert found["phases"][0] == ["containers", 3.0]
    assert [phase for phase, __ in found["phases"]] == ["containers", "weights", "graphs", "answers", "warmed"]
    assert found["seconds"] == 55.0
    assert found["like"] != formed(TP, round_of(TP, "ray", "api"))["like"]


def test_what_was_not_seen_is_part_of_the_next() -> None:
    each = round_of(DPEP, "dp")
    some = seen(DPEP)
    del some["marks"]["node1"]["answers"]  # one host of two
    del some["listed"][DPEP.endpoints[-1].url]
    for marks in some["marks"].values():
        marks.pop("graphs", None)
        marks.pop("ranks")
    assert formed(DPEP, each, **some)["phases"] == [["containers", 3.0], ["weights", 35.0], ["warmed", 80.0]]
    # Marks of an earlier formation of the same run.
    old = {name: dict.fromkeys(marks, ZERO - 5) for name, marks in some["marks"].items()}
    assert formed(DPEP, each, **{**some, "marks": old, "warmed": ZERO - 1})["phases"] == [["containers", 3.0]]


def test_what_was_seen_in_one_round_is_the_later_phase() -> None:
    some = seen(TP)
    some["marks"]["node0"].update(graphs=ZERO + 40, answers=ZERO + 40.2)
    phases = formed(TP, round_of(TP, "ray", "api"), **some)["phases"]
    assert phases == [["containers", 3.0], ["ray", 20.0], ["answers", 40.2], ["warmed", 80.0]]
    some = seen(DPEP)
    some["listed"] = dict.fromkeys(some["listed"], ZERO + 59)  # seen on another host, a moment before it answered
    assert formed(DPEP, round_of(DPEP, "dp"), **some)["phases"][-2:] == [["registered", 60.0], ["warmed", 80.0]]


def test_no_formation_without_a_start() -> None:
    for each in (Round(["lmdeploy"], ["lmdeploy"], []), round_of(DPEP, "proxy")):
        assert formation_of(DPEP, DPEP.engines[0], each, **seen(DPEP)) is None
    lost = seen(DPEP)
    del lost["begun"]["node1"]
    assert formation_of(DPEP, DPEP.engines[0], round_of(DPEP, "dp"), **lost) is None


# ---- what a wait sees


def test_the_lines_of_a_real_log_that_end_a_phase() -> None:
    found = [ends_in(line) for line in (LOGS / "ready.log").read_text("utf-8").split("\n")]
    assert [each for each in dict.fromkeys(found) if each] == ["weights", "graphs"]
    assert ends_in("[rank 3] Loading weights from safetensors:  12%|#") == "ranks"
    assert ends_in("[rank 3] Loading weights from safetensors: 100%|#| 8/8 [00:02<00:00]") == "weights"
    assert ends_in("INFO the user says: Loading weights is 50% done") is None


def test_a_wait_notes_when_it_saw_what() -> None:
    up = {"present": True, "status": "running", "cursor": "", "touched": 0, "restarts": 0, "oom_killed": False}
    up |= {"exit_code": 0, "started_at": "2026-11-24T22:25:01.5Z", "lines": []}
    wait = HostWait(DPEP, "node0", "api", Limits(1000, 1000))
    urls = [each.url for each in DPEP.endpoints]
    mine = [each.url for each in DPEP.endpoints if each.node == "node0"]
    name = DPEP.served_model_name

    def take(now: float, lines: list[str], answering: list[str], listed: list[str]) -> None:
        http = {url: {"health": 200, "models": [name]} if url in answering else {"error": "refused"} for url in urls}
        containers = {"lmdeploy-dp": {**up, "lines": lines}, "lmdeploy-proxy": up}
        wait.take({"containers": containers, "http": http, "proxy": {"nodes": {url: [name] for url in listed}}}, now)

    take(10, [], [], [])
    take(12, ["[rank 0] hello"], [], [])
    take(14, ["[rank 1] hello", "[rank 0] Loading weights from safetensors: 100%|#| 8/8 [00:02<00:00]"], [], [])
    take(16, ["[rank 1] Loading weights from safetensors: 100%|#| 8/8 [00:02<00:00]"], mine[:1], [])
    take(18, [], mine, mine)
    take(20, [], urls, urls)
    assert wait.ready
    assert wait.marks == {"ranks": 12, "weights": 16, "answers": 18}
    assert wait.listed == {url: 18 if url in mine else 20 for url in urls}


# ---- of several, and for a person


def test_a_formation_is_compared_with_the_last_one_like_it() -> None:
    each = round_of(TP, "ray", "api")
    first = formed(TP, each)
    other_image = formed(bound(nodes(), image=OTHER_IMAGE), each)
    assert other_image["like"] != first["like"]
    slow = {**first, "seconds": 120.0}
    new, former = last_of([first, slow, other_image, {"engine": "lmdeploy"}, "?", first], "lmdeploy")  # type: ignore[list-item]
    assert (new, former) == (first, slow)
    assert ratio(first, slow) == 0.67
    assert compared(first, slow) == "0.67 times the last one like it (120 s, 2027-01-15T08:00:00Z)"
    assert last_of([first, other_image], "lmdeploy") == (other_image, None)
    assert compared(other_image, None) == "the first formation of this kind"
    assert last_of([], "lmdeploy") == (None, None)


def test_the_waterfall() -> None:
    found = formed(TP, round_of(TP, "ray", "api"), brought={"image": {"node1": 120.0}})
    lines = waterfall(found, {**found, "seconds": 40.0})
    assert lines == [
        "lmdeploy: ready 80 s after the start of its first container, 2.00 times the last one like it (40 s, 2027-01-15T08:00:00Z)",
        "  image brought               120 s  before",
        "  containers started            3 s  ##",
        "  Ray whole                    17 s    ########",
        "  weights loaded               20 s            ##########",
        "  graphs captured              10 s                      #####",
        "  answers                      10 s                           #####",
        "  warmed up                    20 s                                ##########",
    ]
    assert line_of(found, None).startswith(
        "lmdeploy: ready after 80 s, the first formation of this kind: containers started 3 s, "
    )


@pytest.mark.parametrize("plan", [TP, DPEP], ids=["tp", "dpep"])
def test_the_head_keeps_the_last_ones_and_the_status_tells_them(plan: Plan) -> None:
    world = running(plan)
    each = round_of(plan, "ray", "api", "dp")
    found = formed(plan, each)
    for seconds in (40.0, found["seconds"]):
        for host in ("node0", "node1"):
            record = new_record(
                plan,
                host,
                world.hosts[host],
                each,
                {},
                {},
                "now",
                60.0,
                {**found, "seconds": seconds} if host == "node0" else None,
            )
            world.answers[host]["record"] = record
    assert "formations" not in world.answers["node1"]["record"]
    assert len(world.answers["node0"]["record"]["formations"]) == 2
    status = status_of(plan, world.hosts)
    assert status.engines[0].ratio == 2.0
    assert any(
        line.startswith("lmdeploy: ready after 80 s, 2.00 times the last one like it") for line in as_table(status)
    )
    # A run that starts nothing keeps them.
    again = new_record(plan, "node0", world.hosts["node0"], Round([], [], []), {}, {}, "now", 1.0)
    assert again["formations"] == world.answers["node0"]["record"]["formations"]


def test_a_record_without_formations_is_told_as_before() -> None:
    status = status_of(TP, running(TP).hosts)
    assert (status.engines[0].timeline, status.engines[0].ratio) == (None, None)
    assert not any("ready after 0" in line for line in as_table(status))
    assert World(TP).hosts["node0"].record == {}


def test_only_so_many_are_kept() -> None:
    many: list[dict[str, Any]] = []
    for number in range(MOST + 5):
        many = kept(many, {"formation": str(number)})
    assert len(many) == MOST
    assert many[-1]["formation"] == str(MOST + 4)
