# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model's files: whole, and the same on every host; and the files that options of the engine name."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from ..look import files_of
from ..observed import Host
from ..planning.paths import Named
from ..planning.types import Plan
from .types import ERROR, GROUP, WARNING, Found, OfHost, Rule, Unknown

PLAIN = re.compile(r"[\w./@+-]+")  # text that YAML takes without quotes
WITHOUT = frozenset({"--generation-config"})  # an engine starts without its file
MOST_REMOVED = 8  # damaged files that are removed one by one


def whole_faults(plan: Plan, hosts: Iterable[Host]) -> Iterator[Found]:
    """Where the model is not whole; one message, with what to type."""
    asked = [host for host in hosts if host.model]
    faulty = [host for host in asked if host.model["faults"]]
    if faulty:
        lines = [f"{plan.model} is not whole on {len(faulty)} of {len(asked)} hosts:"]
        lines += _together((host, fault) for host in faulty for fault in host.model["faults"])
        told = "\n".join([*lines, *_model_remedies(plan, asked, faulty)])
        yield Found(told, tuple(host.name for host in faulty))


def _whole(hosts: Iterable[Host]) -> list[Host]:
    """The hosts that were asked for the model; raises ``Unknown`` where it is not whole everywhere."""
    asked = [host for host in hosts if host.model]
    if any(host.model["faults"] for host in asked):
        raise Unknown("the model is not whole on every host")
    return asked


def same_faults(plan: Plan, hosts: Iterable[Host]) -> Iterator[Found]:
    """Where the hosts hold different files; raises ``Unknown`` where the model is not whole."""
    groups: dict[str, list[Host]] = {}
    for host in (each for each in _whole(hosts) if each.model.get("digest") is not None):
        groups.setdefault(str(host.model["digest"]), []).append(host)
    if len(groups) < 2:
        return
    lines = [f"The hosts hold different files of {plan.model}, and one engine cannot serve two models:"]
    for holders in groups.values():
        report = holders[0].model
        names = ", ".join(host.name for host in holders)
        lines.append(
            f"  {names}: commit {report.get('commit') or 'unknown'}, {len(report['files'])} files, {report['total_bytes']} bytes"
        )
    lines.append("Set plan_model_revision to one commit, or copy the model from one host to the others.")
    yield Found("\n".join(lines), tuple(host.name for holders in groups.values() for host in holders))


def path_faults(plan: Plan, hosts: Iterable[Host]) -> Iterator[Found]:
    """Where a TP engine's workers would look for the model in vain: its head hands them its own path."""
    asked = _whole(hosts)
    if len({str(host.model.get("digest")) for host in asked} - {"None"}) > 1:
        raise Unknown("the hosts hold different files of the model")
    for engine in plan.engines:
        places = {host.name: host.model.get("reads") for host in asked if host.name in engine.nodes}
        head = places.get(engine.head)
        others = {name: place for name, place in places.items() if head and place and place != head}
        if engine.topology == "tp" and others:
            told = ", ".join(f"{place} on {name}" for name, place in others.items())
            yield Found(
                f"{plan.model} is at {head} in the containers of {engine.head}, and at {told}, where links are followed. Ray's "
                f"workers get the path of {engine.head}: make the links in plan_hf_home the same on all hosts.",
                tuple(others),
            )


def option_faults(of: OfHost) -> Iterator[str]:
    """Where an option of the engine names what no container of the host would find."""
    for each in files_of(of.plan, of.node):
        if each.option not in WITHOUT:
            yield from _not_found(of, each)


def generation_faults(of: OfHost) -> Iterator[str]:
    """The same of a file without which LMDeploy serves with settings of its own, and does not say so."""
    for each in files_of(of.plan, of.node):
        if each.option in WITHOUT:
            yield from _not_found(of, each)


def _not_found(of: OfHost, each: Named) -> Iterator[str]:
    wrong = of.known("inside").get(each.reads)
    if wrong is None:
        raise Unknown(f"nobody could say whether {each.reads} is there")
    if wrong and each.reads.endswith("/snapshots"):
        repo = posixpath.basename(each.path).removeprefix("models--").replace("--", "/", 1)
        yield (
            f"plan_api_server_options: {each.key} is {repo}, which is not in this host's cache ({each.path} in the containers), "
            "and nothing is downloaded: download it there, or give the absolute path that it has in the containers."
        )
    elif wrong:
        yield f"plan_api_server_options: {each.key} is {each.path} in the containers, and {wrong}."


def _together(said: Iterable[tuple[Host, str]]) -> list[str]:
    """Lines, one for what holds on several hosts, with their names before it."""
    names: dict[str, list[str]] = {}
    for host, line in said:
        names.setdefault(line, []).append(host.name)
    return [f"  {', '.join(found)}: {line}" for line, found in names.items()]


