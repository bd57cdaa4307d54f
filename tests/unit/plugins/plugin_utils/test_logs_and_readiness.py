# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the logs of real failures say, and how the wait acts on them. The fixtures are logs of real runs. More: test_logs.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.logs import (
    catalogue,
    decisive,
    diagnose,
    explain,
    fatal_line,
    phase_of,
    plain,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.readiness import HostWait, Limits
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes, plan_of

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
ADDRESSES = "10.77.0.11"  # of the hosts that wrote the logs
PLAN = plan_of(nodes(2, first=ADDRESSES))
URL = PLAN.endpoints[0].url
RUNNING = {
    "present": True,
    "status": "running",
    "exit_code": 0,
    "oom_killed": False,
    "restarts": 0,
    "started_at": "2026-11-24T22:25:57Z",
    "lines": [],
    "cursor": "",
    "touched": 0,
}


def log(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines()


def node_of(name: str) -> str:
    diagnosis = diagnose(log(name))
    assert diagnosis is not None
    return diagnosis.node


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("crash_at_load", None, ["RayTaskError(RuntimeError)", "RuntimeError: lmfleet simulator: rank 2"]),
        ("oom_at_load", "out-of-memory", ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"]),
        ("killed_at_load", "worker-killed", ["ActorDiedError", "worker process has died"]),
        ("worker_killed_serving", "worker-killed", ["ActorDiedError"]),
        ("raylet_killed_at_load", "raylet-killed", ["Raylet is terminated"]),
        ("port_in_use", "address-in-use", ["23333", "address already in use"]),
        ("bad_option", "bad-option", ["unrecognized arguments: --no-such-option"]),
        ("ray_worker_cannot_reach_head", "ray-unreachable", ["Failed to connect to GCS at address"]),
    ],
)
def test_the_decisive_lines_show_the_cause_and_not_its_echo(name: str, known: str | None, words: list[str]) -> None:
    lines = decisive(log(name))
    for word in words:
        assert any(word in line for line in lines), lines
    assert not any("RPCServerDeadError" in line or "\x1b" in line for line in lines)
    found = explain(lines)
    assert (found.id if found else None) == known


def test_of_an_engine_that_was_killed_there_is_only_the_echo() -> None:
    lines = decisive(log("engine_killed_at_load"))
    assert [line.rpartition(".")[0].rpartition(".")[2] for line in lines] == [
        "RPCServerDeadError: PyTorch ZMQ engine process is not alive"
    ]
    known = explain(lines)
    assert known is not None
    assert known.id == "engine-killed"


def test_of_an_engine_that_lost_its_parents_manager_the_first_echo_is_told_too() -> None:
    lines = decisive(log("lost_start"))
    assert [line.partition(":")[0].rpartition(".")[2] for line in lines] == ["EOFError", "RPCServerDeadError"]


def test_the_line_that_ends_an_engine_is_found() -> None:
    ended = (
        "(RayWorkerWrapper pid=226) 2026-11-25 - lmdeploy - ERROR - model_agent.py:498 - Task <ModelAgentLoop> failed"
    )
    assert fatal_line(["[rank 0] INFO: fine", f"[rank 0] {ended}"]).endswith("Task <ModelAgentLoop> failed")
    assert fatal_line(log("ready")) == ""


def test_a_bare_exception_is_a_cause_too() -> None:
    lines = [
        "Traceback (most recent call last):",
        "Exception: The current node timed out during startup. This could",
        "x",
    ]
    assert decisive(lines)[0] == lines[1]
    assert (explain(lines) or catalogue()[0]).id == "ray-slow"


def test_ray_names_the_node_of_the_failed_worker() -> None:
    assert node_of("crash_at_load") == "10.77.0.11"
    assert node_of("killed_at_load") == "10.77.0.11"
    for name in ("crash_at_load_on_worker", "killed_at_load_on_worker"):
        assert node_of(name) == "10.77.0.12"


def test_a_good_start_has_no_known_failure_and_goes_through_its_phases() -> None:
    lines = [plain(line) for line in log("ready")]
    assert explain(lines) is None
    phases = [phase for phase in map(phase_of, lines) if phase]
    assert phases == sorted(phases, key=lambda phase: (phase.order, phase.part))
    assert [phases[0].text, phases[-1].text] == ["connected to Ray", "the server is up"]
    assert "loading weights, 5 of 8 shards" in [phase.text for phase in phases]


