# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/logs.yml as a person runs it, on this machine with a stand-in for dockerd and on a host that nobody finds."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import subprocess
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._redact import Redactor
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.collected import (
    asked_of_host,
    diagnosis_of,
    index_of,
    is_secret_variable,
    learn_variables,
    write_archive,
)
from ansible_collections.lmfleet.lmdeploy.plugins.plugin_utils.collected_page import html, size
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container
from ansible_collections.lmfleet.lmdeploy.tests.unit.plans import nodes
from ansible_collections.lmfleet.lmdeploy.tests.unit.seen import bound

ROOT = Path(__file__).parents[4]
LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
SECRETS = {
    "ray_token_value": "ray-token-given-0123456789abcdefghij",
    "image_registry_password": "registry pass/word+1",
    "model_hub_token": "hub-token-of-a-shape-that-nobody-knows",
    "warmup_api_key": "key-of-the-warm-up",
}
ON_HOST = {"kept": "token-that-was-made-on-the-host-42", "environment": "in-the-containers-environment"}


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img")
        self.found += [unquote(value or "") for name, value in attrs if name == "href"]


def playbook(folder: Path, *arguments: str, **group: Any) -> subprocess.CompletedProcess[str]:
    hosts = {
        "here": {"ansible_connection": "local", "plan_cluster_address": "192.0.2.100"},
        "gone": {
            "ansible_connection": "ssh",
            "ansible_host": "no-such-host.invalid",
            "plan_cluster_address": "192.0.2.101",
        },
    }
    variables = {
        "ansible_python_interpreter": sys.executable,
        "ansible_ssh_common_args": "-F none -o ControlPath=none",
        "plan_gpus": 8,
        "plan_tp": 16,
        "plan_state_dir": str(folder / "state"),
        "plan_hf_home": str(folder / "hf"),
        **group,
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"lmdeploy_nodes": {"vars": variables, "hosts": hosts}}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "HOME": str(folder),
        "DOCKER_HOST": f"unix://{folder}/docker.sock",
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "playbooks/logs.yml",
        "-i",
        str(folder / "hosts.yml"),
    ]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_one_archive_has_all_that_the_hosts_told_without_a_secret(tmp_path: Path) -> None:
    home = tmp_path / "state" / "lmdeploy"
    (home / "secrets").mkdir(parents=True)
    (home / "secrets" / "ray_token").write_text(ON_HOST["kept"])
    (home / "record.json").write_text(json.dumps({"format": 1, "note": ON_HOST["kept"]}))
    (home / "logs").mkdir()
    former = (LOGS / "oom_at_load.log").read_text("utf-8") + "\n".join(SECRETS.values())
    (home / "logs" / "lmdeploy-api-1.log").write_text(former)
    failed = container("lmdeploy-api", Status="exited", ExitCode=1, FinishedAt="2026-11-24T22:30:00.5Z")
    failed["Config"].update(
        Labels={"lmfleet.lmdeploy.deployment": "lmdeploy", "lmfleet.lmdeploy.service": "api"},
        Env=[f"SOME_TOKEN={ON_HOST['environment']}", f"AN_OPTION={SECRETS['model_hub_token']}"],
        Cmd=["serve", "--api-keys", "on-a-command-line"],
    )
    planted = [*SECRETS.values(), *ON_HOST.values(), "on-a-command-line"]
    lines = [*(LOGS / "crash_at_load.log").read_text("utf-8").split("\n"), *planted]
    stamped = [f"2026-11-24T22:25:{n // 60 % 60:02d}.{n:09d}Z {line}\n" for n, line in enumerate(lines)]
    with Dockerd(tmp_path / "docker.sock", {"lmdeploy-api": failed}, logs={"lmdeploy-api": "".join(stamped).encode()}):
        ran = playbook(tmp_path, "-e", f"logs_dir={tmp_path}/out", **SECRETS)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    [archive] = (tmp_path / "out").glob("*.tar.gz")
    assert f"LOGS {archive}" in ran.stdout
    assert "gone (192.0.2.101) was not read: cannot be reached: " in ran.stdout
    assert archive.stat().st_mode & 0o77 == 0

    raw = gzip.decompress(archive.read_bytes())
    page = (tmp_path / "out" / "index.html").read_bytes()
    for secret in planted:
        for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("="), json.dumps(secret)[1:-1]):
            assert form.encode() not in raw + page, secret
    with tarfile.open(archive) as tar:
        found = {info.name: tar.extractfile(info).read().decode() for info in tar}  # type: ignore[union-attr]
    folder = archive.name.removesuffix(".tar.gz")
    assert {name.partition("/")[0] for name in found} == {folder}
    files = {name.partition("/")[2]: text for name, text in found.items()}
    common = (
        "plan.json",
        "status.json",
        "status.txt",
        "preflight.json",
        "preflight.html",
        "versions.json",
        "index.html",
    )
    own = ("containers/lmdeploy-api.log", "containers/lmdeploy-api.inspect.json", "state/record.json", "host.txt")
    assert {*common, *(f"hosts/here/{name}" for name in own), "hosts/here/state/logs/lmdeploy-api-1.log"} <= set(files)
    assert json.loads(files["plan.json"])["name"] == "lmdeploy"
    assert json.loads(files["versions.json"])["ansible-core"].startswith("2.")
    assert json.loads(files["versions.json"])["lmfleet.lmdeploy"] != "?"

    index = json.loads(files["index.json"])
    here, gone = (next(each for each in index["nodes"] if each["name"] == name) for name in ("here", "gone"))
    assert gone["failed"].startswith("cannot be reached: ")
    [row] = here["containers"]
    assert (row["status"], row["exit_code"], row["finished_at"]) == ("exited", 1, "2026-11-24 22:30:00")
    assert row["diagnosis"]["lines"]
    assert "memory" in here["former"][0]["diagnosis"]["means"]
    assert "prompts and answers into its log" in files["index.html"]
    links = Links(files["index.html"]).found
    assert links
    assert not [each for each in links if each not in files]
    assert not [each for each in Links(page.decode()).found if each not in found]


