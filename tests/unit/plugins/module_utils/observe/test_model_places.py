# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a model lies: behind links and mounts, in other layouts of a cache, at other commits; and what to set then.

Hosts are directories of this machine. The plan says what is mounted, and the judge's words are what a person reads.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe import nearby, parallel
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.model import model_facts
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.view import (
    DanglingError,
    LeavesMountsError,
    Mount,
    View,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.judge import lacks
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.look import questions
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.observed import Host
from ansible_collections.lmfleet.lmdeploy.tests.unit.models import (
    COMMIT,
    FOLDER,
    INDEX,
    LAST,
    OLDER,
    REPO,
    SHARDS,
    model_faults,
    write_cache,
    write_model,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import plan_of

HF_CACHE = "/root/.cache/huggingface"


class Hosts:
    """Hosts whose Hugging Face homes are directories of their names, under one plan."""

    def __init__(self, root: Path, count: int = 1, **variables: Any) -> None:
        self.root = root
        self.variables = {
            f"node{n}": {
                "plan_cluster_address": f"10.0.0.{n + 10}",
                "plan_gpus": 1,
                "plan_tp": count,
                "plan_hf_home": str(root / f"node{n}" / "hf"),
                "plan_state_dir": str(root / f"node{n}" / "state"),
                **variables,
            }
            for n in range(count)
        }
        self.looked: dict[str, dict[str, Any]] = {}

    def home(self, n: int = 0) -> Path:
        return self.root / f"node{n}" / "hf"

    def said(self, **changes: Any) -> str:
        """What the judge says of them, with these variables changed; nothing where all is well."""
        variables = {name: {**given, **changes} for name, given in self.variables.items()}
        plan = plan_of(variables)
        self.looked = {node.name: model_facts(questions(plan, node)["model"]) for node in plan.nodes}
        for report in self.looked.values():
            assert json.loads(json.dumps(report)) == report
        hosts = [Host(name, {"model": report}) for name, report in self.looked.items()]
        for host in hosts:
            engine = next(each for each in plan.services_on(host.name) if each.gpus)
            assert ("the whole model" in lacks(engine, host)) == bool(host.model["faults"])
        return "\n".join(model_faults(plan, hosts))

    def mounts(self) -> list[dict[str, str]]:
        """What was told to be mounted."""
        told = [mount for report in self.looked.values() for mount in report["mounts"]]
        return list({each["target"]: each for each in told}.values())


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def elsewhere(path: Path, to: Path, link: str | None = None) -> Path:
    """Move a directory or file, and leave a link there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    path.rename(to)
    path.symlink_to(link or str(to))
    return to


@pytest.mark.parametrize("name", ["deepseek-ai--DeepSeek-V3", "deepseek-ai_DeepSeek-V3", "DEEPSEEK-AI--deepseek-v3"])
def test_a_directory_with_the_owner_in_its_name_is_found(hosts: Hosts, name: str) -> None:
    write_model(hosts.home() / name)
    assert f"plan_model: {HF_CACHE}/{name}" in hosts.said()


def test_the_same_model_of_another_owner_is_told_as_another(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub", "models--unsloth--DeepSeek-V3")
    said = hosts.said()
    assert "never downloaded" in said
    assert "unsloth/DeepSeek-V3 in a cache's layout, whole" in said


@pytest.mark.parametrize("what", ["hub", FOLDER, "snapshots", COMMIT])
@pytest.mark.parametrize("loop", [False, True])
def test_a_file_or_a_loop_in_a_directory_s_place_is_named(hosts: Hosts, what: str, loop: bool) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    place = next(each for each in (snapshot, *snapshot.parents) if each.name == what)
    shutil.rmtree(place)
    if loop:
        place.symlink_to(place.name)
    else:
        place.write_text("")
    said = hosts.said()
    words = (
        "a link that leads back to itself" if loop else "no directory" if what == FOLDER else "a file, and a directory"
    )
    assert f"{place} is {words}" in said
    assert not hosts.looked["node0"]["unread"]
    assert "mounted" not in said


@pytest.mark.parametrize("content", ["a" * 10_000_000, ".."])
def test_a_ref_that_holds_anything_is_told_in_a_line(hosts: Hosts, content: str) -> None:
    write_cache(hosts.home() / "hub")
    (hosts.home() / "hub" / FOLDER / "refs" / "main").write_text(content)
    said = hosts.said()
    assert "holds no commit" in said
    assert len(said) < 2000


@pytest.mark.parametrize("revision", ["a\0b", "x" * 300])
def test_a_revision_that_no_file_can_have_is_none(hosts: Hosts, revision: str) -> None:
    write_cache(hosts.home() / "hub")
    report = model_facts({"repo": REPO, "revision": revision, "hf_home": str(hosts.home())})
    assert "was never downloaded" in report["faults"][0]
    assert not report["unread"]


def test_a_link_to_a_device_needs_no_mount(hosts: Hosts) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    (snapshot / LAST).unlink()
    (snapshot / LAST).symlink_to("/dev/null")
    assert f"{LAST} is a device, and not a file" in hosts.said()
    assert hosts.mounts() == []


def test_a_path_s_code_of_another_repository_is_looked_for_in_the_cache(tmp_path: Path) -> None:
    mounts = [{"source": str(tmp_path / "models"), "target": "/models"}]
    # This release runs a model's code unasked.
    hosts = Hosts(tmp_path, plan_model="/models/V3", plan_extra_mounts=mounts, plan_image="a/b:v0.12.0")
    write_model(tmp_path / "models" / "V3")
    hosts.home().mkdir(parents=True)
    config = tmp_path / "models" / "V3" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoConfig": "o/r--conf.X"}}))
    assert "conf.py of the repository o/r is missing in the cache" in hosts.said()


# Links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["hub", FOLDER, "snapshots", "blobs", "refs", COMMIT])
def test_a_link_that_leaves_the_mount_is_named_with_the_mount_to_add(hosts: Hosts, part: str) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    cache = hosts.home() / "hub" / FOLDER
    link = {"hub": hosts.home() / "hub", FOLDER: cache, COMMIT: snapshot}.get(part, cache / part)
    to = elsewhere(link, hosts.root / "disk2" / part)
    if part in (COMMIT, "snapshots"):  # its files' links are relative, and would lead elsewhere from there
        for file in (to / COMMIT if part == "snapshots" else to).iterdir():
            blob = file.readlink().name
            file.unlink()
            file.symlink_to(f"{HF_CACHE}/hub/{FOLDER}/blobs/{blob}")
    said = hosts.said()
    assert f"node0: {link} is a link, and no container finds what it leads to: no mount has {to}." in said
    assert f"- {{source: {to}, target: {to}}}" in said
    assert "hf download" not in said
    assert hosts.said(plan_extra_mounts=hosts.mounts()) == ""


def test_relative_links_lead_elsewhere_in_a_container(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub")
    hub = elsewhere(hosts.home() / "hub", hosts.root / "node0" / "disk2" / "hub", "../disk2/hub")
    hosts.said()
    # In the container that is a place of the kernels' caches, which is not the host's.
    assert hosts.mounts() == [{"source": str(hub), "target": "/root/.cache/disk2/hub"}]
    assert hosts.said(plan_extra_mounts=hosts.mounts()) == ""


def test_chains_of_links_are_followed_to_their_ends(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub")
    elsewhere(hosts.home() / "hub", hosts.root / "disk2" / "hub", "store")  # relative, and in the mount
    (hosts.home() / "store").symlink_to(hosts.root / "second")
    (hosts.root / "second").symlink_to("disk2/hub")
    said = hosts.said()
    assert f"{hosts.home()}/store is a link, and no container finds" in said
    assert hosts.mounts() == [{"source": str(hosts.root / "second"), "target": str(hosts.root / "second")}]
    assert hosts.said(plan_extra_mounts=hosts.mounts()) == ""


def test_single_files_elsewhere_need_one_mount_for_all(hosts: Hosts) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    for name in SHARDS:
        blob = (snapshot / name).resolve()
        to = hosts.root / "shards" / name
        elsewhere(blob, to)
    said = hosts.said()
    assert hosts.mounts() == [{"source": str(hosts.root / "shards"), "target": str(hosts.root / "shards")}]
    assert said.count("is a link, and no container finds") == 1
    assert hosts.said(plan_extra_mounts=hosts.mounts()) == ""


def test_every_mount_that_is_missing_is_told_at_once(hosts: Hosts) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    elsewhere((snapshot / LAST).resolve(), hosts.root / "three" / "shard")
    elsewhere(hosts.home() / "hub" / FOLDER / "blobs", hosts.root / "two" / "blobs")
    elsewhere(hosts.home() / "hub", hosts.root / "one" / "hub")
    said = hosts.said()
    assert said.count("is a link, and no container finds") == 3
    assert hosts.said(plan_extra_mounts=hosts.mounts()) == ""


@pytest.mark.parametrize("make", ["inside", "hub_in_home", "home_is_a_link", "container_path"])
def test_links_that_a_container_can_follow_are_no_fault(hosts: Hosts, make: str) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    if make == "inside":
        elsewhere(hosts.home() / "hub" / FOLDER, hosts.home() / "store" / "v3", "../store/v3")
    elif make == "hub_in_home":
        elsewhere(hosts.home() / "hub", hosts.home() / "store", f"{HF_CACHE}/store")  # dangles on the host
    elif make == "home_is_a_link":
        elsewhere(hosts.home(), hosts.root / "disk2" / "hf")
    else:
        for name in SHARDS:
            blob = (snapshot / name).resolve().name
            (snapshot / name).unlink()
            (snapshot / name).symlink_to(f"{HF_CACHE}/hub/{FOLDER}/blobs/{blob}")
    assert hosts.said() == ""


def test_a_link_to_nothing_is_no_matter_of_mounts(hosts: Hosts) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    (snapshot / LAST).unlink()
    (snapshot / LAST).symlink_to("/annex/objects/gone")
    said = hosts.said()
    assert f"{LAST} is a link to /annex/objects/gone, which does not exist." in said
    assert "plan_extra_mounts" not in said
    shutil.rmtree(hosts.home() / "hub")
    (hosts.home() / "hub").symlink_to("/nowhere/hub")
    assert f"{hosts.home()}/hub is a link to /nowhere/hub, which does not exist." in hosts.said()


def test_the_same_link_on_all_hosts_is_told_once(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, 2, plan_hf_home=str(tmp_path / "hf"))
    write_cache(tmp_path / "hf" / "hub")
    elsewhere(tmp_path / "hf" / "hub", tmp_path / "disk2" / "hub")
    said = hosts.said()
    assert f"  node0, node1: {tmp_path}/hf/hub is a link" in said
    assert said.count("disk2/hub") == 3  # the fault, source and target


# Mounts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_path_of_the_container_is_translated(hosts: Hosts, slash: str) -> None:
    write_model(hosts.root / "ld" / "V3")
    mounts = [{"source": f"{hosts.root}/ld{slash}", "target": f"/models{slash}"}]
    assert hosts.said(plan_model=f"/models/V3{slash}", plan_extra_mounts=mounts) == ""
    assert hosts.looked["node0"]["path"] == str(hosts.root / "ld" / "V3")
    mounts = [{"source": f"{hosts.root}/ld/V3{slash}", "target": f"/models/here{slash}"}]
    assert hosts.said(plan_model=f"/models/here{slash}", plan_extra_mounts=mounts) == ""


def test_of_mounts_over_each_other_the_longer_target_wins(hosts: Hosts) -> None:
    write_model(hosts.root / "whole")
    (hosts.root / "ld" / "V3").mkdir(parents=True)
    mounts = [
        {"source": str(hosts.root / "whole"), "target": "/models/V3"},
        {"source": str(hosts.root / "ld"), "target": "/models"},
    ]
    assert hosts.said(plan_model="/models/V3", plan_extra_mounts=mounts) == ""
    # And one that hides what is there.
    mounts = [
        {"source": str(hosts.root), "target": "/models"},
        {"source": str(hosts.root / "ld"), "target": "/models/whole"},
    ]
    said = hosts.said(plan_model="/models/whole", plan_extra_mounts=mounts)
    assert "config.json is missing." in said


def test_a_mount_over_the_cache_hides_it(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub")
    (hosts.root / "empty").mkdir()
    mounts = [{"source": str(hosts.root / "empty"), "target": f"{HF_CACHE}/hub"}]
    said = hosts.said(plan_extra_mounts=mounts)
    assert f"{hosts.root}/empty/{FOLDER} does not exist" in said


def test_a_file_that_is_mounted_alone_is_seen(hosts: Hosts) -> None:
    write_model(hosts.root / "ld" / "V3")
    shutil.move(hosts.root / "ld" / "V3" / "config.json", hosts.root / "patched.json")
    mounts = [
        {"source": str(hosts.root / "ld"), "target": "/models"},
        {"source": str(hosts.root / "patched.json"), "target": "/models/V3/config.json"},
    ]
    assert hosts.said(plan_model="/models/V3", plan_extra_mounts=mounts) == ""
    assert "config.json" in hosts.looked["node0"]["files"]


def test_a_model_below_the_cache_s_mount_is_a_path_too(hosts: Hosts) -> None:
    write_model(hosts.home() / "V3")
    assert hosts.said(plan_model=f"{HF_CACHE}/V3") == ""


def test_the_model_s_own_directory_may_be_a_link(hosts: Hosts) -> None:
    write_model(hosts.root / "disk2" / "V3")
    (hosts.root / "ld").mkdir()
    (hosts.root / "ld" / "V3").symlink_to(hosts.root / "disk2" / "V3")
    mounts = [{"source": str(hosts.root / "ld"), "target": "/models"}]
    said = hosts.said(plan_model="/models/V3", plan_extra_mounts=mounts)
    assert f"{hosts.root}/ld/V3 is a link, and no container finds" in said
    assert "Copy the missing" not in said
    assert hosts.said(plan_model="/models/V3", plan_extra_mounts=[*mounts, *hosts.mounts()]) == ""


def test_a_path_that_is_not_there_is_told_in_both_views(hosts: Hosts) -> None:
    (hosts.root / "ld").mkdir()
    mounts = [{"source": str(hosts.root / "ld"), "target": "/models"}]
    said = hosts.said(plan_model="/models/V3", plan_extra_mounts=mounts)
    assert f"/models/V3 of the containers is {hosts.root}/ld/V3 on this host, and that is not a directory" in said
    assert "correct plan_model, or its mount in plan_extra_mounts" in said


@pytest.mark.parametrize(
    ("place", "model", "right"),
    [
        ("ld/deepseek-v3", "/models/DeepSeek-V3", "/models/deepseek-v3"),
        ("ld/deepseek-ai/DeepSeek-V3", "/models/DeepSeek-V3", "/models/deepseek-ai/DeepSeek-V3"),
        ("ld/DeepSeek-V3/DeepSeek-V3", "/models/DeepSeek-V3", "/models/DeepSeek-V3/DeepSeek-V3"),
        (f"ld/{FOLDER}/snapshots/{COMMIT}", f"/models/{FOLDER}", f"/models/{FOLDER}/snapshots/{COMMIT}"),
        (f"ld/hub/{FOLDER}/snapshots/{COMMIT}", "/models/DeepSeek-V3", f"/models/hub/{FOLDER}/snapshots/{COMMIT}"),
        ("ld/DeepSeek-V3", "/models", "/models/DeepSeek-V3"),
    ],
)
def test_a_model_near_the_path_is_found(hosts: Hosts, place: str, model: str, right: str) -> None:
    write_model(hosts.root / place)
    mounts = [{"source": str(hosts.root / "ld"), "target": "/models"}]
    said = hosts.said(plan_model=model, plan_extra_mounts=mounts)
    assert f"{hosts.root}/{place} holds a model, whole." in said
    assert f"  node0: plan_model: {right}" in said
    assert "Copy the missing" not in said
    assert hosts.said(plan_model=right, plan_extra_mounts=mounts) == ""


# Other layouts of a cache --------------------------------------------------------------------------------------------


def settings(said: str) -> dict[str, Any]:
    """The variables that a message says to set, as a person would copy them."""
    import yaml

    line = next(line for line in said.splitlines() if ": plan_" in line and line.startswith("  node"))
    text = line.partition(": ")[2]
    found: dict[str, Any] = {}
    for part in text.replace(", plan_", "\nplan_").splitlines():
        found.update(yaml.safe_load(part))
    return found


@pytest.mark.parametrize(
    ("home", "hub"),
    [
        ("hf/hub", "hf/hub"),  # plan_hf_home ends with hub
        ("hf", "hf/huggingface/hub"),  # one level down
        ("hf/deep", "hf/hub"),  # one level up
        ("hf", "hf"),  # without hub: --cache-dir, TRANSFORMERS_CACHE
        ("hf/deep", "hf"),
        ("hf", "hub"),  # beside it
        ("hf", "huggingface/hub"),
        ("hf", "hf/old"),
    ],
)
def test_a_cache_of_another_layout_is_found(tmp_path: Path, home: str, hub: str) -> None:
    hosts = Hosts(tmp_path, plan_hf_home=str(tmp_path / home))
    (tmp_path / home).mkdir(parents=True)
    write_cache(tmp_path / hub)
    said = hosts.said()
    assert f"{tmp_path}/{hub}/{FOLDER} holds {REPO} in a cache's layout, whole." in said
    assert "Do not fetch it again: it is on these hosts already." in said
    assert "hf download" not in said
    assert hosts.said(**settings(said)) == ""


@pytest.mark.parametrize(
    "place",
    [
        "DeepSeek-V3",
        REPO,
        f"models/{REPO}",
        f"modelscope/hub/models/{REPO}",
        "deepseek-v3",
        "hub/deepseek-ai/DeepSeek-V3",
    ],
)
@pytest.mark.parametrize("above", ["hf", "."])
def test_a_plain_directory_is_found(hosts: Hosts, place: str, above: str) -> None:
    hosts.home().mkdir(parents=True)
    folder = hosts.root / "node0" / above / place
    write_model(folder)
    said = hosts.said()
    assert f"{folder.resolve()} holds a model's files, whole." in said
    assert "hf download" not in said
    assert settings(said)["plan_served_model_name"] == REPO
    assert hosts.said(**settings(said)) == ""


def test_modelscope_writes_a_point_its_own_way(hosts: Hosts) -> None:
    write_model(hosts.home() / "hub" / "models" / "deepseek-ai" / "DeepSeek-V2___5")
    said = hosts.said(plan_model="deepseek-ai/DeepSeek-V2.5")
    assert "DeepSeek-V2___5 holds a model's files, whole." in said


def test_a_name_in_other_letters_is_asked_back(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub", "models--deepseek-ai--deepseek-v3")
    said = hosts.said()
    assert "holds deepseek-ai/deepseek-v3 in a cache's layout, whole." in said
    assert settings(said) == {"plan_model": "deepseek-ai/deepseek-v3"}
    assert hosts.said(**settings(said)) == ""


def test_another_model_of_a_like_name_is_told_and_not_taken_for_it(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub", f"{FOLDER}-0324")
    (hosts.home() / "hub" / "models--meta-llama--Llama-3").mkdir()
    said = hosts.said()
    assert f"holds {REPO}-0324 in a cache's layout, whole." in said
    assert "Llama" not in said


def test_half_a_model_elsewhere_is_told_as_that(hosts: Hosts) -> None:
    snapshot = write_cache(hosts.home())
    (snapshot / LAST).unlink()
    said = hosts.said()
    assert f"in a cache's layout, not whole: {LAST} is missing." in said


def test_where_there_is_none_it_is_to_be_fetched(hosts: Hosts) -> None:
    hosts.home().mkdir(parents=True)
    write_model(hosts.root / "node0" / "somebody" / "DeepSeek-V3")
    write_cache(hosts.root / "node0" / "somebody" / "hub")
    said = hosts.said()
    assert f"{hosts.home()}/hub/{FOLDER} does not exist: {REPO} was never downloaded to this host." in said
    assert f"node0: HF_HOME={hosts.home()} hf download {REPO} --revision main" in said


def test_a_search_has_an_end(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(60):
        (hosts.home() / f"a{n}" / "b" / "c").mkdir(parents=True)
    (hosts.home() / "loop").symlink_to(".")
    monkeypatch.setattr(nearby, "MOST_DIRECTORIES", 20)
    asked: list[str] = []
    names = nearby._names

    def noted(folder: str) -> list[str]:
        asked.append(folder)
        return names(folder)

    monkeypatch.setattr(nearby, "_names", noted)
    hosts.said()
    assert len(asked) <= 22
    # A file system that hangs: what was looked for elsewhere is left, what was asked is answered.
    monkeypatch.setattr(nearby, "SEARCH_SECONDS", 0.0)
    assert "was never downloaded" in hosts.said()


# Commits -------------------------------------------------------------------------------------------------------------


def test_a_ref_that_moved_to_half_a_commit_offers_the_whole_one(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub", commit=OLDER)
    snapshot = write_cache(hosts.home() / "hub", commit=COMMIT)
    (snapshot / LAST).unlink()
    said = hosts.said()
    assert f"{LAST} is missing." in said
    assert f"The commit {OLDER} of {REPO} is on this host, and whole." in said
    assert f"plan_model_revision: {OLDER}" in said
    assert "hf download" not in said
    assert hosts.said(plan_model_revision=OLDER) == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "refs/main is empty"),
        (f"{COMMIT}\n", "refs/main ends with a line break or blanks, which the engine takes for a part of the commit"),
        (" \n", "refs/main is empty"),
        ("0" * 40, f"snapshots/{'0' * 40} does not exist"),
        ("../../x", "refs/main holds no commit ('../../x')"),
        (None, "refs/main does not exist"),
    ],
)
def test_a_ref_that_names_no_commit_offers_what_is_there(hosts: Hosts, content: str | None, words: str) -> None:
    write_cache(hosts.home() / "hub")
    ref = hosts.home() / "hub" / FOLDER / "refs" / "main"
    ref.unlink() if content is None else ref.write_text(content)
    said = hosts.said()
    assert words in said
    assert f"plan_model_revision: {COMMIT}" in said
    assert "hf download" not in said
    assert hosts.said(plan_model_revision=COMMIT) == ""


def test_a_short_commit_is_given_in_full(hosts: Hosts) -> None:
    write_cache(hosts.home() / "hub")
    assert f"A commit is given in full: plan_model_revision: {COMMIT}." in hosts.said(plan_model_revision=COMMIT[:8])


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop"])
def test_a_ref_that_is_no_file_is_a_fault(hosts: Hosts, kind: str) -> None:
    write_cache(hosts.home() / "hub")
    ref = hosts.home() / "hub" / FOLDER / "refs" / "main"
    ref.unlink()
    if kind == "directory":
        ref.mkdir()
    elif kind == "fifo":
        os.mkfifo(ref)
    else:
        ref.symlink_to("main")
    assert "refs/main" in hosts.said()


def test_a_commit_is_offered_only_where_all_hosts_have_it(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, 2)
    write_cache(hosts.home(0) / "hub", commit=OLDER)
    (write_cache(hosts.home(0) / "hub") / LAST).unlink()
    write_cache(hosts.home(1) / "hub")
    said = hosts.said()
    assert f"node0: The commit {OLDER}" in said
    assert "plan_model_revision" not in said
    assert f"node0: HF_HOME={hosts.home(0)} hf download" in said
    write_cache(hosts.home(1) / "hub", commit=OLDER)
    (hosts.home(1) / "hub" / FOLDER / "refs" / "main").write_text(COMMIT)
    said = hosts.said()
    assert f"set plan_model_revision: {OLDER}" in said
    assert hosts.said(plan_model_revision=OLDER) == ""


def test_damaged_files_are_removed_before_they_are_fetched(hosts: Hosts) -> None:
    """huggingface_hub keeps a file that bears the right name, whatever it holds."""
    snapshot = write_cache(hosts.home() / "hub")
    blob = (snapshot / LAST).resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    assert f"node0: rm {blob} && HF_HOME={hosts.home()} hf download {REPO}" in hosts.said()
    # Of very many each by name would be no line that a person can read.
    weight_map = {f"t{n}": f"m{n}.safetensors" for n in range(20)}
    (snapshot / INDEX).resolve().write_text(json.dumps({"weight_map": weight_map}))
    for name in weight_map.values():
        (snapshot / name).write_text("x")
    said = hosts.said()
    assert " rm " not in said
    assert f"hf download {REPO} --revision main --force-download" in said


def test_other_faults_beside_a_missing_mount_are_mended_too(hosts: Hosts) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    (snapshot / LAST).unlink()
    elsewhere(hosts.home() / "hub", hosts.root / "disk2" / "hub")
    said = hosts.said()
    assert f"{LAST} is missing." in said
    assert "plan_extra_mounts" in said
    assert "hf download" in said


# What may not be read ------------------------------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


READER = """
import json, os, sys
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.model import model_facts
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(json.dumps(model_facts(json.loads(sys.argv[1]))))
"""


def looked_by_nobody(asked: dict[str, Any], home: Path = Path("/nonexistent")) -> dict[str, Any]:
    path = os.pathsep.join(each for each in sys.path if each)
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(asked)],
        env={**os.environ, "PYTHONPATH": path, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("closed", ["hf", f"hf/hub/{FOLDER}/blobs", f"hf/hub/{FOLDER}/refs"])
def test_what_the_user_may_not_read_is_a_fault_of_the_host(public: Path, closed: str) -> None:
    write_cache(public / "hf" / "hub")
    (public / closed).chmod(0o000)
    mounts = [{"source": str(public / "hf"), "target": HF_CACHE}]
    asked = {"repo": REPO, "hf_home": str(public / "hf"), "hub": f"{HF_CACHE}/hub", "mounts": mounts}
    try:
        for each in (asked, {"repo": REPO, "hf_home": str(public / "hf")}):
            report = looked_by_nobody(each)
            faults = report["faults"]
            assert faults
            assert report["unread"]
            assert "cannot be read: Permission denied" in faults[0]
    finally:
        (public / closed).chmod(0o755)


def test_the_cache_of_the_user_who_looks_is_found_where_root_s_is_closed(public: Path) -> None:
    write_cache(public / "me" / ".cache" / "huggingface" / "hub")
    (public / "root").mkdir(mode=0o700)
    mounts = [{"source": f"{public}/root/hf", "target": HF_CACHE}]
    asked = {"repo": REPO, "hf_home": f"{public}/root/hf", "hub": f"{HF_CACHE}/hub", "mounts": mounts}
    if os.getuid():
        (public / "root").chmod(0)
    try:
        report = looked_by_nobody(asked, public / "me")
    finally:
        (public / "root").chmod(0o755)
    assert "cannot be read: Permission denied" in report["faults"][0]
    assert report["settings"] == [f"plan_hf_home: {public}/me/.cache/huggingface"]


@pytest.mark.parametrize("refused", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_is_not_fetched_but_made_readable(
    hosts: Hosts, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write_cache(hosts.home() / "hub")
    blob, really = str((snapshot / LAST).resolve()), os.open

    def fails(path: Any, *arguments: Any, **options: Any) -> int:
        if path == blob:
            raise OSError(refused, os.strerror(refused), path)
        return really(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fails)  # a file system that fails is not had for the asking
    said = hosts.said()
    assert f"node0: {LAST} cannot be read: {os.strerror(refused)}" in said
    assert ("run with become" if refused == errno.EACCES else "see dmesg") in said
    assert "hf download" not in said


# The view itself -----------------------------------------------------------------------------------------------------


def test_a_view_follows_links_as_the_container_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "a" / "up").symlink_to("b/../b/./file")
    (tmp_path / "a" / "root").symlink_to("/m/b/file")
    (tmp_path / "a" / "out").symlink_to("../../../../etc/hostname")
    view = View([Mount(str(tmp_path / "a"), "/m/")])
    for name in ("up", "root", "b/file", "../m/up"):
        assert view.find(f"/m/{name}").host == str(tmp_path / "a" / "b" / "file")
    assert view.find("/m/b/..").inside == "/m"
    assert view.names("/m") == ["b", "out", "root", "up"]
    assert view.names("/") == ["m"]
    assert view.on_host("/elsewhere") is None
    with pytest.raises((LeavesMountsError, DanglingError)):
        view.find("/m/out")
    with pytest.raises(FileNotFoundError):
        view.find("/n")


def test_a_file_s_mount_hides_no_directory_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "shard").write_text("x")
    (tmp_path / "m" / "shard").symlink_to("../shard")  # /shard in the container
    with pytest.raises(LeavesMountsError) as left:
        View([Mount(str(tmp_path / "m"), "/m")]).find("/m/shard")
    assert left.value.mount == Mount(str(tmp_path / "shard"), "/shard")


def test_calls_side_by_side_are_bounded_and_none_is_lost() -> None:
    assert parallel.each(lambda n: n * n, range(50), 4) == {n: n * n for n in range(50)}
    assert parallel.each(str, []) == {}
    with pytest.raises(ZeroDivisionError):
        parallel.each(lambda n: 1 // n, [1, 0], 1)