def test_the_catalogue_is_well_formed() -> None:
    entries = catalogue()
    assert len({entry.id for entry in entries}) == len(entries)
    assert all(entry.means.endswith(".") and entry.remedy.endswith(".") for entry in entries)


# ---- the wait


def waiting(host: str, stage: str, timeout: float = 120, no_progress: float = 60, plan: Any = PLAN) -> HostWait:
    return HostWait(plan, host, stage, Limits(timeout, no_progress))


def api_round(lines: list[str] | None = None, http: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    return {
        "containers": {"lmdeploy-ray": RUNNING, "lmdeploy-api": {**RUNNING, "lines": lines or [], **state}},
        "http": {URL: http or {"error": "Connection refused"}},
    }


def ray_round(*alive: tuple[str, int], given: bool = True) -> dict[str, Any]:
    """As the program in Ray's container tells it, which asks for the GPUs of the plan only where all are counted."""
    nodes = [{"address": address, "alive": True, "gpus": gpus} for address, gpus in alive]
    given = given if sum(gpus for __, gpus in alive) >= 16 else None  # type: ignore[assignment]
    return {"containers": {"lmdeploy-ray": RUNNING}, "ray": {"nodes": nodes, "given": given}}


def test_ray_is_ready_when_every_node_and_gpu_is_counted() -> None:
    wait = waiting("node0", "ray")
    wait.take(ray_round(("10.77.0.11", 8)), 1)
    assert not wait.ready
    assert "1 of 2 nodes and 8 of 16 GPUs; missing: node1 (10.77.0.12, 8 GPUs)" in wait.news()[-1]
    wait.take(ray_round(("10.77.0.11", 8), ("10.77.0.12", 4)), 2)
    assert not wait.ready
    assert wait.questions()["ray_claim"] == 16
    wait.take(ray_round(("10.77.0.11", 8), ("10.77.0.12", 8), given=False), 3)
    assert not wait.ready, "counted is not given"
    wait.take(ray_round(("10.77.0.11", 8), ("10.77.0.12", 8)), 5)
    assert wait.ready
    assert wait.failure is None


def test_a_node_that_ray_has_not_yet_found_dead_is_waited_for() -> None:
    wait = waiting("node0", "ray")
    wait.take(ray_round(("10.77.0.11", 8), ("10.77.0.12", 8), ("10.77.0.12", 8)), 1)
    assert not wait.ready
    assert "though gone or not of the plan: 10.77.0.12" in wait.news()[-1]
    for now in (20, 22):
        wait.take(ray_round(("10.77.0.11", 8), ("10.77.0.12", 8)), now)
    assert wait.ready


def test_gpus_that_ray_counts_but_does_not_give_are_a_failure() -> None:
    wait = waiting("node0", "ray")
    for now in range(0, 30, 10):
        assert wait.failure is None
        wait.take(ray_round(("10.77.0.11", 8), ("10.77.0.12", 8), given=False), now)
    assert not wait.ready
    assert wait.failure
    assert "does not give 16 of them to an engine" in wait.failure
    assert "docker rm --force lmdeploy-ray" in wait.failure


def test_a_missing_node_fails_at_the_timeout_and_is_named() -> None:
    wait = waiting("node0", "ray")
    for now in range(0, 130, 10):
        wait.take(ray_round(("10.77.0.11", 8)), now, progress_elsewhere=now)
    assert wait.failure
    assert "missing: node1 (10.77.0.12, 8 GPUs)" in wait.failure


def test_a_worker_that_cannot_reach_the_head_fails_in_seconds() -> None:
    wait = waiting("node1", "ray")
    assert wait.questions()["tcp"] == ["10.77.0.11:6379"]
    blocked = {"containers": {"lmdeploy-ray": RUNNING}, "tcp": {"10.77.0.11:6379": "timed out"}}
    wait.take(blocked, 0)
    assert wait.failure is None
    wait.take(blocked, 16)
    assert wait.failure
    assert "node1 (10.77.0.12) cannot reach Ray's head at 10.77.0.11:6379: timed out" in wait.failure
    assert "Ray is missing node1 and its 8 GPUs" in wait.failure


def test_a_crashed_engine_fails_at_once_with_its_own_error() -> None:
    wait = waiting("node0", "api")
    wait.take(api_round(log("crash_at_load"), status="exited", exit_code=1), 1)
    assert wait.failure
    assert "lmdeploy-api exited with code 1" in wait.failure
    assert "RuntimeError: lmfleet simulator: rank 2 was told to crash at load" in wait.failure


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (log("lost_start"), True),
        (log("lost_start")[: log("lost_start").index("EOFError") + 1], True),  # its server has not yet said a word
        (log("ray_slow"), True),  # the host was busy
        (log("half_written"), True),  # rank 0 of LMDeploy 0.9.2 read what another one was still writing
        (log("engine_killed_at_load"), False),
        (log("crash_at_load"), False),
        ([*log("crash_at_load"), "EOFError", *log("engine_killed_at_load")], False),  # an echo beside a cause
    ],
)
def test_only_a_start_that_was_lost_by_chance_may_be_tried_again(lines: list[str], lost: bool) -> None:
    wait = waiting("node0", "api")
    wait.take(api_round(lines, status="exited", exit_code=1), 1)
    assert wait.failure
    assert wait.lost_start is lost


