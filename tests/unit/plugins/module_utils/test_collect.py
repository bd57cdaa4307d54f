# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host gives for the archive: bounded, without secrets, and nothing of it is made there."""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._collect import (
    _tail,
    bounded,
    collect,
    container_log,
    file_text,
    members,
    safe,
)
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container

TOKEN = "the-token-of-ray-0123456789abcdef"
LABEL = "lmfleet.lmdeploy."
# The SDK leaves sockets open where Docker does not answer.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def dockerd(tmp_path: Path) -> Iterator[Dockerd]:
    with Dockerd(tmp_path / "docker.sock") as daemon:
        yield daemon


@pytest.fixture
def client(dockerd: Dockerd) -> Iterator[Any]:
    made = docker.DockerClient(base_url=dockerd.host, version="1.45", timeout=10)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "lmdeploy"
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "ray_token").write_text(TOKEN)
    return folder


def asked(home: Path, **given: Any) -> dict[str, Any]:
    bounds = {"first_mb": 0.01, "last_mb": 0.02, "total_mb": 8.0, "hours": 1.0, "limit_s": 20.0}
    names = {"deployment": "lmdeploy", "state_dir": str(home), "secrets": [], "hf_homes": [str(home.parent / "hf")]}
    return {**names, **bounds, **given}


def stamped(lines: list[str]) -> bytes:
    return "".join(
        f"2026-11-24T22:{n // 60000 % 60:02d}:{n // 1000 % 60:02d}.{n % 1000:03d}000000Z {line}\n"
        for n, line in enumerate(lines)
    ).encode()


def own(
    dockerd: Dockerd, name: str, lines: list[str], *env: str, labels: dict[str, str] | None = None, **state: Any
) -> None:
    made = container(name, **state)
    made["Config"]["Labels"] = labels or {f"{LABEL}deployment": "lmdeploy", f"{LABEL}service": "api"}
    made["Config"]["Env"] = list(env)
    dockerd.containers[name], dockerd.logs[name] = made, stamped(lines)


def texts(answer: dict[str, Any]) -> dict[str, str]:
    return dict(members(answer["archive"]))


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(folder.rglob("*"))}


def test_a_host_gives_logs_states_and_files_and_keeps_all_as_it_was(dockerd: Dockerd, client: Any, home: Path) -> None:
    own(dockerd, "lmdeploy-api", ["hello", "world"], Status="exited", ExitCode=3, FinishedAt="2026-11-24T22:30:00.1Z")
    own(dockerd, "lmdeploy-ray", ["Loading 0%\rLoading 50%\rLoading 100%", "\x1b[31mred\x1b[0m"])
    own(dockerd, "other", ["of others"], labels={f"{LABEL}deployment": "another"})
    own(dockerd, "probe-1", ["job"], labels={f"{LABEL}job": "warm-up", f"{LABEL}owner": "warm-up of lmdeploy"})
    own(dockerd, "probe-2", ["job"], labels={f"{LABEL}job": "warm-up", f"{LABEL}owner": "warm-up of another"})
    (home / "record.json").write_text('{"format": 1}')
    (home / "logs" / "20261124").mkdir(parents=True)
    (home / "logs" / "lmdeploy-api.log").write_text("a former log\n")
    (home / "logs" / "20261124" / "dp.log.gz").write_bytes(gzip.compress(b"packed\n"))
    (home / "logs" / "core").write_bytes(b"\0\1\2")
    (home / "cache").mkdir()
    (home / "cache" / "kernel.txt").write_text("no")
    (home / "link").symlink_to("/etc/passwd")
    os.mkfifo(home / "pipe")
    before = tree(home)

    answer = collect(client, asked(home))

    found = texts(answer)
    assert tree(home) == before
    assert not [each for each in dockerd.asked if "create" in each or "exec" in each or "stats" in each]
    rows = {each["name"]: each for each in answer["containers"]}
    assert set(rows) == {"lmdeploy-api", "lmdeploy-ray", "probe-1"}
    assert rows["lmdeploy-api"]["exit_code"] == 3
    assert found[rows["lmdeploy-api"]["log"]].endswith("Z hello\n2026-11-24T22:00:00.001000000Z world\n")
    assert found["containers/lmdeploy-ray.log"].splitlines() == [
        "2026-11-24T22:00:00.000000000Z Loading 100%",
        "2026-11-24T22:00:00.001000000Z red",
    ]
    assert found["state/record.json"] == '{\n "format": 1\n}'
    assert found["state/logs/lmdeploy-api.log"] == "a former log\n"
    assert found["state/logs/20261124/dp.log"] == "packed\n"
    assert json.loads(found["docker-version.json"])["Version"] == "28.5.1"
    assert "LoggingDriver" in found["docker-info.json"]
    assert f"uname: {os.uname().sysname}" in found["host.txt"]
    assert not [name for name in found if "secrets" in name or "kernel.txt" in name or "link" in name or "pipe" in name]
    assert {"what": str(home / "logs" / "core"), "why": "it is no text"} in answer["unread"]