def _model_remedies(plan: Plan, asked: Sequence[Host], faulty: Sequence[Host]) -> Iterator[str]:
    """What to do, for each host the cheapest: mount, set, and only what is on the host nowhere is fetched."""
    mounts = {
        f"{{source: {_yaml(each['source'])}, target: {_yaml(each['target'])}}}"
        for host in faulty
        for each in host.model.get("mounts") or ()
    }
    if mounts:
        yield "Have the containers see what the links lead to: add to plan_extra_mounts"
        yield from (f"  - {each}" for each in sorted(mounts))
    commit = _common_commit(asked, faulty)
    if commit:
        yield f"Each of these hosts has a commit of it that is whole: set plan_model_revision: {commit}, and run again."
        return
    placed = [host for host in faulty if host.model.get("settings")]
    if placed:
        settings = _together((host, ", ".join(host.model["settings"][0].splitlines())) for host in placed)
        beside = " (beside the entries of plan_extra_mounts that are there)" if "_extra_" in "".join(settings) else ""
        yield f"Do not fetch it again: it is on these hosts already. Set this{beside}, and run again:"
        yield from settings
    left = [host for host in faulty if host not in placed and not _only_mounts(host) and not host.model.get("unread")]
    if not left:
        return
    if plan.model.startswith("/"):
        yield "Copy the missing files there on each of these hosts, and run again."
        return
    whole = len(faulty) < len(asked)
    how = "-e model_strategy=fanout, from a host that has it" if whole else "-e model_source=hub"
    yield f"Have it brought by playbooks/model.yml {how}. Or fetch it by hand; files that are whole are not fetched twice:"
    for host in left:
        damaged = host.model.get("damaged") or []
        # huggingface_hub takes a file for whole that bears the right name.
        few = 0 < len(damaged) <= MOST_REMOVED
        remove = f"rm {' '.join(map(shlex.quote, damaged))} && " if few else ""
        forced = " --force-download" if damaged and not few else ""
        yield (
            f"  {host.name}: {remove}{_cache_of(plan, host)} hf download {shlex.quote(plan.model)} "
            f"--revision {shlex.quote(plan.model_revision)}{forced}"
        )


def _yaml(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _only_mounts(host: Host) -> bool:
    """Whether the host lacks nothing but mounts, each of which is one fault."""
    return len(host.model["faults"]) == len(host.model.get("mounts") or ())


def _cache_of(plan: Plan, host: Host) -> str:
    """The variable that has a download go where the engine looks."""
    home, hub = plan.node(host.name).hf_home, host.model.get("hub")
    if hub and posixpath.basename(hub) != "hub":
        return f"HF_HUB_CACHE={shlex.quote(hub)}"
    return f"HF_HOME={shlex.quote(home)}"


def _common_commit(asked: Sequence[Host], faulty: Sequence[Host]) -> str | None:
    """A commit that is whole where the one that was asked for is not, and there on all other hosts."""
    lacking = [host for host in faulty if not _only_mounts(host)]
    held = [host.model.get("snapshots") or {} for host in asked]
    whole = [
        commit for host in lacking[:1] for commit, is_whole in (host.model.get("snapshots") or {}).items() if is_whole
    ]
    return next(
        (
            commit
            for commit in whole
            if all(commit in each for each in held)
            and all((host.model.get("snapshots") or {}).get(commit) for host in lacking)
        ),
        None,
    )


RULES = (
    Rule(
        id="model.whole",
        severity=ERROR,
        title="The model's files are whole on every host, and can be seen in containers",
        check=lambda of: whole_faults(of.plan, of.hosts.values()),
        remedy="What the message says: mount, set, or fetch with `playbooks/model.yml`.",
        needs=("model.faults",),
        scope=GROUP,
        waivable=False,
    ),
    Rule(
        id="model.same",
        severity=ERROR,
        title="The hosts hold the same files of the model",
        check=lambda of: same_faults(of.plan, of.hosts.values()),
        remedy="Set `plan_model_revision` to one commit, or copy the model.",
        needs=("model.digest",),
        scope=GROUP,
    ),
    Rule(
        id="model.path",
        severity=ERROR,
        title="The hosts of a TP engine have the model at one path in containers",
        check=lambda of: path_faults(of.plan, of.hosts.values()),
        remedy="Make the links in `plan_hf_home` the same.",
        needs=("model.faults",),
        scope=GROUP,
        applies=lambda of: of.plan.topology == "tp",
    ),
    Rule(
        id="model.options",
        severity=ERROR,
        title="What options of the engine name (chat template, adapters, draft model) can be seen in containers",
        check=option_faults,
        remedy="Put the file there, or correct `plan_api_server_options` or `plan_extra_mounts`.",
        needs=("inside",),
        applies=lambda of: any(each.option not in WITHOUT for each in files_of(of.plan, of.node)),
    ),
    Rule(
        id="model.generation",
        severity=WARNING,
        title="The generation settings that `generation_config` names can be seen in containers",
        check=generation_faults,
        remedy="Put generation_config.json there, or correct `generation_config`.",
        needs=("inside",),
        applies=lambda of: any(each.option in WITHOUT for each in files_of(of.plan, of.node)),
    ),
)