def test_the_failure_names_the_node_of_the_worker_when_it_is_another() -> None:
    elsewhere = [line.replace("10.77.0.11", "10.77.0.12") for line in log("crash_at_load")]
    wait = waiting("node0", "api")
    wait.take(api_round(elsewhere, status="exited", exit_code=1), 1)
    assert wait.failure
    assert "The failure is on node1 (10.77.0.12)" in wait.failure


def test_the_node_is_that_of_the_record_that_is_shown_and_not_the_first_one_that_is_named() -> None:
    lines = [line.replace("10.0.0.1", "10.77.0.1") for line in log("gloo_echo")]
    wait = waiting("node0", "api")
    wait.take(api_round([line.replace("ip=10.77.0.11", "ip=10.77.0.12") for line in lines], status="exited"), 1)
    assert wait.failure
    assert "The failure is on node1 (10.77.0.12)" in wait.failure
    assert "libnvrtc.so.12" in wait.failure


@pytest.mark.parametrize("stage", ["exited", "running"])
def test_terminal_escapes_of_a_log_are_not_in_a_failure(stage: str) -> None:
    """Row 66."""
    evil = "\x1b]0;owned\x07\x1b]52;c;aGk=\x1b\\\x9b31m\u202e"
    wait = waiting("node0", "api")
    wait.take(api_round([f"{evil}hello", f"RuntimeError: {evil}bad"], status=stage, exit_code=1), 0)
    wait.take(api_round([], status=stage, exit_code=1), 130)
    assert wait.failure
    assert "bad" in wait.failure
    assert all(character == "\n" or character.isprintable() for character in wait.failure)


def test_ray_that_tries_again_is_not_fatal() -> None:
    wait = waiting("node0", "api")
    for now in range(3):
        wait.take(api_round(log("bind_ray") if not now else []), now)
    assert not wait.failure


def test_a_restart_loop_fails_but_one_restart_does_not() -> None:
    def restarted(times: int) -> dict[str, Any]:
        return {"containers": {"lmdeploy-ray": {**RUNNING, "restarts": times}}, "tcp": {"10.77.0.11:6379": "refused"}}

    wait = waiting("node1", "ray")
    wait.take(restarted(5), 0)
    wait.take(restarted(6), 1)
    assert wait.failure is None
    wait.take(restarted(7), 2)
    assert wait.failure
    assert "restarts in a loop" in wait.failure


def test_ray_started_anew_fails_the_engine_that_loads_and_cannot_start_again_by_itself() -> None:
    without = dataclasses.replace(PLAN, services=[dataclasses.replace(each, starts=None) for each in PLAN.services])
    wait = waiting("node0", "api", plan=without)
    wait.take(api_round(["loading"]), 1)
    answer = api_round()
    answer["containers"]["lmdeploy-ray"] = {**RUNNING, "restarts": 1, "started_at": "2026-11-24T22:30:00Z"}
    wait.take(answer, 2)
    assert wait.failure
    assert "lmdeploy-ray was started again" in wait.failure
    wait = waiting("node0", "api")
    wait.take(api_round(["loading"]), 1)
    wait.take(answer, 2)
    assert wait.failure is None