def test_no_byte_of_it_has_a_secret(dockerd: Dockerd, client: Any, home: Path) -> None:
    planted = {
        "environment": "from-the-environment-77",
        "key": "key-on-a-command-line-88",
        "hub": "token_of_the_hub_99",
        "login": "registry-login-11",
    }
    own(
        dockerd,
        "lmdeploy-api",
        [
            f"ray says {TOKEN}",
            f"split \x1b[1m{TOKEN[:9]}\x1b[0m{TOKEN[9:]}",
            f"zero {TOKEN[:5]}\u200b{TOKEN[5:]}",
            *planted.values(),
            "Authorization: Bearer never-seen-before-22",
            "hf_NeverSeen12345678",
        ],
        f"SERVICE_PASSWORD={planted['environment']}",
    )
    dockerd.containers["lmdeploy-api"]["Config"]["Cmd"] = ["serve", "--api-keys", planted["key"], "--tp", "2"]
    own(dockerd, "lmdeploy-ray", [f"the other container has {planted['environment']}"])
    dockerd.info["HttpProxy"] = f"http://anna:{planted['login']}@proxy:3128"
    (home.parent / "hf").mkdir()
    (home.parent / "hf" / "token").write_text(planted["hub"] + "\n")
    (home.parent / "docker").mkdir()
    auth = base64.b64encode(f"anna:{planted['login']}".encode()).decode()
    (home.parent / "docker" / "config.json").write_text(json.dumps({"auths": {"r": {"auth": auth}}}))
    (home / "record.json").write_text(json.dumps({"note": TOKEN, "api_key": "in-the-record-33", auth: 1}))
    (home / "broken.json").write_text(f'{{"note": "{TOKEN}"')
    (home / "logs").mkdir()
    (home / "logs" / "x.gz").write_bytes(gzip.compress(f"{TOKEN}\n".encode()))

    answer = collect(client, asked(home))

    whole = "\n".join([*texts(answer).values(), json.dumps({**answer, "archive": ""})])
    more = ("never-seen-before-22", "hf_NeverSeen12345678", "in-the-record-33", auth)
    assert [each for each in (TOKEN, *planted.values(), *more) if each in whole] == []
    assert whole.count("***") >= 12


def test_the_beginning_and_the_end_of_a_long_log_are_kept_in_whole_lines(
    dockerd: Dockerd, client: Any, home: Path
) -> None:
    lines = [f"line {n:06d} {TOKEN}" for n in range(60000)]
    own(dockerd, "lmdeploy-api", lines)
    answer = collect(client, asked(home))
    [file] = [each for each in answer["files"] if each["path"] == "containers/lmdeploy-api.log"]
    kept = texts(answer)["containers/lmdeploy-api.log"].splitlines()
    assert file["left_out"]
    assert kept[0].endswith("line 000000 ***")
    assert kept[-1].endswith("line 059999 ***")
    assert [line for line in kept if "left out here" in line] == ["[lmfleet: some lines of the log are left out here]"]
    assert all(line.endswith(" ***") or "left out" in line for line in kept)
    assert 16000 < file["bytes"] < 40000
    assert TOKEN[:12] not in "".join(kept)


