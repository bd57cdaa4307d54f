# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts told of themselves and of their containers, as one archive: what is asked, what is in it, and its index.

Pure, but for ``write_archive``.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._collect import members, safe
from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._redact import Redactor, is_secret_name

from .log_lines import split
from .logs import Diagnosis, diagnose, explained
from .look import home_path
from .planning.types import Node, Plan

# A diagnosis needs the beginning of a start and the end of a run.
FIRST_LINES, LAST_LINES = 4000, 12000
# Docker's, before an empty line too, which may end a message.
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", re.MULTILINE)
KEPT_LOGS = "state/logs/"
_SECRET_VARIABLE = re.compile(
    r"token|passw|passphrase|secret|api_?key|private_?key|credential|become_pass|ssh_pass", re.IGNORECASE
)
_NO_SECRET_VARIABLE = re.compile(r"(?:timeout|path|file|dir|url|auth|length|name|user|username)$", re.IGNORECASE)

PROMPTS = (
    "At its log level INFO, LMDeploy writes its users' prompts and answers into its log. They are no secrets that this "
    "collection knows, so they are still in the files below: give the archive to nobody who may not read them."
)


def asked_of_host(plan: Plan, host: str) -> dict[str, Any]:
    """What M(collect) is asked of a host, without the bounds."""
    node = plan.node(host)
    found = [secret.source for service in plan.services_on(host) for secret in service.secrets]
    return {
        "deployment": plan.name,
        "state_dir": home_path(plan, node),
        "secrets": list(dict.fromkeys(found)),
        "hf_homes": [node.hf_home],
    }


def is_secret_variable(name: str) -> bool:
    """Whether an inventory's variable of this name has a secret, as far as names tell."""
    return bool(_SECRET_VARIABLE.search(name)) and not _NO_SECRET_VARIABLE.search(name)


def learn_variables(redactor: Redactor, variables: Mapping[str, Any]) -> None:
    """The values of variables that have secrets; of a list each, of a mapping those of such names, and passwords in addresses."""
    for name, value in variables.items():
        if is_secret_variable(name) or is_secret_name(name):
            redactor.learn(_texts(value))
        elif isinstance(value, Mapping):
            learn_variables(redactor, {str(key): each for key, each in value.items()})
        elif isinstance(value, str):
            redactor.learn_environment([f"{name}={value}"])


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [str(value)]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in _texts(each)]
    return []


# ---- the archive


def files_of_hosts(collected: Mapping[str, Mapping[str, Any]], redactor: Redactor) -> dict[str, str]:
    """Path in the archive -> text, of all that the hosts gave."""
    return {
        f"hosts/{safe(host)}/{name}": redactor.known(text)  # the host has looked for what looks like a secret
        for host, answer in collected.items()
        if "archive" in answer
        for name, text in members(answer["archive"])
    }


def write_archive(path: Path, folder: str, files: Mapping[str, str], now: float) -> None:
    """Write ``files`` as a tar.gz whose only directory is ``folder``, in one step and for this user alone. Raises OSError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.touch(mode=0o600)
        with tarfile.open(draft, "w:gz", compresslevel=6) as tar:
            for name in sorted(files):
                data = files[name].encode("utf-8", "replace")
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size, info.mode, info.mtime = len(data), 0o600, int(now)
                tar.addfile(info, io.BytesIO(data))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


# ---- its index


def index_of(
    plan: Plan,
    collected: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, str],
    *,
    state: str,
    now: str,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """The index as plain data: ``nodes`` in the plan's order, each with its containers, former logs and files."""
    return {
        "deployment": plan.name,
        "model": plan.served_model_name,
        "url": plan.url,
        "state": state,
        "made_at": now,
        "versions": dict(versions),
        "prompts": PROMPTS,
        "common": sorted(name for name in files if not name.startswith("hosts/")),
        "nodes": [_node(node, collected.get(node.name, {"failed": "it was not asked"}), files) for node in plan.nodes],
    }


def _node(node: Node, answer: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    folder = f"hosts/{safe(node.name)}"
    left_out = {each["path"]: each["left_out"] for each in answer.get("files", ())}
    listed: list[dict[str, Any]] = [
        {
            "path": path,
            "name": path[len(folder) + 1 :],
            "bytes": len(text.encode()),
            "cut": bool(left_out.get(path[len(folder) + 1 :])),
        }
        for path, text in sorted(files.items())
        if path.startswith(f"{folder}/")
    ]
    by_name = {each["name"]: each for each in listed}
    containers = [_container(each, folder, by_name, files) for each in answer.get("containers", ())]
    shown = {each["log"]["name"] for each in containers if each["log"]}
    former = []
    for each in listed:
        if each["name"].startswith(KEPT_LOGS) and not each["name"].endswith(".json"):
            former.append({"file": each, "diagnosis": diagnosis_of(files[each["path"]])})
            shown.add(each["name"])
    return {
        "name": node.name,
        "address": node.address,
        "engine": node.engine,
        "failed": answer.get("failed", ""),
        "containers": containers,
        "former": former,
        "files": [each for each in listed if each["name"] not in shown],
        "unread": _together(answer.get("unread", ())),
    }


def _together(unread: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """What could not be read, what has the same reason on one line."""
    found: dict[str, list[str]] = {}
    for each in unread:
        found.setdefault(each["why"], []).append(each["what"])
    return [{"what": ", ".join(what), "why": why} for why, what in found.items()]


def _container(
    row: Mapping[str, Any], folder: str, listed: Mapping[str, Mapping[str, Any]], files: Mapping[str, str]
) -> dict[str, Any]:
    log = listed.get(row["log"]) if row["log"] else None
    failed = row["status"] in ("exited", "dead", "restarting") and row["exit_code"] != 0
    return {
        **{key: row[key] for key in ("name", "service", "status", "exit_code", "restarts", "error", "oom_killed")},
        "started_at": _moment(row["started_at"]),
        "finished_at": _moment(row["finished_at"]),
        "failed": failed,
        "log": log,
        "inspect": listed.get(f"containers/{safe(row['name'])}.inspect.json"),
        "diagnosis": diagnosis_of(files[f"{folder}/{row['log']}"], failed=failed) if log else None,
    }


def _moment(stamp: str) -> str:
    """Docker's time to the second; nothing for the one that it has for never."""
    return "" if stamp.startswith("0001-") else stamp[:19].replace("T", " ")


def diagnosis_of(log: str, *, failed: bool = False) -> dict[str, Any] | None:
    """Why the service failed that wrote ``log``; None where it tells of no failure, and the service is not known to have failed."""
    lines = split(_STAMP.sub("", log))
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > FIRST_LINES + LAST_LINES:
        lines = [*lines[:FIRST_LINES], *lines[-LAST_LINES:]]
    found: Diagnosis | None = explained(lines) if failed else diagnose(lines)
    if found is None or not found.lines:
        return None
    known = found.known
    return {
        "lines": list(found.lines),
        "means": known.means if known else "",
        "remedy": known.remedy if known else "",
        "node": found.node,
    }