def test_a_fatal_line_fails_though_the_container_runs() -> None:
    wait = waiting("node0", "api")
    wait.take(api_round(["[rank0] <Dist> check failed!"]), 1)
    wait.take(api_round(["and why"]), 3)
    assert wait.failure
    assert "cannot come up any more" in wait.failure


def test_a_prompt_that_quotes_a_fatal_line_once_the_server_is_up_is_no_failure() -> None:
    """Row 54: LMDeploy at log_level INFO logs its users' prompts."""
    wait = waiting("node0", "api")
    wait.take(api_round(["INFO:     Application startup complete."]), 1)
    wait.take(api_round(["prompt='why does it say address already in use?'"]), 3)
    wait.take(api_round(["and so on"]), 5)
    assert not wait.failure
    early = waiting("node0", "api")
    early.take(api_round(["OSError: [Errno 98] address already in use"]), 1)
    early.take(api_round(["INFO:     Application startup complete."]), 3)
    assert early.failure


def test_the_api_is_ready_when_it_serves_the_planned_name_and_wrong_names_fail() -> None:
    wait = waiting("node0", "api")
    wait.take(api_round(http={"health": 200, "models": ["deepseek-ai/DeepSeek-V3"]}), 1)
    assert wait.ready
    other = waiting("node0", "api")
    other.take(api_round(http={"health": 200, "models": ["llama"]}), 1)
    assert other.failure
    assert "serves llama, but the plan says deepseek-ai/DeepSeek-V3" in other.failure


def test_no_progress_fails_but_progress_elsewhere_keeps_waiting() -> None:
    for elsewhere, fails in ((0.0, True), (70.0, False)):
        wait = waiting("node0", "api")
        wait.take(api_round(["loading"]), 0)
        wait.take(api_round(), 70, progress_elsewhere=elsewhere)
        assert bool(wait.failure) is fails


def test_data_that_is_read_counts_as_progress() -> None:
    wait = waiting("node0", "api")
    wait.take(api_round(["loading"]), 0)
    wait.take(api_round(touched=1 << 30), 50)
    wait.take(api_round(touched=1 << 30), 100)
    assert wait.failure is None
    wait.take(api_round(touched=1 << 30), 115)
    assert wait.failure


def test_shard_progress_of_many_ranks_is_told_once() -> None:
    wait = waiting("node0", "api")
    shown = "(RayWorkerWrapper pid={}, ip=10.77.0.12) Loading weights from safetensors:  {}%|x| {}/8 [00:01<00:01]"
    wait.take(api_round([shown.format(1, 25, 2), shown.format(2, 25, 2), shown.format(3, 12, 1)]), 1)
    assert wait.news() == ["lmdeploy-api: loading weights, 2 of 8 shards"]


# ---- DP ranks and the proxy

PROXY = "http://10.77.0.11:8000"
RANKS = [f"http://10.77.0.{11 + node}:{23333 + 10 * (2 * node + local)}" for node in (0, 1) for local in (0, 1)]
DP_PLAN = plan_of(nodes(2, first=ADDRESSES, plan_topology="dpep", plan_gpus=2))
NAME = PLAN.served_model_name
REFUSED = {"error": "Connection refused"}


def dp_waiting(host: str) -> HostWait:
    return HostWait(DP_PLAN, host, "api", Limits(120, 60))


def dp_round(
    up: list[str], listed: dict[str, list[str]] | None = None, lines: list[str] | None = None, **state: Any
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "containers": {"lmdeploy-dp": {**RUNNING, "lines": lines or [], **state}},
        "http": {url: {"health": 200, "models": [NAME]} if url in up else REFUSED for url in RANKS},
    }
    if listed is not None:
        answer["containers"]["lmdeploy-proxy"] = RUNNING
        answer["proxy"] = {"nodes": listed}
    return answer