@pytest.mark.parametrize("count", [0, 1, 100, 250, 400, 700])
def test_a_log_that_fits_is_whole(dockerd: Dockerd, client: Any, count: int) -> None:
    own(dockerd, "x", [f"line {n:05d}" for n in range(count)])
    text, left_out = container_log(client.containers.get("x"), 10000, 20000, time.monotonic() + 10)
    assert not left_out
    assert text.encode() == dockerd.logs["x"]


def test_of_many_lines_only_the_end_is_held() -> None:
    class Docker:
        def logs(self, **_: Any) -> Iterator[bytes]:
            yield from (b"x" * 1023 + b"\n" for __ in range(8000))

    kept, whole = _tail(Docker(), 9000, 1 << 20, time.monotonic() + 60)
    assert not whole
    assert 1 << 20 <= len(kept) <= (3 << 20) + 2048


def test_what_docker_does_not_give_is_named_and_the_rest_is_there(dockerd: Dockerd, client: Any, home: Path) -> None:
    own(dockerd, "lmdeploy-api", ["hello"])
    dockerd.fails["/containers/id-of-lmdeploy-api/logs"] = "configured logging driver does not support reading"
    (home / "record.json").write_text("{}")
    answer = collect(client, asked(home))
    assert [each["what"] for each in answer["unread"] if "logging driver" in each["why"]] == ["the log of lmdeploy-api"]
    assert answer["containers"][0]["log"] == ""
    assert {"state/record.json", "containers/lmdeploy-api.inspect.json"} <= set(texts(answer))


def test_without_docker_the_files_are_there_all_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    (home / "record.json").write_text("{}")
    answer = collect(None, asked(home))
    assert answer["containers"] == []
    assert "state/record.json" in texts(answer)
    assert any(each["what"] == "containers" and "Docker" in each["why"] for each in answer["unread"])


def test_a_docker_that_hangs_ends_with_the_limit(dockerd: Dockerd, client: Any, home: Path) -> None:
    own(dockerd, "lmdeploy-api", ["hello"])
    before = set(threading.enumerate())
    dockerd.late_s = 3.0
    (home / "record.json").write_text("{}")
    answer = collect(client, asked(home, limit_s=1.0))
    assert "state/record.json" in texts(answer)
    assert any("no answer within 1 s" in each["why"] for each in answer["unread"])
    for thread in set(threading.enumerate()) - before:  # they have connections, which are closed once they are answered
        thread.join(60)


def test_what_has_no_room_is_named_and_the_small_files_are_there(dockerd: Dockerd, client: Any, home: Path) -> None:
    own(dockerd, "lmdeploy-api", ["hello"])
    (home / "logs").mkdir()
    (home / "logs" / "big.log").write_text("x\n" * 10000)
    (home / "record.json").write_text("{}")
    answer = collect(client, asked(home, total_mb=0.016))
    assert "state/record.json" in texts(answer)
    assert any(each["what"] == "state/logs/big.log" and "logs_total_mb" in each["why"] for each in answer["unread"])


def test_a_state_directory_that_is_not_there_is_no_fault(client: Any, tmp_path: Path) -> None:
    answer = collect(client, asked(tmp_path / "none" / "lmdeploy"))
    assert not [each for each in answer["unread"] if "none" in each["what"]]
    assert not (tmp_path / "none").exists()


def test_texts_are_cut_between_lines(tmp_path: Path) -> None:
    text = "".join(f"{n:04d}\n" for n in range(1000))
    kept, left_out = bounded(text, 52, 23)
    head, __, tail = kept.partition("[lmfleet: ")
    assert head == "0000\n0001\n0002\n0003\n"
    assert tail.endswith("]\n" + "".join(f"{n:04d}\n" for n in range(990, 1000)))
    assert left_out == 5000 - 20 - 50
    (tmp_path / "x").write_text(text)
    assert file_text(tmp_path / "x", 23, 52) == (kept, left_out)
    assert bounded("x" * 100, 10, 10)[1] == 100  # one line, which may be a secret
    assert bounded("abc", 10) == ("abc", 0)


def test_names_cannot_leave_the_archive() -> None:
    assert [safe(name) for name in ("../../etc/passwd", "a b\n<c>", "...", "lmdeploy-dp.log")] == [
        "_.._etc_passwd",
        "a_b__c_",
        "_",
        "lmdeploy-dp.log",
    ]