# Pure --------------------------------------------------------------------------------------------------------------------


PLAN = bound(nodes())


def collected(**more: Any) -> dict[str, Any]:
    row = {
        "name": "lmdeploy-api",
        "service": "api",
        "engine": "lmdeploy",
        "status": "exited",
        "exit_code": 137,
        "oom_killed": True,
        "restarts": 2,
        "started_at": "2026-11-24T22:25:01.5Z",
        "finished_at": "0001-01-01T00:00:00Z",
        "error": "<b>bad</b>",
        "log": "containers/lmdeploy-api.log",
        **more,
    }
    return {
        "containers": [row],
        "files": [{"path": row["log"], "bytes": 3, "left_out": 7}],
        "unread": [],
        "archive": "",
    }


def index(answer: dict[str, Any], log: str) -> dict[str, Any]:
    files = {"plan.json": "{}", "hosts/node0/containers/lmdeploy-api.log": log, "hosts/node0/a b#.txt": "x"}
    return index_of(PLAN, {"node0": answer}, files, state="down", now="2026-11-24T22:30:00Z", versions={"a": "1"})


def test_a_page_has_what_a_person_looks_for_and_obeys_nobody() -> None:
    made = index(collected(), "<script>alert(1)</script>\n")
    text = html(made, "the folder")
    assert "<script>" not in text
    assert "<b>bad" not in text
    assert "137 (killed for memory by the kernel)" in text
    assert "2 times" in text
    assert "first and last part" in text
    assert "it was not asked" in text  # node1
    assert 'href="the%20folder/hosts/node0/a%20b%23.txt"' in text
    [row] = made["nodes"][0]["containers"]
    assert row["finished_at"] == ""
    assert row["diagnosis"]["lines"] == ["<script>alert(1)</script>"]  # it is known to have failed: its last lines
    assert re.search(r"not in the catalogue", text)


def test_a_service_that_runs_is_not_said_to_have_failed() -> None:
    running = collected(status="running", exit_code=0, oom_killed=False)
    [row] = index(running, (LOGS / "ready.log").read_text("utf-8"))["nodes"][0]["containers"]
    assert (row["failed"], row["diagnosis"]) == (False, None)
    [row] = index(collected(exit_code=0), "bye\n")["nodes"][0]["containers"]
    assert (row["failed"], row["diagnosis"]) == (False, None)


@pytest.mark.parametrize("name", ["crash_at_load", "oom_at_load", "port_in_use", "nccl_no_route"])
def test_dockers_stamps_are_no_part_of_a_diagnosis(name: str) -> None:
    log = (LOGS / f"{name}.log").read_text("utf-8")
    stamped = "\n".join(f"2026-11-24T22:25:01.000000000Z {line}" for line in log.split("\n"))
    assert diagnosis_of(stamped, failed=True) == diagnosis_of(log, failed=True)


def test_of_a_very_long_log_the_beginning_counts_too() -> None:
    crash = (LOGS / "port_in_use.log").read_text("utf-8")
    found = diagnosis_of(crash + "INFO: nothing\n" * 30000, failed=True)
    assert found is not None
    assert found["means"]


def test_what_is_asked_of_a_host_is_of_the_plan() -> None:
    asked = asked_of_host(PLAN, "node1")
    assert asked["state_dir"] == "/var/lib/lmfleet/lmdeploy"
    assert asked["secrets"] == ["/var/lib/lmfleet/lmdeploy/secrets/ray_token"]


def test_variables_with_secrets_are_known_by_their_names() -> None:
    names = [
        *SECRETS,
        "vault_registry_password",
        "ansible_become_password",
        "ansible_ssh_pass",
        "my_secret",
        "openai_api_key",
    ]
    assert [name for name in names if not is_secret_variable(name)] == []
    others = ("status_token_timeout", "ansible_ssh_private_key_file", "plan_name", "benchmark_dataset", "secret_name")
    assert [name for name in others if is_secret_variable(name)] == []
    redactor = Redactor()
    learn_variables(
        redactor, {"a_token": ["first-value", {"x": "second-value"}], "env": {"DB_PASSWORD": "third-value"}}
    )
    assert redactor.text("first-value second-value third-value") == "*** *** ***"


def test_an_archive_is_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    write_archive(path, "folder", {"a/b": "ümläut"}, 1.0)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["folder/a/b"]
    assert [each.name for each in tmp_path.iterdir()] == ["x.tar.gz"]
    with pytest.raises(FileNotFoundError):
        write_archive(tmp_path / "none" / "x.tar.gz", "folder", {}, 1.0)


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (0, 1023, 2048, 5 << 20)] == ["0 B", "1023 B", "2.0 kB", "5.0 MB"]
