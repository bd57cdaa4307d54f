# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that options of api_server name: in a mount of the containers, or refused; and there on the hosts, or a fault of theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.inside import inside
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import host_faults
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import questions
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.releases import chat_templates, releases
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.rules.judging import judged
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import faults_of, nodes, plan_of
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import World

HF = "/root/.cache/huggingface"
DATA = [{"source": "/srv/data", "target": "/data"}]
OUTSIDE = "a path that no container would see"
ADD = 'add {source: "/srv/x", target: "/srv/x"} to plan_extra_mounts'


def of_release(release: str) -> str:
    return f"openmmlab/lmdeploy:v{release}-cu12"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chat_template": "/srv/x/chat.json"}, ["chat_template is '/srv/x/chat.json'", OUTSIDE, ADD]),
        ({"chat-template": "/srv/x/chat.jinja"}, [OUTSIDE, ADD]),
        ({"chat_template": "/srv/data/t/chat.json"}, ["at /data/t/chat.json there, so set chat_template to that"]),
        ({"chat_template": "/data/../etc/chat.json"}, [OUTSIDE, "a directory of its own on every host"]),
        ({"chat_template": "/chat.json"}, [OUTSIDE, "such as /data/lmdeploy, and mount that with plan_extra_mounts"]),
        ({"chat_template": "chat.json"}, ["the image's working directory", "give the absolute path"]),
        ({"chat_template": "~/chat.json"}, ["the image's working directory"]),
        ({"chat_template": "./templates/x"}, ["the image's working directory"]),
        ({"adapters": "/srv/x"}, ["adapters is '/srv/x'", OUTSIDE, ADD]),
        ({"adapters": ["a=/data/a", "b=/srv/x"]}, ["adapters is '/srv/x'", ADD]),
        ({"adapters": ["lora"]}, ["adapters is 'lora'", "or the id of a repository in the cache"]),
        ({"adapters": ["a=/data/a", "/data/b"]}, ["adapters are several", "give every one a name"]),
        ({"adapters": ["a=/data/a", "a=/data/b"]}, ["one name twice"]),
        ({"generation_config": "/srv/x"}, ["generation_config is '/srv/x'", ADD]),
        ({"download_dir": "/srv/x"}, ["download_dir is '/srv/x'", ADD]),
        ({"speculative_algorithm": "eagle3", "speculative_draft_model": "/srv/x"}, ["speculative_draft_model", ADD]),
        (
            {"kv_transfer_config": {"kv_connector_extra_config": {"mooncake_config_path": "/srv/x/m.json"}}},
            ["kv_transfer_config is '/srv/x/m.json'", ADD],
        ),
    ],
)
def test_a_path_in_no_mount_is_refused_with_the_mount(options: dict[str, Any], words: list[str]) -> None:
    (fault,) = faults_of(nodes(plan_api_server_options=options, plan_extra_mounts=DATA))
    assert [word for word in words if word not in fault] == []


@pytest.mark.parametrize(
    "options",
    [
        {"chat_template": "/data/chat.json"},
        {"chat_template": f"{HF}/chat.json"},
        {"chat_template": "hf"},
        {"adapters": "/data/lora"},
        {"adapters": ["a=/data/a", "b=owner/lora"]},
        {"generation_config": "auto"},
        {"generation_config": "lmdeploy"},
        {"generation_config": "/data/generation"},
        {"download_dir": "/data/hub"},
        {"kv_transfer_config": '{"kv_connector": "x"}'},
        {"allow_origins": ["http://a/b"]},  # no path
    ],
)
def test_what_a_mount_has_and_names_are_planned(options: dict[str, Any]) -> None:
    assert plan_of(nodes(plan_api_server_options=options, plan_extra_mounts=DATA))


@pytest.mark.parametrize(
    ("release", "name", "words"),
    [
        ("0.9.0", "deepseek-v3", []),
        ("0.9.0", "hf", ["no template of LMDeploy 0.9.0", "absolute path of a JSON file"]),
        ("0.10.2", "deepseek-v3", []),  # deprecated there, and still taken
        ("0.12.3", "hf", ["LMDeploy 0.12.3 ends with an ImportError", "absolute path of a JSON file"]),
        ("0.14.0", "base", ["LMDeploy 0.14.0 ends with an ImportError"]),
        ("0.18.0", "deepseek-v3", ["did you mean deepseek-v32?", "give one of base, chatglm"]),
    ],
)
def test_the_name_of_a_template_is_one_that_the_release_knows(release: str, name: str, words: list[str]) -> None:
    variables = nodes(plan_image=of_release(release), plan_api_server_options={"chat_template": name})
    if not words:
        assert plan_of(variables)
        return
    (fault,) = faults_of(variables)
    assert [word for word in words if word not in fault] == []


def test_every_release_has_its_templates_and_of_an_unknown_one_nothing_is_said() -> None:
    assert all(chat_templates(release) is not None for release in releases())
    assert chat_templates(None) is None
    assert chat_templates("0.18.0+cu128") == chat_templates("0.18.0")
    for image in ("registry.example/x:y", of_release("0.99.0")):
        assert plan_of(nodes(plan_image=image, plan_api_server_options={"chat_template": "own"}))