def test_the_head_asks_for_the_proxys_list_and_the_others_for_their_ranks_alone() -> None:
    head, other = dp_waiting("node0").questions(), dp_waiting("node1").questions()
    assert (head["proxy"], head["http"]) == (PROXY, RANKS)
    assert list(head["logs"]) == ["lmdeploy-proxy", "lmdeploy-dp"]
    assert other["http"] == RANKS[2:]
    assert "proxy" not in other
    assert list(other["logs"]) == ["lmdeploy-dp"]


def test_a_host_is_ready_when_its_ranks_answer_and_the_head_when_the_proxy_lists_exactly_the_plans() -> None:
    other = dp_waiting("node1")
    other.take(dp_round(RANKS[2:3]), 1)
    assert not other.ready
    assert other.news() == ["1 of 2 ranks answer"]
    other.take(dp_round(RANKS[2:]), 2)
    assert other.ready

    head = dp_waiting("node0")
    listed = {url: [NAME] for url in RANKS}
    for wrong in (
        {url: [NAME] for url in RANKS[:3]},
        {**listed, RANKS[0]: ["llama"]},
        {**listed, "http://10.77.0.99:23333": [NAME]},
    ):
        head.take(dp_round(RANKS, wrong), 1)
        assert not head.ready
    head.take(dp_round(RANKS, listed), 2)
    assert head.ready


def test_a_rank_that_answers_but_could_not_register_is_named() -> None:
    wait = dp_waiting("node0")
    listed = {url: [NAME] for url in RANKS[:3]}
    wait.take(dp_round(RANKS[:3], listed), 0)
    wait.take(dp_round(RANKS, listed), 20)
    wait.take(dp_round(RANKS, listed), 30)
    assert wait.failure is None
    wait.take(dp_round(RANKS, listed), 36)
    assert wait.failure
    assert RANKS[3] in wait.failure
    assert f"its host reaches {PROXY}" in wait.failure


def test_a_rank_that_ended_is_named_with_its_gpu_and_its_own_lines() -> None:
    wait = dp_waiting("node1")
    lines = [
        "[rank 2] RuntimeError: not this one, it was only taken down",
        "[rank 3] Traceback (most recent call last):",
        '[rank 3]   File "agent.py", line 7, in load_weights',
        "[rank 3] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 14.00 GiB",
        "[rank 3] lmfleet: rank 3 on GPU 1 ended with exit code 1",
        "[rank 2] lmfleet: rank 2 on GPU 0 ended, as it was told by SIGTERM",
    ]
    wait.take(dp_round([], lines=lines), 1)
    wait.take(dp_round([]), 3)
    assert wait.failure
    assert "node1 (10.77.0.12): lmdeploy-dp cannot come up any more: rank 3 (GPU 1) failed" in wait.failure
    assert "CUDA out of memory" in wait.failure
    assert "not this one" not in wait.failure
    assert "A GPU has too little free memory" in wait.failure


def test_a_rank_whose_server_outlives_its_engine_is_named_too() -> None:
    wait = dp_waiting("node1")
    wait.take(dp_round([], lines=["[rank 2] INFO: fine", "[rank 3] Process mp_engine_proc:"]), 1)
    wait.take(dp_round([], lines=["[rank 3] RuntimeError: no such kernel"]), 3)
    assert wait.failure
    assert "rank 3 (GPU 1) failed" in wait.failure
    assert "RuntimeError: no such kernel" in wait.failure


def test_an_unknown_end_of_a_rank_still_says_what_it_means_for_the_others() -> None:
    wait = dp_waiting("node1")
    wait.take(dp_round([], lines=["[rank 2] bye", "[rank 2] lmfleet: rank 2 on GPU 0 ended with signal SIGKILL"]), 1)
    wait.take(dp_round([]), 3)
    assert wait.failure
    assert "all others wait for it" in wait.failure


def test_a_proxy_that_was_restarted_is_no_reason_to_give_up() -> None:
    wait = dp_waiting("node0")
    wait.take(dp_round([], {}), 1)
    answer = dp_round([], {})
    answer["containers"]["lmdeploy-proxy"] = {**RUNNING, "restarts": 1, "started_at": "2026-11-24T22:30:00Z"}
    wait.take(answer, 2)
    assert wait.failure is None
