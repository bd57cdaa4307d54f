# Copyright (c) 2026, lmfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a host: the real Docker SDK over a socket, real servers, and the module as Ansible runs it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lmfleet.lmdeploy.plugins.module_utils._observe.look import look
from ansible_collections.lmfleet.lmdeploy.tests.unit.docker_daemon import Dockerd, container
from ansible_collections.lmfleet.lmdeploy.tests.unit.null_server import NullServer

LABEL = "lmfleet.lmdeploy.deployment"
pytestmark = [
    pytest.mark.usefixtures("sdk_leaks"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
COLLECTIONS = Path(__file__).parents[5] / "collections"
UP = "INFO:     Application startup complete."
SAID = [
    f"2026-11-24T22:25:0{second}.000000000Z {line}"
    for second, line in enumerate(["old", "old", "loads", UP, "a prompt"])
]
LOG = "".join(f"{line}\n" for line in SAID).encode()
IMAGE = {"Id": "sha256:1", "RepoDigests": ["registry:5000/lmdeploy@sha256:aa"], "Config": {"Env": ["PATH=/bin"]}}


def with_label(each: dict[str, Any], deployment: str) -> dict[str, Any]:
    each["Config"]["Labels"] = {LABEL: deployment}
    return each


# ---- containers


def test_what_is_not_asked_is_not_in_the_answer(dockerd: Dockerd) -> None:
    assert look(None, {}) == {}
    assert look(None, {"names": [], "logs": {}, "tcp": [], "host": False, "image": None, "tokens": None}) == {}
    assert not dockerd.asked


def test_a_deployments_containers_and_the_planned_names(dockerd: Dockerd) -> None:
    dockerd.images["sha256:1"] = IMAGE
    dockerd.containers = {
        "lmdeploy-ray": with_label(container("lmdeploy-ray"), "lmdeploy"),
        "lmdeploy-old": with_label(container("lmdeploy-old", Status="exited", ExitCode=3), "lmdeploy"),
        "lmdeploy-api": with_label(container("lmdeploy-api"), "somebody"),
        "postgres": container("postgres"),
    }
    dockerd.containers["lmdeploy-ray"]["Config"]["Env"] = ["PATH=/bin", "A=1"]
    found = look(None, {"deployment": "lmdeploy", "names": ["lmdeploy-ray", "lmdeploy-api", "lmdeploy-dp"]})[
        "containers"
    ]
    assert found.keys() == {"lmdeploy-ray", "lmdeploy-api", "lmdeploy-dp", "lmdeploy-old"}
    assert found["lmdeploy-dp"] == {"present": False}
    assert (found["lmdeploy-old"]["status"], found["lmdeploy-old"]["exit_code"]) == ("exited", 3)
    assert found["lmdeploy-api"]["labels"] == {LABEL: "somebody"}
    ray = found["lmdeploy-ray"]
    assert ray["asked"]["environment"] == {"A": "1"}
    assert {key: ray[key] for key in ("present", "id", "image", "created", "started_at", "restarts", "oom_killed")} == {
        "present": True,
        "id": "id-of-lmdeploy-ray",
        "image": "sha256:1",
        "created": "2026-11-24T22:25:00.5Z",
        "started_at": "2026-11-24T22:25:01.5Z",
        "restarts": 0,
        "oom_killed": False,
    }
    assert "lines" not in ray
    assert sum("/images/" in path for path in dockerd.asked) == 1


def test_new_log_lines_come_with_the_container(dockerd: Dockerd) -> None:
    dockerd.containers["api"] = container("api")
    dockerd.logs["api"] = LOG
    found = look(None, {"logs": {"api": "", "gone": ""}})["containers"]
    assert found["gone"] == {"present": False}
    assert found["api"]["lines"] == ["loads", UP, "a prompt"]
    assert found["api"]["cursor"] == "2026-11-24T22:25:04.000000000Z"
    assert (found["api"]["up_after_s"], found["api"]["touched"], found["api"]["status"]) == (1.5, 0, "running")
    again = look(None, {"logs": {"api": found["api"]["cursor"]}, "measure": True})["containers"]["api"]
    assert (again["lines"], again["touched"]) == ([], 7)


def test_many_containers_are_asked_at_once(dockerd: Dockerd) -> None:
    dockerd.containers = {f"c{n}": with_label(container(f"c{n}"), "x") for n in range(12)}
    dockerd.at_once = threading.Barrier(4)
    assert len(look(None, {"deployment": "x"})["containers"]) == 12


def test_a_daemon_that_breaks_in_the_middle_is_an_error_and_no_half_truth(dockerd: Dockerd) -> None:
    dockerd.containers["api"] = {"Id": "1", "Name": "/api"}
    dockerd.images["x"] = IMAGE
    asked = {"names": ["api"], "image": {"reference": "x", "state_dir": "/nowhere"}, "limit_s": 0.5}
    dockerd.containers["api"] = container("api")
    dockerd.late_s = 1.0
    answer = look(None, asked)
    assert answer.keys() == {"docker"}
    assert answer["docker"]["kind"] == "timeout"


# ---- images


def test_an_image_and_what_it_said(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.images = {"registry:5000/lmdeploy:v1": IMAGE, "sha256:1": IMAGE}
    asked: dict[str, Any] = {"reference": "registry:5000/lmdeploy:v1", "state_dir": str(tmp_path)}
    found = look(None, {"image": asked, "image_ids": ["sha256:1", "sha256:2"]})
    assert found["image"] == {"id": "sha256:1", "digests": ["registry:5000/lmdeploy@sha256:aa"], "answer": None}
    assert found["image_ids"] == {"sha256:1": True, "sha256:2": False}
    assert look(None, {"image": {**asked, "reference": "none"}})["image"] == {"id": None, "digests": [], "answer": None}


@pytest.mark.parametrize(
    ("kept", "answer"),
    [
        ('{"lmdeploy": "0.18", "errors": []}', {"lmdeploy": "0.18", "errors": []}),
        (
            '{"lmdeploy": "0.18", "errors": ["ray is not installed"]}',
            {"lmdeploy": "0.18", "errors": ["ray is not installed"]},
        ),
        ('{"errors": ["Command lmdeploy timed out after 120 seconds"]}', None),
        ('{"errors": ["lmdeploy serve proxy --help ended with -9: it said nothing"]}', None),
        ("{", None),
        ("[]", None),
    ],
)
def test_a_kept_answer_counts_unless_it_was_cut_short(
    dockerd: Dockerd, tmp_path: Path, kept: str, answer: dict[str, Any] | None
) -> None:
    dockerd.images["x"] = IMAGE
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sha256-1.json").write_text(kept)
    assert look(None, {"image": {"reference": "x", "state_dir": str(tmp_path)}})["image"]["answer"] == answer


def test_64_an_answer_that_was_cut_short_is_asked_for_again_and_says_why(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.images["x"] = IMAGE
    (tmp_path / "images").mkdir()
    kept = tmp_path / "images" / "sha256-1.json"
    kept.write_text('{"lmdeploy": "0.18", "errors": ["lmdeploy serve proxy --help: timed out after 120 s", "no ray"]}')
    found = look(None, {"image": {"reference": "x", "state_dir": str(tmp_path)}})["image"]
    assert (found["answer"], found["unanswered"]) == (None, "lmdeploy serve proxy --help: timed out after 120 s")


def test_the_registry_is_asked_with_the_login_that_is_kept(dockerd: Dockerd, tmp_path: Path) -> None:
    name = "registry:5000/lmdeploy:v1"
    dockerd.images[name] = IMAGE
    asked = {"image": {"reference": name, "state_dir": str(tmp_path), "ask_registry": True}}
    found = look(None, asked)["image"]
    assert found["current"] is None
    assert found["registry_error"].startswith(f"the registry could not be asked for {name}: No such thing")
    (tmp_path / "docker").mkdir()
    login = base64.b64encode(b"me:hush").decode()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {"registry:5000": {"auth": login}}}))
    for digest, current in (("sha256:aa", True), ("sha256:bb", False)):
        dockerd.registry[name] = digest
        assert look(None, asked)["image"]["current"] is current
    assert json.loads(base64.urlsafe_b64decode(dockerd.logins[-1] or ""))["password"] == "hush"


def test_a_mirror_is_asked_in_the_registrys_place(dockerd: Dockerd, tmp_path: Path) -> None:
    dockerd.images["openmmlab/lmdeploy:v1"] = IMAGE
    dockerd.registry["mirror:5000/openmmlab/lmdeploy:v1"] = "sha256:aa"
    image = {"reference": "openmmlab/lmdeploy:v1", "state_dir": str(tmp_path), "ask_registry": True}
    assert look(None, {"image": image})["image"]["current"] is None
    mirrored = {**image, "registry_reference": "mirror:5000/openmmlab/lmdeploy:v1"}
    assert look(None, {"image": mirrored})["image"]["current"] is True


# ---- Ray


def test_rays_members_are_asked_in_its_container(dockerd: Dockerd) -> None:
    asked = {"ray_container": "ray", "ray_address": "10.0.0.10:6379", "ray_claim": 8, "ray_claim_unless": "api"}
    assert "No such thing" in look(None, asked)["ray"]["error"]
    dockerd.containers["ray"] = container("ray")
    dockerd.says = b'a warning\n{"nodes": [], "given": true}\n'
    assert look(None, asked)["ray"] == {"nodes": [], "given": True}
    dockerd.exit_code = 124
    assert look(None, asked)["ray"] == {"error": "Ray at 10.0.0.10:6379 did not answer within 20 s"}
    dockerd.exit_code, dockerd.says = 0, b"nothing of use"
    assert "no answer of Ray's" in look(None, asked)["ray"]["error"]


# ---- tokens


def tokens(urls: dict[str, str], **more: Any) -> dict[str, Any]:
    limits = {"timeout_s": 1.0, "stall_s": 1.0, "patience_s": 1.0}
    return {"tokens": {"model": "null", "urls": urls, **limits, **more}}


def test_every_engine_is_asked_at_once_and_the_public_url_with_them(dockerd: Dockerd) -> None:
    dockerd.containers["dp"] = container("dp")
    with NullServer(3, hold=3) as server:  # as a rank of LMDeploy 0.8.0, which answers when its peers were asked
        one, two, public = (endpoint.url for endpoint in server.endpoints)
        found = look(None, tokens({one: "dp", two: "dp", "http://127.0.0.1:9": "gone"}, public=public, timeout_s=20))
    assert found["docker"]["version"]
    assert [found["tokens"][url]["state"] for url in (one, two)] == ["alive", "alive"]
    assert found["public"] == {"state": "alive", "reason": "a token came"}
    assert found["tokens"]["http://127.0.0.1:9"] == {"state": "absent", "reason": "gone does not run", "seconds": 0.0}
    assert "containers" not in found


def test_the_public_url_is_not_asked_unless_given(dockerd: Dockerd) -> None:
    dockerd.containers["dp"] = container("dp", Status="exited")
    with NullServer(1) as server:
        url = server.endpoints[0].url
        found = look(None, tokens({url: "dp"}))
        assert not server.endpoints[0].bodies
    assert "public" not in found
    assert found["tokens"][url]["state"] == "absent"


def test_an_engine_that_gives_no_sign_comes_with_the_log_of_its_start(dockerd: Dockerd) -> None:
    dockerd.containers["dp"] = container("dp")
    dockerd.logs["dp"] = LOG
    with NullServer(1, mode="hang") as hung, NullServer(1, mode="hang", metrics=False) as silent, NullServer(1) as well:
        urls = {each.endpoints[0].url: "dp" for each in (hung, silent, well)}
        found = look(None, tokens({**urls, "http://127.0.0.1:1": "dp"}))["tokens"]
    assert [each["state"] for each in found.values()] == ["dead", "unknown", "alive", "unreachable"]
    assert [each.get("lines") for each in found.values()] == [["loads", UP], ["loads", UP], None, ["loads", UP]]
    assert any("since=" in path for path in dockerd.asked)


def test_engines_are_asked_though_docker_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with NullServer(1) as server:
        found = look(None, tokens({server.endpoints[0].url: "dp"}))
        assert found["tokens"][server.endpoints[0].url]["state"] == "alive"
    assert found["docker"]["kind"] == "socket"


# ---- the rest


def test_servers_ports_files_and_the_host(tmp_path: Path, dockerd: Dockerd) -> None:
    (tmp_path / "rank.py").write_text("print()")
    (tmp_path / "record.json").write_text('{"plan": 1}')
    (tmp_path / "lock.json").write_text("{")
    paths = [str(tmp_path / name) for name in ("rank.py", "none")]
    with NullServer() as server:
        url = server.endpoints[0].url
        target = url.removeprefix("http://")
        looked = look(
            None,
            {
                "http": [url],
                "tcp": [target],
                "proxy": url,
                "files": paths,
                "model": {"path": str(tmp_path)},
                "record": str(tmp_path / "record.json"),
                "lock": str(tmp_path / "lock.json"),
                "host": True,
            },
        )
    assert looked["http"] == {url: {"health": 200, "models": ["null"]}}
    assert looked["tcp"] == {target: ""}
    assert looked["proxy"] == {"error": f"HTTP 404 from {url}/nodes/status"}
    assert looked["files"] == {paths[0]: hashlib.sha256(b"print()").hexdigest()[:12], paths[1]: None}
    assert "config.json is missing." in looked["model"]["faults"]
    assert looked["record"] == {"plan": 1}
    assert "lock.json is broken" in looked["lock"]["error"]
    assert int(target.rpartition(":")[2]) in looked["host"]["listening"]
    assert "docker" not in looked
    assert not dockerd.asked
    assert look(None, {"record": str(tmp_path / "none")}) == {"record": None}


def test_what_hangs_outside_all_time_outs_does_not_hold_the_rest(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # opening it blocks until somebody writes, as a file on a lost file system does
    os.mkfifo(pipe)
    found = look(None, {"record": str(pipe), "files": [str(pipe)], "tcp": ["127.0.0.1:1"], "limit_s": 0.5})
    assert found["record"] == {"error": "no answer within 0.5 s"}
    assert found["files"] == {str(pipe): None}
    assert "refused" in found["tcp"]["127.0.0.1:1"]
    for __ in range(2):  # let its readers go
        threading.Thread(target=pipe.write_bytes, args=(b"",), daemon=True).start()


def run(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """The module as Ansible packs and runs it."""
    (tmp_path / "ansible.cfg").touch()  # the defaults, whatever the user's own say
    python = f"ansible_python_interpreter={sys.executable}"
    command = ["ansible", "-i", "here,", "-c", "local", "-e", python, "-m", "lmfleet.lmdeploy.observe", "-o"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ended = subprocess.run(
        [*command, "-a", json.dumps(options), "here"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    __, arrow, answer = ended.stdout.partition("=>")
    assert arrow, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(answer)
    return result


def test_the_module_answers_and_ends_whatever_hangs(tmp_path: Path, dockerd: Dockerd) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    dockerd.containers["api"] = container("api")
    with NullServer(1) as server:
        url = server.endpoints[0].url
        asked = {"model": "null", "urls": {url: "api"}, "public": url, "public_key": "not-for-everyone"}
        result = run(tmp_path, names=["api"], tokens=asked, lock=str(pipe), limit_s=10)
        # The one who asks the endpoint itself has no key to give.
        given = {headers.get("authorization") for headers in server.endpoints[0].headers}
        assert given == {None, "Bearer not-for-everyone"}
    assert result["changed"] is False
    assert result["tokens"][url]["state"] == "alive"
    assert result["containers"]["api"]["present"]
    assert result["lock"] == {"error": "no answer within 10 s"}
    assert "not-for-everyone" not in json.dumps(result["tokens"])