# ---- what the hosts have


def test_the_head_alone_is_asked_for_what_the_server_reads_and_all_for_what_workers_read() -> None:
    options = {
        "chat_template": "/data/chat.json",
        "adapters": ["a=/data/a", "b=o/lora"],
        "generation_config": "/data/g",
    }
    plan = plan_of(nodes(plan_api_server_options=options, plan_extra_mounts=DATA))
    head, worker = (questions(plan, node)["inside"] for node in plan.nodes)
    of_workers = {"/data/a/adapter_config.json": "file", f"{HF}/hub/models--o--lora/snapshots": "directory"}
    assert worker["paths"] == of_workers
    assert head["paths"] == {
        **of_workers,
        "/data/chat.json": "json",
        "/data/g/generation_config.json": "file",
    }
    assert {"source": "/srv/data", "target": "/data"} in head["mounts"]
    assert "inside" not in questions(plan_of(nodes()), plan.nodes[0])


def look(tmp_path: Path, kinds: dict[str, str]) -> dict[str, str]:
    (tmp_path / "data").mkdir(exist_ok=True)
    return inside({"mounts": [{"source": str(tmp_path / "data"), "target": "/data"}], "paths": kinds})


def test_a_host_says_what_keeps_its_container_from_each_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "good.json").write_text('{"model_name": "x"}')
    (data / "list.json").write_text("[]")
    (data / "chat.jinja").write_text("{% for m in messages %}")
    (data / "hub" / "snapshots").mkdir(parents=True)
    (tmp_path / "elsewhere.json").write_text("{}")
    (data / "link.json").symlink_to(tmp_path / "elsewhere.json")
    (data / "gone.json").symlink_to(data / "nothing")
    kinds = {
        f"/data/{name}": "json"
        for name in ("good.json", "list.json", "chat.jinja", "link.json", "gone.json", "no.json")
    }
    found = look(
        tmp_path, {**kinds, "/data/hub/snapshots": "directory", "/data/hub": "file", "/data/good.json/x": "file"}
    )
    assert found.pop("/data/good.json") == found.pop("/data/hub/snapshots") == ""
    for path, words in {
        "/data/list.json": "holds no JSON object",
        "/data/chat.jinja": "is no JSON",
        "/data/link.json": f"is a link to {tmp_path}/elsewhere.json, which no mount has there: add {{source: ",
        "/data/gone.json": "which does not exist: put the file there",
        "/data/no.json": f"{data}/no.json does not exist: put it there",
        "/data/hub": "is a directory: correct the path",
        "/data/good.json/x": "correct the path",
    }.items():
        assert words in found.pop(path)
    assert not found


def test_a_file_that_changes_into_nonsense_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "deep.json").write_text("[" * 100_000)
    assert "is no JSON" in look(tmp_path, {"/data/deep.json": "json"})["/data/deep.json"]


TEMPLATE = {"chat_template": "/data/chat.json"}


@pytest.mark.parametrize(
    ("options", "answer", "words"),
    [
        (
            TEMPLATE,
            "/srv/data/chat.json does not exist: put it there",
            ["chat_template is /data/chat.json in the containers, and "],
        ),
        (
            {"adapters": ["a=o/lora"]},
            "x does not exist",
            ["adapters is o/lora, which is not in this host's cache", "nothing is downloaded"],
        ),
        (TEMPLATE, "", []),
        (TEMPLATE, None, []),  # nobody could say, which is no fault
    ],
)
def test_what_a_host_lacks_is_a_fault_of_that_host(
    options: dict[str, Any], answer: str | None, words: list[str]
) -> None:
    plan = plan_of(nodes(plan_topology="dpep", plan_gpus=2, plan_api_server_options=options, plan_extra_mounts=DATA))
    world = World(plan)
    for node in plan.nodes:
        asked = questions(plan, node)["inside"]["paths"]
        world.answers[node.name]["inside"] = dict.fromkeys(asked, "" if node.name == "node0" else answer)
    told = [fault for fault in host_faults(plan, world.hosts) if "plan_api_server_options" in fault]
    assert len(told) == bool(words)
    for fault in told:
        assert re.match("node1\\b", fault)
        assert [word for word in words if word not in fault] == []


def test_generation_settings_that_are_not_there_stop_nothing_and_are_told() -> None:
    options = {"generation_config": "/data/g"}
    plan = plan_of(nodes(plan_topology="dpep", plan_gpus=2, plan_api_server_options=options, plan_extra_mounts=DATA))
    world = World(plan)
    for node in plan.nodes:
        world.answers[node.name]["inside"] = {"/data/g/generation_config.json": "/srv/data/g does not exist"}
    assert host_faults(plan, world.hosts) == []
    found = [each for each in judged(plan, world.hosts) if each.rule == "model.generation"]
    assert [each.state for each in found] == ["warning", "warning"]
    assert "generation_config is /data/g in the containers, and /srv/data/g does not exist" in found[0].told[0]
